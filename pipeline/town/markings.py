"""Paint and manholes on carriageways: lane lines, stop lines, zebra crossings, bays; polygons in plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pipeline.town.fields import Area
from pipeline.town.layout import Layout, Road
from pipeline.town.paths import at

LINE_M = 0.13
DASH_M, GAP_M = 3.0, 5.0
ABOVE_ROAD_M = 0.012


@dataclass(frozen=True)
class Crossing:
    """A zebra crossing over a road, centred at `s_m` along it, `span_m` wide; bar_m: width of a bar and of a gap."""

    road: int
    s_m: float
    span_m: float
    bar_m: float


def marking_quads(layout: Layout, crossings: Sequence[Crossing], areas: Sequence[Area]) -> Float[np.ndarray, "q 4 2"]:
    """All painted quads of a town, counter-clockwise, in plan [m]."""
    quads: list[np.ndarray] = []
    for number, road in enumerate(layout.roads):
        clear = clear_stretches(layout, number)
        zebras = [c for c in crossings if c.road == number]
        clear = without(clear, [(c.s_m - c.span_m / 2 - 1, c.s_m + c.span_m / 2 + 1) for c in zebras])
        quads += _lane_lines(road, clear)
        quads += [_zebra(road, c) for c in zebras]
    for mouth in layout.mouths:
        side, main = layout.roads[mouth.side], layout.roads[mouth.main]
        start = stop_line_s(layout, mouth.side, main)
        quads.append(_strip(side, start, start + 0.4, side.half_m / 2 - 0.1, side.half_m / 2 - 0.25))
    quads += [_bay_end(area, end) for area in areas if area.kind == "parking" for end in (-1, 1)]
    return np.concatenate([q.reshape(-1, 4, 2) for q in quads]) if quads else np.zeros((0, 4, 2))


def stop_line_s(layout: Layout, side: int, main: Road) -> float:
    """Where a side road's stop line lies [m along it]: behind the crossing's place at its mouth."""
    return main.edge_m + max(layout.corner_m - (main.edge_m - main.half_m), 0.0) + 1.6


def clear_stretches(layout: Layout, number: int) -> list[tuple[float, float]]:
    """Stretches of a road without a junction in them."""
    road = layout.roads[number]
    blocked = []
    for other_number, other in enumerate(layout.roads):
        if other_number != number:
            d = np.linalg.norm(road.path.points[:, None] - other.path.points[None, ::2], axis=2).min(axis=1)
            hit = road.path.s[d < other.half_m + layout.corner_m + 1.5]
            blocked += [(float(v) - 0.6, float(v) + 0.6) for v in hit]
    return without([(0.0, road.path.length_m)], blocked)


def without(stretches: list[tuple[float, float]], holes: list[tuple[float, float]]) -> list[tuple[float, float]]:
    for low, high in sorted(holes):
        kept = []
        for a, b in stretches:
            kept += [(a, min(b, low)), (max(a, high), b)] if low < b and high > a else [(a, b)]
        stretches = [(a, b) for a, b in kept if b - a > 0.5]
    return stretches


def _lane_lines(road: Road, clear: list[tuple[float, float]]) -> list[np.ndarray]:
    quads = []
    for a, b in clear:
        dashes = np.arange(a + 1, b - DASH_M, DASH_M + GAP_M)
        quads.append(_strips(road, dashes, dashes + DASH_M, 0.0))
        solid = np.arange(a, b - 1, 4.0)
        if road.lanes > 1:
            for side in (-1, 1):
                quads.append(_strips(road, dashes, dashes + DASH_M, side * road.lane_m))
                quads.append(_strips(road, solid, np.minimum(solid + 4, b), side * (road.lanes * road.lane_m + 0.05)))
    return quads


def _strips(road: Road, start: np.ndarray, end: np.ndarray, n: float, width: float = LINE_M) -> np.ndarray:
    """Quads from `start` to `end` along a road, `width` wide, centred n to the left."""
    right_a, right_b = at(road.path, start, n - width / 2)[0], at(road.path, end, n - width / 2)[0]
    left_a, left_b = at(road.path, start, n + width / 2)[0], at(road.path, end, n + width / 2)[0]
    return np.stack([right_a, right_b, left_b, left_a], 1)


def _strip(road: Road, start: float, end: float, n: float, half: float) -> np.ndarray:
    return _strips(road, np.array([start]), np.array([end]), n, 2 * half)


def _zebra(road: Road, crossing: Crossing) -> np.ndarray:
    low, high = crossing.s_m - crossing.span_m / 2, crossing.s_m + crossing.span_m / 2
    count = int((2 * road.half_m - 0.4) / (2 * crossing.bar_m))
    middle = (np.arange(count) - (count - 1) / 2) * 2 * crossing.bar_m
    return np.concatenate([_strip(road, low, high, float(n), crossing.bar_m / 2) for n in middle])


def _bay_end(area: Area, end: int) -> np.ndarray:
    """The line across one end of a parking bay."""
    along = np.array([np.cos(area.heading), np.sin(area.heading)])
    left = np.array([-along[1], along[0]])
    c = np.array([area.x, area.y]) + end * (area.half_length - 0.06) * along + 0.35 * left
    u, v = 0.05 * along, (area.half_width - 0.5) * left
    return np.stack([c - u - v, c + u - v, c + u + v, c - u + v])[None]


def manholes(layout: Layout, generator: np.random.Generator) -> Float[np.ndarray, "m 10 2"]:
    """Round covers on the carriageways, as ten-sided outlines in plan [m]."""
    angle = np.arange(10) * (2 * np.pi / 10)
    ring = 0.33 * np.stack([np.cos(angle), np.sin(angle)], 1)
    centres = []
    for road in layout.roads:
        s = np.arange(generator.uniform(3, 20), road.path.length_m, generator.uniform(17, 29))
        centres.append(at(road.path, s, generator.uniform(-1, 1, len(s)) * (road.half_m - 1.2))[0])
    return np.concatenate(centres)[:, None] + ring
