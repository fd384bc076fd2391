"""Where there is still room: the planner's state while a town is filled. Every thing taken blocks its footprint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.town.fields import Area, Distances, Segments, distances, segments_of
from pipeline.town.layout import Layout
from pipeline.town.splits import Ranges
from pipeline.town.things import Thing

_CELL_M = 8.0
BUILDINGS = ("house", "block", "hall", "shed")
UNDERLAP_M = 0.35  # the ground goes this far in under a building's walls, and no farther
Footprint = tuple[float, float, float, float, float]  # x, y, heading, half length, half width


def corners(footprint: Footprint) -> np.ndarray:
    """The four corners (4, 2) of a footprint [m]."""
    x, y, heading, half_length, half_width = footprint
    along = np.array([np.cos(heading), np.sin(heading)])
    left = np.array([-along[1], along[0]])
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    return np.array([x, y]) + signs[:, :1] * half_length * along + signs[:, 1:] * half_width * left


def overlap(a: Footprint, b: Footprint) -> bool:
    """Whether two rectangles in plan intersect (separating axes)."""
    reach = np.hypot(a[3], a[4]) + np.hypot(b[3], b[4])
    if np.hypot(a[0] - b[0], a[1] - b[1]) > reach:
        return False
    first, second = corners(a), corners(b)
    for heading in (a[2], a[2] + np.pi / 2, b[2], b[2] + np.pi / 2):
        axis = np.array([np.cos(heading), np.sin(heading)])
        u, v = first @ axis, second @ axis
        if u.max() <= v.min() or v.max() <= u.min():
            return False
    return True


class Site:
    """Things and areas placed so far. The generator is the plan's; how near the route a thing is decides its detail."""

    def __init__(self, layout: Layout, ranges: Ranges, generator: np.random.Generator):
        self.layout, self.ranges, self.generator = layout, ranges, generator
        self.segments: Segments = segments_of(layout.roads)
        self.things: list[Thing] = []
        self.areas: list[Area] = []
        self._cells: dict[tuple[int, int], list[Footprint]] = {}
        self._decks: dict[str, list[str]] = {}
        self._route = layout.route.points[::4]

    def chance(self, p: float) -> bool:
        return bool(self.generator.random() < p)

    def draw(self, low: float, high: float) -> float:
        return float(self.generator.uniform(low, high))

    def pick(self, choices: Sequence[str]) -> str:
        return choices[int(self.generator.integers(len(choices)))]

    def deal(self, deck: str, cards: tuple[str, ...]) -> str:
        """The next of some names, each as often as it is in `cards`, in random order: rare ones are sure to turn up."""
        if not self._decks.get(deck):
            self._decks[deck] = [str(name) for name in self.generator.permutation(cards)]
        return self._decks[deck].pop()

    def distances(self, points: np.ndarray) -> Distances:
        return distances(self.layout, self.segments, np.asarray(points, float).reshape(-1, 2))

    def from_route(self, x: float, y: float) -> float:
        """Distance to the route [m]."""
        return float(np.sqrt(((self._route - (x, y)) ** 2).sum(axis=1).min()))

    def is_free(self, footprint: Footprint) -> bool:
        """Whether nothing taken so far overlaps the footprint."""
        return not any(overlap(footprint, other) for key in self._keys(footprint) for other in self._cells.get(key, ()))

    def off_road(self, footprint: Footprint, beyond_m: float) -> bool:
        """Whether a footprint's outline keeps `beyond_m` away from every sidewalk's outer edge."""
        corner = corners(footprint)
        points = np.concatenate([corner, (corner + np.roll(corner, 1, axis=0)) / 2])
        return bool((self.distances(points).sidewalk >= beyond_m).all())

    def take(self, footprint: Footprint) -> None:
        for key in self._keys(footprint):
            self._cells.setdefault(key, []).append(footprint)

    def put(
        self, kind: str, footprint: Footprint, size: tuple[float, ...] = (), style: str = "", blocks: bool = True
    ) -> None:
        """Add a thing whose own origin is its footprint's centre."""
        self.put_at(kind, footprint, (footprint[0], footprint[1]), size, style, blocks)

    def put_at(
        self, kind: str, footprint: Footprint, origin: tuple[float, float], size: tuple[float, ...] = (),
        style: str = "", blocks: bool = True,
    ) -> None:  # fmt: skip
        """Add a thing with its origin [m] elsewhere than in its footprint's centre."""
        if blocks:
            self.take(footprint)
        if kind in BUILDINGS:
            fx, fy, heading, half_length, half_width = footprint
            inner = (max(half_length - UNDERLAP_M, 0.2), max(half_width - UNDERLAP_M, 0.2))
            self.areas.append(Area("void", fx, fy, heading, *inner))
        x, y = float(origin[0]), float(origin[1])
        seed = int(self.generator.integers(1, 1 << 31))
        close, near = {"tree": (12.0, 30.0), "shrub": (9.0, 30.0)}.get(kind, (24.0, 48.0))
        distance = self.from_route(x, y)
        detail = 2 if distance < close else int(distance < near)
        self.things.append(Thing(kind, x, y, float(footprint[2]), seed, tuple(map(float, size)), style, detail))

    def _keys(self, footprint: Footprint) -> list[tuple[int, int]]:
        corner = corners(footprint)
        low, high = np.floor(corner.min(0) / _CELL_M).astype(int), np.floor(corner.max(0) / _CELL_M).astype(int)
        return [(i, j) for i in range(low[0], high[0] + 1) for j in range(low[1], high[1] + 1)]
