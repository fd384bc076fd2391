"""Images of a root's frames drawn and scored from the command line."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flows import image_cli
from flows.image_samples import Samples, evenly, sample_images, samples_recipe
from flows.image_scores import check_folder
from pipeline.datasets.image_files import read_image
from pipeline.scene.errors import InputError
from tests.flows.toy_images import toy_images

FEW = ("--frames", "2", "--set", "synthesis.steps=2")


def run(*words) -> str:
    app = typer.Typer()
    image_cli.register(app)
    result = CliRunner().invoke(app, ["images", *(str(word) for word in words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    toy, out = toy_images(), tmp_path_factory.mktemp("drawn") / "out"
    run("sample", toy.weights, toy.root, "--out", out, "--images", "2", "--words", "weather", *FEW)
    return out


def test_images_with_all_that_judging_needs(drawn):
    table = json.loads((drawn / "samples.json").read_text())
    assert sorted(table["images"]) == ["08_000000_0", "08_000000_1", "08_000005_0", "08_000005_1"]
    one, two = table["images"]["08_000000_0"], table["images"]["08_000000_1"]
    assert one["seed"] != two["seed"]
    assert one["prompt"].rpartition(",")[0] == two["prompt"].rpartition(",")[0]
    assert (drawn / "images" / "08_000000_0.png").read_bytes() != (drawn / "images" / "08_000000_1.png").read_bytes()
    assert read_image(drawn / "rows.png").shape == (2 * 20, 4 * 36, 3)
    judged = Samples(drawn)
    assert (len(judged), judged.taxonomy) == (2, "semantic_kitti")
    assert [len(judged[0].images[kind]) for kind in ("photograph", "reconstruction", "generated")] == [1, 1, 2]
    assert str(toy_images().root) not in json.dumps(table)


def test_an_image_depends_on_its_seed_and_frame(drawn, tmp_path):
    toy = toy_images()
    recipe = samples_recipe(toy.weights, toy.root, "val", frames=None, synthesis={"steps": 2, "batch_size": 3})
    sample_images(recipe, tmp_path / "all")
    other = recipe.model_copy(update={"seed": 1, "frames": 1})
    sample_images(other, tmp_path / "other")
    first = read_image(tmp_path / "all" / "images" / "08_000000_0.png").astype(int)
    assert np.abs(first - read_image(tmp_path / "other" / "images" / "08_000000_0.png")).max() > 2


def test_scores_beside_ceiling_and_floor(drawn, tmp_path):
    toy = toy_images()
    text = run("check", drawn, "--critic", toy.critic, "--out", tmp_path / "scores.json")
    found = json.loads((tmp_path / "scores.json").read_text())
    assert set(found) == {"photograph", "generated", "reconstruction", "render", "shuffled"}
    assert found["generated"]["images"] == found["shuffled"]["images"] == 4
    assert found["generated"] != found["shuffled"]
    assert found["photograph"]["miou"] != found["reconstruction"]["miou"]
    assert "photograph" in text
    assert "accepted" in text


def test_a_data_sets_own_images_are_scored():
    toy = toy_images()
    found = check_folder(toy.root, toy.critic, "val", frames=4)
    assert set(found) == {"photograph", "render", "shuffled"}
    assert found["photograph"]["images"] == 4


def test_frames_are_even():
    assert evenly(10, 4) == [0, 2, 5, 7]
    assert evenly(3, None) == evenly(3, 9) == [0, 1, 2]


def test_faults(drawn, tmp_path):
    toy = toy_images()
    with pytest.raises(InputError, match="new or empty folder"):
        sample_images(samples_recipe(toy.weights, toy.root, "val"), drawn)
    with pytest.raises(InputError, match="a card that tells the images' size"):
        samples_recipe(tmp_path, toy.root, "val")
    with pytest.raises(InputError, match="image width: expected a multiple of 4 px, found 34"):
        sample_images(samples_recipe(toy.weights, toy.root, "val", pairs={"width_px": 34}), tmp_path / "out")
    (tmp_path / "samples.json").write_text("{}")
    with pytest.raises(InputError, match="images sample"):
        check_folder(tmp_path, toy.critic)
