"""Rays through voxels: exact grid traversal on the CPU.

J. Amanatides and A. Woo, "A Fast Voxel Traversal Algorithm for Ray Tracing", Eurographics 1987. Where we deviate: a
crossing's parameter is computed afresh from its plane, t = (plane - origin) / direction, so that errors don't add up;
and a ray walks through blocks of 4^3 voxels first, and through a block's voxels only if one is solid. Blocks' planes
are voxels' planes, so the answers are the plain walk's, in 0.7 to 0.8 of its time on streets (sparse noise: 2.4).

What is exact: a ray p(t) = origin + t * direction crosses grid planes in the order of (t, axis), x before y before z
when they tie, as they do through an edge or a corner. It enters one voxel at each crossing, if only for a point, and
hits the first solid one that it enters at t > 0. So the voxel in which a ray starts is never hit: a camera inside a
solid voxel sees out of that one voxel as if it were empty. A ray that runs within a plane belongs to the voxels above
it (boxes are half-open). Rays are float64; they may start outside the grid, have zero components, or never meet it.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Float, Float32, Float64, Int8, Int32, UInt8

from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY, IGNORE

_PARALLEL = 1e-290  # a smaller direction counts as 0: its inverse could overflow
_NONE = -1
BLOCK = 4  # edge, in voxels, of the blocks that a ray passes in one step when they are empty


class Hits(NamedTuple):
    """What each ray meets first, by ray (*n) or pixel (height, width).

    depth: t, in lengths of the direction (for a camera's rays: z [m]), 0 = nothing hit; label: 0 = nothing hit;
    face: the struck face's outward normal, +-1 x, +-2 y, +-3 z, 0 = nothing hit; voxel: index into `labels.ravel()`,
    -1 = nothing hit.
    """

    depth: Float32[np.ndarray, "*n"]
    label: UInt8[np.ndarray, "*n"]
    face: Int8[np.ndarray, "*n"]
    voxel: Int32[np.ndarray, "*n"]


class Voxels(NamedTuple):
    """Labels as the kernels take them: 0 is empty; blocks: 1 where BLOCK^3 voxels hold a solid one."""

    cells: UInt8[np.ndarray, "x y z"]
    flat: UInt8[np.ndarray, "v"]
    blocks: UInt8[np.ndarray, "bx by bz"]


def trace(labels: UInt8[np.ndarray, "x y z"], grid: VoxelGrid, camera: Camera, solid_ignored: bool = False) -> Hits:
    """The first solid voxel along every pixel's ray (`Camera.ray_directions`).

    labels: class ids, 0 = empty; 255 (ignored) is empty too, unless `solid_ignored`. Raises InputError.
    """
    voxels = _voxels(labels, grid, solid_ignored)
    origin = grid.coordinates(camera.centre)
    pixels = camera.world_from_camera[:3, :3] @ np.linalg.inv(camera.K) / grid.voxel_size_m
    hits = _blank((camera.height_px, camera.width_px))
    _trace_image(voxels, origin, pixels, _stride(camera.height_px), hits)
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
    voxels = _voxels(labels, grid, solid_ignored)
    hits = _blank((len(origins),))
    start = np.ascontiguousarray(grid.coordinates(origins), np.float64)
    along = np.ascontiguousarray(directions / grid.voxel_size_m, np.float64)
    _trace_list(voxels, start, along, hits)
    return hits


def _voxels(labels: UInt8[np.ndarray, "x y z"], grid: VoxelGrid, solid_ignored: bool) -> Voxels:
    if labels.shape != grid.shape or labels.dtype != np.uint8 or labels.size >= 1 << 31:
        raise InputError("trace", f"uint8 labels of the grid's shape {grid.shape}", f"{labels.dtype} {labels.shape}")
    cells = np.ascontiguousarray(labels)
    if not solid_ignored:
        cells = np.where(cells == IGNORE, np.uint8(EMPTY), cells)
    x, y, z = (-(-n // BLOCK) for n in cells.shape)
    blocks = np.zeros((x, y, z), np.uint8)
    _blocks(cells, blocks)
    return Voxels(cells, cells.ravel(), blocks)


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
def _crossing(plane: float, origin: float, inverse: float) -> float:
    """When the ray meets a plane; never if it runs parallel."""
    return np.inf if inverse == np.inf else (plane - origin) * inverse


@numba.njit(cache=True, inline="always")
def _sign(direction: float) -> int:
    return 0 if abs(direction) < _PARALLEL else (1 if direction > 0 else -1)


@numba.njit(cache=True, inline="always")
def _after(t: float, now: float, ties: bool) -> bool:
    return t > now or (t == now and not ties)


@numba.njit(cache=True, inline="always")
def _settled(origin: float, direction: float, inverse: float, low: int, high: int, now: float, ties: bool) -> int:
    """The voxel of low..high along an axis after all its crossings before `now` (and, with ties, at it)."""
    index = math.floor(min(max(origin + now * direction, float(low)), float(high)))
    if inverse == np.inf or now <= 0:
        return index
    step, ahead = (1, 1) if direction > 0 else (-1, 0)
    while low <= index - step <= high and _after((index - step + ahead - origin) * inverse, now, ties):
        index -= step
    while low <= index + step <= high and not _after((index + ahead - origin) * inverse, now, ties):
        index += step
    return index


@numba.njit(cache=True)
def _walk(
    voxels: Voxels, origin: tuple[float, float, float], direction: tuple[float, float, float]
) -> tuple[float, int, int]:
    """t, flat voxel and face of the first solid voxel; voxel -1 if there is none. All in index coordinates."""
    (ox, oy, oz), (dx, dy, dz), (nx, ny, nz) = origin, direction, voxels.cells.shape
    in_x, out_x, ix = _slab(ox, dx, nx)
    in_y, out_y, iy = _slab(oy, dy, ny)
    in_z, out_z, iz = _slab(oz, dz, nz)
    t, leave = max(max(in_x, in_y), max(in_z, 0.0)), min(out_x, min(out_y, out_z))
    if not (t < leave < np.inf):
        return 0.0, _NONE, 0
    axis = 2 if in_z == t else (1 if in_y == t else 0)  # the last plane it crosses on its way in
    sx, sy, sz = _sign(dx), _sign(dy), _sign(dz)
    bx = _settled(ox, dx, ix, 0, nx - 1, t, True) // BLOCK
    by = _settled(oy, dy, iy, 0, ny - 1, t, axis >= 1) // BLOCK
    bz = _settled(oz, dz, iz, 0, nz - 1, t, axis >= 2) // BLOCK
    px, py, pz = float((bx + (sx > 0)) * BLOCK), float((by + (sy > 0)) * BLOCK), float((bz + (sz > 0)) * BLOCK)
    tx, ty, tz = _crossing(px, ox, ix), _crossing(py, oy, iy), _crossing(pz, oz, iz)
    while t < leave:
        if voxels.blocks[bx, by, bz]:
            hit = _search(voxels, (bx, by, bz), (sx, sy, sz), origin, direction, (ix, iy, iz), (t, axis, leave))
            if hit[1] != _NONE:
                return hit
        if tx <= ty and tx <= tz:
            t, axis, bx, px = tx, 0, bx + sx, px + sx * BLOCK
            tx = (px - ox) * ix
        elif ty <= tz:
            t, axis, by, py = ty, 1, by + sy, py + sy * BLOCK
            ty = (py - oy) * iy
        else:
            t, axis, bz, pz = tz, 2, bz + sz, pz + sz * BLOCK
            tz = (pz - oz) * iz
    return 0.0, _NONE, 0


@numba.njit(cache=True, inline="always")
def _bounds(block: int, size: int) -> tuple[int, int]:
    return block * BLOCK, min(block * BLOCK + BLOCK, size) - 1


@numba.njit(cache=True, inline="always")
def _search(
    voxels: Voxels,
    block: tuple[int, int, int],
    steps: tuple[int, int, int],
    origin: tuple[float, float, float],
    direction: tuple[float, float, float],
    inverse: tuple[float, float, float],
    entered: tuple[float, int, float],
) -> tuple[float, int, int]:
    """The first solid voxel within a block that is entered at t by a plane across `axis`."""
    flat, shape = voxels.flat, voxels.cells.shape
    (ox, oy, oz), (ix, iy, iz), (sx, sy, sz), (t, axis, leave) = origin, inverse, steps, entered
    (x_low, x_high), (y_low, y_high), (z_low, z_high) = (
        _bounds(block[0], shape[0]),
        _bounds(block[1], shape[1]),
        _bounds(block[2], shape[2]),
    )
    x = _settled(ox, direction[0], ix, x_low, x_high, t, True)
    y = _settled(oy, direction[1], iy, y_low, y_high, t, axis >= 1)
    z = _settled(oz, direction[2], iz, z_low, z_high, t, axis >= 2)
    y_stride, x_stride = shape[2], shape[1] * shape[2]
    index = x * x_stride + y * y_stride + z
    px, py, pz = float(x + (sx > 0)), float(y + (sy > 0)), float(z + (sz > 0))
    tx, ty, tz = _crossing(px, ox, ix), _crossing(py, oy, iy), _crossing(pz, oz, iz)
    x_room, y_room, z_room = (
        (x_high - x if sx > 0 else x - x_low),
        (y_high - y if sy > 0 else y - y_low),
        (z_high - z if sz > 0 else z - z_low),
    )
    while True:
        if t > 0 and flat[index] != 0:
            return t, index, -(axis + 1) * steps[axis]
        if tx <= ty and tx <= tz:
            t, axis, index, px, x_room = tx, 0, index + sx * x_stride, px + sx, x_room - 1
            tx = (px - ox) * ix
            if x_room < 0:
                break
        elif ty <= tz:
            t, axis, index, py, y_room = ty, 1, index + sy * y_stride, py + sy, y_room - 1
            ty = (py - oy) * iy
            if y_room < 0:
                break
        else:
            t, axis, index, pz, z_room = tz, 2, index + sz, pz + sz, z_room - 1
            tz = (pz - oz) * iz
            if z_room < 0:
                break
        if t >= leave:
            break
    return 0.0, _NONE, 0


@numba.njit(cache=True, parallel=True)
def _blocks(cells: UInt8[np.ndarray, "x y z"], blocks: UInt8[np.ndarray, "bx by bz"]) -> None:
    """1 where a block of BLOCK^3 voxels holds a solid one."""
    for bx in numba.prange(blocks.shape[0]):
        for x in range(bx * BLOCK, min(bx * BLOCK + BLOCK, cells.shape[0])):
            for y in range(cells.shape[1]):
                for z in range(cells.shape[2]):
                    if cells[x, y, z] != 0:
                        blocks[bx, y // BLOCK, z // BLOCK] = 1


@numba.njit(cache=True, parallel=True)
def _trace_image(
    voxels: Voxels, origin: Float64[np.ndarray, "3"], pixels: Float64[np.ndarray, "3 3"], stride: int, hits: Hits
) -> None:
    for n in numba.prange(hits.depth.shape[0]):
        _trace_row(voxels, origin, pixels, n * stride % hits.depth.shape[0], hits)


@numba.njit(cache=True)
def _trace_row(
    voxels: Voxels, origin: Float64[np.ndarray, "3"], pixels: Float64[np.ndarray, "3 3"], v: int, hits: Hits
) -> None:
    start, m = (origin[0], origin[1], origin[2]), pixels
    rx, ry, rz = m[0, 1] * v + m[0, 2], m[1, 1] * v + m[1, 2], m[2, 1] * v + m[2, 2]
    for u in range(hits.depth.shape[1]):
        t, index, side = _walk(voxels, start, (m[0, 0] * u + rx, m[1, 0] * u + ry, m[2, 0] * u + rz))
        if index != _NONE:
            hits.depth[v, u], hits.label[v, u] = t, voxels.flat[index]
            hits.face[v, u], hits.voxel[v, u] = side, index


@numba.njit(cache=True, parallel=True)
def _trace_list(
    voxels: Voxels, origins: Float64[np.ndarray, "n 3"], directions: Float64[np.ndarray, "n 3"], hits: Hits
) -> None:
    for n in numba.prange(len(origins)):
        _trace_one(voxels, origins[n], directions[n], n, hits)


@numba.njit(cache=True)
def _trace_one(voxels: Voxels, o: Float64[np.ndarray, "3"], d: Float64[np.ndarray, "3"], n: int, hits: Hits) -> None:
    t, index, side = _walk(voxels, (o[0], o[1], o[2]), (d[0], d[1], d[2]))
    if index != _NONE:
        hits.depth[n], hits.label[n], hits.face[n], hits.voxel[n] = t, voxels.flat[index], side, index
