"""Photographs: shadows where geometry says, the same bytes each time, exposure, sky, every material."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pipeline.scene.camera import Camera, look_at
from pipeline.scene.errors import InputError
from pipeline.scene.records import Material, Surface
from pipeline.scene.taxonomy import load_taxonomy
from pipeline.town.materials import KINDS
from renderers.photo import exposed, photograph
from renderers.photo_conditions import Conditions, at_frame, draw_conditions, kelvin_rgb
from renderers.photo_foliage import first_leaf_or_solid
from renderers.photo_looks import LOOKS
from renderers.photo_noise import fractal, value
from renderers.photo_rays import stage

TAXONOMY = load_taxonomy("semantic_kitti")
CLEAR = Conditions(cloud_cover=0.0, haze_m=1e9)


def surface(*parts: tuple[np.ndarray, np.ndarray, Material]) -> Surface:
    """Parts of (vertices, triangles, material) as one Surface of roads."""
    start = np.cumsum([0] + [len(v) for v, _, _ in parts[:-1]])
    triangles = np.concatenate([t + s for (_, t, _), s in zip(parts, start, strict=True)]).astype(np.int32)
    which = np.concatenate([np.full(len(t), i, np.int32) for i, (_, t, _) in enumerate(parts)])
    return Surface(
        np.concatenate([v for v, _, _ in parts]).astype(float),
        triangles,
        np.full(len(triangles), TAXONOMY.id_of("road"), np.uint8),
        np.zeros(len(triangles), np.int32),
        which,
        tuple(m for _, _, m in parts),
        TAXONOMY,
    )


def floor(size: float, z: float, material: Material) -> tuple[np.ndarray, np.ndarray, Material]:
    corners = size * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) + [0, 0, z]
    return corners, np.array([[0, 1, 2], [0, 2, 3]]), material


def block(low: tuple, high: tuple, material: Material) -> tuple[np.ndarray, np.ndarray, Material]:
    unit = np.array([[x, y, z] for z in (0, 1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))])
    faces = [[0, 2, 1], [0, 3, 2], [4, 5, 6], [4, 6, 7], [0, 1, 5], [0, 5, 4]]
    faces += [[1, 2, 6], [1, 6, 5], [2, 3, 7], [2, 7, 6], [3, 0, 4], [3, 4, 7]]
    return np.array(low) + unit * (np.array(high) - low), np.array(faces), material


def camera(eye: tuple, target: tuple, width: int = 128, height: int = 64, up: tuple = (0, 0, 1)) -> Camera:
    K = np.array([[width * 0.6, 0, width / 2 - 0.5], [0, width * 0.6, height / 2 - 0.5], [0, 0, 1]])
    return Camera(K, look_at(np.array(eye, float), np.array(target, float), np.array(up, float)), width, height)


GREY = Material("plastic", (0.3, 0.3, 0.3))
STREET = surface(
    floor(200, 0.0, Material("asphalt", (0.09, 0.09, 0.09))),
    block((8, 2, 0), (12, 4, 1.4), Material("car_paint", (0.4, 0.02, 0.02), 5)),
    block((14, -6, 0), (24, -4, 7), Material("brick", (0.3, 0.12, 0.08), 9)),
    block((9, -4, 0.2), (11, -2, 2.2), Material("foliage", (0.06, 0.11, 0.03), 2)),
)
AHEAD = camera((0, 0, 1.7), (10, 0, 1.7))


def brightness(radiance: np.ndarray, view: Camera, point: tuple) -> float:
    (u, v), _ = view.project(np.array(point, float))
    i, j = round(float(v)), round(float(u))
    return float(radiance[i - 1 : i + 2, j - 1 : j + 2].mean())


@pytest.mark.parametrize("elevation", [25.0, 50.0])
@pytest.mark.parametrize("azimuth", [0.0, 130.0, 270.0])
def test_a_shadow_is_as_long_as_height_over_tangent(elevation, azimuth):
    height = 2.0
    post = block((-0.5, -0.5, 0), (0.5, 0.5, height), GREY)
    world = stage(surface(floor(60, 0.0, GREY), post))
    light = replace(CLEAR, sun_azimuth_deg=azimuth, sun_elevation_deg=elevation)
    view = camera((0, 0, 10), (0, 0, 0), 160, 160, up=(1, 0, 0))
    radiance = exposed(world, view, light, salt=1)
    away = -np.array([np.cos(np.deg2rad(azimuth)), np.sin(np.deg2rad(azimuth)), 0.0])
    length = height / np.tan(np.deg2rad(elevation))  # behind the block's middle, along its axis or a diagonal
    edge = length + 0.5 * min(1 / max(abs(away[0]), 1e-9), 1 / max(abs(away[1]), 1e-9))
    inside = brightness(radiance, view, tuple(away * (edge - 0.3)))
    outside = brightness(radiance, view, tuple(away * (edge + 0.3)))
    assert outside > 2.0 * inside, (inside, outside)


def test_without_direct_sun_there_is_no_hard_shadow():
    world = stage(surface(floor(60, 0.0, GREY), block((-0.5, -0.5, 0), (0.5, 0.5, 2), GREY)))
    view = camera((0, 0, 30), (0, 0, 0), 160, 160, up=(1, 0, 0))
    radiance = exposed(world, view, replace(CLEAR, cloud_cover=1.0, sun_azimuth_deg=180, sun_elevation_deg=45), salt=1)
    assert brightness(radiance, view, (2.2, 0, 0)) > 0.75 * brightness(radiance, view, (6, 0, 0))


@pytest.mark.parametrize(("width", "height"), [(96, 40), (41, 23)])
def test_shape_and_type(width, height):
    picture = photograph(STREET, camera((0, 0, 1.7), (9, 0, 1), width, height), CLEAR, np.random.default_rng(0))
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10


def test_the_same_inputs_give_the_same_bytes_on_any_number_of_threads():
    import cv2

    def shoot(_: int) -> bytes:
        return photograph(STREET, AHEAD, CLEAR, np.random.default_rng(4)).tobytes()

    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        alone = shoot(0)
        cv2.setNumThreads(4)
        with ThreadPoolExecutor(3) as pool:
            assert set(pool.map(shoot, range(3))) == {alone}
    finally:
        cv2.setNumThreads(before)
    other = photograph(STREET, AHEAD, CLEAR, np.random.default_rng(5)).tobytes()
    assert other != alone  # the sensor's noise is the generator's


def test_sky_is_above_the_horizon_and_bluer_than_the_road():
    picture = photograph(surface(floor(5000, 0, GREY)), AHEAD, replace(CLEAR, vignetting=0.0), np.random.default_rng(0))
    sky, road = picture[18:28].astype(int), picture[-20:].astype(int)
    assert (sky[..., 2] - sky[..., 0]).mean() > (road[..., 2] - road[..., 0]).mean() + 15
    assert sky.mean() > road.mean()


def test_more_exposure_is_brighter_everywhere():
    dark, middle, bright = (
        photograph(STREET, AHEAD, replace(CLEAR, exposure_ev=ev, noise=0.0, jpeg_quality=100), np.random.default_rng(0))
        for ev in (-1.0, 0.0, 1.0)
    )
    assert dark.mean() + 15 < middle.mean() < bright.mean() - 15
    assert (middle.astype(int) - dark >= -6).all()


def test_haze_takes_contrast_from_what_is_far():
    wall = surface(floor(300, 0, GREY), block((80, -40, 0), (81, 0, 30), Material("plaster", (0.02, 0.02, 0.02))))
    world, view = stage(wall), camera((0, 0, 1.7), (80, 0, 6))
    clear, hazy = (
        brightness(exposed(world, view, replace(CLEAR, haze_m=h), 1), view, (80, -15, 8)) for h in (5000, 150)
    )
    assert hazy > 2 * clear


def test_no_class_colour_shows():
    picture = photograph(STREET, AHEAD, CLEAR, np.random.default_rng(0)).reshape(-1, 1, 3).astype(int)
    palette = np.array([TAXONOMY.colors[TAXONOMY.id_of("road")]], int).reshape(1, 1, 3)
    assert (np.abs(picture - palette).max(-1) < 12).mean() < 0.01


@pytest.mark.parametrize("kind", [*KINDS, "a kind from the future"])
def test_every_kind_has_a_look(kind):
    world = stage(surface(floor(3, 0.0, Material(kind, (0.2, 0.3, 0.1), 3))))
    light = replace(CLEAR, sun_elevation_deg=60, sun_azimuth_deg=200)
    radiance = exposed(world, camera((-2, 0, 2), (0.1, 0, 0), 24, 16), light, salt=2)
    assert np.isfinite(radiance).all()
    assert (radiance > 0).all()
    assert 0.01 < radiance.mean() < 1.5
    assert radiance.std(axis=(0, 1)).max() > 1e-4


def test_the_town_s_kinds_are_all_known():
    assert set(KINDS) <= set(LOOKS)


def test_objects_of_one_kind_differ_by_seed():
    one, two = (
        exposed(stage(surface(floor(3, 0.0, Material("plaster", (0.3, 0.3, 0.3), s)))), AHEAD_DOWN, CLEAR, 1)
        for s in (1, 2)
    )
    assert np.abs(one - two).mean() > 1e-3


AHEAD_DOWN = camera((-2, 0, 2), (0.1, 0, 0), 48, 32)


def test_crowns_let_light_through_at_the_rim_and_stop_it_in_the_middle():
    crown = block((-1, -1, -1), (1, 1, 1), Material("foliage", (0.06, 0.11, 0.03), 7))
    world = stage(surface(crown))
    y, z = np.meshgrid(np.linspace(-0.99, 0.99, 80), np.linspace(-0.99, 0.99, 80))
    origins = np.stack([np.full(y.size, -5.0), y.ravel(), z.ravel()], 1)
    forward = np.broadcast_to([1.0, 0, 0], origins.shape)
    hits = first_leaf_or_solid(world, origins, forward, 1e-3)
    assert (hits.triangle >= 0).mean() > 0.5
    assert (hits.depth_m[hits.triangle >= 0] > 0.05).mean() > 0.5  # leaves within, not a painted surface
    slanted = np.array([1.0, 0, 1.0]) / np.sqrt(2)  # near an edge the way through is short
    corner = np.stack([np.full(80, -1.5), np.linspace(-0.9, 0.9, 80), np.full(80, 0.4)], 1)
    rim = first_leaf_or_solid(world, corner, np.broadcast_to(slanted, corner.shape), 1e-3)
    assert (rim.triangle < 0).mean() > (hits.triangle < 0).mean()


def test_solid_things_stop_rays_inside_and_behind_crowns():
    crown = block((0, -1, -1), (2, 1, 1), Material("foliage", (0.06, 0.11, 0.03), 7))
    wall = block((1, -9, -9), (1.1, 9, 9), GREY)
    hits = first_leaf_or_solid(
        stage(surface(crown, wall)), np.array([[-5.0, 0, 0], [-5.0, 3, 0]]), np.array([[1.0, 0, 0]] * 2), 1e-3
    )
    assert hits.distance[0] <= 6 + 1e-5
    assert hits.distance[1] == pytest.approx(6, abs=1e-4)


def test_textures_and_sun_stay_in_the_world_when_the_vehicle_moves():
    c, s = np.cos(0.4), np.sin(0.4)
    world_from_vehicle = np.array([[c, -s, 0, 3.0], [s, c, 0, -1.0], [0, 0, 1, 0.5], [0, 0, 0, 1]])
    vertices = (STREET.vertices - world_from_vehicle[:3, 3]) @ world_from_vehicle[:3, :3]
    moved = replace(AHEAD, camera_from_world=AHEAD.camera_from_world @ world_from_vehicle)
    here = exposed(stage(STREET), AHEAD, CLEAR, 1)
    there = exposed(stage(replace(STREET, vertices=vertices), world_from_vehicle), moved, CLEAR, 1)
    assert np.median(np.abs(here - there)) < 0.01
    assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > 0.97


def test_noise_is_smooth_bounded_and_centred():
    at = np.random.default_rng(0).uniform(-50, 50, (4000, 3))
    values = np.array([value(*p, 3) for p in at])
    assert values.min() >= 0
    assert values.max() <= 1
    assert abs(values.mean() - 0.5) < 0.02
    assert max(abs(value(*p, 3) - value(*(p + 1e-4), 3)) for p in at[:200]) < 2e-3
    assert fractal(0.3, 0.2, 0.1, 0.1, 4, 5.0, 1) == 0.5  # too fine for the footprint: the mean


def test_conditions_vary_between_sequences_and_drift_little_within():
    drawn = [draw_conditions(np.random.default_rng(s)) for s in range(40)]
    assert drawn[3] == draw_conditions(np.random.default_rng(3))
    assert np.ptp([c.sun_azimuth_deg for c in drawn]) > 250
    assert 3 <= sum(c.cloud_cover > 0.8 for c in drawn) <= 18
    steps = [at_frame(drawn[0], f) for f in range(50)]
    assert max(abs(a.exposure_ev - b.exposure_ev) for a, b in pairwise(steps)) < 0.02
    assert all(s.sun_azimuth_deg == drawn[0].sun_azimuth_deg for s in steps)


def test_a_black_body_of_6500_kelvin_is_white_and_a_cooler_one_red():
    np.testing.assert_allclose(kelvin_rgb(6500.0), 1.0, atol=1e-9)
    assert kelvin_rgb(3500.0)[0] > 1.3 > kelvin_rgb(3500.0)[2]


def test_a_surface_without_triangles_is_refused():
    nothing = replace(STREET, **{n: getattr(STREET, n)[:0] for n in ("triangles", "class_id", "instance", "material")})
    with pytest.raises(InputError, match="at least one triangle"):
        photograph(nothing, AHEAD, CLEAR, np.random.default_rng(0))


def test_signs_carry_symbols_in_the_opposite_tone():
    facing = np.array([[0, -0.3, -0.3], [0, 0.3, -0.3], [0, 0.3, 0.3], [0, -0.3, 0.3]]) + np.array([3, 0, 1.7])
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    for tone, darker in ((0.7, True), (0.05, False)):
        plate = (facing, faces, Material("sign_face", (tone,) * 3))
        radiance = exposed(stage(surface(plate, floor(50, 0, GREY))), camera((0, 0, 1.7), (3, 0, 1.7)), CLEAR, 1)
        inside = radiance[25:39, 57:71].mean(-1)
        assert inside.max() > 3 * inside.min()
        assert (np.median(inside) > inside.mean()) == darker


def test_a_wet_road_mirrors_the_sky():
    grey = replace(CLEAR, cloud_cover=1.0)
    road, ahead = (
        stage(surface(floor(500, 0, Material("asphalt", (0.08, 0.08, 0.08))))),
        camera((0, 0, 1.2), (30, 0, 0)),
    )
    dry, wet = (exposed(road, ahead, replace(grey, wetness=w), 1)[34:36].mean() for w in (0.0, 1.0))
    near_dry, near_wet = (
        exposed(road, camera((0, 0, 2), (0.2, 0, 0), 32, 24), replace(grey, wetness=w), 1).mean() for w in (0.0, 1.0)
    )
    assert wet > 1.2 * dry  # at a grazing view
    assert near_wet < 0.9 * near_dry  # from above wet asphalt is darker


def test_a_crown_wound_inwards_is_as_ragged_as_one_wound_outwards():
    vertices, faces, leaves = block((-1, -1, -1), (1, 1, 1), Material("foliage", (0.06, 0.11, 0.03), 7))
    origins = np.stack([np.full(200, -5.0), np.linspace(-0.9, 0.9, 200), np.zeros(200)], 1)
    forward = np.broadcast_to([1.0, 0, 0], origins.shape)
    outward, inward = (
        first_leaf_or_solid(stage(surface((vertices, f, leaves))), origins, forward, 1e-3)
        for f in (faces, faces[:, ::-1])
    )
    np.testing.assert_allclose(outward.distance, inward.distance, atol=1e-4)
