"""Pipelines and ControlNets trained from a root: what is written, resumed and refused."""

import json
import shutil

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from flows import image_cli
from flows.image_recipes import BASE_RECIPES, CONTROL_RECIPES, base_recipe, control_recipe
from flows.image_training import train_base, train_controlnet
from pipeline.datasets.image_files import read_image
from pipeline.images.base import read_card
from pipeline.images.loading import find_pipeline, load_pipeline, source_digest
from pipeline.scene.errors import InputError
from tests.flows.toy_images import STEPS, toy_images
from tests.images.stock import stock_pipeline


def arguments(*words) -> list[str]:
    return [str(word) for word in words]


def test_recipes_are_whole():
    for name in BASE_RECIPES:
        assert base_recipe(name).control.learn == "joint"
    for name in CONTROL_RECIPES:
        assert control_recipe(name).control.learn == "controlnet"
    published = control_recipe("semantic_kitti").pairs
    assert (published.width_px % 64, published.height_px % 64, published.fit) == (0, 0, "pad")
    assert base_recipe("tiny", ("vae.train.steps=3",)).vae.train.steps == 3
    eight = control_recipe("semantic_kitti", ("control.train.optimizer=adamw_8bit",))
    assert eight.control.train.optimizer == "adamw_8bit"
    with pytest.raises(InputError, match=r"pairs\.optimizer"):
        control_recipe("semantic_kitti", ("pairs.optimizer=adamw_8bit",))
    with pytest.raises(InputError, match="one of small, small_guided, tiny"):
        base_recipe("large")
    with pytest.raises(InputError, match=r"vae\.steps"):
        base_recipe("tiny", ("vae.steps=3",))


def test_a_base_is_a_plain_diffusers_pipeline_with_a_card():
    from diffusers import StableDiffusionControlNetPipeline

    toy = toy_images()
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(toy.weights, local_files_only=True)
    assert pipeline.controlnet.config.conditioning_channels == 8
    card = read_card(toy.weights)
    assert card["recipe"]["pairs"]["width_px"] == 32
    assert card["data"]["pairs"] == 6
    assert str(toy.root) not in json.dumps(card)
    pictures = sorted((toy.run / "control" / "pictures").iterdir())
    assert [path.name for path in pictures] == ["step_00000003.png", "step_00000006.png"]
    assert read_image(pictures[0]).shape == (2 * 20, 3 * 36, 3)


def test_a_base_goes_on_after_its_vae(tmp_path):
    toy = toy_images()
    shutil.copytree(toy.run / "vae", tmp_path / "vae")
    again = train_base(toy.root, tmp_path, base_recipe("tiny", STEPS))
    assert source_digest(find_pipeline(again)) == source_digest(find_pipeline(toy.weights))
    checkpoint = next((tmp_path / "vae" / "checkpoints").iterdir()) / "model.safetensors"
    first = next((toy.run / "vae" / "checkpoints").iterdir()) / "model.safetensors"
    assert checkpoint.stat().st_mtime_ns == first.stat().st_mtime_ns  # not learned again


def test_a_base_is_trained_further(tmp_path):
    toy = toy_images()
    recipe = base_recipe("tiny", ("control.train.steps=2", "control.train.validate_every=2", "control.rare_power=0.3"))
    weights = train_base(toy.root, tmp_path / "more", recipe, start=toy.weights)
    before, after = (load_pipeline(each, conditioning_channels=8, size=(32, 16)) for each in (toy.weights, weights))
    for name, moved in (("vae", False), ("unet", True), ("controlnet", True)):
        pairs = zip(getattr(before, name).parameters(), getattr(after, name).parameters(), strict=True)
        changes = [float((one.data - two.data).abs().max()) for one, two in pairs]
        assert (max(changes) > 0) == moved
        assert max(changes) < 0.05  # two small steps from there, not from new weights
    assert read_card(weights)["base_digest"] == source_digest(find_pipeline(toy.weights))
    assert (weights / "controlnet" / "palettes.json").is_file()
    wider = base_recipe("tiny", ("networks.text_width=32",))
    with pytest.raises(InputError, match="this recipe's networks and control image"):
        train_base(toy.root, tmp_path / "other", wider, start=toy.weights)
    assert not (tmp_path / "other" / "control").exists()


