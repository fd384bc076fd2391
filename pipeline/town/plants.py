"""Trees, shrubs and hedges. Crowns are clumps of bumpy blobs with loose leaf patches around them; stems are trunk.

A leaf patch is a flat triangle of a hand's to an arm's length: it breaks the outline and lets light through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.town.materials import Skin, skin, texture_seed, vary
from pipeline.town.shapes import Mesh, icosphere, merged, mesh, tube
from pipeline.town.splits import Color, Ranges
from pipeline.town.things import Thing


@dataclass(frozen=True)
class Species:
    """height_m: range; trunk_share: height of the bare stem; crown: round, cone, column or spread; width_share: crown's

    diameter over its height; clumps; leaf: albedo; bark: albedo; stem_share: stem's radius over the tree's height.
    """

    height_m: tuple[float, float]
    trunk_share: float
    crown: str
    width_share: float
    clumps: int
    leaf: Color
    bark: Color
    stem_share: float = 0.017


SPECIES = {
    "linden": Species((7, 12), 0.27, "round", 0.85, 13, (0.060, 0.115, 0.028), (0.10, 0.085, 0.07)),
    "maple": Species((6, 10), 0.28, "round", 1.0, 12, (0.085, 0.125, 0.030), (0.12, 0.10, 0.08)),
    "ash": Species((9, 14), 0.3, "spread", 0.8, 15, (0.070, 0.110, 0.035), (0.13, 0.12, 0.10)),
    "spruce": Species((8, 15), 0.08, "cone", 0.42, 14, (0.022, 0.050, 0.024), (0.08, 0.055, 0.04), 0.013),
    "poplar": Species((12, 18), 0.14, "column", 0.26, 13, (0.065, 0.105, 0.030), (0.14, 0.13, 0.10), 0.013),
    "plane": Species((9, 14), 0.32, "spread", 0.95, 15, (0.090, 0.130, 0.040), (0.26, 0.23, 0.16), 0.02),
    "birch": Species((8, 13), 0.25, "column", 0.5, 12, (0.105, 0.140, 0.040), (0.5, 0.48, 0.45), 0.011),
    "pine": Species((10, 15), 0.5, "spread", 0.75, 11, (0.030, 0.062, 0.030), (0.17, 0.085, 0.045)),
    "oak": Species((9, 15), 0.24, "spread", 1.0, 16, (0.052, 0.095, 0.022), (0.09, 0.08, 0.065), 0.022),
    "cherry": Species((4.5, 7), 0.3, "round", 1.0, 10, (0.075, 0.110, 0.030), (0.10, 0.055, 0.045)),
    "cypress": Species((8, 13), 0.06, "column", 0.2, 12, (0.026, 0.055, 0.026), (0.12, 0.08, 0.06), 0.012),
}


def tree(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A tree. size: () or (height,); style: a species."""
    species = SPECIES[thing.style]
    height = thing.size[0] if thing.size else float(generator.uniform(*species.height_m))
    leaf = skin("vegetation", "foliage", vary(generator, species.leaf, 0.25, 0.12), texture_seed(generator))
    bark = skin("trunk", "bark", vary(generator, species.bark, 0.2), texture_seed(generator))
    bough = skin("vegetation", "bark", bark.material.albedo, bark.material.texture_seed)
    foot = height * species.trunk_share
    centres, radii = _crown(generator, species, height, foot, thing.detail)
    lean = generator.normal(0, 0.012, 2) * height
    fork, top = np.array([*(0.3 * lean), foot * 0.98]), np.array([*lean, foot + 0.35 * (height - foot)])
    radius = height * species.stem_share
    sides = (5, 6, 8)[thing.detail]
    stem = tube(np.array([[0, 0, -0.4], [0, 0, 0.25], fork]), radius * np.array([1.5, 1.05, 0.85]), bark, sides)
    parts = [stem]
    if thing.detail:
        parts.append(tube(np.array([fork, top]), radius * np.array([0.85, 0.4]), bough, 5))
    if thing.detail == 2:
        for centre in centres[:6]:
            path = np.array([fork, (fork + centre) / 2 + np.array([0, 0, 0.2]), centre])
            parts.append(tube(path, radius * np.array([0.45, 0.3, 0.1]), bough, 5))
    parts.append(_clumps(generator, centres, radii, leaf, 1 if thing.detail == 2 else 0))
    parts.append(
        _leaf_patches(generator, centres, radii, leaf, (3, 11, 24)[thing.detail], (0.5, 0.45, 0.32)[thing.detail])
    )
    return merged(parts)


