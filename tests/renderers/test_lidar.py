"""The simulated lidar against closed forms: ground plane, wall, noise, drop-outs, rolling shutter, seeds."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.scene.errors import InputError
from pipeline.scene.records import Material, Surface
from pipeline.scene.taxonomy import load_taxonomy
from renderers.lidar import Lidar, Motion, beam_directions, hdl64e, scan
from renderers.meshes import SurfaceCaster

TAXONOMY = load_taxonomy("semantic_kitti")
ROAD, BUILDING = TAXONOMY.id_of("road"), TAXONOMY.id_of("building")
# Sees everything, exactly: geometry alone.
PERFECT = Lidar(
    elevations_deg=(2.0, -1.0, -5.0, -24.9),
    azimuth_offsets_deg=(0.0,) * 4,
    columns=360,
    noise_m=0.0,
    reach_m=1e6,
    flicker=0.0,
    glass_loss=0.0,
    stray_loss=0.0,
)


def caster_of(quads, kinds):
    """Rectangles (origin, edge, edge, class, instance), one material each."""
    vertices, triangles, classes, instances = [], [], [], []
    for n, (origin, first, second, class_id, instance) in enumerate(quads):
        a, b, c = np.array(origin, float), np.array(first, float), np.array(second, float)
        vertices += [a, a + b, a + b + c, a + c]
        triangles += [[4 * n, 4 * n + 1, 4 * n + 2], [4 * n, 4 * n + 2, 4 * n + 3]]
        classes += [class_id] * 2
        instances += [instance] * 2
    material = np.repeat(np.arange(len(quads), dtype=np.int32), 2)
    materials = tuple(Material(kind, (0.5, 0.5, 0.5)) for kind in kinds)
    return SurfaceCaster(
        Surface(
            np.array(vertices), np.array(triangles, np.int32), np.array(classes, np.uint8),
            np.array(instances, np.int32), material, materials, TAXONOMY,
        )
    )  # fmt: skip


GROUND = ((-200, -200, -1.73), (400, 0, 0), (0, 400, 0), ROAD, 0)
WALL = ((10, -50, -1.73), (0, 100, 0), (0, 0, 6), BUILDING, 7)


@pytest.fixture(scope="module")
def ground():
    return caster_of([GROUND], ["plaster"])


@pytest.fixture(scope="module")
def wall():
    return caster_of([WALL], ["plaster"])


def still(caster, lidar, seed=0, **options):
    return scan(caster, lidar, np.eye(4), np.random.default_rng(seed), **options)


def test_flat_ground_is_hit_where_trigonometry_says(ground):
    cloud = still(ground, PERFECT)
    distance = np.linalg.norm(cloud.points[:, :3], axis=1)
    for beam, elevation in enumerate(PERFECT.elevations_deg):
        seen = distance[cloud.beam == beam]
        expected = 1.73 / np.sin(np.radians(-elevation)) if elevation < 0 else np.inf
        assert len(seen) == (360 if expected < 120 else 0)
        np.testing.assert_allclose(seen, expected, atol=2e-3)
    np.testing.assert_allclose(cloud.points[:, 2], -1.73, atol=1e-4)
    assert (cloud.class_id == ROAD).all()


def test_a_wall_is_hit_at_its_plane_with_its_class_and_instance(wall):
    cloud = still(wall, PERFECT)
    np.testing.assert_allclose(cloud.points[:, 0], 10, atol=1e-4)
    assert (cloud.class_id == BUILDING).all()
    assert (cloud.instance == 7).all()
    assert cloud.points[:, 1].max() > 20
    assert cloud.points[:, 1].min() < -20


def test_points_lie_in_the_sensors_frame(wall):
    pose = np.eye(4)
    pose[:2, :2], pose[:3, 3] = [[0, -1], [1, 0]], (4, 3, 0.5)  # turned left by 90 degrees: the wall is on the right
    cloud = scan(wall, PERFECT, pose, np.random.default_rng(0))
    np.testing.assert_allclose(cloud.points[:, 1], -6, atol=1e-4)


def test_beams_and_columns_of_the_sensor():
    lidar = hdl64e(np.random.default_rng(0))
    directions = beam_directions(lidar)
    assert directions.shape == (64, 2083, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1)
    elevation = np.degrees(np.arcsin(directions[:, 0, 2]))
    assert elevation.min() >= -24.9 - 1e-9
    assert elevation.max() <= 2 + 1e-9
    gaps = -np.diff(elevation)
    assert 0.2 < np.median(gaps[:31]) < 0.45
    assert 0.4 < np.median(gaps[32:]) < 0.65
    azimuth = np.unwrap(np.arctan2(directions[0, :, 1], directions[0, :, 0]))
    np.testing.assert_allclose(-np.degrees(np.diff(azimuth)), 0.1728, atol=1e-4)
    assert abs(azimuth[1041]) < 0.01  # the middle of the turn looks forward
    assert hdl64e(np.random.default_rng(0)) == lidar != hdl64e(np.random.default_rng(1))


def test_a_full_turn_has_as_many_points_as_a_real_one():
    room = [GROUND, WALL, ((-10, -50, -1.73), (0, 100, 0), (0, 0, 6), BUILDING, 8)]
    cloud = still(caster_of(room, ["asphalt", "plaster", "brick"]), hdl64e(np.random.default_rng(3)))
    assert 100_000 < len(cloud.points) < 130_000
    assert cloud.points.dtype == np.float32
    assert len(np.unique(cloud.beam)) == 64


def test_range_noise_has_its_spread_along_the_ray(wall):
    lidar = replace(PERFECT, noise_m=0.02)
    exact, noisy = still(wall, PERFECT), still(wall, lidar)
    error = np.linalg.norm(noisy.points[:, :3], axis=1) - np.linalg.norm(exact.points[:, :3], axis=1)
    assert len(error) > 300
    assert abs(error.mean()) < 4 * 0.02 / np.sqrt(len(error))
    assert 0.017 < error.std() < 0.023
    np.testing.assert_allclose(
        np.cross(noisy.points[:, :3], exact.points[:, :3]), 0, atol=1e-3
    )  # noise moves a point along its ray only


def test_seeds_fix_every_point_and_the_world_elsewhere_changes_none(ground, wall):
    lidar = hdl64e(np.random.default_rng(0))
    first, again, other = still(ground, lidar), still(ground, lidar), still(ground, lidar, seed=1)
    np.testing.assert_array_equal(first.points, again.points)
    assert len(other.points) != len(first.points) or (other.points != first.points).any()
    both = still(caster_of([GROUND, WALL], ["plaster", "plaster"]), lidar)
    behind_first, behind_both = (c.points[c.points[:, 0] < -1] for c in (first, both))
    np.testing.assert_allclose(behind_first, behind_both, atol=1e-4)


def test_glass_far_and_grazing_surfaces_return_less(wall):
    lidar = replace(hdl64e(np.random.default_rng(0)), columns=1000)
    glass = still(caster_of([WALL], ["glass"]), lidar)
    assert len(glass.points) < 0.3 * len(still(wall, lidar).points)
    road = still(caster_of([GROUND], ["asphalt"]), lidar)
    distance = np.linalg.norm(road.points[:, :3], axis=1)
    assert distance.max() < 60
    assert np.percentile(distance, 99) > 15
    assert (
        still(caster_of([GROUND], ["sign_face"]), lidar).points[:, 0].max() > 70
    )  # retroreflecting paint is seen far off


def test_intensity_is_reflectance_in_steps_of_a_hundredth(ground):
    cloud = still(ground, PERFECT)
    assert 0 <= cloud.points[:, 3].min() <= cloud.points[:, 3].max() <= 0.99
    np.testing.assert_allclose(cloud.points[:, 3] * 100, np.round(cloud.points[:, 3] * 100), atol=1e-3)
    steep, grazing = cloud.points[cloud.beam == 3, 3].mean(), cloud.points[cloud.beam == 1, 3].mean()
    assert steep > 2 * grazing


def test_rolling_shutter_is_undone_when_compensated_and_there_when_not(wall):
    motion = Motion((10.0, 0.0, 0.0), yaw_rate_rps=0.5)
    compensated = still(wall, PERFECT, motion=motion)
    np.testing.assert_allclose(compensated.points[:, 0], 10, atol=1e-3)
    measured = still(wall, PERFECT, motion=Motion((10.0, 0.0, 0.0)), compensated=False)
    # Driving at 10 m/s, the sensor is 0.1 s * 10 m/s * share of the turn nearer to the wall than at the middle.
    azimuth = np.degrees(np.arctan2(measured.points[:, 1], measured.points[:, 0]))
    np.testing.assert_allclose(measured.points[:, 0], 10 + azimuth / 360, atol=1e-3)


def test_nothing_in_sight_gives_an_empty_scan(wall):
    pose = np.eye(4)
    pose[0, 3] = 1000
    cloud = scan(wall, PERFECT, pose, np.random.default_rng(0))
    assert cloud.points.shape == (0, 4)


def test_a_sensor_is_checked():
    with pytest.raises(InputError, match="Lidar"):
        Lidar((1.0, 2.0), (0.0,))
