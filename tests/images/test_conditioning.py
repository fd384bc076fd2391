"""Control images on a hand-made view: every part's values, the horizon, and the refusals."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.images.conditioning import control_image
from pipeline.images.config import CHANNELS, ControlConfig, conditioning_channels
from pipeline.scene.camera import look_at
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import load_taxonomy
from tests.images.town_view import CAR, CENTRE_V, FOCAL, HEIGHT, ROAD, WIDTH, level_camera, street_view

ALL = ControlConfig(parts=tuple(part for part in CHANNELS if part != "palette"))  # that one: test_palettes.py


def one(part, view=None, **fields):
    """A single part's layers out of all of them, (h, w, c)."""
    first = sum(CHANNELS[other] for other in ALL.parts[: ALL.parts.index(part)])
    control = control_image(view or street_view(), ControlConfig(parts=ALL.parts, **fields))
    return control[first : first + CHANNELS[part]].transpose(1, 2, 0)


def test_stack():
    control = control_image(street_view(), ALL)
    assert control.shape == (9, HEIGHT, WIDTH) == (conditioning_channels(ALL), HEIGHT, WIDTH)
    assert control.dtype == np.float32
    assert control.min() >= 0
    assert control.max() <= 1


def test_order_is_the_recipes():
    there = control_image(street_view(), ControlConfig(parts=("inverse_depth", "edges", "rgb")))
    back = control_image(street_view(), ControlConfig(parts=("rgb", "edges", "inverse_depth")))
    np.testing.assert_array_equal(there, back[[4, 3, 0, 1, 2]])


def test_hits_keep_the_render():
    view = street_view()
    hit = view.depth > 0
    np.testing.assert_allclose(one("rgb")[hit] * 255, view.rgb[hit], atol=1e-4)


def test_depth_values():
    """The car stands at 6 m, the building at 20 m; the sky is infinitely far."""
    inverse, metric = one("inverse_depth", near_m=3.0)[..., 0], one("metric_depth", far_m=50.0)[..., 0]
    assert inverse[10, 6] == pytest.approx(3 / 6)
    assert metric[10, 6] == pytest.approx(6 / 50)
    assert inverse[3, 22] == pytest.approx(3 / 20)
    assert (inverse[0], metric[0]) == (pytest.approx(0), pytest.approx(1))


def test_near_and_far_are_clipped():
    assert one("inverse_depth", near_m=10.0)[10, 6, 0] == 1
    assert one("metric_depth", far_m=5.0)[10, 6, 0] == 1


def test_plain_continues_the_road():
    """Below the horizon a pixel without a hit lies on the plain: height over the plain times focal over rows."""
    metric = one("metric_depth", far_m=100.0)[..., 0] * 100
    for row in (8, 9, 11):
        assert metric[row, 15] == pytest.approx(min(1.73 * FOCAL / (row - CENTRE_V), 100), rel=1e-5)
    assert metric[12, 15] < metric[11, 15] < metric[8, 15]


def test_horizon_follows_the_pose():
    """Level: rows 0..7 are sky. Looking up by 10 degrees moves the border down by focal * tan(10 deg) = 3.5 rows."""
    blank = replace(street_view(), depth=np.zeros((HEIGHT, WIDTH), np.float32))
    up = look_at(np.zeros(3), np.array([1.0, 0, np.tan(np.deg2rad(10))]), np.array([0, 0, 1.0]))
    tilted = replace(blank, camera=replace(level_camera(), camera_from_world=up))
    for view, rows in ((blank, 8), (tilted, 12)):
        config = ControlConfig(parts=("semantics", "edges", "inverse_depth"))
        is_sky = np.isclose(control_image(view, config)[:3, :, 15].T, np.array(config.zenith) / 255).all(1)
        assert is_sky.tolist() == [True] * rows + [False] * (HEIGHT - rows)


def test_sky_and_haze_are_no_void():
    """Brightness: blue rises to the zenith, the plain is hazier with distance."""
    rgb = one("rgb", street_view(building=False)) * 255
    zenith, plain, horizon = np.array([118, 164, 222]), np.array([148, 144, 134]), np.array([222, 230, 238])
    to_zenith = np.abs(rgb[:8, 15] - zenith).sum(1)
    assert (np.diff(to_zenith) > 0).all()
    assert np.abs(rgb[8, 15] - horizon).sum() < np.abs(rgb[8, 15] - plain).sum()
    assert np.abs(rgb[11, 15] - horizon).sum() > np.abs(rgb[11, 15] - plain).sum()


def test_semantics_are_class_colours():
    colours = load_taxonomy("semantic_kitti").color_table()
    semantics = one("semantics") * 255
    np.testing.assert_allclose(semantics[10, 6], colours[CAR], atol=1e-4)
    np.testing.assert_allclose(semantics[15, 20], colours[ROAD], atol=1e-4)


def test_edges_lie_on_outlines():
    edges = one("edges")[..., 0]
    assert set(np.unique(edges)) == {0, 1}
    assert edges[10, 7] == 0  # inside the car
    assert edges[15, 20] == 0  # on the road
    assert edges[10, 3:6].max() == 1  # the car's left side
    assert edges[1:4, 24].max() == 1  # the building's top


def test_specks_are_no_hits():
    view = street_view()
    view.depth[0, 0], view.semantics[0, 0] = 30, CAR
    clean = control_image(street_view(), ALL)
    assert (control_image(view, ALL) != clean).any()
    np.testing.assert_array_equal(control_image(view, ALL.model_copy(update={"speck_px": 5})), clean)


@pytest.mark.parametrize("parts", [("rgb", "inverse_depth"), ("semantics", "metric_depth"), ("rgb", "edges")])
def test_four_channels_are_refused(parts):
    with pytest.raises(ValidationError, match="3, 5 or more channels, found 4"):
        ControlConfig(parts=parts)
    config = ALL.model_copy(update={"parts": parts})  # not validated
    with pytest.raises(InputError, match="found 4"):
        conditioning_channels(config)
    with pytest.raises(InputError, match="found 4"):
        control_image(street_view(), config)


@pytest.mark.parametrize(
    "fields", [{"parts": ()}, {"parts": ("rgb", "rgb")}, {"near_m": 0}, {"edge_low": 9, "edge_high": 8}]
)
def test_bad_configs_are_refused(fields):
    with pytest.raises(ValidationError):
        ControlConfig(**fields)


def test_labels_of_another_taxonomy_are_refused():
    view = street_view()
    view.semantics[10, 6] = 77
    with pytest.raises(InputError, match="labels of semantic_kitti, found 77"):
        control_image(view, ALL)
