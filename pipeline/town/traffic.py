"""Everything that moves, as data, and where it is at an instant.

Vehicles in the vehicle's own lane and oncoming ones obey one time law each, shifted by fixed headways, so they slow for
bends together and never meet. Cyclists and walkers go steadily; walkers turn round at the ends of their stretch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.town.layout import Layout, Road
from pipeline.town.markings import clear_stretches, stop_line_s
from pipeline.town.paths import Path, at, curvature, reversed_path, time_law
from pipeline.town.site import Site
from pipeline.town.things import Thing
from pipeline.town.vehicles import BODIES

MOVING = ("car",) * 9 + ("motorcyclist", "motorcyclist", "truck", "bus")


@dataclass(frozen=True)
class Mover:
    """Something that moves along a way.

    way: "with" (the route), "against" (the route reversed), or "road 3", "road 3 back"; n: metres left of the way;
    law: "flow" (the traffic's time law, `start` seconds ahead), "steady" (from `start` metres at `speed_mps`, held
    within low..high), "pacing" (the same, turning round at low and high).
    """

    thing: Thing
    way: str
    n: float
    law: str
    start: float
    speed_mps: float = 0.0
    low: float = 0.0
    high: float = 1e9


@dataclass(frozen=True, eq=False)
class Flow:
    """The ways and their time laws. with_s: time at each metre of the route [s]; against_s: of the route reversed."""

    route: Path
    back: Path
    with_s: np.ndarray
    against_s: np.ndarray


def make_flow(route: Path, cruise_mps: float) -> Flow:
    back = reversed_path(route)
    return Flow(route, back, time_law(route, cruise_mps), time_law(back, cruise_mps))


def way_of(layout: Layout, flow: Flow, name: str) -> Path:
    if name == "with":
        return flow.route
    if name == "against":
        return flow.back
    road = layout.roads[int(name.split()[1])].path
    return reversed_path(road) if name.endswith("back") else road


def whereabouts(layout: Layout, flow: Flow, mover: Mover, time_s: float) -> tuple[np.ndarray, float, float]:
    """Place in plan (2,) [m], heading [rad] and distance gone [m] of a mover at an instant; see `is_present`."""
    way = way_of(layout, flow, mover.way)
    flip = 0.0
    if mover.law == "flow":
        law = flow.with_s if mover.way == "with" else flow.against_s
        s = float(np.interp(time_s + mover.start, law, way.s, left=-1.0, right=way.length_m + 1.0))
    else:
        s = mover.start + mover.speed_mps * time_s
        if mover.law == "pacing":
            span = mover.high - mover.low
            phase = (s - mover.low) % (2 * span)
            s, flip = (mover.low + phase, 0.0) if phase < span else (mover.low + 2 * span - phase, np.pi)
        else:
            s = min(max(s, mover.low), mover.high)
    xy, heading = at(way, s, mover.n)
    return xy, float(heading) + flip, s


def is_present(layout: Layout, flow: Flow, mover: Mover, gone_m: float) -> bool:
    """Whether a mover is on its way: not before its start, nor past its end."""
    return 0 <= gone_m <= way_of(layout, flow, mover.way).length_m


def make_traffic(site: Site, flow: Flow, main: Road, start_s: float, duration_s: float) -> list[Mover]:
    """All movers of a drive that begins `start_s` metres along the route and lasts `duration_s`."""
    start_time = float(np.interp(start_s, flow.route.s, flow.with_s))
    movers = _stream(site, flow, "with", flow.with_s, main, start_time, duration_s)
    movers += _stream(site, flow, "against", flow.against_s, main, None, duration_s)
    for way in ("with", "against"):
        movers += _cyclists(site, flow, way, main, start_s, duration_s)
    movers += _side_traffic(site)
    return movers + _walkers(site)


def _thing(site: Site, kind: str, size: tuple[float, ...] = (), style: str = "") -> Thing:
    return Thing(kind, 0.0, 0.0, 0.0, int(site.generator.integers(1, 1 << 31)), size, style)


def _vehicle(site: Site, longest_m: float) -> tuple[Thing, float]:
    """A motor vehicle no longer than allowed, and its length [m]."""
    what = site.deal("moving", MOVING)
    if what == "motorcyclist":
        return _thing(site, what, (), site.pick(["scooter", "road"])), 2.2
    if what == "truck":
        length = min(site.draw(5.6, 9.0), longest_m)
        return _thing(site, what, (length, 2.25, site.draw(2.9, 3.5)), site.pick(["box", "tipper"])), length
    if what == "bus":
        size = (site.draw(10.5, 12), 2.4, 3.0) if longest_m > 11 else (site.draw(5.8, 6.2), 2.05, 2.6)
        return _thing(site, what, size), size[0]
    return _thing(site, "car", (), site.pick(tuple(BODIES))), 4.9


def _stream(
    site: Site, flow: Flow, way: str, law: np.ndarray, main: Road, start_time: float | None, duration_s: float
) -> list[Mover]:
    """Vehicles in one lane, by headway; with `start_time` (the driver's own place in the lane) a gap is left there."""
    longest = 12.0 if float(curvature(flow.route).max()) < 1 / 24 else 6.2
    slowest = 4.0
    t = 6.0 if start_time is None else start_time - 21.0
    until = float(law[-1]) - (0.0 if start_time is None else duration_s)
    t = max(t, 1.0) if start_time is not None else t - duration_s
    movers, before = [], 4.9
    own = False
    while t < until:
        vehicle, length = _vehicle(site, longest)
        t += (
            2.0
            + (before + length) / (2 * slowest)
            + float(site.generator.exponential(4.5 if way == "against" else 6.5))
        )
        if start_time is not None and not own and t > start_time - 2.0 - (4.9 + length) / (2 * slowest):
            own, t, before = True, start_time, 4.9
            continue
        inward = 0.0 if vehicle.kind == "car" else 0.15  # broad ones leave cyclists more room
        movers.append(Mover(vehicle, way, inward - main.lane_m * (main.lanes - 0.5), "flow", t))
        before = length
    return movers


def _cyclists(site: Site, flow: Flow, way: str, main: Road, start_s: float, duration_s: float) -> list[Mover]:
    """Cyclists at the right edge of the lane, all at one speed."""
    speed, path = site.draw(3.8, 5.2), flow.route
    n = -(main.lanes * main.lane_m - 0.08)
    starts = np.arange(-duration_s * speed, path.length_m, 1.0)
    s, movers = starts[0] + site.draw(0, 60), []
    while s < path.length_m - 5:
        movers.append(Mover(_thing(site, "bicyclist"), way, n, "steady", float(s), speed, -1e9, 1e9))
        s += 3.5 if site.chance(0.2) else 12 + float(site.generator.exponential(150))
    return movers


def _side_traffic(site: Site) -> list[Mover]:
    """On side roads: one vehicle comes up to the stop line and waits, another drives away."""
    movers, layout = [], site.layout
    for mouth in layout.mouths:
        road, main = layout.roads[mouth.side], layout.roads[mouth.main]
        length, stop = road.path.length_m, stop_line_s(layout, mouth.side, main)
        if length < stop + 30:
            continue
        vehicle, long_m = _vehicle(site, 12.0)
        limit = length - stop - long_m / 2 - 1.0
        n = -road.lane_m * (road.lanes - 0.5)
        movers.append(
            Mover(vehicle, f"road {mouth.side} back", n, "steady", site.draw(0, limit), site.draw(4, 8), 0, limit)
        )
        if site.chance(0.7):
            away, long_m = _vehicle(site, 12.0)
            low = stop + long_m / 2 + 2
            movers.append(
                Mover(away, f"road {mouth.side}", n, "steady", low + site.draw(0, 20), site.draw(4, 8), low, length - 8)
            )
    return movers


def _walkers(site: Site) -> list[Mover]:
    """People on the sidewalks, between junctions."""
    movers = []
    for number, road in enumerate(site.layout.roads):
        for a, b in clear_stretches(site.layout, number):
            if b - a < 14:
                continue
            for sign in (-1, 1):
                inner = road.half_m + road.verge_m + 0.85
                for _ in range(int(site.generator.poisson((b - a) / 85))):
                    n = sign * site.draw(inner, max(inner + 0.01, road.edge_m - 0.9))
                    walker = _thing(site, "person", (site.draw(1.55, 1.9), 1.0))
                    speed = site.draw(0.9, 1.6)
                    movers.append(
                        Mover(
                            walker,
                            f"road {number}",
                            n,
                            "pacing",
                            site.draw(a, b) + (b - a) * int(site.chance(0.5)),
                            speed,
                            a + 2,
                            b - 2,
                        )
                    )
    return movers
