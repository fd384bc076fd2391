"""One ray through a voxel grid: from a voxel's centre to a point, in arithmetic that any shortcut can repeat exactly.

All in index coordinates. Along an axis of length d the ray crosses the n-th boundary, n = 0, 1, .., at
t = (n + 0.5) * (1 / |d|); it crosses `count` of them, those that lie strictly between centre and point. Crossings are
ordered by t, then x before y before z. See renderers/visibility.py for what is made of it.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt64

from renderers.columns import BLOCK, BLOCK_BITS, any_between, lean

NOTHING = -1
_FAR = 1 << 30  # crossings beyond any grid; keeps counts within int32
_BITS = 20  # of an index in a packed voxel


class Ray(NamedTuple):
    """Start voxel, direction (+-1), number of crossings and 1 / |d| an axis."""

    x: int
    y: int
    z: int
    x_step: int
    y_step: int
    z_step: int
    x_count: int
    y_count: int
    z_count: int
    x_inverse: float
    y_inverse: float
    z_inverse: float


def ray_table(points: Float64[np.ndarray, "p 3"], shape: tuple[int, int, int]) -> Float64[np.ndarray, "n p 2"]:
    """What rays from all voxels to each of P points have in common: signed crossings, and 1 / |d| (0 without any).

    A row for every index along x, then along y, then along z: n = X + Y + Z.
    """
    index = np.concatenate([np.arange(n) for n in shape])[:, None]
    point = np.repeat(points.T, shape, axis=0)  # (n, P)
    d = point - (index + 0.5)
    forward, backward = np.ceil(point) - (index + 1), np.floor(point) - index
    steps = np.where(d > 0, forward, backward)
    return np.stack([np.clip(steps, -_FAR, _FAR), 1 / np.where(steps == 0, np.inf, np.abs(d))], axis=-1)


@lean
def ray_to(p: int, x: int, y: int, z: int, rows: tuple[int, int], table: Float64[np.ndarray, "n p 2"]) -> Ray:
    """The ray from a voxel to point p, from `ray_table`; rows: where y's and z's rows begin, (X, X + Y)."""
    j, k = rows[0] + y, rows[1] + z
    sx, sy, sz = int(table[x, p, 0]), int(table[j, p, 0]), int(table[k, p, 0])
    return Ray(
        x, y, z,
        1 if sx > 0 else -1, 1 if sy > 0 else -1, 1 if sz > 0 else -1,
        abs(sx), abs(sy), abs(sz),
        table[x, p, 1], table[j, p, 1], table[k, p, 1],
    )  # fmt: skip


@lean
def _crossing(n: int, count: int, inverse: float) -> float:
    return (n + 0.5) * inverse if n < count else np.inf


@lean
def visits(ray: Ray, x: int, y: int, z: int) -> bool:
    """Whether the ray visits voxel (x, y, z) of the grid, without a walk: it is entered on every axis before left."""
    nx, ny, nz = (x - ray.x) * ray.x_step, (y - ray.y) * ray.y_step, (z - ray.z) * ray.z_step
    if nx < 0 or nx > ray.x_count or ny < 0 or ny > ray.y_count or nz < 0 or nz > ray.z_count:
        return False
    if nx + ny + nz == 0:
        return False
    x_in, x_out = (nx - 0.5) * ray.x_inverse, _crossing(nx, ray.x_count, ray.x_inverse)
    y_in, y_out = (ny - 0.5) * ray.y_inverse, _crossing(ny, ray.y_count, ray.y_inverse)
    z_in, z_out = (nz - 0.5) * ray.z_inverse, _crossing(nz, ray.z_count, ray.z_inverse)
    x_first = nx == 0 or (x_in <= y_out and x_in <= z_out)
    y_first = ny == 0 or (y_in < x_out and y_in <= z_out)
    return x_first and y_first and (nz == 0 or (z_in < x_out and z_in < y_out))


@lean
def _crossed_before(t: float, ties: bool, count: int, inverse: float) -> int:
    """How many of an axis's crossings come before t (or, with ties, at it)."""
    if count == 0:
        return 0
    n = min(max(int(t / inverse - 0.5), 0), count)
    while n < count and ((n + 0.5) * inverse < t or (ties and (n + 0.5) * inverse == t)):
        n += 1
    while n > 0 and not ((n - 0.5) * inverse < t or (ties and (n - 0.5) * inverse == t)):
        n -= 1
    return n


