"""Plausibility: vehicles on roads and parking and along the lane, people on foot ways, nothing in each other's way."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.town.fields import area_distance, distances
from pipeline.town.geometry import geometry_of, mover_at, parking_areas
from pipeline.town.markings import clear_stretches
from pipeline.town.materials import TAXONOMY
from pipeline.town.plan import Town, plan_town
from pipeline.town.scenery import VEHICLES, build
from pipeline.town.site import Footprint, overlap
from pipeline.town.splits import DISJOINT, SPLITS, TEST, TRAIN, VAL, Ranges
from pipeline.town.things import Thing

MOTORS = ("car", "truck", "bus", "trailer")


def moving_at(town: Town, time_s: float) -> list[Thing]:
    return [thing for m in town.movers if (thing := mover_at(town, m, time_s))]


def all_at(town: Town, time_s: float) -> list[Thing]:
    return [*town.things, *moving_at(town, time_s)]


def footprint(town: Town, thing: Thing) -> Footprint:
    """The rectangle around a vehicle's mesh."""
    points = build(thing, SPLITS[town.split]).vertices
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, (high - low) / 2
    c, s = np.cos(thing.heading), np.sin(thing.heading)
    x, y = thing.x + c * middle[0] - s * middle[1], thing.y + s * middle[0] + c * middle[1]
    return (x, y, thing.heading, float(half[0]), float(half[1]))


def test_parked_motor_vehicles_stand_on_road_or_parking(town: Town) -> None:
    parked = [t for t in town.things if t.kind in MOTORS]
    assert parked
    points = np.array([(t.x, t.y) for t in parked])
    road = distances(town.layout, geometry_of(town).land.segments, points).road
    lot = area_distance(parking_areas(town.areas), points)
    assert (np.minimum(road, lot) < -0.6).all()


def test_wheels_touch_the_ground(town: Town) -> None:
    """The lowest points of a vehicle's four corners are within 5 cm of the ground's surface under them."""
    geometry = geometry_of(town)
    for thing in [t for t in all_at(town, 2.0) if t.kind == "car"][:25]:
        base = float(geometry.base_height(np.array([[thing.x, thing.y]]))[0])
        mesh = geometry._placed(build(thing, SPLITS[town.split]), thing, base)
        for sign in (-1, 1):
            along = (mesh.vertices[:, :2] - (thing.x, thing.y)) @ (np.cos(thing.heading), np.sin(thing.heading))
            half = mesh.vertices[sign * along > 0]
            wheel = half[half[:, 2].argmin()]
            assert abs(wheel[2] - float(geometry.base_height(wheel[None, :2])[0])) < 0.05


def test_moving_vehicles_keep_to_the_right_along_the_lane(town: Town) -> None:
    for time_s in (0.0, 3.0):
        for mover in town.movers:
            if mover.thing.kind == "person":
                continue
            here, soon = mover_at(town, mover, time_s), mover_at(town, mover, time_s + 0.2)
            if here is None or soon is None:
                continue
            step = np.array([soon.x - here.x, soon.y - here.y])
            length = float(np.linalg.norm(step))
            if length > 0.05:
                assert step @ (np.cos(here.heading), np.sin(here.heading)) / length > 0.97
            assert mover.n < 0


def test_moving_vehicles_are_on_carriageways(town: Town) -> None:
    points = np.array([(t.x, t.y) for t in moving_at(town, 1.0) if t.kind != "person"])
    road = distances(town.layout, geometry_of(town).land.segments, points).road
    assert (road < -0.2).all()


@pytest.mark.parametrize("time_s", [0.0, 2.5, 5.0])
def test_no_two_vehicles_intersect(town: Town, time_s: float) -> None:
    route = town.layout.route.points
    vehicles = [t for t in all_at(town, time_s) if t.kind in VEHICLES]
    vehicles = [t for t in vehicles if np.linalg.norm(route - (t.x, t.y), axis=1).min() < 90]
    boxes = [footprint(town, t) for t in vehicles]
    for i, a in enumerate(boxes):
        for j in range(i):
            if overlap((*a[:3], a[3] - 0.03, a[4] - 0.03), boxes[j]):
                pytest.fail(f"{vehicles[i]} and {vehicles[j]} at {time_s} s")


