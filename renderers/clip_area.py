"""How much of each class's area lies in each voxel: triangles clipped exactly against the grid, slab by slab.

Everything here is in index coordinates (a voxel is a unit cube), so areas are in voxel faces. A slab i of the x axis is
owned by one thread, which adds its triangles in their order: sums are the same for any number of threads.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Float, Float64, Int32, Int64, UInt8

# Below this a polygon only touches a voxel: rounding, not geometry, put it there.
MIN_AREA = 1e-6
_MAX_CORNERS = 12  # a triangle has 3, and each of six planes adds at most one


@numba.njit(cache=True, inline="always")
def _first_slab(low: float) -> int:
    return int(np.floor(low))


@numba.njit(cache=True, inline="always")
def _last_slab(low: float, high: float) -> int:
    """The last half-open slab [i, i+1) that [low, high] enters; a flat piece in a boundary plane belongs above it."""
    return max(int(np.ceil(high)) - 1, int(np.floor(low)))


@numba.njit(cache=True)
def _extent(polygon: Float64[np.ndarray, "m 3"], corners: int, axis: int) -> tuple[float, float]:
    low = high = polygon[0, axis]
    for i in range(1, corners):
        low, high = min(low, polygon[i, axis]), max(high, polygon[i, axis])
    return low, high


@numba.njit(cache=True)
def _cut(
    polygon: Float64[np.ndarray, "m 3"], corners: int, axis: int, plane: float, side: float, out: np.ndarray
) -> int:
    """Keep the part of a convex polygon with side * (x[axis] - plane) >= 0; its corners go to `out`."""
    kept = 0
    previous = corners - 1
    before = side * (polygon[previous, axis] - plane)
    for current in range(corners):
        here = side * (polygon[current, axis] - plane)
        if (before < 0) != (here < 0):
            share = before / (before - here)
            for a in range(3):
                out[kept, a] = polygon[previous, a] + share * (polygon[current, a] - polygon[previous, a])
            out[kept, axis] = plane
            kept += 1
        if here >= 0:
            for a in range(3):
                out[kept, a] = polygon[current, a]
            kept += 1
        previous, before = current, here
    return kept


@numba.njit(cache=True)
def _cut_slab(polygon: np.ndarray, corners: int, axis: int, slab: int, spare: np.ndarray, out: np.ndarray) -> int:
    """Keep the part of a polygon within slab <= x[axis] <= slab + 1."""
    kept = _cut(polygon, corners, axis, float(slab), 1.0, spare)
    return _cut(spare, kept, axis, slab + 1.0, -1.0, out) if kept > 2 else 0


@numba.njit(cache=True)
def _area(polygon: Float64[np.ndarray, "m 3"], corners: int) -> float:
    x = y = z = 0.0
    for i in range(1, corners - 1):
        ax, ay, az = polygon[i, 0] - polygon[0, 0], polygon[i, 1] - polygon[0, 1], polygon[i, 2] - polygon[0, 2]
        j = i + 1
        bx, by, bz = polygon[j, 0] - polygon[0, 0], polygon[j, 1] - polygon[0, 1], polygon[j, 2] - polygon[0, 2]
        x, y, z = x + ay * bz - az * by, y + az * bx - ax * bz, z + ax * by - ay * bx
    return 0.5 * np.sqrt(x * x + y * y + z * z)


@numba.njit(cache=True)
def _add_to_slab(polygon: np.ndarray, corners: int, class_id: int, work: np.ndarray, areas: np.ndarray) -> None:
    """Add a polygon that lies in one x slab to areas (Y, Z, class)."""
    low, high = _extent(polygon, corners, 1)
    for j in range(max(_first_slab(low), 0), min(_last_slab(low, high), areas.shape[0] - 1) + 1):
        kept = _cut_slab(polygon, corners, 1, j, work[1], work[2])
        if kept < 3:
            continue
        low_z, high_z = _extent(work[2], kept, 2)
        first, last = _first_slab(low_z), _last_slab(low_z, high_z)
        if first == last:
            if 0 <= first < areas.shape[1]:
                areas[j, first, class_id] += _area(work[2], kept)
            continue
        for k in range(max(first, 0), min(last, areas.shape[1] - 1) + 1):
            areas[j, k, class_id] += _area(work[3], _cut_slab(work[2], kept, 2, k, work[1], work[3]))


@numba.njit(cache=True)
def _slabs_of(vertices: np.ndarray, triangles: np.ndarray, t: int, shape: tuple[int, int, int]) -> tuple[int, int]:
    """The first and last x slab that triangle t may touch; (0, -1) where it lies outside the grid."""
    first = last = 0
    for axis in range(3):
        low = high = vertices[triangles[t, 0], axis]
        for corner in range(1, 3):
            value = vertices[triangles[t, corner], axis]
            low, high = min(low, value), max(high, value)
        if high < 0 or low >= shape[axis]:
            return 0, -1
        if axis == 0:
            first, last = max(_first_slab(low), 0), min(_last_slab(low, high), shape[0] - 1)
    return first, last


@numba.njit(cache=True)
def _slab_lists(
    vertices: Float64[np.ndarray, "v 3"], triangles: Int32[np.ndarray, "t 3"], shape: tuple[int, int, int]
) -> tuple[Int64[np.ndarray, "x1"], Int64[np.ndarray, "n"]]:
    """Which triangles touch which x slab, in triangle order: starts (X+1) and a flat list."""
    spans = np.empty((len(triangles), 2), np.int64)
    starts = np.zeros(shape[0] + 1, np.int64)
    for t in range(len(triangles)):
        spans[t, 0], spans[t, 1] = _slabs_of(vertices, triangles, t, shape)
        for i in range(spans[t, 0], spans[t, 1] + 1):
            starts[i + 1] += 1
    for i in range(shape[0]):
        starts[i + 1] += starts[i]
    fill, flat = starts.copy(), np.empty(starts[shape[0]], np.int64)
    for t in range(len(triangles)):
        for i in range(spans[t, 0], spans[t, 1] + 1):
            flat[fill[i]] = t
            fill[i] += 1
    return starts, flat


@numba.njit(cache=True)
def _heaviest(areas: Float64[np.ndarray, "y z k"], weights: Float64[np.ndarray, "k"], out: np.ndarray) -> None:
    """The class of the largest weighted area a voxel, ties to the lower id; 0 where no class reaches MIN_AREA."""
    for j in range(areas.shape[0]):
        for k in range(areas.shape[1]):
            best, best_area = 0, 0.0
            for c in range(1, areas.shape[2]):
                area = areas[j, k, c]
                if area >= MIN_AREA and weights[c] * area > best_area:
                    best, best_area = c, weights[c] * area
            out[j, k] = best


@numba.njit(cache=True)
def _labels_of_slab(
    i: int,
    vertices: Float64[np.ndarray, "v 3"],
    triangles: Int32[np.ndarray, "t 3"],
    class_id: UInt8[np.ndarray, "t"],
    weights: Float64[np.ndarray, "k"],
    touching: Int64[np.ndarray, "n"],
    labels: UInt8[np.ndarray, "x y z"],
) -> None:
    areas = np.zeros((labels.shape[1], labels.shape[2], len(weights)))
    work = np.empty((5, _MAX_CORNERS, 3))
    for t in touching:
        for corner in range(3):
            for axis in range(3):
                work[0, corner, axis] = vertices[triangles[t, corner], axis]
        kept = _cut_slab(work[0], 3, 0, i, work[1], work[4])
        if kept > 2:
            _add_to_slab(work[4], kept, class_id[t], work, areas)
    _heaviest(areas, weights, labels[i])


@numba.njit(cache=True, parallel=True)
def _labels_of_slabs(
    vertices: Float64[np.ndarray, "v 3"],
    triangles: Int32[np.ndarray, "t 3"],
    class_id: UInt8[np.ndarray, "t"],
    weights: Float64[np.ndarray, "k"],
    starts: Int64[np.ndarray, "x1"],
    flat: Int64[np.ndarray, "n"],
    labels: UInt8[np.ndarray, "x y z"],
) -> None:
    for i in numba.prange(labels.shape[0]):
        _labels_of_slab(i, vertices, triangles, class_id, weights, flat[starts[i] : starts[i + 1]], labels)


def heaviest_classes(
    vertices: Float[np.ndarray, "v 3"],
    triangles: Int32[np.ndarray, "t 3"],
    class_id: UInt8[np.ndarray, "t"],
    weights: Float64[np.ndarray, "k"],
    shape: tuple[int, int, int],
) -> UInt8[np.ndarray, "x y z"]:
    """The class of the largest weighted area in each voxel, 0 where there is none; class_id must be in 1..k-1.

    vertices: index coordinates; weights: a factor by class id.
    """
    labels = np.zeros(shape, np.uint8)
    vertices = np.ascontiguousarray(vertices, np.float64)
    triangles = np.ascontiguousarray(triangles, np.int32)
    starts, flat = _slab_lists(vertices, triangles, shape)
    _labels_of_slabs(vertices, triangles, np.ascontiguousarray(class_id), weights, starts, flat, labels)
    return labels
