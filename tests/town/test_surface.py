"""The town's surfaces: sound triangles, equal bytes for equal seeds, and the vehicle's pose on the road."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from pipeline.scene.errors import InputError
from pipeline.scene.grid import DEFAULT_GRID
from pipeline.scene.records import Surface
from pipeline.town.geometry import TownGeometry, geometry_of
from pipeline.town.materials import KINDS, TAXONOMY
from pipeline.town.plan import Town, plan_town, route_s
from pipeline.town.surface import SENSOR_HEIGHT_M, frame_time_s, pose, surface_at


def digest(surface: Surface) -> str:
    arrays = (surface.vertices, surface.triangles, surface.class_id, surface.instance, surface.material)
    content = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
    return hashlib.sha256(content + repr(surface.materials).encode()).hexdigest()


def test_same_seed_gives_same_bytes_whatever_was_asked_before() -> None:
    first = digest(surface_at(plan_town("train", 7, 40), 30, radius_m=60))
    geometry_of.cache_clear()
    again = plan_town("train", 7, 40)
    surface_at(again, 0, radius_m=50)
    surface_at(again, 10, radius_m=80)
    assert digest(surface_at(again, 30, radius_m=60)) == first


def test_seeds_splits_and_frames_differ() -> None:
    found = {
        digest(surface_at(plan_town(split, seed, 20), 0, radius_m=25)) for split in ("train", "val") for seed in (1, 2)
    }
    assert len(found) == 4
    town = plan_town("val", 1, 20)
    assert digest(surface_at(town, 0, radius_m=25)) != digest(surface_at(town, 5, radius_m=25))


def test_triangles_are_sound(town: Town) -> None:
    surface = surface_at(town, 0)
    assert np.isfinite(surface.vertices).all()
    assert surface.triangles.min() >= 0
    assert surface.triangles.max() < len(surface.vertices)
    assert len(surface.triangles) == len(surface.class_id) == len(surface.instance) == len(surface.material)
    corner = surface.vertices[surface.triangles]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1) / 2
    assert area.min() > 1e-8
    assert 30_000 < len(surface.triangles) < 400_000
    assert surface.taxonomy is TAXONOMY


def test_materials_are_known_and_vary_within_a_class(town: Town) -> None:
    surface = surface_at(town, 0)
    assert {m.kind for m in surface.materials} <= set(KINDS)
    for name in ("building", "vegetation", "car"):
        used = np.unique(surface.material[surface.class_id == TAXONOMY.id_of(name)])
        assert len({surface.materials[k].albedo for k in used}) > 5


def test_world_extends_past_the_grid(town: Town) -> None:
    points = surface_at(town, 30).vertices
    assert points[:, 0].max() > 100
    assert points[:, 0].min() < -100
    assert points[:, 1].max() > 80
    assert points[:, 1].min() < -80
    assert points[:, 0].max() > DEFAULT_GRID.upper_m[0]


def test_ground_lies_under_every_column(town: Town) -> None:
    """The grid's floor has no holes where nothing stands: each column near the road is filled by ground or building."""
    surface = surface_at(town, 10, radius_m=80)
    names = ("road", "parking", "sidewalk", "other-ground", "terrain", "building")
    flat = np.isin(surface.class_id, [TAXONOMY.id_of(n) for n in names])
    corner = surface.vertices[surface.triangles[flat]]
    w = np.random.default_rng(0).dirichlet((1, 1, 1), (len(corner), 40))
    points = np.einsum("tkc,tcd->tkd", w, corner).reshape(-1, 3)
    cell = np.floor(points[:, :2] / 2.0).astype(int)
    near = (np.abs(cell) < 10).all(axis=1)
    assert len(np.unique(cell[near], axis=0)) == 19 * 19 or len(np.unique(cell[near], axis=0)) > 350


