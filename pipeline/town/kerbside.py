"""What stands along kerbs: parked vehicles and bays, lamps, verge trees, signs, traffic lights, crossings, people."""

from __future__ import annotations

import numpy as np

from pipeline.town.fields import Area
from pipeline.town.layout import Mouth
from pipeline.town.lots import Side, plant
from pipeline.town.markings import Crossing, clear_stretches, stop_line_s, without
from pipeline.town.site import Site
from pipeline.town.vehicles import BODIES

BAY_M = (5.8, 2.4)
INTO_ROAD_M = 0.8  # a bay's area reaches this far into the carriageway, which wins; so no sliver is left between them
PARKED = ("car",) * 24 + ("truck", "flatbed", "caravan", "motorcycle", "motorcycle")
SIGNS = ("limit", "no_stop", "priority", "parking", "name", "direction")


def crossings_of(site: Site) -> list[Crossing]:
    """Zebra crossings: at many mouths of side roads, and here and there in between."""
    layout, bar = site.layout, site.draw(*site.ranges.zebra_bar_m)
    found = []
    for mouth in layout.mouths:
        if site.chance(0.5):
            s = stop_line_s(layout, mouth.side, layout.roads[mouth.main]) - 2.3
            if s + 4 < layout.roads[mouth.side].path.length_m:
                found.append(Crossing(mouth.side, s, 3.2, bar))
    for number in range(len(layout.roads)):
        for a, b in clear_stretches(layout, number):
            if b - a > 30 and site.chance(0.45):
                found.append(Crossing(number, site.draw(a + 8, b - 8), site.draw(3.2, 4.2), bar))
    return found


def furnish(site: Site, crossings: list[Crossing]) -> None:
    """Fill the kerbs of every road."""
    for number, road in enumerate(site.layout.roads):
        zebras = [(c.s_m - c.span_m / 2 - 6, c.s_m + c.span_m / 2 + 6) for c in crossings if c.road == number]
        stretches = clear_stretches(site.layout, number)
        open_kerb = without(list(stretches), zebras)
        for sign in (-1, 1):
            side = Side(road, sign)
            for a, b in open_kerb:
                _park(site, side, a + 2, b - 2)
            for a, b in stretches:
                _lamps(site, side, a, b)
                _verge_trees(site, side, a + 2, b - 2)
                _street_signs(site, side, a, b)
                _standing_people(site, side, a, b)
        for crossing in [c for c in crossings if c.road == number]:
            _crossing_signs(site, crossing)
    for mouth in site.layout.mouths:
        _mouth_signs(site, mouth)


def _park(site: Site, side: Side, start: float, end: float) -> None:
    """Vehicles along a kerb: on the carriageway's parking strip, or in bays cut into the verge."""
    road = side.road
    in_bays = road.verge_m > 2.2 and site.chance(0.65)
    if road.parking_m == 0 and not in_bays:
        return
    share, s = site.draw(0.25, 0.8), start
    while s + 7.5 < end:
        if in_bays and site.chance(0.25):
            s += site.draw(6, 14)
            continue
        length = BAY_M[0] if in_bays else site.draw(5.4, 7.0)
        middle = s + length / 2
        n = road.half_m + BAY_M[1] / 2 - 0.06 if in_bays else road.half_m - 1.0
        if in_bays:
            x, y, heading = side.spot(middle, n - INTO_ROAD_M / 2)
            bay = (x, y, heading, length / 2, (BAY_M[1] + INTO_ROAD_M) / 2)
            if not site.is_free(bay):
                s += length
                continue
            site.areas.append(Area("parking", *bay))
            site.take(bay)
        if site.chance(share):
            _parked_vehicle(site, side, middle, n)
        s += length


def _parked_vehicle(site: Site, side: Side, s: float, n: float) -> None:
    x, y, _ = side.spot(s, n)
    heading = _lane_heading(side, s) + (np.pi if site.chance(0.06) else 0.0)
    what = site.deal("parked", PARKED)
    c, u = np.cos(heading), np.sin(heading)
    if what == "truck":
        size = (5.4, 1.95, site.draw(2.5, 2.8))
        site.put("truck", (x, y, heading, 2.75, 0.98), size, site.pick(["box", "tipper"]))
    elif what == "flatbed":
        site.put("trailer", (x - 0.55 * c, y - 0.55 * u, heading, 2.7, 1.0), (3.9, 1.95, site.draw(0.9, 1.2)), what)
    elif what == "caravan":
        site.put("trailer", (x - 0.45 * c, y - 0.45 * u, heading, 2.2, 1.02), (3.8, 2.0, 2.45), what)
    elif what == "motorcycle":
        for k in (-1.1, 1.1):
            spot = (x + k * c, y + k * u, heading + site.draw(0.9, 1.2), 0.9, 0.35)
            site.put("motorcycle", spot, (), site.pick(["scooter", "road"]))
    else:
        site.put("car", (x, y, heading, 2.42, 0.93), (), site.pick(tuple(BODIES)))


def _lane_heading(side: Side, s: float) -> float:
    """The direction of driving on this side of the road: right-hand traffic."""
    heading = side.spot(s, 0.0)[2]
    return heading + np.pi  # a side's frame has the road on its right: traffic there comes the other way