@lean
def pack(x: int, y: int, z: int) -> int:
    """A voxel of any grid up to 2^20 a side in one integer."""
    return (x << 2 * _BITS) | (y << _BITS) | z


@lean
def unpack(voxel: int) -> tuple[int, int, int]:
    """Indices of a packed voxel."""
    mask = (1 << _BITS) - 1
    return voxel >> 2 * _BITS, (voxel >> _BITS) & mask, voxel & mask


@lean
def _descended(n: int, limit: int, inverse: float, t: float) -> int:
    """Crossings along z done by t, from n on."""
    while n < limit and (n + 0.5) * inverse < t:
        n += 1
    return n


@lean
def _occluder_in_block(ray: Ray, columns: UInt64[np.ndarray, "x y w"], nx: int, ny: int, nz: int, z_room: int) -> int:
    """The first occupied voxel the ray visits before it leaves the block it has entered after nx, ny, nz crossings."""
    x, y = ray.x + nx * ray.x_step, ray.y + ny * ray.y_step
    bx, by = x >> BLOCK_BITS, y >> BLOCK_BITS
    z_limit = min(ray.z_count, z_room)
    while x >> BLOCK_BITS == bx and y >> BLOCK_BITS == by and x < columns.shape[0] and y < columns.shape[1]:
        x_out, y_out = _crossing(nx, ray.x_count, ray.x_inverse), _crossing(ny, ray.y_count, ray.y_inverse)
        t = min(x_out, y_out)
        nz_out = _descended(nz, z_limit, ray.z_inverse, t)
        if nx + ny == 0:
            nz = 1  # the start voxel itself doesn't count
        for n in range(nz, nz_out + 1):
            z = ray.z + n * ray.z_step
            if (columns[x, y, z >> 6] >> np.uint64(z & 63)) & np.uint64(1):
                return pack(x, y, z)
        if t == np.inf or (ray.z_count > z_room and (z_room + 0.5) * ray.z_inverse < t):
            return NOTHING
        nz = nz_out
        if x_out <= y_out:
            x, nx = x + ray.x_step, nx + 1
        else:
            y, ny = y + ray.y_step, ny + 1
    return NOTHING


@lean
def occluder(ray: Ray, columns: UInt64[np.ndarray, "x y w"], blocks: UInt64[np.ndarray, "bx by w"], depth: int) -> int:
    """The first occupied voxel the ray visits, packed (see `unpack`), or NOTHING; depth: the grid's size along z."""
    bx, by = ray.x >> BLOCK_BITS, ray.y >> BLOCK_BITS
    x_leave = (bx << BLOCK_BITS) + BLOCK - 1 - ray.x if ray.x_step > 0 else ray.x - (bx << BLOCK_BITS)
    y_leave = (by << BLOCK_BITS) + BLOCK - 1 - ray.y if ray.y_step > 0 else ray.y - (by << BLOCK_BITS)
    z_room = depth - 1 - ray.z if ray.z_step > 0 else ray.z
    z_limit = min(ray.z_count, z_room)
    nz, t_in, by_x = 0, 0.0, True
    while 0 <= bx < blocks.shape[0] and 0 <= by < blocks.shape[1]:
        x_out, y_out = _crossing(x_leave, ray.x_count, ray.x_inverse), _crossing(y_leave, ray.y_count, ray.y_inverse)
        t = min(x_out, y_out)
        nz_out = _descended(nz, z_limit, ray.z_inverse, t)
        z_in, z_out = ray.z + nz * ray.z_step, ray.z + nz_out * ray.z_step
        if any_between(blocks, bx, by, min(z_in, z_out), max(z_in, z_out)):
            nx = max(0, x_leave - BLOCK + 1) if by_x else _crossed_before(t_in, True, ray.x_count, ray.x_inverse)
            ny = _crossed_before(t_in, False, ray.y_count, ray.y_inverse) if by_x else max(0, y_leave - BLOCK + 1)
            found = _occluder_in_block(ray, columns, nx, ny, nz, z_room)
            if found != NOTHING:
                return found
        if t == np.inf or (ray.z_count > z_room and (z_room + 0.5) * ray.z_inverse < t):
            return NOTHING
        nz, t_in, by_x = nz_out, t, x_out <= y_out
        if by_x:
            bx, x_leave = bx + ray.x_step, x_leave + BLOCK
        else:
            by, y_leave = by + ray.y_step, y_leave + BLOCK
    return NOTHING
