"""Where the roads run: a main route of straights, bends and junctions, and the side roads that leave it.

The route is written as a program of letters (splits.Ranges.programs). A route that comes too near itself is drawn
again; side roads are cut off before they reach another road.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from pipeline.scene.seeds import rng
from pipeline.town.paths import Path, eased, path_through
from pipeline.town.splits import SPLITS, Range, Ranges, Split

RUN_IN_M = 140.0  # road behind the first frame and ahead of the last
SIDE_ROAD_M = 165.0
APPROACH_M = 28.0  # straight road on either side of a junction


@dataclass(frozen=True, eq=False)
class Road:
    """A road: two carriageways of `lanes` lanes each along a centreline, verge and sidewalk on both sides.

    parking_m: width of the strip along each kerb where cars are parked on the carriageway, 0 for none.
    """

    path: Path
    lanes: int
    lane_m: float
    parking_m: float
    verge_m: float
    sidewalk_m: float
    start_m: float = 0.0  # where its surface begins along the path; before, it is the road's it leaves

    @property
    def half_m(self) -> float:
        """From the centreline to the kerb [m]."""
        return self.lanes * self.lane_m + self.parking_m + 0.25

    @property
    def edge_m(self) -> float:
        """From the centreline to the back of the sidewalk [m]."""
        return self.half_m + self.verge_m + self.sidewalk_m


@dataclass(frozen=True, eq=False)
class Mouth:
    """A place where `side` starts at `main`'s centreline (side's s = 0, main's s = main_s_m)."""

    main: int
    side: int
    main_s_m: float


@dataclass(frozen=True, eq=False)
class Layout:
    """Roads, the route the vehicle drives (a centreline; it keeps right of it), and the mouths of side roads."""

    roads: tuple[Road, ...]
    route: Path
    mouths: tuple[Mouth, ...]
    corner_m: float


@dataclass
class _Pen:
    """Where drawing stands: points of the `route` and of the current `road`, finished roads, wishes for side roads."""

    xy: Float[np.ndarray, "2"]
    heading: float
    route: list[np.ndarray] = field(default_factory=list)
    road: list[np.ndarray] = field(default_factory=list)
    mains: list[np.ndarray] = field(default_factory=list)
    wishes: list[tuple[int, np.ndarray, float]] = field(default_factory=list)  # main road, start, heading

    def forward(self, length: float, on_route: bool = True) -> None:
        steps = np.linspace(0, length, max(int(length), 1) + 1)[1:, None]
        points = self.xy + steps * _unit(self.heading)
        self._take(points, on_route)

    def arc(self, angle: float, radius: float) -> None:
        turned = np.linspace(0, angle, max(int(abs(angle) * radius), 2) + 1)[1:]
        side = np.sign(angle)
        centre = self.xy + side * radius * _unit(self.heading + np.pi / 2)
        outward = self.heading + turned - side * np.pi / 2
        self._take(centre + radius * np.stack([np.cos(outward), np.sin(outward)], 1), True)
        self.heading += angle

    def _take(self, points: np.ndarray, on_route: bool) -> None:
        self.road.extend(points)
        if on_route:
            self.route.extend(points)
        self.xy = points[-1]


def _unit(heading: float) -> np.ndarray:
    return np.array([np.cos(heading), np.sin(heading)])


def _draw(generator: np.random.Generator, span: Range) -> float:
    return float(generator.uniform(*span))


def make_layout(split: Split, seed: int, travelled_m: float) -> Layout:
    """Roads for a drive of `travelled_m`, with RUN_IN_M to spare at both ends."""
    ranges = SPLITS[split]
    for attempt in range(40):
        generator = rng(seed, f"town/{split}/layout", 0, attempt)
        corner, widths = _draw(generator, ranges.corner_radius_m), _widths(generator, ranges)
        pen = _route(generator, ranges, travelled_m + 2 * RUN_IN_M, corner + _half(widths))
        if _clear_of_itself(np.array(pen.route)):
            break
    else:
        pen = _Pen(np.zeros(2), 0.0, [np.zeros(2)], [np.zeros(2)])
        pen.forward(travelled_m + 2 * RUN_IN_M)
        pen.mains.append(np.array(pen.road))
    roads = [_road(points, widths) for points in pen.mains]
    mouths: list[Mouth] = []
    for main, start, heading in pen.wishes:
        points = _side_road(generator, start, heading, [r.path.points for r in roads])
        if points is not None:
            nearest = int(np.argmin(np.linalg.norm(roads[main].path.points - start, axis=1)))
            mouths.append(Mouth(main, len(roads), float(roads[main].path.s[nearest])))
            road = _road(points, _widths(generator, ranges, side=True))
            roads.append(
                replace(
                    road, start_m=max(road.edge_m - roads[main].edge_m, road.half_m - roads[main].half_m, 0.0) + 0.5
                )
            )
    return Layout(tuple(roads), eased(path_through(np.array(pen.route))), tuple(mouths), corner)