def test_vehicle_stands_on_the_road(town: Town) -> None:
    land = geometry_of(town).land
    for frame in (0, 17, 59):
        world_from_vehicle = pose(town, frame)
        x, y, z = world_from_vehicle[:3, 3]
        assert z - float(land.height(np.array([[x, y]]))[0]) == pytest.approx(SENSOR_HEIGHT_M)
        surface = surface_at(town, frame, radius_m=15)
        corner = surface.vertices[surface.triangles[surface.class_id == TAXONOMY.id_of("road")]]
        middle = corner.mean(axis=1)
        under = np.linalg.norm(middle[:, :2], axis=1) < 2.0
        assert under.any()
        assert np.abs(middle[under, 2] + 1.73).max() < 0.12


def test_poses_are_rigid_and_go_on_smoothly(town: Town) -> None:
    poses = np.stack([pose(town, k) for k in range(town.frames)])
    identity = poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1)
    assert np.abs(identity - np.eye(3)).max() < 1e-9
    step = np.diff(poses[:, :3, 3], axis=0)
    speed = np.linalg.norm(step, axis=1) / 0.1
    assert speed.min() > 3.0
    assert speed.max() < 15.5
    assert np.abs(np.diff(speed)).max() < 0.8
    forward = poses[:-1, :3, 0]
    assert (np.einsum("ij,ij->i", forward, step / np.linalg.norm(step, axis=1, keepdims=True)) > 0.98).all()
    turn = np.arccos(np.clip(np.einsum("ij,ij->i", poses[1:, :3, 0], poses[:-1, :3, 0]), -1, 1))
    assert turn.max() < 0.15


def test_seen_from_another_frame_is_the_same_world(town: Town) -> None:
    own, other = surface_at(town, 20), surface_at(town, 20, seen_from=5)
    change = np.linalg.inv(pose(town, 5)) @ pose(town, 20)
    moved = own.vertices @ change[:3, :3].T + change[:3, 3]
    assert np.abs(moved - other.vertices).max() < 1e-8
    assert np.array_equal(own.class_id, other.class_id)


def test_an_instance_is_one_thing_of_one_class_family(town: Town) -> None:
    surface = surface_at(town, 0)
    cars = surface.instance[surface.class_id == TAXONOMY.id_of("car")]
    assert (cars > 0).all()
    for name in ("road", "terrain", "building"):
        mine = surface.instance[surface.class_id == TAXONOMY.id_of(name)]
        assert not np.intersect1d(np.unique(mine), np.unique(cars)).size


def test_instances_keep_their_number_from_frame_to_frame() -> None:
    town = plan_town("train", 0, 40)
    geometry = geometry_of(town)
    assert isinstance(geometry, TownGeometry)
    first, later = surface_at(town, 0, radius_m=50), surface_at(town, 5, radius_m=50, seen_from=0)
    building = TAXONOMY.id_of("building")
    numbers = np.intersect1d(first.instance[first.class_id == building], later.instance[later.class_id == building])
    assert len(numbers) >= 1
    for number in numbers[:3]:
        a, b = (s.vertices[s.triangles[s.instance == number]].reshape(-1, 3) for s in (first, later))
        if len(a) == len(b):
            assert np.allclose(a, b)


def test_time_and_bad_requests() -> None:
    town = plan_town("train", 0, 40)
    assert frame_time_s(town, 10) == pytest.approx(1.0)
    assert route_s(town, 1.0) > route_s(town, 0.0)
    for bad in (("train", -1, 10), ("train", 0, 0), ("somewhere", 0, 10)):
        with pytest.raises(InputError):
            plan_town(*bad)  # type: ignore[arg-type]


def test_horizon_is_beyond_the_disc_and_only_at_wide_radii() -> None:
    town = plan_town("train", 0, 40)
    narrow, wide = (np.linalg.norm(_middles(surface_at(town, 0, radius_m=r)), axis=1) for r in (60.0, 110.0))
    assert narrow.max() < 61
    assert wide.max() > 200
    assert (np.abs(wide - 110) < 60).any()


def _middles(surface: Surface) -> np.ndarray:
    return surface.vertices[surface.triangles].mean(axis=1)[:, :2]