def test_people_keep_off_carriageways_but_on_crossings(town: Town) -> None:
    people = [t for t in all_at(town, 1.5) if t.kind == "person"]
    assert people
    points = np.array([(t.x, t.y) for t in people])
    d = distances(town.layout, geometry_of(town).land.segments, points)
    assert (d.road > 0.1).all()
    squares = area_distance([a for a in town.areas if a.kind == "square"], points)
    assert (np.minimum(d.sidewalk, squares) < 0.3).all()


def test_poles_stand_beside_the_carriageway(town: Town) -> None:
    poles = [t for t in town.things if t.kind in ("lamp", "sign", "traffic_light") and t.size != (1.1,)]
    points = np.array([(t.x, t.y) for t in poles])
    road = distances(town.layout, geometry_of(town).land.segments, points).road
    assert (road > 0.1).all()
    assert (road < 1.0).mean() > 0.8


def test_trunk_is_below_foliage() -> None:
    for split, ranges in SPLITS.items():
        for species in ranges.tree_species:
            for detail in (0, 1, 2):
                tree = build(Thing("tree", 0, 0, 0, 11, (9.0,), species, detail), SPLITS[split])
                z = tree.vertices[tree.triangles].mean(axis=1)[:, 2]
                class_id = np.array([s.class_id for s in tree.skins])[tree.skin]
                trunk, leaf = z[class_id == TAXONOMY.id_of("trunk")], z[class_id == TAXONOMY.id_of("vegetation")]
                assert np.median(trunk) < np.percentile(leaf, 10)
                assert trunk.max() < np.median(leaf)


def test_real_sizes() -> None:
    def extent(thing: Thing) -> np.ndarray:
        points = build(thing, TRAIN).vertices
        return points.max(0) - points.min(0)

    for style in ("hatchback", "sedan", "estate", "suv", "van", "compact"):
        length, width, height = extent(Thing("car", 0, 0, 0, 3, (), style))
        assert 3.4 < length < 5.1
        assert 1.6 < width < 2.4
        assert 1.35 < height < 2.1
    assert 1.5 < extent(Thing("person", 0, 0, 0, 3))[2] < 2.0
    assert 1.6 < extent(Thing("bicycle", 0, 0, 0, 3))[0] < 2.0
    assert 1.5 < extent(Thing("bicyclist", 0, 0, 0, 3))[2] < 2.0
    assert 1.9 < extent(Thing("motorcycle", 0, 0, 0, 3))[0] < 2.4


def _span(ranges: Ranges, name: str) -> object:
    return getattr(ranges, name)


@pytest.mark.parametrize("name", DISJOINT)
@pytest.mark.parametrize(("one", "other"), [(TRAIN, VAL), (TRAIN, TEST), (VAL, TEST)])
def test_splits_show_different_things(name: str, one: Ranges, other: Ranges) -> None:
    a, b = _span(one, name), _span(other, name)
    assert isinstance(a, tuple)
    assert isinstance(b, tuple)
    if len(a) == len(b) == 2 and isinstance(a[0], int | float) and isinstance(b[0], int | float):
        assert a[1] < b[0] or b[1] < a[0]
    else:
        assert not set(a) & set(b)


def test_all_classes_occur() -> None:
    for split in ("train", "val"):
        seen: set[int] = set()
        for seed in range(2):
            town = plan_town(split, seed, 30)  # type: ignore[arg-type]
            one_each = {t.kind: t for t in all_at(town, 0.0)}
            seen |= {s.class_id for t in one_each.values() for s in build(t, SPLITS[town.split]).skins}
        assert {TAXONOMY.id_of(n) for n in TAXONOMY.classes[1:] if n not in GROUND} <= seen


GROUND = ("road", "parking", "sidewalk", "other-ground", "terrain")


def test_clear_stretches_leave_junctions_out(town: Town) -> None:
    for number, road in enumerate(town.layout.roads):
        for a, b in clear_stretches(town.layout, number):
            middle = road.path.points[int((a + b) / 2)]
            for k, other in enumerate(town.layout.roads):
                if k != number:
                    assert np.linalg.norm(other.path.points - middle, axis=1).min() > other.half_m
