"""Two models of others as the critic of builds and checks: adopted with thresholds of their own."""

import json
import shutil

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flows import image_cli
from flows.build import build_dataset
from flows.image_judge import Models, adopt_critic, judge_digest, judge_size, load_judge
from flows.image_scores import check_folder
from flows.recipes import load_recipe, validated
from pipeline.datasets.manifest import read_manifest
from pipeline.images.config import FidelityConfig
from pipeline.images.critic import Critic
from pipeline.images.fidelity import read_thresholds
from pipeline.scene.errors import InputError
from tests.flows.street_root import CAR, HEIGHT, KITTI, WIDTH
from tests.flows.toy_images import toy_images
from tests.images.foreign import write_foreign_models


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = write_foreign_models(tmp_path_factory.mktemp("models"))
    (folder / "depth" / "pytorch_model.bin").write_bytes(b"a pickle")  # isn't taken along
    return folder


@pytest.fixture(scope="module")
def adopted(models, tmp_path_factory):
    app, out = typer.Typer(), tmp_path_factory.mktemp("adopted") / "critic"
    image_cli.register(app)
    words = ["images", "adopt-critic", str(toy_images().root), "--segmentation", str(models / "segmentation")]
    words += ["--depth", str(models / "depth"), "--depth-kind", "metric", "--out", str(out)]
    words += ["--width", str(WIDTH), "--height", str(HEIGHT), "--quantile", "0.3"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "labels that count as nothing: sky" in result.output
    return out


def test_the_folder_is_whole_and_its_thresholds_are_its_own(models, adopted):
    assert judge_size(adopted) == (HEIGHT, WIDTH)
    assert not list(adopted.rglob("*.bin"))
    judge = load_judge(adopted, KITTI)
    assert (judge.predict(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).labels == CAR).all()
    bounds = read_thresholds(adopted / "thresholds.json")
    assert bounds.photographs == 10
    scores = check_folder(toy_images().root, adopted)
    assert scores["photograph"]["accepted"] == bounds.passed / 10
    assert scores["photograph"]["recall"] == {"car": 1.0}
    assert isinstance(load_judge(toy_images().critic, KITTI), Critic)


def test_it_judges_a_build(adopted, tmp_path):
    toy = toy_images()
    fields = [f"images.weights={toy.weights}", f"images.critic={adopted}", "images.rejected=keep", "images.redraws=0"]
    fields += ["samples=2", "shard_samples=2", "gallery_samples=0", "images.synthesis.steps=2"]
    recipe = load_recipe("semantic_kitti", toy.root, ("images.kind=controlnet", *fields))
    assert recipe.images.critic_digest == judge_digest(adopted)
    build_dataset(recipe, tmp_path, "none", workers=1)
    for sample in read_manifest(tmp_path).samples:
        note = sample.provenance["image"]
        assert note["recall"] in ({"car": 1.0}, {})
        assert note["accepted"] == sample.provenance["accepted"]
        assert note["depth_error"] > 0


def test_damage_and_other_classes_are_refused(adopted, tmp_path):
    copy = shutil.copytree(adopted, tmp_path / "copy")
    with open(copy / "depth" / "model.safetensors", "ab") as weights:
        weights.write(b"0")
    with pytest.raises(InputError, match="expected SHA-256"):
        load_judge(copy, KITTI)
    told = json.loads((copy / "foreign.json").read_text())
    for change, words in (({"taxonomy": "carla_sc"}, "one of carla_sc's"), ({"size_px": [1]}, "adopt-critic")):
        (copy / "foreign.json").write_text(json.dumps(told | change))
        with pytest.raises(InputError, match=words) as fault:
            load_judge(copy, KITTI)
        assert "\n" not in str(fault.value)
    assert judge_digest(copy) != judge_digest(adopted)


def test_faults_before_judging(models, adopted, tmp_path, monkeypatch):
    root, fidelity = toy_images().root, FidelityConfig()
    good = Models(segmentation=models / "segmentation", depth=models / "depth", depth_kind="metric")
    with pytest.raises(InputError, match="new or empty"):
        adopt_critic(root, adopted, (WIDTH, HEIGHT), good, "val", fidelity)
    with pytest.raises(InputError, match="at least 10 photographs in split train"):
        adopt_critic(root, tmp_path / "out", (WIDTH, HEIGHT), good, "train", fidelity)
    with pytest.raises(InputError, match="give depth_kind"):
        adopt_critic(
            root, tmp_path / "out", (WIDTH, HEIGHT), good.model_copy(update={"depth_kind": None}), "val", fidelity
        )
    with pytest.raises(InputError, match="recipe field depth_kind: expected Input should be 'metric' or 'inverse'"):
        validated(Models, {"segmentation": good.segmentation, "depth": good.depth, "depth_kind": "far"})
    assert not (tmp_path / "out").exists()
