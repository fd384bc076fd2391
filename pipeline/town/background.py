"""Behind the first row: more houses, gardens and woods, out to where a camera still sees them."""

from __future__ import annotations

import numpy as np

from pipeline.town.fields import Area
from pipeline.town.plants import SPECIES
from pipeline.town.site import Site

NEAR_M, FAR_M = 110.0, 190.0  # from the route


def fill_background(site: Site) -> None:
    """Houses on a loose grid, then trees: dense where a slow random field says wood, single elsewhere."""
    waves = site.generator.uniform(0, 2 * np.pi, 6)
    houses, _ = _candidates(site, 24.0, NEAR_M, 24.0)
    for x, y in houses:
        if _wood(waves, x, y) < 0.35 and site.chance(0.6):
            width, depth = site.draw(*site.ranges.house_width_m), site.draw(8.5, 11)
            footprint = (x, y, site.draw(0, 2 * np.pi), width / 2, depth / 2)
            if site.is_free((*footprint[:3], width / 2 + 1, depth / 2 + 1)) and site.off_road(footprint, 5):
                c, s = np.cos(footprint[2]), np.sin(footprint[2])
                origin = (x + s * depth / 2, y - c * depth / 2)
                site.put_at("house", footprint, origin, (width, depth, 2), site.pick(site.ranges.house_roofs))
    for x, y in _candidates(site, 38.0, NEAR_M, 26.0)[0]:
        if site.chance(0.45):
            site.areas.append(Area("field", x, y, site.draw(0, np.pi), site.draw(8, 22), site.draw(6, 14)))
    trees, apart = _candidates(site, 6.5, FAR_M, 9.0)
    route = apart
    for (x, y), distance in zip(trees, route, strict=True):
        wood = _wood(waves, x, y)
        likely = 0.75 if distance > 150 else (0.5 if wood > 0.3 else 0.1)
        if distance > NEAR_M:
            likely *= 0.45
        if site.chance(likely):
            footprint = (float(x), float(y), 0.0, 0.6, 0.6)
            if site.is_free(footprint):
                name = site.pick(site.ranges.tree_species)
                site.put("tree", footprint, (site.draw(*SPECIES[name].height_m),), name)


def _wood(waves: np.ndarray, x: float, y: float) -> float:
    return float(np.sin(x / 31 + waves[0]) * np.sin(y / 37 + waves[1]) + 0.5 * np.sin(x / 13 + y / 17 + waves[2]))


def _candidates(site: Site, spacing: float, reach: float, clear_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Jittered points within `reach` of the route and `clear_m` off every sidewalk, and their distance from it."""
    route = site.layout.route.points[::4]
    low, high = route.min(0) - reach, route.max(0) + reach
    x, y = np.meshgrid(np.arange(low[0], high[0], spacing), np.arange(low[1], high[1], spacing), indexing="ij")
    points = np.stack([x, y], -1).reshape(-1, 2)
    points = points + site.generator.uniform(-0.45, 0.45, points.shape) * spacing
    distance = np.concatenate(
        [
            np.sqrt(((p[:, None] - route[None]) ** 2).sum(-1).min(1))
            for p in np.array_split(points, len(points) // 2000 + 1)
        ]
    )
    near = distance < reach
    points, distance = points[near], distance[near]
    keep = np.zeros(len(points), bool)
    for tile in np.unique(np.floor(points / 64), axis=0):
        mine = (np.floor(points / 64) == tile).all(axis=1)
        keep[mine] = site.distances(points[mine]).sidewalk > clear_m
    return points[keep], distance[keep]
