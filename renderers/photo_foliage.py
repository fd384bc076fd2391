"""Rays through foliage: a closed foliage mesh is a cloud of leaves, not a solid.

Between entering and leaving such a mesh a ray is marched through a seeded field of leaf clumps and ends at the first
leaf. So crowns have holes and torn edges, hedges have depth, and both cast dappled shadows. Meshes must be closed and
face outwards: a stretch of a ray is among leaves if it starts at a front face or ends at a back face of foliage.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Bool, Float, Int64

from renderers.photo_looks import CODES
from renderers.photo_noise import fractal, hash01
from renderers.photo_rays import Hits, Stage, rotated

FOLIAGE = CODES["foliage"]
REACH_M = 6.0  # leaves further in than this are never seen
STEP_M = 0.07
LEAFY = 0.53  # share of the field's range that is air


def first_leaf_or_solid(
    world: Stage,
    origins: Float[np.ndarray, "n 3"],
    directions: Float[np.ndarray, "n 3"],
    pixel_rad: float,
    layers: int = 6,
) -> Hits:
    """First hits of unit rays. After `layers` faces of foliage without a leaf, the next face counts as solid."""
    distance, triangle = world.cast(origins, directions)
    hits = Hits(distance, triangle, np.zeros(len(distance)))
    before = np.full(len(distance), -1)
    todo = np.flatnonzero(_is_foliage(world, triangle))
    start = np.zeros(len(todo))
    for _ in range(layers):
        stretch = _among_leaves(world, before[todo], hits.triangle[todo], directions[todo])
        todo, start = _end_at_leaves(world, hits, before, (origins, directions), (todo, start, stretch), pixel_rad)
        todo = todo[_is_foliage(world, hits.triangle[todo])]
        if len(todo) == 0:
            break
        before[todo] = hits.triangle[todo]
        start = hits.distance[todo] + 1e-3
        more, hits.triangle[todo] = world.cast(origins[todo] + start[:, None] * directions[todo], directions[todo])
        hits.distance[todo] = start + more
    return hits


def _is_foliage(world: Stage, triangle: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    return (triangle >= 0) & (world.code[triangle] == FOLIAGE)


def _among_leaves(
    world: Stage, a: Int64[np.ndarray, "n"], b: Int64[np.ndarray, "n"], directions: Float[np.ndarray, "n 3"]
) -> Bool[np.ndarray, "n"]:
    """Whether the stretch between hits a and b (-1: none) is inside a foliage mesh."""
    entered = _is_foliage(world, a) & ((world.normal[a] * directions).sum(1) < 0)
    leaves = _is_foliage(world, b) & ((world.normal[b] * directions).sum(1) > 0)
    return entered | leaves


def _end_at_leaves(
    world: Stage,
    hits: Hits,
    before: Int64[np.ndarray, "n"],
    rays: tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]],
    stretch: tuple[Int64[np.ndarray, "m"], Float[np.ndarray, "m"], Bool[np.ndarray, "m"]],
    pixel_rad: float,
) -> tuple[Int64[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """March the stretches that are among leaves; write the leaves found into hits; return the rays that go on."""
    todo, start, among = stretch
    inside = todo[among]
    t0 = start[among]
    length = np.minimum(hits.distance[inside] - t0, REACH_M)
    origin = world.to_world(rays[0][inside] + t0[:, None] * rays[1][inside])
    owner = np.where(before[inside] >= 0, before[inside], hits.triangle[inside])
    depth = np.empty(len(inside))
    direction = rotated(world.world_from_surface, rays[1][inside])
    _march(origin, direction, length, t0 * pixel_rad, world.seed[owner], depth)
    found = np.isfinite(depth)
    hits.distance[inside[found]] = (t0 + depth)[found]
    hits.triangle[inside[found]] = owner[found]
    hits.depth_m[inside[found]] = depth[found] + 1e-6
    going = np.ones(len(todo), np.bool_)
    going[np.flatnonzero(among)[found]] = False
    return todo[going], start[going]


@numba.njit(cache=True)
def _march(
    origin: np.ndarray,
    direction: np.ndarray,
    length: np.ndarray,
    footprint: np.ndarray,
    seed: np.ndarray,
    depth: np.ndarray,
) -> None:
    """Depth [m] of the first leaf along each stretch, inf if there is none."""
    for n in range(origin.shape[0]):
        f = footprint[n]
        step = max(STEP_M, f)
        x, y, z = origin[n, 0], origin[n, 1], origin[n, 2]
        i, j, k = math.floor(x * 97), math.floor(y * 97), math.floor(z * 97)
        t = step * hash01(i, j, k, seed[n])
        depth[n] = math.inf
        while t < length[n]:
            a, b, c = x + t * direction[n, 0], y + t * direction[n, 1], z + t * direction[n, 2]
            clump = fractal(a, b, c, 0.85, 2, f, seed[n] + 91)
            leaf = fractal(a, b, c, 0.17, 2, 0.5 * f, seed[n] + 95)
            if clump + 0.8 * (leaf - 0.5) > LEAFY:
                depth[n] = t
                break
            t += step
