"""Where a generator's grid lies, again and again, in a larger one: overlapping windows and the order to fill them in.

Windows are numbered in raster order, x slowest. A column (x, y) is *owned* by the first window that covers it: the one
that generates it, while later windows find it known. A window may start when the owners of all its columns are done;
windows that may start together form a front. On a regular layout the fronts are the anti-diagonals column + row = 0, 1,
..: two windows of one front share at most columns that an earlier front has finished, so it makes no difference whether
a front is sampled in one call, or its windows one after another in raster order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid

Plane = tuple[int, int]  # (axis, index): between voxels index - 1 and index along the axis


@dataclass(frozen=True)
class Window:
    """One place of the generator's grid. corner: its lowest (x, y) [voxels]; place: its (column, row)."""

    corner: tuple[int, int]
    place: tuple[int, int]
    size: tuple[int, int]

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window's columns in the larger grid's arrays."""
        (x, y), (width, height) = self.corner, self.size
        return slice(x, x + width), slice(y, y + height)


def starts(length: int, window: int, overlap: int) -> list[int]:
    """First voxels of windows along an axis; the last one is shifted back to the edge. Raises InputError."""
    if not 0 <= overlap < window <= length:
        raise InputError("windows", f"0 <= overlap < window {window} <= length", f"overlap {overlap}, length {length}")
    return [*range(0, length - window, window - overlap), length - window]


def lay_windows(size: tuple[int, int], window: tuple[int, int], overlap: int) -> list[Window]:
    """Windows that cover `size` (x, y) columns, in raster order. Raises InputError."""
    columns, rows = (starts(n, w, overlap) for n, w in zip(size, window, strict=True))
    return [Window((x, y), (i, j), window) for i, x in enumerate(columns) for j, y in enumerate(rows)]


def owners(size: tuple[int, int], windows: Sequence[Window]) -> Int32[np.ndarray, "x y"]:
    """Number of the first window that covers each column, -1 where none does."""
    owner = np.full(size, -1, np.int32)
    for number in range(len(windows) - 1, -1, -1):
        owner[windows[number].slices] = number
    return owner


def fronts(size: tuple[int, int], windows: Sequence[Window]) -> list[list[Window]]:
    """The windows in groups that may be filled together, first group first."""
    owner, level = owners(size, windows), np.zeros(len(windows), int)
    for number, window in enumerate(windows):
        before = np.unique(owner[window.slices])
        before = before[before < number]
        level[number] = level[before].max(initial=-1) + 1
    return [[w for w, own in zip(windows, level, strict=True) if own == k] for k in range(level.max(initial=-1) + 1)]


def seam_planes(size: tuple[int, int], window: tuple[int, int], overlap: int) -> tuple[Plane, ...]:
    """Where known voxels end and newly generated ones begin: each window's far side but the last one's, by axis."""
    return tuple(
        (axis, start + window[axis]) for axis in (0, 1) for start in starts(size[axis], window[axis], overlap)[:-1]
    )


def overlap_voxels(grid: VoxelGrid, overlap_m: float) -> int:
    """An overlap in metres as whole voxels; less than the grid's smaller side. Raises InputError."""
    count = round(overlap_m / grid.voxel_size_m) if np.isfinite(overlap_m) else -1
    if not 0 <= count < min(grid.shape[:2]):
        limit_m = min(grid.extent_m[:2])
        raise InputError("overlap", f"0 m to less than the generator's {limit_m:g} m", f"{overlap_m} m")
    return count


def larger_grid(grid: VoxelGrid, size_m: tuple[float, float]) -> VoxelGrid:
    """A grid of about `size_m` (x, y) [m] from the same corner on: the vehicle's frame stays. Raises InputError."""
    counts = [round(length / grid.voxel_size_m) if np.isfinite(length) else 0 for length in size_m]
    if counts[0] < grid.shape[0] or counts[1] < grid.shape[1]:
        x_m, y_m, _ = grid.extent_m
        found = f"{size_m[0]:g} x {size_m[1]:g} m"
        raise InputError("size", f"at least the generator's {x_m:g} x {y_m:g} m", found)
    return VoxelGrid((counts[0], counts[1], grid.shape[2]), grid.voxel_size_m, grid.origin_m)