def test_a_perceptual_term_needs_its_network(tmp_path):
    toy = toy_images()
    recipe = base_recipe("tiny", ("vae.feature_weight=1", "vae.train.steps=2", "control.train.steps=2", "half=true"))
    with pytest.raises(InputError, match=r"vae.feature_weight: expected .*--critic FOLDER"):
        train_base(toy.root, tmp_path, recipe)
    weights = train_base(toy.root, tmp_path, recipe, critic=toy.critic / "weights")
    assert "features" in (tmp_path / "vae" / "losses.jsonl").read_text()
    pipeline = load_pipeline(weights, conditioning_channels=8, size=(32, 16))
    assert pipeline.unet.dtype == torch.float32  # stored as float16
    whole = sum(path.stat().st_size for path in toy.weights.rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in weights.rglob("*.safetensors")) < 0.7 * whole


def test_a_critic_finds_classes_in_what_is_predicted(tmp_path):
    toy = toy_images()
    recipe = base_recipe("tiny", ("control.structure_weight=0.2", "control.train.steps=2"))
    with pytest.raises(InputError, match=r"control.structure_weight: expected .*--critic FOLDER"):
        train_base(toy.root, tmp_path, recipe, start=toy.weights)
    folder = train_base(toy.root, tmp_path, recipe, start=toy.weights, critic=toy.critic / "weights")
    assert read_card(folder)["critic"] == json.loads((toy.critic / "weights" / "card.json").read_text())["files"]
    assert "structure" in (tmp_path / "control" / "losses.jsonl").read_text()
    narrow = base_recipe("tiny", ("control.structure_weight=0.2", "pairs.width_px=18"))
    with pytest.raises(InputError, match="width: expected a multiple of 4"):
        train_base(toy.root, tmp_path / "other", narrow, critic=toy.critic / "weights")


def test_a_controlnet_of_a_stock_pipeline_from_the_command_line(tmp_path):
    toy, app = toy_images(), typer.Typer()
    image_cli.register(app)
    stock = stock_pipeline(tmp_path / "letters")
    stock.save_pretrained(tmp_path / "stock")
    words = arguments("images", "train-controlnet", tmp_path / "stock", toy.root, "--out", tmp_path / "out")
    changes = ["pairs.height_px=16", "control.train.steps=2", "control.pictures=0"]
    result = CliRunner().invoke(app, [*words, "--recipe", "tiny", *(w for c in changes for w in ("--set", c))])
    assert result.exit_code == 0, result.exception
    folder = tmp_path / "out" / "weights" / "controlnet"
    assert result.output.strip().endswith(str(folder))
    pipeline = load_pipeline(tmp_path / "stock", folder, conditioning_channels=8, size=(32, 16))
    for name, value in stock.unet.state_dict().items():
        torch.testing.assert_close(pipeline.unet.state_dict()[name], value, rtol=0, atol=0)
    assert read_card(folder.parent)["base"] == "stock"
    assert any(value.abs().max() > 0 for value in pipeline.controlnet.controlnet_down_blocks.state_dict().values())


def test_a_controlnet_begins_with_the_unet_even_where_the_base_has_one(tmp_path):
    toy = toy_images()
    recipe = control_recipe("tiny", ("control.train.steps=1", "control.train.learning_rate=1e-12"))
    folder = train_controlnet(toy.weights, toy.root, tmp_path, recipe)
    found = load_pipeline(toy.weights, folder, conditioning_channels=8, size=(32, 16))
    np.testing.assert_allclose(
        found.controlnet.conv_in.weight.detach(), found.unet.conv_in.weight.detach(), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("pairs.width_px=30",), "image width: expected a multiple of 4 px, found 30"),
        (('pairs.control.parts=["rgb", "edges"]',), "expected 1, 2, 3, 5 or more channels, found 4"),
    ],
)
def test_faults_before_training(tmp_path, changes, words):
    with pytest.raises(InputError, match=words) as fault:
        train_base(toy_images().root, tmp_path, base_recipe("tiny", changes))
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "vae").exists()


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(InputError, match=r"model_index\.json"):
        train_controlnet(tmp_path, toy_images().root, tmp_path / "out", control_recipe("tiny"))
