"""What a camera sees beyond the drawn world: open land, single trees on it, and a wooded rim that meets the sky.

Coarse on purpose; it fills the last degree above the ground's end, so that streets don't end in the sky. Its class is
the class it depicts, its instance is 0.
"""

from __future__ import annotations

import numpy as np

from pipeline.town.fields import Land
from pipeline.town.ground import KERB_M
from pipeline.town.materials import Skin
from pipeline.town.shapes import Mesh, icosphere, merged, mesh

RINGS_M = (0.0, 12.0, 45.0, 95.0, 180.0)  # beyond the drawn disc
SECTORS = 72
TREE_SPACING_M = 12.5
BELOW_M = 0.35  # under the drawn land, which overlaps it


def horizon(land: Land, centre: np.ndarray, radius_m: float, ground: Skin, leaf: Skin) -> Mesh:
    """Land, trees and rim around a disc of `radius_m` [m], in world coordinates; trees stay where they are."""
    return merged([_annulus(land, centre, radius_m, ground), *_trees(land, centre, radius_m, leaf)])


def _annulus(land: Land, centre: np.ndarray, radius_m: float, ground: Skin) -> Mesh:
    angle = np.arange(SECTORS) * (2 * np.pi / SECTORS)
    around = np.stack([np.cos(angle), np.sin(angle)], 1)
    reach = np.array([radius_m - 3.0, *(radius_m + r for r in RINGS_M[1:])])
    plan = centre + reach[:, None, None] * around
    z = land.height(plan) + KERB_M - BELOW_M
    points = np.concatenate([plan, z[..., None]], axis=-1).reshape(-1, 3)
    i = np.arange(len(reach) - 1)[:, None] * SECTORS
    j = np.arange(SECTORS)
    a, b = (i + j).ravel(), (i + (j + 1) % SECTORS).ravel()
    faces = np.concatenate([np.stack([a, a + SECTORS, b + SECTORS], 1), np.stack([a, b + SECTORS, b], 1)])
    return mesh(points, faces, ground)


def _trees(land: Land, centre: np.ndarray, radius_m: float, leaf: Skin) -> list[Mesh]:
    """One bumpy ball a tree, on a jittered grid fixed to the world, denser towards the rim."""
    outer = radius_m + RINGS_M[-1]
    low, high = np.floor((centre - outer) / TREE_SPACING_M), np.ceil((centre + outer) / TREE_SPACING_M)
    cell = np.stack(np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]), indexing="ij"), -1).reshape(
        -1, 2
    )
    noise = np.stack([_hash(cell, k) for k in range(4)], 1)
    at = (cell + noise[:, :2]) * TREE_SPACING_M
    distance = np.linalg.norm(at - centre, axis=1)
    likely = 0.12 + 0.75 * np.clip((distance - radius_m - 40) / 100, 0, 1)
    kept = (distance > radius_m + 4) & (distance < outer - 6) & (noise[:, 2] < likely)
    at, size = at[kept], 2.4 + 2.4 * noise[kept, 3]
    if not len(at):
        return []
    ball = icosphere((0, 0, 0), (1.15, 1.15, 1.1), leaf, 0)
    centres = np.column_stack([at, land.height(at) + size * 0.95])
    points = centres[:, None] + ball.vertices * size[:, None, None]
    faces = ball.triangles[None] + len(ball.vertices) * np.arange(len(at))[:, None, None]
    return [mesh(points.reshape(-1, 3), faces.reshape(-1, 3), leaf)]


def _hash(cell: np.ndarray, salt: int) -> np.ndarray:
    """A number in 0..1 for each lattice cell, fixed to the world."""
    value = np.sin(cell @ np.array([12.9898, 78.233]) + 37.719 * (salt + 1)) * 43758.5453
    return value - np.floor(value)
