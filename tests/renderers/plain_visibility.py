"""The slow twin of renderers/visibility.py: every ray is walked voxel by voxel, as its first lines say."""

import numba
import numpy as np


@numba.njit
def blocked(occupied, start, sensor):
    """Whether the ray from the centre of voxel `start` to `sensor` (index coordinates) visits an occupied voxel."""
    at, step, left, done, inverse = start.copy(), np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3), np.zeros(3)
    for axis in range(3):
        d = sensor[axis] - (start[axis] + 0.5)
        step[axis] = 1 if d > 0 else -1
        crossings = np.ceil(sensor[axis]) - (start[axis] + 1) if d > 0 else start[axis] - np.floor(sensor[axis])
        left[axis] = int(crossings)
        inverse[axis] = 1 / abs(d) if left[axis] > 0 else np.inf
    while left.sum() > 0:
        axis, first = -1, np.inf
        for a in range(3):
            if left[a] > 0 and (done[a] + 0.5) * inverse[a] < first:
                axis, first = a, (done[a] + 0.5) * inverse[a]
        at[axis] += step[axis]
        done[axis] += 1
        left[axis] -= 1
        if at[axis] < 0 or at[axis] >= occupied.shape[axis]:
            return False
        if occupied[at[0], at[1], at[2]]:
            return True
    return False


@numba.njit(parallel=True)
def plain_masks(occupied, sensors):
    """invalid and occluded, for sensors (P, 3) in index coordinates."""
    invalid, occluded = np.zeros(occupied.shape, np.bool_), np.zeros(occupied.shape, np.bool_)
    for x in numba.prange(occupied.shape[0]):
        for y in range(occupied.shape[1]):
            for z in range(occupied.shape[2]):
                start = np.array([x, y, z])
                occluded[x, y, z] = blocked(occupied, start, sensors[0])
                hidden = occluded[x, y, z] and not occupied[x, y, z]
                for p in range(1, len(sensors)):
                    if not hidden:
                        break
                    hidden = blocked(occupied, start, sensors[p])
                invalid[x, y, z] = hidden
    return invalid, occluded
