"""A town's meshes, made tile by tile when first needed and kept: what stands still, and what moves at an instant.

Tiles are TILE_M squares of the plan. Skins are numbered as they turn up; `surface.py` renumbers them for each Surface,
so a Surface does not depend on which others were asked for before it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int32

from pipeline.scene.seeds import rng
from pipeline.town.fields import Area, Land, area_distance, distances
from pipeline.town.ground import KERB_M, TILE_M, GroundSkins, ground_tile
from pipeline.town.horizon import horizon
from pipeline.town.markings import ABOVE_ROAD_M, manholes, marking_quads
from pipeline.town.materials import Skin, skin, texture_seed, vary
from pipeline.town.plan import Town
from pipeline.town.scenery import DRAPED, TILTED, build
from pipeline.town.shapes import Mesh, mesh, quads, transformed
from pipeline.town.splits import SPLITS, Color
from pipeline.town.things import Thing
from pipeline.town.traffic import Mover, is_present, whereabouts

FAR_TREES = 12  # different meshes of a far tree, a species
STRIDE_M = 1.4  # a walker's double step


@dataclass(frozen=True, eq=False)
class Patch:
    """Triangles in world coordinates. skin: the town's skin number; instance: 0 for the ground."""

    vertices: Float[np.ndarray, "v 3"]
    triangles: Int32[np.ndarray, "t 3"]
    skin: Int32[np.ndarray, "t"]
    instance: Int32[np.ndarray, "t"]


def joined(patches: list[Patch]) -> Patch:
    starts = np.cumsum([0] + [len(p.vertices) for p in patches[:-1]])
    return Patch(
        np.concatenate([p.vertices for p in patches]),
        np.concatenate([p.triangles + np.int32(n) for p, n in zip(patches, starts, strict=True)]),
        np.concatenate([p.skin for p in patches]),
        np.concatenate([p.instance for p in patches]),
    )


