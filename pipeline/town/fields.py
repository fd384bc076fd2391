"""The plan as fields over (x, y): signed distance to carriageways, sidewalks and marked areas, and the land's height.

Where roads meet, their distances are joined by a round union, which is a kerb with a rounded corner. Heights are
bilinear on a 4 m lattice, so a coarse and a fine mesh of the same land meet without cracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pipeline.town.layout import Layout, Road

LATTICE_M = 4.0
FAR_M = 90.0  # distances are cut off here


@dataclass(frozen=True)
class Area:
    """A marked rectangle in plan: centre [m], heading [rad] and half sizes [m].

    kind: parking (bays), drive (other paved parking), island, square, field (bare soil), or
    void (under a building).
    """

    kind: str
    x: float
    y: float
    heading: float
    half_length: float
    half_width: float


@dataclass(frozen=True, eq=False)
class Relief:
    """The land. waves: rows (kx, ky, phase, amplitude) of the large slopes and of the banks beside the roads [m];

    hill_m: how high the land rises away from every road.
    """

    waves: Float[np.ndarray, "w 4"]
    banks: Float[np.ndarray, "b 4"]
    hill_m: float


@dataclass(frozen=True, eq=False)
class Segments:
    """Road centrelines as straight pieces, sorted by road."""

    start: Float[np.ndarray, "m 2"]
    end: Float[np.ndarray, "m 2"]
    road: np.ndarray


def make_relief(generator: np.random.Generator, slope: float) -> Relief:
    """Random land whose steepest slope is about `slope`."""
    return Relief(
        _waves(generator, (140, 420), 3, slope / 3 if slope > 0 else 0.0, True),
        _waves(generator, (30, 90), 3, float(generator.uniform(0.1, 0.5)), False),
        float(generator.uniform(2, 16)),
    )


def _waves(
    generator: np.random.Generator, length_m: tuple[float, float], count: int, strength: float, by_slope: bool
) -> np.ndarray:
    """Rows (kx, ky, phase, amplitude); `strength` is each wave's slope, or its amplitude [m]."""
    k = 2 * np.pi / generator.uniform(*length_m, count)
    angle, phase = generator.uniform(0, 2 * np.pi, count), generator.uniform(0, 2 * np.pi, count)
    amplitude = strength / k if by_slope else np.full(count, strength)
    return np.stack([k * np.cos(angle), k * np.sin(angle), phase, amplitude], 1)


