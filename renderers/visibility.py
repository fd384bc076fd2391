"""Which voxels a driven sensor could not see: the invalid and occluded masks of SemanticKITTI's ground truth.

A ray runs straight from a voxel's centre to the sensor. The voxels it visits are those its open segment enters:
- along an axis of length d (in voxels) it crosses the n-th boundary, n = 0, 1, .., at t = (n + 0.5) * (1 / |d|) of its
  way; it crosses as many boundaries as lie strictly between centre and sensor;
- crossings are taken in the order of t, and where several fall together (edges, corners) x before y before z, so that
  neighbours in the list of visited voxels always share a face;
- the start voxel doesn't count, the sensor's own voxel does if it is another one; outside the grid all is empty, so a
  ray to a sensor outside ends where it leaves the grid.

occluded: another occupied voxel is visited on the way to the first pose (occupied voxels can be occluded too);
invalid: that holds for every pose, and the voxel is not itself occupied.

Both are exact: the answers are those of a plain walk in the arithmetic above (tests/renderers/plain_visibility.py), but
come faster. A column's voxels are bits of 64-bit words, and 8x8 columns are united to a block, so a ray skips a block
whose bits are clear at its heights. A voxel is tried first against the voxels that hid its neighbours: whether a given
voxel lies on a ray needs no walk.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, UInt64

from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from renderers.columns import lean, pack_blocks, pack_columns
from renderers.grid_ray import NOTHING, Ray, occluder, pack, ray_table, ray_to, unpack, visits


@lean
def _hides(ray: Ray, x: int, y: int, z: int, occupied: Bool[np.ndarray, "x y z"]) -> bool:
    """Whether (x, y, z), which may lie just past the grid, is an occupied voxel that the ray visits."""
    return y < occupied.shape[1] and z < occupied.shape[2] and occupied[x, y, z] and visits(ray, x, y, z)


@lean
def _hidden_like_neighbour(ray: Ray, beside: int, below: int, occupied: Bool[np.ndarray, "x y z"]) -> int:
    """The voxel that hid the neighbour along y or the one below, or the voxel next to it, if it hides this one too.

    A ray that starts one voxel further along y or z passes the old occluder at most one voxel further along.
    """
    if beside != NOTHING:
        x, y, z = unpack(beside)
        if _hides(ray, x, y, z, occupied):
            return beside
        if _hides(ray, x, y + 1, z, occupied):
            return pack(x, y + 1, z)
    if below != NOTHING:
        x, y, z = unpack(below)
        if _hides(ray, x, y, z, occupied):
            return below
        if _hides(ray, x, y, z + 1, occupied):
            return pack(x, y, z + 1)
    return NOTHING


@lean
def _hidden(
    p: int,
    ray: Ray,
    hints: Int64[np.ndarray, "x z p"],
    occupied: Bool[np.ndarray, "x y z"],
    columns: UInt64[np.ndarray, "x y w"],
    blocks: UInt64[np.ndarray, "bx by w"],
) -> bool:
    """Whether the ray to pose p is blocked; hints hold what blocked the last one to it from each height."""
    below = hints[ray.x, ray.z - 1, p] if ray.z > 0 else NOTHING
    found = _hidden_like_neighbour(ray, hints[ray.x, ray.z, p], below, occupied)
    if found == NOTHING:
        found = occluder(ray, columns, blocks, occupied.shape[2])
    if found != NOTHING:
        hints[ray.x, ray.z, p] = found
    return found != NOTHING


@lean
def _slab(
    x: int,
    occupied: Bool[np.ndarray, "x y z"],
    table: Float64[np.ndarray, "n p 2"],
    columns: UInt64[np.ndarray, "x y w"],
    blocks: UInt64[np.ndarray, "bx by w"],
    hints: Int64[np.ndarray, "x z p"],
    masks: Bool[np.ndarray, "2 x y z"],
) -> None:
    """Both masks of the voxels at x; the pose that saw the last voxel is asked right after the first one."""
    poses, rows = table.shape[1], (masks.shape[1], masks.shape[1] + masks.shape[2])
    seen_by = 0
    for y in range(masks.shape[2]):
        for z in range(masks.shape[3]):
            hidden = _hidden(0, ray_to(0, x, y, z, rows, table), hints, occupied, columns, blocks)
            masks[1, x, y, z] = hidden
            if not hidden or occupied[x, y, z]:
                continue
            last = seen_by
            for n in range(poses):
                p = last if n == 0 else n
                if p != 0 and not _hidden(p, ray_to(p, x, y, z, rows, table), hints, occupied, columns, blocks):
                    hidden, seen_by = False, p
                    break
            masks[0, x, y, z] = hidden


@numba.njit(cache=True, parallel=True)
def _slabs(
    occupied: Bool[np.ndarray, "x y z"],
    table: Float64[np.ndarray, "n p 2"],
    columns: UInt64[np.ndarray, "x y w"],
    blocks: UInt64[np.ndarray, "bx by w"],
    hints: Int64[np.ndarray, "x z p"],
    masks: Bool[np.ndarray, "2 x y z"],
) -> None:
    for x in numba.prange(masks.shape[1]):
        _slab(np.int64(x), occupied, table, columns, blocks, hints, masks)


def invalid_and_occluded(
    occupied: Bool[np.ndarray, "x y z"], grid: VoxelGrid, poses: Float[np.ndarray, "p 4 4"]
) -> tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """The masks (invalid, occluded) of a grid whose `occupied` voxels block sight, exactly as the module's text says.

    poses: world_from_sensor in the grid's frame [m], the first one the frame's own; only their positions matter.
    Equal for any number of threads. Raises InputError for another shape, no pose, or a position that isn't finite.
    """
    if occupied.shape != grid.shape or occupied.dtype != np.bool_:
        raise InputError("occupied voxels", f"bool of shape {grid.shape}", f"{occupied.dtype} {occupied.shape}")
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or len(poses) == 0 or not np.isfinite(poses).all():
        raise InputError("poses", "at least one finite 4x4 matrix", f"{poses.shape}, or a value that isn't finite")
    occupied = np.ascontiguousarray(occupied)
    table = ray_table(grid.coordinates(poses[:, :3, 3].astype(np.float64)), grid.shape)
    columns = pack_columns(occupied)
    hints = np.full((grid.shape[0], grid.shape[2], len(poses)), NOTHING, np.int64)
    masks = np.zeros((2, *grid.shape), bool)
    _slabs(occupied, table, columns, pack_blocks(columns), hints, masks)
    return masks[0], masks[1]
