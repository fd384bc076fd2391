"""Points of labelled scans, counted a class and voxel; compiled, and equal for any number of threads."""

# mypy: allow-untyped-decorators

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8

from renderers.columns import lean

OUTSIDE = -1


@lean
def _voxel_of_point(
    points: Float32[np.ndarray, "n c"],
    n: int,
    transform: Float64[np.ndarray, "3 4"],
    placement: Float64[np.ndarray, "4"],
    shape: tuple[int, int, int],
    ranges_m: tuple[float, float],
) -> int:
    """The flat index of a point's voxel in C order, or OUTSIDE; placement: the grid's origin [m] and voxel size [m]."""
    x, y, z = float(points[n, 0]), float(points[n, 1]), float(points[n, 2])
    squared = x * x + y * y + z * z
    if not (ranges_m[0] * ranges_m[0] <= squared <= ranges_m[1] * ranges_m[1]):  # NaN is outside too
        return OUTSIDE
    flat = 0
    for axis in range(3):
        world = transform[axis, 0] * x + transform[axis, 1] * y + transform[axis, 2] * z + transform[axis, 3]
        index = np.floor((world - placement[axis]) / placement[3])
        if not (0 <= index < shape[axis]):
            return OUTSIDE
        flat = flat * shape[axis] + int(index)
    return flat


@numba.njit(cache=True, parallel=True)
def voxels_of_points(
    points: Float32[np.ndarray, "n c"],
    transform: Float64[np.ndarray, "3 4"],
    placement: Float64[np.ndarray, "4"],
    shape: tuple[int, int, int],
    ranges_m: tuple[float, float],
    out: Int32[np.ndarray, "n"],
) -> None:
    """Each point's flat voxel index, or OUTSIDE where it leaves the grid or its range from the sensor."""
    for n in numba.prange(len(points)):
        out[n] = _voxel_of_point(points, n, transform, placement, shape, ranges_m)


@numba.njit(cache=True)
def most_frequent(
    voxels: Int32[np.ndarray, "n"], class_id: UInt8[np.ndarray, "n"], voxel_count: int, buckets: int
) -> tuple[UInt8[np.ndarray, "v"], Bool[np.ndarray, "v"]]:
    """The most frequent class of each voxel's points (ties: the lower one) and whether it has any point.

    class_id is 0..buckets-2, and anything above is counted in the last bucket and comes out as 255.
    """
    slot, slots = np.zeros(voxel_count, np.int32), 0
    for v in voxels:
        if v != OUTSIDE and slot[v] == 0:
            slots += 1
            slot[v] = slots
    counts = np.zeros((slots + 1, buckets), np.uint32)
    for n in range(len(voxels)):
        if voxels[n] != OUTSIDE:
            counts[slot[voxels[n]], min(class_id[n], buckets - 1)] += 1
    labels, touched = np.zeros(voxel_count, np.uint8), slot > 0
    for v in range(voxel_count):
        if touched[v]:
            best = np.argmax(counts[slot[v]])
            labels[v] = best if best < buckets - 1 else 255
    return labels, touched