def _lamps(site: Site, side: Side, start: float, end: float) -> None:
    ranges = site.ranges
    height, spacing = site.draw(*ranges.lamp_height_m), site.draw(*ranges.lamp_spacing_m)
    style = "lantern" if height < 5.0 or site.chance(0.2) else "arm"
    offset = 0.0 if side.sign > 0 else spacing / 2
    for s in np.arange(start + 2 + offset, end, spacing):
        footprint = side.footprint(float(s), side.road.half_m + 0.32, 0.12, 0.12)
        if site.is_free(footprint):
            x, y, heading = footprint[:3]
            site.put("lamp", (x, y, heading - np.pi / 2, 0.12, 0.12), (height,), style)
            if site.chance(0.25):
                spot = side.footprint(float(s) + 0.9, side.road.half_m + 0.45, 0.9, 0.28)
                if site.is_free(spot):
                    site.put("bicycle", spot)


def _verge_trees(site: Site, side: Side, start: float, end: float) -> None:
    """Trees of one kind in the verge, in step; on broad sidewalks without one, sometimes."""
    road = side.road
    if road.verge_m < 2 and not site.chance(0.12):
        return
    species = site.pick(site.ranges.tree_species)
    n = road.half_m + (road.verge_m / 2 if road.verge_m > 2 else 0.75)
    for s in np.arange(start + 3, end, site.draw(*site.ranges.tree_spacing_m)):
        footprint = side.footprint(float(s), n, 0.4, 0.4)
        if site.is_free(footprint):
            site.put("tree", footprint, (site.draw(5.5, 9.5),), species)
        elif road.verge_m > 2 and site.chance(0.3):
            plant(site, side, float(s), n, "shrub", 0.7)


def _street_signs(site: Site, side: Side, start: float, end: float) -> None:
    for s in np.arange(start + site.draw(1, 6), end, site.draw(40, 80)):
        _put_sign(site, side, float(s), site.pick(SIGNS))
    if site.chance(0.12):
        for s in np.arange(start + 1, min(start + 14, end), 1.6):
            footprint = side.footprint(float(s), side.road.half_m + 0.3, 0.1, 0.1)
            if site.is_free(footprint):
                site.put("bollard", footprint)


def _put_sign(site: Site, side: Side, s: float, style: str) -> None:
    """A sign beside the kerb that faces the drivers on its side."""
    footprint = side.footprint(s, side.road.half_m + 0.42, 0.1, 0.1)
    if site.is_free(footprint) and site.distances(np.array([footprint[:2]])).road[0] > 0.2:
        x, y, _ = footprint[:3]
        facing = _lane_heading(side, s) + np.pi + site.draw(-0.06, 0.06)
        site.put("sign", (x, y, facing, 0.1, 0.1), (site.draw(2.2, 2.6),), style)


def _crossing_signs(site: Site, crossing: Crossing) -> None:
    road = site.layout.roads[crossing.road]
    for sign in (-1, 1):
        before = crossing.s_m + (crossing.span_m / 2 + 0.8) * sign
        _put_sign(site, Side(road, sign), before, "crossing")


def _mouth_signs(site: Site, mouth: Mouth) -> None:
    """Where a side road ends: a give-way sign or a traffic light at its stop line, and one for the main road."""
    layout = site.layout
    main, side_road = layout.roads[mouth.main], layout.roads[mouth.side]
    stop = stop_line_s(layout, mouth.side, main)
    side = Side(side_road, 1)
    if stop + 8 > side_road.path.length_m:
        return
    if site.chance(0.4):
        _refuge(site, side, stop)
    if site.chance(0.65):
        _put_sign(site, side, stop + 0.3, "yield")
        return
    for place, s in ((side, stop + 0.3), (Side(main, -1), mouth.main_s_m - side_road.edge_m - 3)):
        footprint = place.footprint(s, place.road.half_m + 0.4, 0.15, 0.15)
        if site.is_free(footprint) and site.distances(np.array([footprint[:2]])).road[0] > 0.2:
            x, y, _ = footprint[:3]
            facing = _lane_heading(place, s) + np.pi
            site.put("traffic_light", (x, y, facing, 0.15, 0.15), (), site.pick(["red", "green"]))


def _refuge(site: Site, side: Side, stop: float) -> None:
    """A narrow traffic island in the middle of a side road's mouth, with its sign."""
    x, y, heading = side.spot(stop + 3.0, 0.0)
    site.areas.append(Area("island", x, y, heading, 2.4, 0.36))
    site.put("sign", (x, y, heading, 0.1, 0.1), (1.1,), "limit")


def _standing_people(site: Site, side: Side, start: float, end: float) -> None:
    """People who stand and talk at the back of the sidewalk."""
    for s in np.arange(start, end, 16.0):
        if not site.chance(0.1):
            continue
        for _ in range(int(site.generator.integers(1, 4))):
            where, n = float(s) + site.draw(0, 3), side.road.edge_m - site.draw(0.3, 0.42)
            footprint = side.footprint(where, n, 0.3, 0.25)
            if site.is_free(footprint) and where < end:
                x, y, heading = footprint[:3]
                site.put("person", (x, y, heading + site.draw(-np.pi, 0), 0.3, 0.25))
