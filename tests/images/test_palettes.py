"""The colours of classes in photographs, measured, completed and kept."""

import numpy as np
import pytest

from pipeline.images.conditioning import control_image, regions
from pipeline.images.config import ControlConfig
from pipeline.images.palettes import NAME, Palettes, mean_colours, whole_palettes
from pipeline.scene.errors import InputError
from tests.images.test_conditioning import street_view

CLASSES = ("empty", "car", "road")
ABSENT = [np.nan] * 3


def test_means_are_those_of_each_regions_pixels() -> None:
    rng = np.random.default_rng(0)
    places, image = rng.integers(0, 3, (6, 5)), rng.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    found = mean_colours(places, image, 4)
    for row in range(3):
        np.testing.assert_allclose(found[row], image[places == row].mean(axis=0))
    assert np.isnan(found[3]).all()


def test_what_a_photograph_lacks_is_the_others_mean_as_much_brighter_as_it_is() -> None:
    dark = [[10.0, 10, 10], [20.0, 30, 40], [50.0, 50, 50], ABSENT]
    light = [[30.0, 30, 30], ABSENT, [70.0, 70, 70], ABSENT]
    found = whole_palettes(CLASSES, [np.array(dark), np.array(light)]).colours
    assert found[0, :3].tolist() == dark[:3]
    assert found[1, [0, 2]].tolist() == [light[0], light[2]]
    assert found[1, 1].tolist() == [30, 40, 50]  # usual (20, 30, 40), and this one is brighter by 10
    usual = np.array([[20.0, 20, 20], [20, 30, 40], [60, 60, 60]]).mean(axis=0)  # of a region that none shows
    np.testing.assert_allclose(found[1, 3], usual + 10, atol=0.51)


def test_a_render_in_a_palettes_colours() -> None:
    view = street_view()
    classes = int(view.semantics.max()) + 1
    palette = np.arange(3 * (classes + 1)).reshape(-1, 3).astype(np.uint8)
    config = ControlConfig(parts=("inverse_depth", "edges", "palette"))
    places = regions(view, config, classes)
    control = control_image(view, config, palette)
    np.testing.assert_allclose(control[2:], palette[places].transpose(2, 0, 1) / 255, atol=1e-6)
    hit = view.depth > 0
    assert (places[hit] == view.semantics[hit]).all()
    assert set(np.unique(places[~hit])) <= {0, classes}
    with pytest.raises(InputError, match="a palette for its part"):
        control_image(view, config)
    with pytest.raises(InputError, match="classes"):
        control_image(view, config, palette[:-1])


def test_written_read_and_drawn_by_seed(tmp_path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (5, 4, 3)).astype(np.uint8)
    Palettes(CLASSES, colours).write(tmp_path)
    found = Palettes.read(tmp_path, CLASSES)
    np.testing.assert_array_equal(found.colours, colours)
    drawn = [found.drawn(seed).tolist() for seed in range(200)]
    assert drawn[7] == found.drawn(7).tolist()
    assert {str(palette) for palette in drawn} == {str(palette) for palette in colours.tolist()}
    with pytest.raises(InputError, match="palettes of 2 classes"):
        Palettes.read(tmp_path, ("empty", "tree"))


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": "occfactory-palettes-1", "classes": ["a"], "colours": [[[1, 2, 300], [0, 0, 0]]]}']
)
def test_damaged_ones_are_told_in_a_line(tmp_path, text) -> None:
    with pytest.raises(InputError, match=r"palettes\.json"):
        Palettes.read(tmp_path, ("a",))
    (tmp_path / NAME).write_text(text)
    with pytest.raises(InputError, match=r"palettes\.json") as fault:
        Palettes.read(tmp_path, ("a",))
    assert "\n" not in str(fault.value)
