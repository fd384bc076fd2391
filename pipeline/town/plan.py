"""A planned sequence of the embedded world: pure data, from which geometry and poses follow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.scene.errors import InputError
from pipeline.scene.seeds import rng
from pipeline.town.background import fill_background
from pipeline.town.fields import Area, Relief, make_relief
from pipeline.town.kerbside import crossings_of, furnish
from pipeline.town.layout import RUN_IN_M, Layout, Road, make_layout
from pipeline.town.lots import line_roads
from pipeline.town.markings import Crossing
from pipeline.town.site import Site
from pipeline.town.splits import SPLITS, Split
from pipeline.town.things import Thing
from pipeline.town.traffic import Flow, Mover, make_flow, make_traffic

SCAN_PERIOD_S = 0.1


@dataclass(frozen=True)
class Town:
    """A planned sequence. Two towns of equal split, seed and frames are equal: all else follows from these.

    start_s_m: where along the route the first frame is; lane_n_m: how far left of the route's line the vehicle drives
    (negative: right).
    """

    split: Split
    seed: int
    frames: int
    layout: Layout = field(compare=False, repr=False)
    relief: Relief = field(compare=False, repr=False)
    flow: Flow = field(compare=False, repr=False)
    start_s_m: float = field(compare=False)
    lane_n_m: float = field(compare=False)
    things: tuple[Thing, ...] = field(compare=False, repr=False)
    areas: tuple[Area, ...] = field(compare=False, repr=False)
    crossings: tuple[Crossing, ...] = field(compare=False, repr=False)
    movers: tuple[Mover, ...] = field(compare=False, repr=False)


def plan_town(split: Split, seed: int, frames: int = 100) -> Town:
    """Plan a sequence of `frames` scans, 0.1 s apart; the same arguments give the same plan. Raises InputError."""
    if split not in SPLITS or seed < 0 or frames < 1:
        raise InputError("town", "split train, val or test, seed >= 0, frames >= 1", f"{split!r}, {seed}, {frames}")
    ranges, generator = SPLITS[split], rng(seed, f"town/{split}/plan", 0)
    cruise, duration = float(generator.uniform(7.5, 12.5)), frames * SCAN_PERIOD_S
    layout = make_layout(split, seed, cruise * duration)
    site = Site(layout, ranges, generator)
    relief = make_relief(generator, float(generator.uniform(*ranges.relief_slope)))
    crossings = crossings_of(site)
    furnish(site, crossings)
    line_roads(site)
    fill_background(site)
    flow, start, main = make_flow(layout.route, cruise), RUN_IN_M + float(generator.uniform(-10, 5)), layout.roads[0]
    movers = make_traffic(site, flow, main, start, duration)
    lane = -main.lane_m * (main.lanes - 0.5)
    return Town(
        split, seed, frames, layout, relief, flow, start, lane,
        tuple(site.things), tuple(site.areas), tuple(crossings), tuple(movers),
    )  # fmt: skip


def route_s(town: Town, time_s: float) -> float:
    """How far along the route the vehicle is at an instant [m]."""
    begin = float(np.interp(town.start_s_m, town.flow.route.s, town.flow.with_s))
    return float(np.interp(begin + time_s, town.flow.with_s, town.flow.route.s))


def main_road(town: Town) -> Road:
    return town.layout.roads[0]
