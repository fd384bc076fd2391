"""An image as the network is fed it, and where its camera sees the voxels; projections are kept a calibration.

Labels are never resampled: the image is cropped or resized, and the camera with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int16, Int32, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pipeline.datasets.formats import detect
from pipeline.datasets.image_files import image_size, read_image
from pipeline.datasets.kitti_root import KittiRoot, sequence_path
from pipeline.datasets.manifest import MANIFEST_NAME, read_manifest
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from ssc_eval.lifting import Projection, mirrored, projection
from ssc_eval.losses import TILES, frustum_tiles
from ssc_eval.surface import sight_lines, sight_of

ImageKind = Literal["image", "render"]
RENDERS = "render_2"  # beside image_2/, where a dataset has both
_KEPT_BYTES = 1 << 30  # of projections; one of the published grid has 12 MB


class Cameras(NamedTuple):
    """How a dataset's format reads a frame's image and camera: (root, sequence, frame) -> ..."""

    image: Callable[[Path, str, str], UInt8[np.ndarray, "h w 3"]]
    camera: Callable[[Path, str, str], Camera]


class ImageConfig(BaseModel):
    """The network's image."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width_px: Annotated[int, Field(ge=32, le=4096)] = 1220
    height_px: Annotated[int, Field(ge=32, le=4096)] = 370
    fit: Literal["crop", "resize"] = "crop"  # the top-left part, as MonoScene; or the whole, scaled along both axes


class Projected(NamedTuple):
    """Where the lifted voxels and the labels' voxels lie on the image: as it is [0] and flipped left to right [1]."""

    pixels: Int16[Tensor, "2 x y z 2"]
    tiles: Int16[Tensor, "2 xl yl zl"]
    in_view: Bool[np.ndarray, "xl yl zl"]
    sight: Int16[Tensor, "2 xl yl zl 3"] | None = None  # see surface.sight_of
    lines: list[Int32[np.ndarray, "s h w"]] | None = None  # see surface.sight_lines


def open_scenes(root: Path) -> tuple[KittiRoot, Cameras]:
    """A dataset that has a camera: SemanticKITTI's layout or KITTI-360's. Raises InputError."""
    form = detect(root)
    opened = form.open(root)
    if form.image is None or form.camera is None or not isinstance(opened, KittiRoot):
        raise InputError(root, "a dataset with cameras (semantic_kitti, kitti_360)", form.name, "convert it")
    return opened, Cameras(form.image, form.camera)


def read_view(
    root: KittiRoot, cameras: Cameras, sequence: str, frame: str, kind: ImageKind, config: ImageConfig
) -> tuple[UInt8[np.ndarray, "h w 3"], Camera]:
    """A frame's image at the network's size and its camera in the labels' frame. Raises InputError."""
    camera = cameras.camera(root.path, sequence, frame)
    if kind == "render":
        path = render_path(root, sequence, frame)
        image = read_image(path)
        camera = camera.resized(*image_size(path))
    else:
        image = cameras.image(root.path, sequence, frame)
    return fitted(image, camera, config, f"{root.path} image {sequence}/{frame}")


def render_path(root: KittiRoot, sequence: str, frame: str) -> Path:
    """Where a frame's shaded render lies: render_2/, or image_2/ where the build's manifest says those are renders.

    Raises InputError.
    """
    path = sequence_path(root.path, root.layout, sequence, RENDERS, f"{frame}.png")
    if path.exists():
        return path
    built = root.path / MANIFEST_NAME
    recipe = read_manifest(root.path).recipe if built.exists() else {}
    if recipe.get("images", {}).get("kind") == "render":
        return sequence_path(root.path, root.layout, sequence, root.layout.images, f"{frame}.png")
    raise InputError(path, "a shaded render", "none", f"use a build of renders, or put renders into {RENDERS}/")


def fitted(
    image: UInt8[np.ndarray, "h w 3"], camera: Camera, config: ImageConfig, subject: str
) -> tuple[UInt8[np.ndarray, "h2 w2 3"], Camera]:
    """The image and its camera at the network's size. Raises InputError on an image too small to be cropped."""
    height, width = image.shape[:2]
    wanted = (config.width_px, config.height_px)
    if (width, height) == wanted:
        return image, camera
    if config.fit == "crop":
        if width < wanted[0] or height < wanted[1]:
            remedy = "set samples.image.width_px and height_px, or samples.image.fit=resize"
            raise InputError(subject, f"an image of at least {wanted[0]}x{wanted[1]}", f"{width}x{height}", remedy)
        return np.ascontiguousarray(image[: wanted[1], : wanted[0]]), camera.cropped(*wanted)
    from PIL import Image

    resized = Image.fromarray(image).resize(wanted, Image.Resampling.BILINEAR)  # averages when it shrinks
    return np.array(resized), camera.resized(*wanted)


class Projections:
    """Projections by calibration: computed once, the latest kept.

    scale: the lifted voxels' size in labels' voxels; depth_bins: of a network that predicts surfaces, else 0.
    """

    def __init__(self, grid: VoxelGrid, scale: int, depth_bins: int = 0):
        self.grid, self.scale, self.depth_bins = grid, scale, depth_bins
        self._most = max(8, _KEPT_BYTES // ((90 if depth_bins else 6) * prod(grid.shape)))
        self._kept: OrderedDict[bytes, Projected] = OrderedDict()

    def __call__(self, camera: Camera) -> Projected:
        key = (
            camera.K.tobytes()
            + camera.camera_from_world.tobytes()
            + bytes(f"{camera.width_px}x{camera.height_px}", "ascii")
        )
        if key not in self._kept:
            self._kept[key] = self._project(camera)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _project(self, camera: Camera) -> Projected:
        width, height = camera.width_px, camera.height_px
        fine = projection(camera, self.grid)
        lifted = torch.from_numpy(projection(camera, self.grid, self.scale).pixels)
        own = torch.from_numpy(fine.pixels)
        both = [(lifted, own), (mirrored(lifted, width), mirrored(own, width))]
        pixels = torch.stack([coarse for coarse, _ in both]).to(torch.int16)
        tiles = torch.stack([frustum_tiles(voxels, width, height, TILES) for _, voxels in both])
        projected = Projected(pixels, tiles, fine.in_view)
        return self._with_surfaces(projected, camera, fine) if self.depth_bins else projected

    def _with_surfaces(self, projected: Projected, camera: Camera, fine: Projection) -> Projected:
        own = torch.from_numpy(sight_of(camera, self.grid, fine, self.depth_bins))
        other = torch.cat([mirrored(own[..., :2], camera.width_px), own[..., 2:]], dim=-1)
        lines = [sight_lines(camera, self.grid, side) for side in (False, True)]
        return projected._replace(sight=torch.stack([own, other]), lines=lines)