def _wave_sum(waves: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.sin(points @ waves[:, :2].T + waves[:, 2]) @ waves[:, 3]


def segments_of(roads: Sequence[Road], turn_rad: float = 0.03, longest_m: float = 30.0) -> Segments:
    """Each road's path as few straight pieces: short in bends, long on straights."""
    starts, ends, owner = [], [], []
    for number, road in enumerate(roads):
        path, first = road.path, int(np.ceil(road.start_m))
        kept = [first]
        for i in range(first + 1, len(path.s)):
            turned = abs(path.heading[i] - path.heading[kept[-1]]) > turn_rad
            if turned or path.s[i] - path.s[kept[-1]] > longest_m or i == len(path.s) - 1:
                kept.append(i)
        starts.append(path.points[kept[:-1]])
        ends.append(path.points[kept[1:]])
        owner.append(np.full(len(kept) - 1, number))
    return Segments(np.concatenate(starts), np.concatenate(ends), np.concatenate(owner))


def round_union(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance of two shapes joined, the corner between them filled by an arc of `radius`."""
    u, v = np.maximum(radius - a, 0), np.maximum(radius - b, 0)
    return np.maximum(radius, np.minimum(a, b)) - np.sqrt(u * u + v * v)


def road_distances(segments: Segments, points: np.ndarray, reach_m: float = FAR_M) -> dict[int, np.ndarray]:
    """Distance of points (N, 2) to the centreline of every road that comes within `reach_m` of their bounding box."""
    low, high = points.min(0) - reach_m, points.max(0) + reach_m
    near = (np.maximum(segments.start, segments.end) > low) & (np.minimum(segments.start, segments.end) < high)
    keep = near.all(axis=1)
    a, b, owner = segments.start[keep], segments.end[keep], segments.road[keep]
    if not len(a):
        return {}
    along = b - a
    offset = points[:, None] - a[None]  # (N, m, 2)
    t = np.clip((offset * along).sum(-1) / (along * along).sum(-1), 0, 1)
    apart = offset - t[..., None] * along
    squared = np.minimum.reduceat((apart * apart).sum(-1), np.flatnonzero(np.diff(owner, prepend=-1)), axis=1)
    return {int(r): np.sqrt(squared[:, k]) for k, r in enumerate(np.unique(owner))}


@dataclass(frozen=True, eq=False)
class Distances:
    """Signed distances [m] at N points, negative inside: carriageway, verge (with it), sidewalk (with both)."""

    road: Float[np.ndarray, "n"]
    verge: Float[np.ndarray, "n"]
    sidewalk: Float[np.ndarray, "n"]


def distances(layout: Layout, segments: Segments, points: np.ndarray) -> Distances:
    """The roads' signed distances at points (N, 2)."""
    joined = [np.full(len(points), FAR_M) for _ in range(3)]
    for number, distance in road_distances(segments, points).items():
        road = layout.roads[number]
        outer = (road.half_m, road.half_m + road.verge_m, road.edge_m)
        for k, edge in enumerate(outer):
            radius = max(layout.corner_m - (edge - road.half_m), 0.8)
            joined[k] = round_union(joined[k], distance - edge, radius)
    return Distances(*joined)


def area_distance(areas: Sequence[Area], points: np.ndarray) -> np.ndarray:
    """Signed distance to the nearest of some rectangles at points (N, 2); FAR_M where there is none."""
    if not areas:
        return np.full(len(points), FAR_M)
    table = np.array([(a.x, a.y, a.heading, a.half_length, a.half_width) for a in areas])
    offset = points[:, None] - table[:, :2]
    c, s = np.cos(table[:, 2]), np.sin(table[:, 2])
    u = np.abs(offset[..., 0] * c + offset[..., 1] * s) - table[:, 3]
    v = np.abs(offset[..., 1] * c - offset[..., 0] * s) - table[:, 4]
    outside = np.hypot(np.maximum(u, 0), np.maximum(v, 0))
    return (outside + np.minimum(np.maximum(u, v), 0)).min(axis=1)


class Land:
    """Heights of the land under everything; lattice nodes are computed once and kept."""

    def __init__(self, layout: Layout, relief: Relief):
        self.layout, self.relief, self.segments = layout, relief, segments_of(layout.roads)
        self._tiles: dict[tuple[int, int], np.ndarray] = {}

    def height(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n"]:
        """Height of the carriageway's level at points [m]; kerbs and sidewalks stand above it."""
        flat = np.asarray(points, float).reshape(-1, 2) / LATTICE_M
        cell = np.floor(flat).astype(np.int64)
        f = flat - cell
        node = [self._nodes(cell + np.array(d)) for d in ((0, 0), (1, 0), (0, 1), (1, 1))]
        low = node[0] * (1 - f[:, 0]) + node[1] * f[:, 0]
        high = node[2] * (1 - f[:, 0]) + node[3] * f[:, 0]
        return (low * (1 - f[:, 1]) + high * f[:, 1]).reshape(np.shape(points)[:-1])

    def slope(self, xy: np.ndarray, reach_m: float = 1.4) -> tuple[float, float]:
        """Gradient of the height at one point, over `reach_m` on either side."""
        steps = reach_m * np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        h = self.height(np.asarray(xy, float) + steps)
        return float(h[0] - h[1]) / (2 * reach_m), float(h[2] - h[3]) / (2 * reach_m)

    def _nodes(self, node: np.ndarray) -> np.ndarray:
        tile = node >> 4
        heights = np.empty(len(node))
        for key in np.unique(tile, axis=0):
            mine = (tile == key).all(axis=1)
            local = node[mine] - key * 16
            heights[mine] = self._tile((int(key[0]), int(key[1])))[local[:, 0], local[:, 1]]
        return heights

    def _tile(self, key: tuple[int, int]) -> np.ndarray:
        if key not in self._tiles:
            i, j = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
            points = (np.stack([i, j], -1).reshape(-1, 2) + 16 * np.array(key)) * LATTICE_M
            self._tiles[key] = self._lattice(points).reshape(16, 16)
        return self._tiles[key]

    def _lattice(self, points: np.ndarray) -> np.ndarray:
        beside = distances(self.layout, self.segments, points).sidewalk
        bank = _wave_sum(self.relief.banks, points) * _smooth_step(beside, 12, 24)
        hill = self.relief.hill_m * _smooth_step(beside, 38, FAR_M)
        return _wave_sum(self.relief.waves, points) + bank + hill


def _smooth_step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