def _crown(
    generator: np.random.Generator, species: Species, height: float, foot: float, detail: int
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (k, 3) and radii (k,) of a crown's clumps, all of it above `foot`."""
    span = height - foot
    half = span * species.width_share / 2
    k = (species.clumps // 3, species.clumps, species.clumps * 4 // 3)[detail]
    share = (np.arange(k) + generator.uniform(0.1, 0.9, k)) / k  # from the crown's foot to its top
    profile = {
        "round": np.sqrt(np.maximum(1 - (2 * share - 1) ** 2, 0.05)),
        "spread": np.sqrt(np.maximum(1 - (1.6 * share - 0.9) ** 2, 0.05)),
        "cone": 1.05 - share,
        "column": 0.75 + 0.25 * np.sin(np.pi * share),
    }[species.crown]
    angle = np.arange(k) * 2.4 + generator.uniform(0, 0.9, k)
    radius = half * profile * 0.55 * np.sqrt(generator.uniform(0.25, 1, k))
    size = np.clip(half * (0.34 + 0.3 * profile) * generator.uniform(0.8, 1.2, k), 0.3, span / 3)
    if species.crown in ("cone", "column"):
        radius, size = radius * 0.45, np.clip(half * profile, 0.25, span / 4) * generator.uniform(0.85, 1.15, k)
    z = np.maximum(foot + share * span - 0.3 * size, foot + 0.8 * size)
    grown = size * (1.35, 1.0, 0.88)[detail]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1), grown


def _clumps(
    generator: np.random.Generator,
    centres: np.ndarray,
    radii: np.ndarray,
    leaf: Skin,
    subdivisions: int,
    flat: float = 0.75,
) -> Mesh:
    """Blobs with bumps: every vertex is pushed in or out."""
    ball = icosphere((0, 0, 0), (1, 1, 1), leaf, subdivisions)
    k, n = len(centres), len(ball.vertices)
    bumps = generator.uniform(0.72, 1.12, (k, n, 1))
    turn = generator.uniform(0, 2 * np.pi, k)
    c, s = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x, y, z = ball.vertices.T
    turned = np.stack([c * x - s * y, s * x + c * y, np.broadcast_to(z, (k, n))], -1)
    points = centres[:, None] + turned * bumps * radii[:, None, None] * np.array([1, 1, flat])
    faces = ball.triangles[None] + (np.arange(k) * n)[:, None, None]
    return mesh(points.reshape(-1, 3), faces.reshape(-1, 3), leaf)


def _leaf_patches(
    generator: np.random.Generator, centres: np.ndarray, radii: np.ndarray, leaf: Skin, each: int, size_m: float = 0.42
) -> Mesh:
    """Loose triangles just outside every clump."""
    k = len(centres) * each
    direction = generator.normal(size=(k, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    reach = np.repeat(radii, each)[:, None]
    middle = np.repeat(centres, each, axis=0) + direction * np.array([1, 1, 0.75]) * reach * generator.uniform(
        0.9, 1.18, (k, 1)
    )
    scale = np.minimum(size_m, 0.5 * reach)
    corners = middle[:, None] + generator.normal(0, 0.5, (k, 3, 3)) * scale[:, None]
    return mesh(corners.reshape(-1, 3), np.arange(3 * k), leaf)


def shrub(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A shrub. size: (height,) [m]."""
    height = thing.size[0]
    tone: Color = ((0.055, 0.10, 0.03), (0.08, 0.12, 0.035), (0.035, 0.07, 0.028), (0.09, 0.10, 0.05))[
        int(generator.integers(4))
    ]
    leaf = skin("vegetation", "foliage", vary(generator, tone, 0.25, 0.12), texture_seed(generator))
    k = int(generator.integers(3, 6)) if thing.detail else 2
    centres = generator.normal(0, 0.3, (k, 3)) * height * np.array([1, 1, 0])
    radii = height * generator.uniform(0.38, 0.55, k)
    centres[:, 2] = height * generator.uniform(0.25, 0.55, k)
    parts = [_clumps(generator, centres, radii, leaf, 1 if thing.detail == 2 else 0)]
    return merged([*parts, _leaf_patches(generator, centres, radii, leaf, (3, 8, 14)[thing.detail], 0.25)])


def hedge(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A clipped hedge along x from 0 to its length. size: length, thickness, height [m]."""
    length, thickness, height = thing.size
    tone = vary(generator, (0.045, 0.085, 0.026), 0.3, 0.1)
    leaf = skin("vegetation", "foliage", tone, texture_seed(generator))
    step = 0.6 if thing.detail else 1.5
    n = max(int(length / step), 1)
    x = np.linspace(0, length, n + 1)
    ring = np.array([(-1, -0.2), (-1.05, 0.5), (-0.85, 1.0), (0, 1.04), (0.85, 1.0), (1.05, 0.5), (1, -0.2)])
    points = np.stack(np.broadcast_arrays(x[:, None], ring[:, 0] * thickness / 2, ring[:, 1] * height), -1)
    points = points + generator.uniform(-0.06, 0.06, points.shape) * np.array([1, 1, 0.7])
    m = len(ring)
    i = (np.arange(n)[:, None] * m + np.arange(m - 1)).ravel()
    faces = np.concatenate([np.stack([i, i + 1, i + m + 1], 1), np.stack([i, i + m + 1, i + m], 1)])
    cap = np.stack([np.zeros(m - 2, int), np.arange(1, m - 1), np.arange(2, m)], 1)
    faces = np.concatenate([faces, cap[:, ::-1], cap + n * m])
    body = mesh(points.reshape(-1, 3), faces, leaf)
    each = int(length * (16 if thing.detail else 3))
    at = np.stack([generator.uniform(0, length, each), np.zeros(each), generator.uniform(0.1, 1.0, each) * height], 1)
    at[:, 1] = generator.choice([-0.52, 0.52, 0.0], each) * thickness
    at[at[:, 1] == 0, 2] = height
    corners = at[:, None] + generator.normal(0, 0.075 if thing.detail else 0.14, (each, 3, 3))
    return merged([body, mesh(corners.reshape(-1, 3), np.arange(3 * each), leaf)])
