"""Pairs of photographs and renders of a root; their cache; a critic trained on them from the command line."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flows import image_cli, image_pairs
from flows.image_critic import Splits, train_critic
from flows.image_pairs import ImagePairs, PairsConfig
from flows.recipes import SplitSource
from pipeline.datasets.image_files import read_image
from pipeline.datasets.semantic_kitti import image_path
from pipeline.images.conditioning import control_image
from pipeline.images.config import ControlConfig
from pipeline.images.critic import Critic
from pipeline.images.fidelity import read_thresholds
from pipeline.images.prompts import PromptConfig
from pipeline.scene.errors import InputError
from renderers.shading import render
from tests.flows.street_root import HEIGHT, WIDTH, street, street_camera, write_street_root

NATIVE = PairsConfig(width_px=WIDTH, height_px=HEIGHT)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_street_root(tmp_path_factory.mktemp("street") / "root", train=6, val=10)


def pairs(root, config=NATIVE, cache=None, split="train"):
    return ImagePairs(SplitSource(root=root, split=split), config, cache)


def test_pair_is_photograph_and_render(root):
    found = pairs(root)
    assert len(found) == 6
    for index in (0, 5):
        pair, view = found[index], render(street(index), found.camera(index))
        np.testing.assert_array_equal(pair["image"], read_image(image_path(found.root, "00", f"{index:06d}")))
        np.testing.assert_array_equal(pair["control"], control_image(view, ControlConfig()))
        np.testing.assert_array_equal(pair["labels"], view.semantics)
        np.testing.assert_array_equal(pair["depth"], view.depth)
        assert pair["prompt"].startswith("a traffic scene with: road")
    np.testing.assert_allclose(found.camera(0).K, street_camera().K)


def test_pairs_held_in_memory_are_the_same_up_to_a_limit(root, tmp_path, monkeypatch):
    whole = 40 * 20 * (3 + 4 + 1 + 12 + 5 * 4)  # a view of WIDTH x HEIGHT and its control image [bytes]
    monkeypatch.setattr(image_pairs, "KEPT_BYTES", 2 * whole)
    held = ImagePairs(SplitSource(root=root, split="train"), NATIVE, tmp_path, keep=True)
    first = [held[index] for index in range(4)]
    assert sorted(held.kept) == [0, 1]
    made = []
    monkeypatch.setattr(image_pairs, "control_image", lambda *of: made.append(of) or control_image(*of))
    for index, expected in enumerate(first):
        found = held[index]
        assert all(np.array_equal(found[name], expected[name]) for name in ("image", "control", "labels", "depth"))
        assert found["prompt"] == expected["prompt"]
    assert len(made) == 2  # of the two that found no room


def test_a_control_image_in_the_photographs_own_colours(root):
    config = PairsConfig(width_px=WIDTH, height_px=HEIGHT, control=ControlConfig(parts=("rgb", "palette")))
    found = pairs(root, config)
    pair = found[2]
    assert found.palettes.colours.shape == (6, len(found.taxonomy.classes) + 1, 3)
    assert found.palettes.classes == found.taxonomy.classes
    for label in np.unique(pair["labels"][found.view(2).depth > 0]):
        place = (pair["labels"] == label) & (found.view(2).depth > 0)
        colour = np.round(pair["image"][place].mean(axis=0)) / 255
        np.testing.assert_allclose(pair["control"][3:, place].T, np.broadcast_to(colour, (place.sum(), 3)), atol=1e-6)


def test_scaled_pairs_fit_each_other(root):
    found = pairs(root, PairsConfig(width_px=80, height_px=40))
    pair = found[0]
    assert pair["image"].shape == (40, 80, 3)
    assert pair["control"].shape == (5, 40, 80)
    np.testing.assert_allclose(found.camera(0).K[:2, 2], [39.5, 19.5])  # edges, not centres, are scaled
    np.testing.assert_array_equal(pair["labels"], render(street(0), street_camera().resized(80, 40)).semantics)


def test_padded_pairs_keep_the_native_raster(root):
    padded, native = pairs(root, PairsConfig(width_px=48, height_px=32, fit="pad"))[0], pairs(root)[0]
    for name in ("image", "labels", "depth"):
        np.testing.assert_array_equal(padded[name][:HEIGHT, :WIDTH], native[name])
    assert padded["image"].shape == (32, 48, 3)
    assert (padded["labels"][HEIGHT:, :WIDTH] > 0).any()  # more road, not a void
    with pytest.raises(InputError, match=r"000000\.png: expected at most 32x32 px, to be padded, found 40x20"):
        pairs(root, PairsConfig(width_px=32, height_px=32, fit="pad"))[0]


def test_renders_are_kept_by_digest(root, tmp_path, monkeypatch):
    found = pairs(root, cache=tmp_path)
    first = found[0]
    files = list(tmp_path.glob("*.npz"))
    assert len(files) == 1
    monkeypatch.setattr(ImagePairs, "_render", lambda *_: pytest.fail("rendered again"))
    again = pairs(root, cache=tmp_path)[0]
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)


@pytest.mark.parametrize("cut", [0, 100, 1000])
def test_damaged_renders_are_made_again(root, tmp_path, cut):
    found = pairs(root, cache=tmp_path)
    first, path = found[0], next(tmp_path.glob("*.npz"))
    path.write_bytes(path.read_bytes()[:cut])
    np.testing.assert_array_equal(found[0]["control"], first["control"])
    assert path.stat().st_size > 1000


def test_digest_follows_what_is_learned(tmp_path):
    root = write_street_root(tmp_path / "root", train=2)
    before, cache = pairs(root).digest(), tmp_path / "renders"
    pairs(root, cache=cache)[0]
    assert before == pairs(root).digest()
    assert before != pairs(root, NATIVE.model_copy(update={"seed": 1})).digest()
    image = root / "sequences" / "00" / "image_2" / "000000.png"
    image.write_bytes((image.parent / "000001.png").read_bytes())
    assert before != (other := pairs(root).digest())
    label = root / "sequences" / "00" / "voxels" / "000000.label"
    label.write_bytes(label.with_name("000001.label").read_bytes())
    assert other != pairs(root).digest()
    labels = pairs(root, cache=cache)[0]["labels"]  # not the one kept for the old voxels
    np.testing.assert_array_equal(labels, render(street(1), street_camera()).semantics)


def test_training_draws_prompts(root):
    config = NATIVE.model_copy(update={"prompt": PromptConfig(extras=("weather",), dropout=0.5)})
    found = pairs(root, config)
    texts = [found.draw(0, np.random.default_rng(seed))["prompt"] for seed in range(40)]
    assert texts == [found.draw(0, np.random.default_rng(seed))["prompt"] for seed in range(40)]
    assert 8 < texts.count("") < 32
    assert len(set(texts)) > 3
    assert {found[0]["prompt"] for _ in range(5)} == {found[0]["prompt"]} != {""}


def test_no_photographs(tmp_path):
    root = write_street_root(tmp_path / "root", train=1, val=1, photographs=False)
    with pytest.raises(InputError, match="photographs \\(image_2\\) in split train, found none"):
        pairs(root)


def test_train_critic_from_the_command_line(root, tmp_path):
    app, out = typer.Typer(), tmp_path / "critic"
    image_cli.register(app)
    words = ["images", "train-critic", str(root), "--out", str(out), "--width", "40", "--height", "20", "--tiny"]
    result = CliRunner().invoke(app, [*words, "--set", "train.steps=20"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "critic: 6 pairs, 20 steps" in result.output
    assert "of 10 photographs pass" in result.output
    assert read_thresholds(out / "thresholds.json").photographs == 10
    card = json.loads((out / "weights" / "card.json").read_text())
    assert (card["data"]["pairs"], card["held_out"]["pairs"]) == (6, 10)
    assert Critic.load(out / "weights").predict(np.zeros((20, 40, 3), np.uint8)).labels.shape == (20, 40)


def test_faults_before_training(root, tmp_path):
    size = (WIDTH, HEIGHT)
    with pytest.raises(InputError, match="another one than the critic learns from"):
        train_critic(root, tmp_path / "c", size, splits=Splits("val", "val"), toy=True)
    with pytest.raises(InputError, match="at least 10 photographs in split train, found 6"):
        train_critic(root, tmp_path / "c", size, splits=Splits("val", "train"), toy=True)
    with pytest.raises(InputError, match="sides that divide by 4 px"):
        train_critic(root, tmp_path / "c", (42, 20), splits=Splits(), toy=True)
    assert not (tmp_path / "c" / "training").exists()