class TownGeometry:
    """Meshes of one town, with their caches."""

    def __init__(self, town: Town):
        self.town, self.land = town, Land(town.layout, town.relief)
        self.skins: list[Skin] = []
        self._number: dict[Skin, int] = {}
        self._tiles: dict[tuple[int, int, bool], Patch] = {}
        self._bare: dict[tuple[int, int], Patch] = {}
        self._moving: dict[Thing, Mesh] = {}
        self._shared: dict[Thing, Mesh] = {}
        self._ground = _ground_skins(town)
        self._by_tile = _things_by_tile(town.things)
        self._paint = marking_quads(town.layout, town.crossings, town.areas)
        self._covers = manholes(town.layout, rng(town.seed, f"town/{town.split}/manholes", 0))

    def tile(self, key: tuple[int, int], fine: bool) -> Patch:
        """All that stands still in a tile; not `fine`: as plain as far things are."""
        if (*key, fine) not in self._tiles:
            chosen = self._by_tile.get(key, [])
            parts = [self._bare_tile(key)]
            if chosen:
                base = self.base_height(np.array([(t.x, t.y) for _, t in chosen]))
                for (number, thing), z in zip(chosen, base, strict=True):
                    drawn = thing if fine else replace(thing, detail=0)
                    parts.append(self._patch(self._placed(self._still_mesh(drawn), drawn, float(z)), number))
            self._tiles[*key, fine] = joined(parts)
        return self._tiles[*key, fine]

    def _bare_tile(self, key: tuple[int, int]) -> Patch:
        """A tile's ground and markings."""
        if key not in self._bare:
            ground = self._patch(ground_tile(self.land, self.town.areas, key, self._ground), 0)
            self._bare[key] = joined([ground, *(self._patch(m, 0) for m in self._markings(key))])
        return self._bare[key]

    def moving(self, time_s: float, centre: np.ndarray, radius_m: float) -> list[Patch]:
        """What moves, at an instant, within `radius_m` of `centre`."""
        patches = []
        for k, mover in enumerate(self.town.movers):
            thing = mover_at(self.town, mover, time_s)
            if thing and np.hypot(thing.x - centre[0], thing.y - centre[1]) < radius_m + 8:
                z = float(self.base_height(np.array([[thing.x, thing.y]]))[0])
                placed = self._placed(self._moving_mesh(thing), thing, z)
                patches.append(self._patch(placed, len(self.town.things) + 1 + k))
        return patches

    def beyond(self, centre: np.ndarray, radius_m: float) -> Patch:
        """What closes the view beyond a disc."""
        leaf = skin("vegetation", "foliage", (0.045, 0.08, 0.03), 7)
        return self._patch(horizon(self.land, centre, radius_m, self._ground.land, leaf), 0)

    def base_height(self, xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
        """Height of the ground's surface under points: the carriageway's, or a kerb higher."""
        carriageway = distances(self.town.layout, self.land.segments, xy).road
        bays = [a for a in self.town.areas if a.kind == "parking"]
        low = np.minimum(carriageway, area_distance(bays, xy)) < 0
        islands = area_distance([a for a in self.town.areas if a.kind == "island"], xy) < 0
        return self.land.height(xy) + np.where(low & ~islands, 0.0, KERB_M)

    def _still_mesh(self, thing: Thing) -> Mesh:
        """A thing's own mesh; far trees share a few meshes a species, scaled to their height."""
        if thing.kind != "tree" or thing.detail > 0:
            return build(thing, SPLITS[self.town.split])
        shared = Thing("tree", 0.0, 0.0, 0.0, thing.seed % FAR_TREES, (10.0,), thing.style, 0)
        part = self._shared.get(shared) or build(shared, SPLITS[self.town.split])
        self._shared[shared] = part
        return transformed(part, (0, 0, 0), 0.0, np.full(3, thing.size[0] / 10.0))

    def _moving_mesh(self, thing: Thing) -> Mesh:
        still = replace(thing, x=0.0, y=0.0, heading=0.0)  # walkers differ by their step alone
        if still not in self._moving:
            self._moving[still] = build(still, SPLITS[self.town.split])
        return self._moving[still]

    def _placed(self, part: Mesh, thing: Thing, z: float) -> Mesh:
        placed = transformed(part, (thing.x, thing.y, z), thing.heading)
        if thing.kind in DRAPED:
            lift = self.land.height(placed.vertices[:, :2]) - (z - KERB_M)
        elif thing.kind in TILTED:
            gradient = self.land.slope(np.array([thing.x, thing.y]))
            lift = (placed.vertices[:, :2] - (thing.x, thing.y)) @ np.array(gradient)
        else:
            return placed
        return replace(placed, vertices=placed.vertices + lift[:, None] * np.array([0, 0, 1.0]))

    def _markings(self, key: tuple[int, int]) -> list[Mesh]:
        seed = self.town.seed % 65521 + 1
        parts = []
        for outlines, one_skin in (
            (self._paint, skin("road", "marking", (0.55, 0.55, 0.53), seed)),
            (self._covers, skin("road", "metal", (0.07, 0.068, 0.065), seed)),
        ):
            inside = (np.floor(outlines.mean(axis=1) / TILE_M).astype(int) == key).all(axis=1)
            mine = outlines[inside]
            if len(mine):
                z = self.land.height(mine) + ABOVE_ROAD_M
                points = np.concatenate([mine, z[..., None]], axis=-1)
                parts.append(quads(points, one_skin) if points.shape[1] == 4 else _fans(points, one_skin))
        return parts

    def _patch(self, part: Mesh, instance: int) -> Patch:
        lut = np.array([self._number_of(s) for s in part.skins], np.int32)
        return Patch(part.vertices, part.triangles, lut[part.skin], np.full(len(part.skin), instance, np.int32))

    def _number_of(self, one_skin: Skin) -> int:
        number = self._number.setdefault(one_skin, len(self.skins))
        if number == len(self.skins):
            self.skins.append(one_skin)
        return number


@functools.lru_cache(maxsize=2)
def geometry_of(town: Town) -> TownGeometry:
    """The town's geometry, kept for the two towns used last."""
    return TownGeometry(town)


def mover_at(town: Town, mover: Mover, time_s: float) -> Thing | None:
    """The mover as a thing at its place at an instant, walkers in step; None while it is not on its way."""
    xy, heading, gone = whereabouts(town.layout, town.flow, mover, time_s)
    if not is_present(town.layout, town.flow, mover, gone):
        return None
    thing = replace(mover.thing, x=float(xy[0]), y=float(xy[1]), heading=heading)
    if thing.kind == "person":
        phase = np.round(8 * gone / STRIDE_M) / 8
        thing = replace(thing, size=(thing.size[0], round(float(np.sin(2 * np.pi * phase)), 3)))
    return thing


def _things_by_tile(things: tuple[Thing, ...]) -> dict[tuple[int, int], list[tuple[int, Thing]]]:
    by_tile: dict[tuple[int, int], list[tuple[int, Thing]]] = {}
    for k, thing in enumerate(things):
        key = (int(np.floor(thing.x / TILE_M)), int(np.floor(thing.y / TILE_M)))
        by_tile.setdefault(key, []).append((k + 1, thing))
    return by_tile


def _fans(outlines: np.ndarray, one_skin: Skin) -> Mesh:
    k, n, _ = outlines.shape
    fan = np.stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)], 1)
    return mesh(outlines.reshape(-1, 3), fan[None] + n * np.arange(k)[:, None, None], one_skin)


def _ground_skins(town: Town) -> GroundSkins:
    generator, ranges = rng(town.seed, f"town/{town.split}/ground", 0), SPLITS[town.split]

    def make(class_name: str, kind: str, albedo: Color) -> Skin:
        return skin(class_name, kind, vary(generator, albedo, 0.15), texture_seed(generator))

    paving = ranges.paving[int(generator.integers(len(ranges.paving)))]
    grass: Color = ((0.075, 0.12, 0.028), (0.10, 0.13, 0.035), (0.06, 0.105, 0.03))[int(generator.integers(3))]
    return GroundSkins(
        road=make("road", "asphalt", ranges.asphalt[int(generator.integers(len(ranges.asphalt)))]),
        parking=make("parking", "cobble", (0.15, 0.145, 0.14)),
        kerb=make("sidewalk", "concrete", (0.33, 0.32, 0.31)),
        sidewalk=make("sidewalk", "paving" if generator.random() < 0.7 else "asphalt", paving),
        verge=make("terrain", "grass", grass),
        island=make("other-ground", "cobble", (0.2, 0.19, 0.18)),
        square=make("other-ground", "paving", (0.27, 0.24, 0.2)),
        drive=make("parking", "cobble", (0.2, 0.17, 0.15)),
        field=make("terrain", "soil", ((0.13, 0.09, 0.055), (0.17, 0.13, 0.07), (0.20, 0.17, 0.08))[town.seed % 3]),
        land=make("terrain", "grass", grass),
    )


def parking_areas(areas: tuple[Area, ...]) -> list[Area]:
    """The areas a vehicle may be parked on."""
    return [a for a in areas if a.kind in ("parking", "drive")]
