"""Rays through foliage: a closed foliage mesh (a crown) is a cloud of leaves, not a solid; loose triangles have holes.

Between entering and leaving a crown a ray is marched through a seeded field of leaf clumps and ends at the first leaf.
So crowns have holes and torn edges, hedges have depth, and both cast dappled shadows. A stretch of a ray is
among leaves if it starts at a front face or ends at a back face of a crown.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Bool, Float, Int64

from renderers.photo_noise import cells, fractal, hash01
from renderers.photo_rays import CROWN, LOOSE, SOLID, Hits, Stage, rotated

REACH_M = 6.0  # leaves further in than this are never seen
STEP_M, LEAF_M = 0.07, 0.085
AIRY, AIRY_RIM, RIM_M = 0.02, 1.0, 0.22  # the field's threshold deep inside, and how much higher it is at the rim


def first_leaf_or_solid(
    world: Stage,
    origins: Float[np.ndarray, "n 3"],
    directions: Float[np.ndarray, "n 3"],
    pixel_rad: float,
    layers: int = 5,
) -> Hits:
    """First hits of unit rays. After `layers` faces of foliage without a leaf, the next face counts as solid."""
    distance, triangle = world.cast(origins, directions)
    hits = Hits(distance, triangle, np.zeros(len(distance)))
    before = np.full(len(distance), -1)
    todo = np.flatnonzero(_kind(world, triangle) != SOLID)
    start = np.zeros(len(todo))
    for _ in range(layers):
        stretch = _among_leaves(world, before[todo], hits.triangle[todo], directions[todo])
        todo, start = _end_at_leaves(world, hits, before, (origins, directions), (todo, start, stretch), pixel_rad)
        todo = todo[_kind(world, hits.triangle[todo]) != SOLID]
        todo = _through_loose(world, hits, (origins, directions), todo, pixel_rad)
        if len(todo) == 0:
            break
        crown = todo[_kind(world, hits.triangle[todo]) == CROWN]
        before[crown] = hits.triangle[crown]
        start = hits.distance[todo] + 1e-3
        more, hits.triangle[todo] = world.cast(origins[todo] + start[:, None] * directions[todo], directions[todo])
        hits.distance[todo] = start + more
    return hits


def _kind(world: Stage, triangle: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    return np.where(triangle >= 0, world.leaf[triangle], SOLID)


def _through_loose(
    world: Stage,
    hits: Hits,
    rays: tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]],
    todo: Int64[np.ndarray, "m"],
    pixel_rad: float,
) -> Int64[np.ndarray, "k"]:
    """The rays that go on: at a crown's face all of them, at a loose patch those that meet a hole."""
    loose = np.flatnonzero(_kind(world, hits.triangle[todo]) == LOOSE)
    rows = todo[loose]
    points = world.to_world(rays[0][rows] + hits.distance[rows, None] * rays[1][rows])
    holes = np.empty(len(rows), np.bool_)
    _hole(points, hits.distance[rows] * pixel_rad, world.seed[hits.triangle[rows]], holes)
    hits.depth_m[rows[~holes]] = 1e-6
    going = np.ones(len(todo), np.bool_)
    going[loose[~holes]] = False
    return todo[going]


def _among_leaves(
    world: Stage, a: Int64[np.ndarray, "n"], b: Int64[np.ndarray, "n"], directions: Float[np.ndarray, "n 3"]
) -> Bool[np.ndarray, "n"]:
    """Whether the stretch between a crown's face a (-1: none yet) and the next hit b (-1: none) is inside a crown."""
    entered = (a >= 0) & ((world.normal[a] * directions).sum(1) < 0)
    leaves = (_kind(world, b) == CROWN) & ((world.normal[b] * directions).sum(1) > 0)
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
    length = hits.distance[inside] - t0
    origin = world.to_world(rays[0][inside] + t0[:, None] * rays[1][inside])
    owner = np.where(before[inside] >= 0, before[inside], hits.triangle[inside])
    depth = np.empty(len(inside))
    direction = rotated(world.world_from_surface, rays[1][inside])
    facing = np.abs((world.normal[owner] * rays[1][inside]).sum(1))
    shape = np.stack([length, facing, t0 * pixel_rad], axis=1)
    _march(origin, direction, shape, world.seed[owner], depth)
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
    shape: np.ndarray,
    seed: np.ndarray,
    depth: np.ndarray,
) -> None:
    """Depth [m] of the first leaf along each stretch, inf if there is none.

    shape: length of the stretch [m], cosine at which it enters, footprint [m].
    """
    for n in range(origin.shape[0]):
        length, facing, f = shape[n, 0], shape[n, 1], shape[n, 2]
        step = max(STEP_M, f)
        x, y, z = origin[n, 0], origin[n, 1], origin[n, 2]
        i, j, k = math.floor(x * 97), math.floor(y * 97), math.floor(z * 97)
        t = step * hash01(i, j, k, seed[n])
        depth[n] = math.inf
        while t < min(length, REACH_M):
            a, b, c = x + t * direction[n, 0], y + t * direction[n, 1], z + t * direction[n, 2]
            rim = min(t, length - t) * facing  # distance to the crown's surface, were it a ball
            lacking = (
                AIRY + AIRY_RIM * math.exp(-rim / RIM_M) - 1.5 * (fractal(a, b, c, 0.75, 2, f, seed[n] + 91) - 0.5)
            )
            if lacking < 0.6 and 1.1 * (fractal(a, b, c, 0.13, 2, 0.4 * f, seed[n] + 95) - 0.5) > lacking:
                depth[n] = t
                break
            t += step


@numba.njit(cache=True)
def _hole(points: np.ndarray, footprint: np.ndarray, seed: np.ndarray, out: np.ndarray) -> None:
    """Between single leaves, round cells of LEAF_M; where a sample covers several of them, by chance."""
    for n in range(points.shape[0]):
        size = max(LEAF_M, footprint[n])
        near, _, name = cells(points[n, 0] / size, points[n, 1] / size, points[n, 2] / size, seed[n] + 97)
        out[n] = near > 0.5 or name < 0.22
