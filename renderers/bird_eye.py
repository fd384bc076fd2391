"""A scene from above: an orthographic map, and the one oblique view that the 2D metrics use.

The map: forward (X) is up, left (Y) is left, by default 0.2 m a pixel: 256 x 256 for a box of 51.2 x 51.2 m.

The oblique view, published so that scores can be compared: 512 x 288 px, horizontal field of view 56 degrees, seen from
behind and above. With E the longest of the grid's X and Y extents and 4 times Z's, and G the middle of its base, the
eye is at G + (-1.25, 0, 0.75) E and looks at G + (-0.12, 0, 0) E. In SemanticKITTI's box the eye is (-38.4, 0, 36.4) m.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, UInt8

from pipeline.scene.camera import Camera, look_at
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene, View
from pipeline.scene.taxonomy import EMPTY
from renderers.shading import LOOK, render
from renderers.viewpoints import Size, lens

OBLIQUE_SIZE_PX: Size = (512, 288)
OBLIQUE_FOV_DEG = 56.0
OBLIQUE_EYE = (-1.25, 0.0, 0.75)  # in extents, from the middle of the grid's base
OBLIQUE_TARGET = (-0.12, 0.0, 0.0)
PAPER = (236, 238, 241)  # RGB where there is nothing
_STUDIO = replace(LOOK, haze_m=1e6, zenith=PAPER, horizon=PAPER, plain=PAPER)


def bird_eye_map(scene: Scene) -> tuple[UInt8[np.ndarray, "x y"], Float32[np.ndarray, "x y"]]:
    """Class of each column's top-most solid voxel (0 = none) and its upper face's height [m] (none: the base)."""
    solid = scene.occupied
    depth = scene.grid.shape[2]
    top = np.where(solid.any(axis=2), depth - 1 - np.argmax(solid[:, :, ::-1], axis=2), -1)  # (X, Y)
    label = np.take_along_axis(scene.labels, np.maximum(top, 0)[..., None], axis=2)[..., 0]
    height = scene.grid.origin_m[2] + (top + 1) * scene.grid.voxel_size_m
    return np.where(top >= 0, label, np.uint8(EMPTY)), height.astype(np.float32)


def bird_eye_image(scene: Scene, metres_per_px: float = 0.2) -> UInt8[np.ndarray, "h w 3"]:
    """The map in class colours, brighter with height, with a short shadow to the lower right. Raises InputError."""
    if not 0.005 <= metres_per_px <= max(scene.grid.extent_m[:2]):
        raise InputError("bird_eye_image", "0.005 m a pixel up to the grid's extent", f"{metres_per_px}")
    label, height = bird_eye_map(scene)
    light = _relief(height, scene.grid)
    image = scene.taxonomy.color_table()[label] * light[..., None]
    image[label == EMPTY] = PAPER
    columns = np.clip(np.round(image), 0, 255).astype(np.uint8)  # (X, Y, 3)
    rows, cols = (_nearest(scene.grid, axis, metres_per_px) for axis in (0, 1))
    return columns[np.ix_(rows[::-1], cols[::-1])]


def _nearest(grid: VoxelGrid, axis: int, metres_per_px: float) -> np.ndarray:
    """The voxel under each pixel's centre along an axis, lowest first."""
    count = max(1, round(grid.extent_m[axis] / metres_per_px))
    index = np.floor((np.arange(count) + 0.5) * grid.shape[axis] / count)
    return np.minimum(index.astype(np.int64), grid.shape[axis] - 1)


def _relief(height: Float32[np.ndarray, "x y"], grid: VoxelGrid) -> Float32[np.ndarray, "x y"]:
    """Brightness: 0.72 at the base to 1.12 at the top, up to 30 % less beside something higher."""
    light = 0.72 + 0.40 * (height - grid.origin_m[2]) / grid.extent_m[2]
    padded = np.pad(height, ((0, 1), (0, 1)), mode="edge")
    above = np.maximum(padded[1:, :-1], padded[:-1, 1:]) - height  # neighbours at greater x (up) and y (left)
    return light * (1 - 0.30 * np.clip(above / 1.5, 0, 1))


def oblique_camera(grid: VoxelGrid, size_px: Size = OBLIQUE_SIZE_PX) -> Camera:
    """The published oblique view of a grid; other sizes keep the horizontal field of view."""
    extent = np.asarray(grid.extent_m)
    base = np.asarray(grid.origin_m) + extent * (0.5, 0.5, 0)
    longer = max(*extent[:2], 4 * extent[2])
    eye, target = base + longer * np.array(OBLIQUE_EYE), base + longer * np.array(OBLIQUE_TARGET)
    pose = look_at(eye, target, np.array([0.0, 0, 1]))
    return Camera(lens(size_px, OBLIQUE_FOV_DEG), pose, *size_px)


def oblique_view(scene: Scene, size_px: Size = OBLIQUE_SIZE_PX) -> View:
    """The oblique view with its depth and semantics; no haze, plain paper around."""
    return render(scene, oblique_camera(scene.grid, size_px), _STUDIO)


def oblique_image(scene: Scene, size_px: Size = OBLIQUE_SIZE_PX) -> UInt8[np.ndarray, "h w 3"]:
    """The oblique view's RGB."""
    return oblique_view(scene, size_px).rgb
