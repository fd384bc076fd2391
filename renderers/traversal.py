"""Rays through voxels: exact grid traversal on the CPU.

J. Amanatides and A. Woo, "A Fast Voxel Traversal Algorithm for Ray Tracing", Eurographics 1987. Where we deviate: a
crossing's parameter is computed afresh from its plane, t = (plane - origin) / direction, so that errors don't add up.

What is exact: a ray p(t) = origin + t * direction crosses grid planes in the order of (t, axis), x before y before z
when they tie, as they do through an edge or a corner. It enters one voxel at each crossing, if only for a point, and
hits the first solid one that it enters at t > 0. So the voxel in which a ray starts is never hit: a camera inside a
solid voxel sees out of that one voxel as if it were empty. A ray that runs within a plane belongs to the voxels above
it (boxes are half-open). Rays are float64; they may start outside the grid, have zero components, or never meet it.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, Float32, Float64, Int8, Int32, UInt8

from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY, IGNORE

_PARALLEL = 1e-290  # a smaller direction counts as 0: its inverse could overflow
_NONE = -1


@dataclass(frozen=True, eq=False)
class Hits:
    """What each ray meets first, by ray (*n) or pixel (height, width).

    depth: t, in lengths of the direction (for a camera's rays: z [m]), 0 = nothing hit; label: 0 = nothing hit;
    face: the struck face's outward normal, +-1 x, +-2 y, +-3 z, 0 = nothing hit; voxel: index into `labels.ravel()`,
    -1 = nothing hit.
    """

    depth: Float32[np.ndarray, "*n"]
    label: UInt8[np.ndarray, "*n"]
    face: Int8[np.ndarray, "*n"]
    voxel: Int32[np.ndarray, "*n"]


def trace(labels: UInt8[np.ndarray, "x y z"], grid: VoxelGrid, camera: Camera, solid_ignored: bool = False) -> Hits:
    """The first solid voxel along every pixel's ray (`Camera.ray_directions`).

    labels: class ids, 0 = empty; 255 (ignored) is empty too, unless `solid_ignored`. Raises InputError.
    """
    cells = _cells(labels, grid, solid_ignored)
    origin = grid.coordinates(camera.centre)
    pixels = camera.world_from_camera[:3, :3] @ np.linalg.inv(camera.K) / grid.voxel_size_m
    hits = _blank((camera.height_px, camera.width_px))
    _trace_image(cells, origin, pixels, _stride(camera.height_px), hits.depth, hits.label, hits.face, hits.voxel)
    return hits


def trace_rays(
    labels: UInt8[np.ndarray, "x y z"],
    grid: VoxelGrid,
    origins: Float[np.ndarray, "n 3"],
    directions: Float[np.ndarray, "n 3"],
    solid_ignored: bool = False,
) -> Hits:
    """The same for any rays, world frame, metres; depth is in lengths of each ray's direction. Raises InputError."""
    origins, directions = np.broadcast_arrays(np.atleast_2d(origins), np.atleast_2d(directions))
    if origins.ndim != 2 or origins.shape[1] != 3:
        raise InputError("trace_rays", "origins and directions of shape (N, 3)", f"{origins.shape}")
    if not (np.isfinite(origins).all() and np.isfinite(directions).all()):
        raise InputError("trace_rays", "finite origins and directions", "NaN or infinity")
    cells = _cells(labels, grid, solid_ignored)
    hits = _blank((len(origins),))
    start = np.ascontiguousarray(grid.coordinates(origins), np.float64)
    along = np.ascontiguousarray(directions / grid.voxel_size_m, np.float64)
    _trace_list(cells, start, along, hits.depth, hits.label, hits.face, hits.voxel)
    return hits


def _cells(labels: UInt8[np.ndarray, "x y z"], grid: VoxelGrid, solid_ignored: bool) -> UInt8[np.ndarray, "x y z"]:
    if labels.shape != grid.shape or labels.dtype != np.uint8 or labels.size >= 1 << 31:
        raise InputError("trace", f"uint8 labels of the grid's shape {grid.shape}", f"{labels.dtype} {labels.shape}")
    cells = np.ascontiguousarray(labels)
    return cells if solid_ignored else np.where(cells == IGNORE, np.uint8(EMPTY), cells)


def _blank(shape: tuple[int, ...]) -> Hits:
    depth, label = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    return Hits(depth, label, np.zeros(shape, np.int8), np.full(shape, _NONE, np.int32))


def _stride(rows: int) -> int:
    """A step through the rows, about 0.618 of them, that meets each once: every thread gets sky and ground alike."""
    stride = max(1, round(0.618 * rows))
    while math.gcd(stride, rows) != 1:
        stride += 1
    return stride


@numba.njit(cache=True, inline="always")
def _slab(origin: float, direction: float, size: int) -> tuple[float, float, float]:
    """When the ray enters and leaves 0 <= p < size along an axis, and 1 / direction."""
    if abs(direction) < _PARALLEL:
        return (-np.inf, np.inf, np.inf) if 0 <= origin < size else (np.inf, -np.inf, np.inf)
    inverse = 1.0 / direction
    low, high = (0.0 - origin) * inverse, (size - origin) * inverse
    return (low, high, inverse) if direction > 0 else (high, low, inverse)


@numba.njit(cache=True, inline="always")
def _crossing(origin: float, inverse: float, index: int, step: int) -> float:
    """When the ray leaves voxel `index` along an axis; never if it runs parallel."""
    return np.inf if step == 0 else (index + (step + 1) // 2 - origin) * inverse


@numba.njit(cache=True, inline="always")
def _start(origin: float, inverse: float, step: int, size: int, enter: float, ties: bool) -> int:
    """The voxel along an axis after all its crossings before `enter` (and, with ties, at it)."""
    if step == 0 or enter <= 0:
        return math.floor(min(max(origin, 0.0), size - 1.0))
    index = math.floor(min(max(origin + enter / inverse, 0.0), size - 1.0))
    while 0 <= index - step < size and _after(_crossing(origin, inverse, index - step, step), enter, ties):
        index -= step
    while 0 <= index + step < size and not _after(_crossing(origin, inverse, index, step), enter, ties):
        index += step
    return index


@numba.njit(cache=True, inline="always")
def _after(t: float, enter: float, ties: bool) -> bool:
    return t > enter or (t == enter and not ties)


@numba.njit(cache=True, inline="always")
def _sign(direction: float) -> int:
    return 0 if abs(direction) < _PARALLEL else (1 if direction > 0 else -1)


@numba.njit(cache=True)
def _walk(
    cells: UInt8[np.ndarray, "x y z"], ox: float, oy: float, oz: float, dx: float, dy: float, dz: float
) -> tuple[float, int, int]:
    """t, flat voxel and face of the first solid voxel; voxel -1 if there is none. All in index coordinates."""
    nx, ny, nz = cells.shape
    in_x, out_x, inv_x = _slab(ox, dx, nx)
    in_y, out_y, inv_y = _slab(oy, dy, ny)
    in_z, out_z, inv_z = _slab(oz, dz, nz)
    enter, leave = max(max(in_x, in_y), max(in_z, 0.0)), min(out_x, min(out_y, out_z))
    if not (enter < leave < np.inf):
        return 0.0, _NONE, 0
    sx, sy, sz = _sign(dx), _sign(dy), _sign(dz)
    axis = 2 if in_z == enter else (1 if in_y == enter else 0)  # the last plane it crosses on its way in
    x = _start(ox, inv_x, sx, nx, enter, axis > 0)
    y = _start(oy, inv_y, sy, ny, enter, axis > 1)
    z = _start(oz, inv_z, sz, nz, enter, False)
    if axis == 0 and enter > 0:
        x = 0 if sx > 0 else nx - 1
    elif axis == 1 and enter > 0:
        y = 0 if sy > 0 else ny - 1
    elif enter > 0:
        z = 0 if sz > 0 else nz - 1
    return _march(cells, (x, y, z), (sx, sy, sz), (ox, oy, oz), (inv_x, inv_y, inv_z), (enter, axis), leave)


@numba.njit(cache=True, inline="always")
def _march(
    cells: UInt8[np.ndarray, "x y z"],
    voxel: tuple[int, int, int],
    steps: tuple[int, int, int],
    origin: tuple[float, float, float],
    inverse: tuple[float, float, float],
    entered: tuple[float, int],
    leave: float,
) -> tuple[float, int, int]:
    (x, y, z), (sx, sy, sz), (ox, oy, oz), (ix, iy, iz) = voxel, steps, origin, inverse
    ny, nz = cells.shape[1], cells.shape[2]
    flat = cells.ravel()
    index, jx, jy, jz = (x * ny + y) * nz + z, sx * ny * nz, sy * nz, sz
    px, py, pz = float(x + (sx + 1) // 2), float(y + (sy + 1) // 2), float(z + (sz + 1) // 2)
    fx, fy, fz = float(sx), float(sy), float(sz)
    tx = np.inf if sx == 0 else (px - ox) * ix
    ty = np.inf if sy == 0 else (py - oy) * iy
    tz = np.inf if sz == 0 else (pz - oz) * iz
    t, axis = entered
    while t < leave:
        if t > 0 and flat[index] != 0:
            return t, index, -(axis + 1) * steps[axis]
        if tx <= ty and tx <= tz:
            t, axis, index = tx, 0, index + jx
            px += fx
            tx = (px - ox) * ix
        elif ty <= tz:
            t, axis, index = ty, 1, index + jy
            py += fy
            ty = (py - oy) * iy
        else:
            t, axis, index = tz, 2, index + jz
            pz += fz
            tz = (pz - oz) * iz
    return 0.0, _NONE, 0


@numba.njit(cache=True, parallel=True)
def _trace_image(
    cells: UInt8[np.ndarray, "x y z"],
    origin: Float64[np.ndarray, "3"],
    pixels: Float64[np.ndarray, "3 3"],
    stride: int,
    depth: Float32[np.ndarray, "h w"],
    label: UInt8[np.ndarray, "h w"],
    face: Int8[np.ndarray, "h w"],
    voxel: Int32[np.ndarray, "h w"],
) -> None:
    flat = cells.ravel()
    for n in numba.prange(depth.shape[0]):
        v = n * stride % depth.shape[0]
        rx, ry, rz = (pixels[0, 1] * v + pixels[0, 2], pixels[1, 1] * v + pixels[1, 2], pixels[2, 1] * v + pixels[2, 2])
        for u in range(depth.shape[1]):
            dx, dy, dz = pixels[0, 0] * u + rx, pixels[1, 0] * u + ry, pixels[2, 0] * u + rz
            t, index, side = _walk(cells, origin[0], origin[1], origin[2], dx, dy, dz)
            if index != _NONE:
                depth[v, u], label[v, u], face[v, u], voxel[v, u] = t, flat[index], side, index


@numba.njit(cache=True, parallel=True)
def _trace_list(
    cells: UInt8[np.ndarray, "x y z"],
    origins: Float64[np.ndarray, "n 3"],
    directions: Float64[np.ndarray, "n 3"],
    depth: Float32[np.ndarray, "n"],
    label: UInt8[np.ndarray, "n"],
    face: Int8[np.ndarray, "n"],
    voxel: Int32[np.ndarray, "n"],
) -> None:
    flat = cells.ravel()
    for n in numba.prange(depth.shape[0]):
        o, d = origins[n], directions[n]
        t, index, side = _walk(cells, o[0], o[1], o[2], d[0], d[1], d[2])
        if index != _NONE:
            depth[n], label[n], face[n], voxel[n] = t, flat[index], side, index
