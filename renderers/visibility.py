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
from renderers.columns import pack_blocks, pack_columns
from renderers.grid_ray import NOTHING, Targets, occluder, ray_to, targets, unpack, visits


@numba.njit(cache=True)
def _hidden(
    targets: Targets, p: int, voxel: tuple[int, int, int], hints: np.ndarray, columns: np.ndarray, blocks: np.ndarray
) -> bool:
    """Whether pose p sees nothing of the voxel; hints (Z, P) hold what hid the last one at each height."""
    x, y, z = voxel
    ray = ray_to(targets, p, x, y, z)
    for height in range(z, max(z - 2, -1), -1):
        hint = hints[height, p]
        if hint != NOTHING:
            hx, hy, hz = unpack(hint)
            if visits(ray, hx, hy, hz):
                hints[z, p] = hint
                return True
    found = occluder(ray, columns, blocks, hints.shape[0])
    if found != NOTHING:
        hints[z, p] = found
    return found != NOTHING


@numba.njit(cache=True)
def _slab(x, occupied, targets, columns, blocks, invalid, occluded):
    poses = targets.x_steps.shape[0]
    hints = np.full((occupied.shape[2], poses), NOTHING, np.int64)
    seen_by = 0
    for y in range(occupied.shape[1]):
        for z in range(occupied.shape[2]):
            voxel = (x, y, z)
            hidden = _hidden(targets, 0, voxel, hints, columns, blocks)
            occluded[x, y, z] = hidden
            if not hidden or occupied[x, y, z]:
                continue
            if seen_by > 0:
                hidden = _hidden(targets, seen_by, voxel, hints, columns, blocks)
            for p in range(1, poses):
                if not hidden:
                    break
                hidden = _hidden(targets, p, voxel, hints, columns, blocks)
                if not hidden:
                    seen_by = p
            invalid[x, y, z] = hidden


@numba.njit(cache=True, parallel=True)
def _slabs(occupied, targets, columns, blocks, invalid, occluded):
    for x in numba.prange(occupied.shape[0]):
        _slab(np.int64(x), occupied, targets, columns, blocks, invalid, occluded)


def invalid_and_occluded(
    occupied: Bool[np.ndarray, "x y z"], grid: VoxelGrid, poses: Float[np.ndarray, "p 4 4"]
) -> tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    sensors = grid.coordinates(poses[:, :3, 3])
    columns = pack_columns(occupied)
    invalid, occluded = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    _slabs(occupied, targets(sensors, grid.shape), columns, pack_blocks(columns), invalid, occluded)
    return invalid, occluded
