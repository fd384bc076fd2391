"""The first surface on each line of sight: predicted on the image, and carried into the volume. Not MonoScene's.

FLoSP gives every voxel of a line of sight the same feature, so that the 3D network is left to find out how far away
things are. Here the 2D network also says, for each cell of 4x4 pixels, at which depth the line of sight meets its first
occupied voxel (a distribution over bins, as in Lift, Splat, Shoot: Philion and Fidler, ECCV 2020) and of which class
that is. Targets are the labels themselves, so nothing is needed that completion does not have anyway. Depth is z along
the optical axis; bins are of equal width, from the camera to the grid's longer side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int16, Int32, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.scene.camera import Camera
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY, IGNORE
from ssc_eval.lifting import Projection

CELL = 4  # px, the side of the cells whose surface is predicted
UNSCORED = -100  # depth of a cell whose first surface is not labelled; torch's ignore_index
_OUTSIDE = -1


class Surface(NamedTuple):
    """The first occupied voxel on each cell's central line of sight.

    depth: its bin, `bins` where there is none, -100 where that is labelled 255; class_id: its class, or 255.
    """

    depth: Int16[np.ndarray, "h w"]
    class_id: UInt8[np.ndarray, "h w"]


def depth_bins(grid: VoxelGrid, depth_m: Float[np.ndarray, "*n"], bins: int) -> Int16[np.ndarray, "*n"]:
    """The bin of each depth [m], 0..bins-1; what lies before or behind all of them is in the first or last."""
    far_m = max(grid.extent_m[:2])
    return np.clip(np.floor(depth_m * (bins / far_m)), 0, bins - 1).astype(np.int16)


def sight_of(camera: Camera, grid: VoxelGrid, fine: Projection, bins: int) -> Int16[np.ndarray, "x y z 3"]:
    """Column and row [px] of each voxel's centre and its depth bin; the first two are -1 out of view."""
    _, depth_m = camera.project(grid.centres())
    bin_of = depth_bins(grid, depth_m, bins)
    return np.concatenate([fine.pixels.astype(np.int16), bin_of[..., None]], axis=-1)


def sight_lines(camera: Camera, grid: VoxelGrid, mirrored: bool, cell: int = CELL) -> Int32[np.ndarray, "s h w"]:
    """The voxels along the central line of sight of each cell [px], as flat indices, -1 outside the grid.

    Steps are of half a voxel in depth, so a line may miss a voxel of which it cuts a corner. mirrored: of the image
    flipped left to right.
    """
    u, v = (np.arange(0, size, cell) + (cell - 1) / 2 for size in (camera.width_px, camera.height_px))
    if mirrored:
        u = camera.width_px - 1 - u
    pixels = np.stack(np.meshgrid(u, v), axis=-1)  # (h, w, 2)
    far_m = float(np.linalg.norm(grid.centres() - camera.centre, axis=-1).max())
    lines = []
    for depth_m in np.arange(0.5, 2 * far_m / grid.voxel_size_m) * (grid.voxel_size_m / 2):
        index = grid.index(camera.unproject(pixels, np.full(pixels.shape[:2], depth_m)))
        inside = grid.contains(index)
        flat = np.ravel_multi_index(tuple(np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)), grid.shape)
        lines.append(np.where(inside, flat, _OUTSIDE).astype(np.int32))
    kept = [line for line in lines if (line != _OUTSIDE).any()]
    return np.stack(kept or lines[:1])


def first_surface(
    labels: UInt8[np.ndarray, "x y z"],
    lines: Int32[np.ndarray, "s h w"],
    bin_of: Int16[np.ndarray, "x y z"],
    bins: int,
) -> Surface:
    """What each line of `sight_lines` meets first; bin_of: the depth bin of each voxel's centre. 255 hides too."""
    found = np.where(lines == _OUTSIDE, EMPTY, labels.ravel()[lines])  # (s, h, w)
    first = (found != EMPTY).argmax(0)[None]
    class_id = np.take_along_axis(found, first, 0)[0].astype(np.uint8)
    depth = bin_of.ravel()[np.take_along_axis(lines, first, 0)[0]]
    depth = np.where(class_id == EMPTY, bins, np.where(class_id == IGNORE, UNSCORED, depth))
    return Surface(depth.astype(np.int16), np.where(class_id == EMPTY, IGNORE, class_id).astype(np.uint8))


def evidence(
    logits: Float[Tensor, "b c h w"], sight: Int[Tensor, "b x y z 3"], classes: int
) -> Float[Tensor, "b k x y z"]:
    """What a prediction of surfaces says of each voxel; zero out of view.

    logits: of depth (bins and "none"), then of the classes but empty; sight: as `sight_of`. Channel 0: the probability
    that the surface lies before the voxel, which is then hidden; channel k: that it is the voxel, and of class k.
    """
    depth, class_id = logits.float().split([logits.shape[1] - classes + 1, classes - 1], dim=1)
    p = depth.softmax(1).permute(0, 2, 3, 1)  # (B, h, w, D+1)
    height, width, bins = p.shape[1:]
    before = p.cumsum(-1) - p
    u, v, at = sight.long().clamp(min=0).unbind(-1)
    sample = torch.arange(len(sight), device=sight.device).view(-1, 1, 1, 1)
    cell = ((sample * height + v // CELL) * width + u // CELL).flatten()  # (B*X*Y*Z,)
    place = cell * bins + at.flatten()
    hidden, here = before.flatten().index_select(0, place), p.flatten().index_select(0, place)
    kinds = class_id.softmax(1).permute(0, 2, 3, 1).flatten(0, 2).index_select(0, cell)  # (B*X*Y*Z, K-1)
    rows = torch.cat([hidden[:, None], here[:, None] * kinds], dim=1)
    rows = torch.where(sight[..., 0].flatten()[:, None] >= 0, rows, torch.zeros_like(rows))
    return rows.unflatten(0, sight.shape[:4]).permute(0, 4, 1, 2, 3)


def surface_losses(
    logits: Float[Tensor, "b c h w"],
    depth: Int16[Tensor, "b h2 w2"],
    class_id: UInt8[Tensor, "b h2 w2"],
    weights: Float[Tensor, "k"],
) -> dict[str, Float[Tensor, ""]]:
    """Cross-entropies, means over scored cells: "depth", of bins or none, and "surface", of classes by `weights`.

    logits may have more rows and columns, as the network pads images. A loss without a scored cell is 0.
    """
    logits = logits[:, :, : depth.shape[1], : depth.shape[2]].float()
    bins, kinds = logits.split([logits.shape[1] - len(weights) + 1, len(weights) - 1], dim=1)
    kind = torch.where(class_id == IGNORE, UNSCORED, class_id.long() - 1)
    by_depth = cross_entropy(bins, depth.long(), ignore_index=UNSCORED, reduction="sum")
    by_class = cross_entropy(kinds, kind, weights[1:].to(logits), ignore_index=UNSCORED, reduction="sum")
    mass = torch.where(kind < 0, 0.0, weights.to(logits)[kind.clamp(min=0) + 1]).sum()
    return {
        "depth": by_depth / (depth != UNSCORED).sum().clamp(min=1),
        "surface": by_class / mass.clamp(min=torch.finfo(torch.float32).tiny),
    }