def _route(generator: np.random.Generator, ranges: Ranges, length: float, turn_radius: float) -> _Pen:
    pen = _Pen(np.zeros(2), float(generator.uniform(0, 2 * np.pi)))
    pen.route.append(pen.xy)
    pen.road.append(pen.xy)
    program = str(generator.choice(ranges.programs))
    k = int(generator.integers(len(program)))
    while len(pen.route) < length:
        _piece(pen, program[k % len(program)], generator, ranges, turn_radius)
        k += 1
    pen.mains.append(np.array(pen.road))
    return pen


def _piece(pen: _Pen, letter: str, generator: np.random.Generator, ranges: Ranges, turn_radius: float) -> None:
    side = float(generator.choice([-1, 1]))
    if letter == "s":
        pen.forward(_draw(generator, ranges.straight_m))
    elif letter in "bz":
        angle, radius = np.radians(_draw(generator, ranges.bend_angle_deg)), _draw(generator, ranges.bend_radius_m)
        pen.arc(side * angle, radius)
        if letter == "z":
            pen.forward(_draw(generator, ranges.straight_m) / 4)
            pen.arc(-side * angle, radius)
    elif letter in "xt":
        pen.forward(APPROACH_M)
        across = np.radians(_draw(generator, ranges.junction_angle_deg))
        sides = (across, across - np.pi) if letter == "x" else (across if side > 0 else across - np.pi,)
        pen.wishes += [(len(pen.mains), pen.xy, pen.heading + a) for a in sides]
        pen.forward(APPROACH_M)
    else:
        _turn(pen, generator, ranges, turn_radius, 1.0 if letter == "l" else -1.0)


def _turn(pen: _Pen, generator: np.random.Generator, ranges: Ranges, radius: float, side: float) -> None:
    """Leave the current road for another: the route takes a rounded corner, both roads meet at the corner's point."""
    angle = side * np.radians(_draw(generator, ranges.junction_angle_deg))
    cut = radius * np.tan(abs(angle) / 2)
    pen.forward(APPROACH_M)
    corner, heading = pen.xy.copy(), pen.heading
    del pen.route[-round(cut) :]
    rounded = _Pen(corner - cut * _unit(heading), heading)
    rounded.arc(angle, radius)
    pen.route.extend(rounded.route)
    pen.road.extend(corner + np.arange(1, SIDE_ROAD_M - 30)[:, None] * _unit(heading))
    pen.mains.append(np.array(pen.road))
    pen.heading = heading + angle
    pen.road = [corner - k * _unit(pen.heading) for k in range(60, -1, -1)] if generator.random() < 0.4 else [corner]
    pen.xy = corner
    pen.forward(cut, on_route=False)
    pen.xy = rounded.xy
    pen.forward(APPROACH_M)


def _clear_of_itself(route: np.ndarray, near_m: float = 85.0, apart_m: float = 130.0) -> bool:
    points = route[::6]
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    gap = np.abs(np.subtract.outer(np.arange(len(points)), np.arange(len(points)))) * 6.0
    return not bool((distance[gap > apart_m] < near_m).any())


def _side_road(
    generator: np.random.Generator, start: np.ndarray, heading: float, others: list[np.ndarray]
) -> np.ndarray | None:
    """A side road from `start`, bending gently out of sight; None where another road leaves no room for it."""
    pen = _Pen(start, heading, [start], [start])
    pen.forward(float(generator.uniform(45, 75)))
    pen.arc(float(generator.choice([-1, 1]) * generator.uniform(0.15, 0.5)), float(generator.uniform(60, 110)))
    pen.forward(SIDE_ROAD_M - len(pen.road))
    points = np.array(pen.road)
    obstacles = np.concatenate(others)[::4]
    obstacles = obstacles[np.linalg.norm(obstacles - start, axis=1) > 42]
    if len(obstacles):
        gap = np.linalg.norm(points[:, None] - obstacles[None], axis=2).min(axis=1)
        blocked = np.flatnonzero(gap < 36)
        if len(blocked):
            points = points[: max(int(blocked[0]) - 6, 0)]
    return points if len(points) > 40 else None


def _widths(generator: np.random.Generator, ranges: Ranges, side: bool = False) -> dict[str, float | int]:
    lanes = 2 if not side and generator.random() < 0.12 else 1
    parking = float(generator.choice([0.0, 2.3])) if lanes == 1 else 0.0
    verge = float(generator.choice([0.0, generator.uniform(2.5, 3.3)]))
    return {
        "lanes": lanes,
        "lane_m": _draw(generator, ranges.lane_width_m),
        "parking_m": parking if verge == 0 else 0.0,
        "verge_m": verge,
        "sidewalk_m": _draw(generator, ranges.sidewalk_width_m),
    }


def _half(widths: dict[str, float | int]) -> float:
    return float(widths["lanes"] * widths["lane_m"] + widths["parking_m"] + 0.25)


def _road(points: np.ndarray, widths: dict[str, float | int]) -> Road:
    return Road(
        path_through(points),
        int(widths["lanes"]),
        float(widths["lane_m"]),
        float(widths["parking_m"]),
        float(widths["verge_m"]),
        float(widths["sidewalk_m"]),
    )
