"""From voxels to pixels and back: where a camera sees each voxel, and FLoSP, which carries 2D features there.

FLoSP is MonoScene's features' line of sight projection (Cao and de Charette, CVPR 2022): a voxel gets the sum over
image scales of the feature its centre projects onto, so every voxel on a line of sight gets the same. The projection
depends on the calibration alone: compute it once a calibration and keep it. A pixel is the one whose area holds the
projected point; since resizing scales pixel edges, pixel u of the image lies in cell u // s of features at 1/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid

OUT_OF_VIEW = -1


class Projection(NamedTuple):
    """Where each voxel's centre falls on the image.

    pixels: column and row [px], (-1, -1) out of view; in_view: the centre is before the camera and on the image.
    """

    pixels: Int32[np.ndarray, "x y z 2"]
    in_view: Bool[np.ndarray, "x y z"]


def coarser(grid: VoxelGrid, scale: int) -> VoxelGrid:
    """The same box in voxels `scale` times as large. Raises InputError if the shape can't be divided."""
    if scale < 1 or any(n % scale for n in grid.shape):
        raise InputError("VoxelGrid", f"sizes divisible by {scale}", str(grid.shape), "crop or pad the grid")
    x, y, z = (n // scale for n in grid.shape)
    return VoxelGrid((x, y, z), grid.voxel_size_m * scale, grid.origin_m)


def projection(camera: Camera, grid: VoxelGrid, scale: int = 1) -> Projection:
    """Where the camera sees the voxels of `grid`, taken `scale` times as large (MonoScene lifts at scale 2)."""
    centres = coarser(grid, scale).centres()  # (x, y, z, 3)
    points, depth = camera.project(centres)
    in_view = camera.sees(points, depth)
    last = np.array([camera.width_px - 1, camera.height_px - 1])
    pixels = np.minimum(np.floor(points + 0.5), last)  # min: half a pixel before the edge may round onto it
    return Projection(np.where(in_view[..., None], pixels, OUT_OF_VIEW).astype(np.int32), in_view)


def mirrored(pixels: Int[Tensor, "*n 2"], width_px: int) -> Int[Tensor, "*n 2"]:
    """The same voxels on the image flipped left to right; the scene itself is not flipped."""
    u, v = pixels.unbind(-1)
    return torch.stack([torch.where(u >= 0, width_px - 1 - u, u), v], dim=-1)


def check_pixels(pixels: Int[Tensor, "*n 2"], width_px: int, height_px: int) -> None:
    """Raises InputError unless all pixels lie on an image of this size, or are out of view."""
    if pixels.is_floating_point() or pixels.shape[-1] != 2:
        raise InputError("projection", "integer pixels (..., 2)", f"{pixels.dtype} {tuple(pixels.shape)}")
    if not pixels.numel():
        return
    u, v = (int(n) for n in pixels.flatten(0, -2).amax(0))
    if u >= width_px or v >= height_px or int(pixels.min()) < OUT_OF_VIEW:
        found = f"pixels from {int(pixels.min())} to column {u}, row {v}"
        remedy = "project with the camera of the image as it is fed (Camera.resized, Camera.cropped)"
        raise InputError("projection", f"pixels of a {width_px}x{height_px} image, or -1", found, remedy)


def lift(
    features: Mapping[int, Float[Tensor, "b c _h _w"]], pixels: Int[Tensor, "b x y z 2"]
) -> Float[Tensor, "b c x y z"]:
    """FLoSP: the sum over scales s of the features at pixel // s; zero where a voxel is out of view.

    features: maps at 1/s of the image, keyed by s, with as many channels each; pixels: as in `Projection`.
    """
    seen = pixels[..., 0] >= 0  # (B, X, Y, Z)
    u, v = pixels.long().clamp(min=0).unbind(-1)
    sample = torch.arange(len(pixels), device=pixels.device).view(-1, 1, 1, 1)
    total: Tensor | None = None
    for scale, feature in features.items():
        height, width = feature.shape[-2:]
        cell = (sample * height + v // scale) * width + u // scale
        rows = feature.permute(0, 2, 3, 1).flatten(0, 2)  # (B*H*W, C)
        # whole rows: one read a voxel, and its gradient (index_add) has a deterministic form on every device
        found = rows.index_select(0, cell.flatten())
        total = found if total is None else total + found
    if total is None:
        raise InputError("lift", "features at one scale at least", "none")
    lifted = torch.where(seen.flatten()[:, None], total, torch.zeros_like(total))  # (B*X*Y*Z, C)
    return lifted.unflatten(0, seen.shape).permute(0, 4, 1, 2, 3).contiguous()
