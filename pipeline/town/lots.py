"""What lines the roads: gardens with houses, closed town fronts, greens, halls with their car parks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.town.fields import Area
from pipeline.town.layout import Road
from pipeline.town.paths import at
from pipeline.town.plants import SPECIES
from pipeline.town.site import Footprint, Site
from pipeline.town.vehicles import BODIES

STYLES = ("garden", "garden", "garden", "front", "green", "green", "green", "hall", "hall", "terrace")


@dataclass(frozen=True)
class Side:
    """One side of a road. sign: +1 left, -1 right of its path."""

    road: Road
    sign: int

    def spot(self, s: float, n: float) -> tuple[float, float, float]:
        """x, y [m] and heading [rad] at s along the road and n outward; +y of that frame points away from the road."""
        xy, heading = at(self.road.path, s, self.sign * n)
        return float(xy[0]), float(xy[1]), float(heading) + (0.0 if self.sign > 0 else np.pi)

    def footprint(self, s: float, n: float, half_length: float, half_width: float) -> Footprint:
        x, y, heading = self.spot(s, n)
        return (x, y, heading, half_length, half_width)


def line_roads(site: Site) -> None:
    """Fill both sides of every road, stretch by stretch, each in one style."""
    for road in site.layout.roads:
        for sign in (-1, 1):
            side, s = Side(road, sign), 4.0
            while s < road.path.length_m - 10:
                length = min(site.draw(40, 95), road.path.length_m - s)
                STRETCHES[site.pick(STYLES)](site, side, s, s + length)
                s += length


def _garden(site: Site, side: Side, start: float, end: float) -> None:
    """Detached houses in gardens, fenced."""
    kind, s = site.pick(["fence", "fence", "fence", "hedge", "hedge", "wall", "wall", "open"]), start
    setback = site.draw(3.0, 6.5)
    while s + 12 < end:
        width = site.draw(*site.ranges.house_width_m)
        lot = width + site.draw(4.5, 9)
        if s + lot > end + 4:
            break
        _house_lot(site, side, (s, s + lot), (width, setback), kind)
        s += lot


def _house_lot(site: Site, side: Side, span: tuple[float, float], house: tuple[float, float], kind: str) -> None:
    (s0, s1), (width, setback) = span, house
    depth, storeys = site.draw(8.5, 11.5), 2 if site.chance(0.6) else 1
    gate_at_start = site.chance(0.5)
    middle = s0 + width / 2 + 0.8 + (3.4 if gate_at_start else 0)
    edge = side.road.edge_m
    footprint = side.footprint(middle, edge + setback + depth / 2, width / 2, depth / 2)
    grown = (*footprint[:3], width / 2 + 0.6, depth / 2 + 0.6)
    if not (site.is_free(grown) and site.off_road(grown, min(setback, 2.5) - 1.0)):
        _thicket(site, side, s0, s1, 0.5)
        return
    x, y, _ = side.spot(middle, edge + setback)
    site.put_at("house", footprint, (x, y), (width, depth, storeys), site.pick(site.ranges.house_roofs))
    gate = s0 + 1.9 if gate_at_start else s1 - 1.9
    _drive(site, side, gate, setback)
    _bicycles(site, side, middle, 0.15)
    _frontage(site, side, (s0, s1), gate, middle, kind)
    _garden_plants(site, side, (s0, s1), gate, setback, depth)


def _drive(site: Site, side: Side, s: float, setback: float) -> None:
    """A paved drive to a garage beside the house, with a car on it or not."""
    edge, deep = side.road.edge_m, setback + site.draw(2, 5)
    footprint = side.footprint(s, edge + deep / 2, 1.4, deep / 2)
    if not (site.is_free(footprint) and site.off_road(side.footprint(s, edge + deep / 2 + 0.3, 1.4, deep / 2), 0.0)):
        return
    x, y, heading = side.spot(s, edge + deep / 2 - 0.1)
    site.areas.append(Area("drive", x, y, heading, 1.4, deep / 2 + 0.2))
    site.take(footprint)
    garage = side.footprint(s, edge + deep + 3.0, 1.5, 2.9)
    if site.chance(0.6) and site.is_free(garage):
        gx, gy, _ = side.spot(s, edge + deep + 0.1)
        site.put_at("shed", garage, (gx, gy), (3.0, 5.6, site.draw(2.3, 2.7)))
    if deep > 6.3 and site.chance(0.6):
        n = edge + deep - 2.9
        caravan = site.chance(0.12)
        x, y, heading = side.spot(s, n)
        turned = (x, y, heading + (np.pi / 2 if site.chance(0.5) else -np.pi / 2), 2.4, 0.95)
        if caravan:
            site.put("trailer", turned, (4.3, 2.1, 2.5), "caravan", False)
        else:
            site.put("car", turned, (), site.pick(tuple(BODIES)), False)


def _frontage(site: Site, side: Side, span: tuple[float, float], gate: float, door: float, kind: str) -> None:
    """A fence, wall or hedge along the sidewalk, open at the drive and at the path to the door."""
    if kind == "open":
        return
    n, (s0, s1) = side.road.edge_m + (0.5 if kind == "hedge" else 0.3), span
    holes = sorted([(gate - 1.5, gate + 1.5), (door - 0.6, door + 0.6)])
    stops = [s0, *(v for hole in holes for v in hole), s1]
    height = site.draw(*site.ranges.hedge_height_m) if kind == "hedge" else site.draw(0.95, 1.7)
    style = "wall" if kind == "wall" else site.pick([k for k in site.ranges.fence_kinds if k not in ("wall", "rails")])
    for a, b in zip(stops[0::2], stops[1::2], strict=True):
        if b - a > 1.0:
            run(site, side, (a, b), n, ("hedge", "", height) if kind == "hedge" else ("fence", style, height))


def run(site: Site, side: Side, span: tuple[float, float], n: float, what: tuple[str, str, float]) -> None:
    """A fence or hedge along the road, in pieces that follow its bends; pieces in the way of something are left out."""
    kind, style, height = what
    count = max(int(np.ceil((span[1] - span[0]) / 8.0)), 1)
    stops = np.linspace(span[0], span[1], count + 1)
    for a, b in pairwise(stops):
        (xa, ya, _), (xb, yb, _) = side.spot(a, n), side.spot(b, n)
        straight(site, (xa, ya), (xb, yb), kind, style, height)


def straight(
    site: Site, start: tuple[float, float], end: tuple[float, float], kind: str, style: str, height: float
) -> None:
    """One straight piece of fence or hedge between two points, if nothing is in its way."""
    length, heading = (
        float(np.hypot(end[0] - start[0], end[1] - start[1])),
        float(np.arctan2(end[1] - start[1], end[0] - start[0])),
    )
    thickness = 0.7 if kind == "hedge" else 0.2
    footprint = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, heading, length / 2 - 0.1, thickness / 2)
    if length < 0.8 or not (site.is_free(footprint) and site.off_road(footprint, 0.02)):
        return
    size = (length, thickness, height) if kind == "hedge" else (length, height)
    site.put_at(kind, footprint, start, size, style)


def _garden_plants(
    site: Site, side: Side, span: tuple[float, float], gate: float, setback: float, depth: float
) -> None:
    edge, (s0, s1) = side.road.edge_m, span
    for _ in range(int(site.generator.integers(1, 5))):
        plant(
            site,
            side,
            site.draw(s0 + 1, s1 - 1),
            edge + site.draw(1.0, max(setback - 0.6, 1.2)),
            "shrub",
            site.draw(0.6, 1.8),
        )
    if site.chance(0.8) and setback > 3.5:
        plant(site, side, site.draw(s0 + 2, s1 - 2), edge + setback * 0.5, "tree")
    back = edge + setback + depth
    if site.chance(0.7):
        run(site, side, (s0 + 0.2, s1 - 0.2), back + 7.5, ("fence", site.pick(["mesh", "boards"]), site.draw(1.2, 2.0)))
    for _ in range(int(site.generator.integers(2, 6))):
        plant(site, side, site.draw(s0, s1), back + site.draw(1.5, 10), "tree")
    for end in (s0, s1):
        a, b = side.spot(end, edge + 0.8), side.spot(end, back + 4)
        if site.chance(0.9):
            kind = "hedge" if site.chance(0.35) else "fence"
            style = "" if kind == "hedge" else site.pick(["mesh", "boards"])
            for k in range(3):
                p = tuple(np.array(a[:2]) + (np.array(b[:2]) - a[:2]) * k / 3)
                q = tuple(np.array(a[:2]) + (np.array(b[:2]) - a[:2]) * (k + 1) / 3)
                straight(site, p, q, kind, style, site.draw(1.1, 2.0))


def plant(
    site: Site, side: Side, s: float, n: float, kind: str, height: float = 0.0, species: str = "", crowd: float = 1.0
) -> None:
    """A tree or shrub at (s, n outward), if there is room for it off the sidewalk; `crowd` < 1 lets shrubs touch."""
    room = 0.55 if kind == "tree" else 0.45 * height
    footprint = side.footprint(s, n, crowd * room, crowd * room)
    if not (site.is_free(footprint) and site.off_road(footprint, 0.05)):
        return
    if kind == "tree":
        name = species or site.pick(site.ranges.tree_species)
        site.put("tree", footprint, (site.draw(*SPECIES[name].height_m) * site.draw(0.6, 1.0),), name)
    else:
        site.put("shrub", footprint, (height,))


def _front(site: Site, side: Side, start: float, end: float) -> None:
    """Town houses wall to wall at the back of the sidewalk, shops in some."""
    s, storeys, shops = start, int(site.generator.choice(site.ranges.block_storeys)), site.chance(0.5)
    while s + 9 < end:
        width = min(site.draw(10, 17), end - s)
        depth = site.draw(10, 13)
        footprint = side.footprint(s + width / 2, side.road.edge_m + depth / 2 + 0.05, width / 2 - 0.05, depth / 2)
        if site.is_free(footprint) and site.off_road(footprint, -0.15):
            x, y, _ = side.spot(s + width / 2, side.road.edge_m + 0.05)
            levels = max(storeys + int(site.generator.integers(-1, 2)), 2)
            site.put_at(
                "block", footprint, (x, y), (width, depth, levels), "shop" if shops and site.chance(0.6) else "flats"
            )
            _bicycles(site, side, s + width / 2, 0.6)
        else:
            _thicket(site, side, s, s + width, 0.3)
        s += width + (site.draw(2.5, 4.5) if site.chance(0.15) else 0.0)
    if site.chance(0.35):
        x, y, heading = side.spot((start + end) / 2, side.road.edge_m + 19)
        site.areas.append(Area("square", x, y, heading, (end - start) / 2, 6.0))
    for _ in range(int((end - start) / 9)):
        plant(site, side, site.draw(start, end), side.road.edge_m + site.draw(15, 26), "tree")


def _terrace(site: Site, side: Side, start: float, end: float) -> None:
    """A row of small houses of one kind with little front gardens."""
    width, depth, setback, s = site.draw(6.0, 7.5), site.draw(9, 10.5), site.draw(2.2, 3.6), start + 1
    kind = site.pick(["hedge", "wall", "fence", "fence"])
    while s + width < end:
        n = side.road.edge_m + setback + depth / 2
        footprint = side.footprint(s + width / 2, n, width / 2 - 0.05, depth / 2)
        if site.is_free(footprint) and site.off_road(footprint, 0.8):
            x, y, _ = side.spot(s + width / 2, side.road.edge_m + setback)
            site.put_at("house", footprint, (x, y), (width, depth, 2), "row")
            if kind != "open":
                style = (
                    "wall"
                    if kind == "wall"
                    else site.pick([k for k in site.ranges.fence_kinds if k not in ("wall", "rails")])
                )
                what = ("hedge", "", site.draw(0.7, 1.1)) if kind == "hedge" else ("fence", style, site.draw(0.7, 1.0))
                for a, b in ((s, s + width / 2 - 0.7), (s + width / 2 + 0.7, s + width)):
                    run(site, side, (a, b), side.road.edge_m + (0.5 if kind == "hedge" else 0.3), what)
            if site.chance(0.5):
                plant(site, side, s + 1.2, side.road.edge_m + setback * 0.55, "shrub", site.draw(0.5, 1.2))
        s += width
    for _ in range(int((end - start) / 8)):
        plant(site, side, site.draw(start, end), side.road.edge_m + setback + depth + site.draw(2, 10), "tree")


def _green(site: Site, side: Side, start: float, end: float) -> None:
    """A park, an orchard or the open edge of town."""
    edge, border = side.road.edge_m, site.pick(["hedge", "fence", "fence", "belt", "belt", "none"])
    if border == "hedge":
        run(site, side, (start, end), edge + 0.5, ("hedge", "", site.draw(*site.ranges.hedge_height_m)))
    elif border == "fence":
        style = site.pick(site.ranges.fence_kinds)
        run(site, side, (start, end), edge + 0.4, ("fence", style, site.draw(1.0, 1.9)))
    elif border == "belt":
        _belt(site, side, start, end)
    if site.chance(0.4):
        species = site.pick(site.ranges.tree_species)
        for s in np.arange(start + 2, end, site.draw(*site.ranges.tree_spacing_m)):
            plant(site, side, float(s), edge + 1.9, "tree", 0.0, species)
    _thicket(site, side, start, end, site.draw(0.6, 2.0))


def _belt(site: Site, side: Side, start: float, end: float) -> None:
    """A dense strip of high shrubs, as grows along roads and railways."""
    height, depth = site.draw(1.6, 3.2), int(site.generator.integers(1, 4))
    for row in range(depth):
        for s in np.arange(start + 1, end - 1, 0.75 * height):
            n = side.road.edge_m + 0.55 * height + 0.5 + row * 0.8 * height
            tall = height * site.draw(0.7, 1.2)
            plant(site, side, float(s) + site.draw(-0.3, 0.3), n + site.draw(0, 0.4), "shrub", tall, "", 0.55)


def _thicket(site: Site, side: Side, start: float, end: float, density: float) -> None:
    """Shrubs and trees here and there, `density` to 10 m of road."""
    for _ in range(int((end - start) / 10 * density * 3) + 1):
        plant(site, side, site.draw(start, end), side.road.edge_m + site.draw(1.2, 22), "shrub", site.draw(0.7, 2.6))
    for _ in range(int((end - start) / 10 * density * 2) + 1):
        plant(site, side, site.draw(start, end), side.road.edge_m + site.draw(2, 26), "tree")


def _hall(site: Site, side: Side, start: float, end: float) -> None:
    """A shop or workshop behind a car park, or a paved square with trees."""
    length, edge = end - start, side.road.edge_m
    middle, park = (start + end) / 2, site.draw(11.5, 13.0)
    footprint = side.footprint(middle, edge + park / 2 + 0.3, length / 2 - 1.5, park / 2)
    if length < 30 or not (site.is_free(footprint) and site.off_road(footprint, -0.4)):
        _green(site, side, start, end)
        return
    x, y, heading = side.spot(middle, edge + park / 2)
    width, depth = length - 6, site.draw(12, 20)
    hall = side.footprint(middle, edge + park + 1.5 + depth / 2, width / 2, depth / 2)
    if site.is_free(hall) and site.off_road(hall, 1.0):
        hx, hy, _ = side.spot(middle, edge + park + 1.5)
        site.put_at("hall", hall, (hx, hy), (width, depth, site.draw(4.2, 6.5)), "")
    kind = "parking" if site.chance(0.5) else "square"
    site.areas.append(Area("drive" if kind == "parking" else kind, x, y, heading, length / 2 - 1.5, park / 2 + 0.3))
    if kind == "parking":
        _parked_row(site, footprint, park)
    else:
        _square(site, footprint, park)


def _parked_row(site: Site, footprint: Footprint, deep: float) -> None:
    x, y, heading, half, _ = footprint
    along, out = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
    for u in np.arange(-half + 1.6, half - 1.5, 2.75):
        if site.chance(0.55):
            centre = np.array([x, y]) + u * along + (deep / 2 - 2.8) * out
            nose = heading + (np.pi / 2 if site.chance(0.6) else -np.pi / 2)
            site.put("car", (float(centre[0]), float(centre[1]), nose, 2.4, 1.0), (), site.pick(tuple(BODIES)))


def _square(site: Site, footprint: Footprint, deep: float) -> None:
    x, y, heading, half, _ = footprint
    along, out = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
    for u in np.arange(-half + 4, half - 3, site.draw(*site.ranges.tree_spacing_m)):
        centre = np.array([x, y]) + u * along - site.draw(1.5, 2.5) * out
        spot = (float(centre[0]), float(centre[1]), heading, 0.6, 0.6)
        if site.is_free(spot):
            site.put("tree", spot, (site.draw(5, 8),), site.pick(site.ranges.tree_species))
    for _ in range(int(site.generator.integers(1, 6))):
        centre = np.array([x, y]) + site.draw(-half + 2, half - 2) * along + site.draw(-3, 4) * out
        spot = (float(centre[0]), float(centre[1]), site.draw(0, 6.28), 0.35, 0.35)
        if site.is_free(spot):
            site.put("person", spot)


def _bicycles(site: Site, side: Side, s: float, p: float) -> None:
    """Bicycles, sometimes a motorcycle, parked along a wall."""
    if not site.chance(p):
        return
    for k in range(int(site.generator.integers(1, 4))):
        kind = "bicycle" if site.chance(0.65) else "motorcycle"
        footprint = side.footprint(s + 2.1 * k - 2, side.road.edge_m - 0.38, 1.0, 0.3)
        x, y, heading, _, _ = footprint
        if site.is_free(footprint) and site.distances(np.array([[x, y]])).road[0] > 0.9:
            site.put(kind, (x, y, heading + site.draw(-0.1, 0.1), 1.0, 0.3), (), site.pick(["scooter", "road"]))


STRETCHES = {"garden": _garden, "front": _front, "green": _green, "hall": _hall, "terrace": _terrace}
