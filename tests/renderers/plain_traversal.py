"""The slow twin of renderers/traversal.py: every plane a ray crosses, in exact fractions, sorted.

It shares the definition (order of (t, axis), t > 0, before the ray leaves the grid), not the algorithm: no walking; the
voxel after each crossing is read off the planes crossed so far. A float is a fraction, so there is no rounding at all.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pipeline.scene.camera import Camera
from pipeline.scene.grid import VoxelGrid


def plain_hit(labels: np.ndarray, origin: list[Fraction], direction: list[Fraction]) -> tuple[Fraction, int, int]:
    """t, index into labels.ravel() and face of the first solid voxel, (0, -1, 0) if none; index coordinates."""
    moving = [a for a in range(3) if direction[a] != 0]
    crossings = [((p - origin[a]) / direction[a], a, p) for a in moving for p in range(labels.shape[a] + 1)]
    leave = min((max(t for t, b, _ in crossings if b == a) for a in moving), default=Fraction(0))
    for t, axis, _ in sorted(crossings):
        voxel = [_index(a, labels.shape[a], origin, direction, crossings, (t, axis)) for a in range(3)]
        inside = all(0 <= i < n for i, n in zip(voxel, labels.shape, strict=True))
        if 0 < t < leave and inside and labels[tuple(voxel)]:
            face = -(axis + 1) if direction[axis] > 0 else axis + 1
            return t, int(np.ravel_multi_index(voxel, labels.shape)), face
    return Fraction(0), -1, 0


def _index(
    axis: int,
    size: int,
    origin: list[Fraction],
    direction: list[Fraction],
    crossings: list[tuple[Fraction, int, int]],
    now: tuple[Fraction, int],
) -> int:
    """The voxel along an axis once every crossing up to and with `now` is done; -1 or size while outside."""
    if direction[axis] == 0:
        return origin[axis].__floor__()
    crossed = [p for t, a, p in crossings if a == axis and (t, a) <= now]
    if direction[axis] > 0:
        return max(crossed, default=-1)
    return min(crossed, default=size + 1) - 1


def plain_trace(
    labels: np.ndarray, grid: VoxelGrid, origins: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t (float64), voxel and face of many rays, world frame; 255 is empty."""
    solid = np.where(labels == 255, 0, labels)
    size, low = Fraction(grid.voxel_size_m), [Fraction(x) for x in grid.origin_m]
    hits = []
    for o, d in zip(origins.tolist(), directions.tolist(), strict=True):
        start = [(Fraction(x) - a) / size for x, a in zip(o, low, strict=True)]
        hits.append(plain_hit(solid, start, [Fraction(x) / size for x in d]))
    t, voxel, face = zip(*hits, strict=True)
    return np.array([float(x) for x in t]), np.array(voxel), np.array(face)


def rays_of(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Origins and directions (N, 3) of a camera's pixels, row by row."""
    directions = camera.ray_directions().reshape(-1, 3)
    return np.broadcast_to(camera.centre, directions.shape), directions


def cleared(labels: np.ndarray, grid: VoxelGrid, camera: Camera) -> np.ndarray:
    """Labels with the voxel emptied in which the camera stands."""
    index = grid.index(camera.centre)
    labels = labels.copy()
    if grid.contains(index):
        labels[tuple(index)] = 0
    return labels
