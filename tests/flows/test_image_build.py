"""Builds whose images ControlNet draws and a critic judges: the same bytes in any way, rejects left out and counted."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.build import build_dataset
from flows.export import export_dataset, export_recipe
from flows.inspect import verify_dataset
from flows.rebuild import rebuild_dataset
from flows.recipes import BuildRecipe, load_recipe
from flows.sources import draw
from flows.ssc_accepted import accepted_frames
from pipeline.datasets.image_files import read_image
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.semantic_kitti import open_root
from pipeline.scene.errors import InputError
from tests.flows.toy_images import toy_images
from tests.flows.toy_plan import files_of
from tests.images.stock import stock_pipeline

REPOSITORY = Path(__file__).parents[2]


def changes(*more: str, critic: bool = True) -> tuple[str, ...]:
    toy = toy_images()
    folders = [f"images.weights={toy.weights}", *([f"images.critic={toy.critic}"] if critic else [])]
    fields = ["samples=4", "shard_samples=2", "gallery_samples=2", "images.synthesis.steps=2", "images.redraws=1"]
    return ("images.kind=controlnet", *folders, *fields, *more)


def recipe(*more: str, critic: bool = True) -> BuildRecipe:
    """The root's training frames at their own 40x20 px, which suit the networks."""
    return load_recipe("semantic_kitti", toy_images().root, changes(*more, critic=critic))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built")
    build_dataset(recipe("images.rejected=keep"), out, "none", workers=1)
    return out


def test_images_are_drawn_and_told_of(built):
    assert verify_dataset(built) == []
    manifest = read_manifest(built)
    assert len(manifest.samples) == 4
    for sample in manifest.samples:
        folder, frame = built / "sequences" / sample.name.split("/")[0], sample.name.split("/")[1]
        image, render = (read_image(folder / kind / f"{frame}.png") for kind in ("image_2", "render_2"))
        assert image.shape == render.shape == (20, 40, 3)
        assert not np.array_equal(image, render)
        note = sample.provenance["image"]
        assert note["prompt"].startswith("a traffic scene with: ")
        assert (note["negative"], note["attempt"]) == ("", len(note["outcomes"]) - 1)
        assert sample.provenance["accepted"] == note["accepted"]
    assert len({sample.provenance["image"]["seed"] for sample in manifest.samples}) == 4
    text = (built / "manifest.json").read_text()
    assert str(toy_images().weights) not in text
    assert manifest.recipe["images"]["weights_digest"]


def test_the_same_bytes_from_the_manifest_with_two_workers(built, tmp_path):
    toy = toy_images()
    with pytest.raises(InputError, match="--critic: expected the folder of the critic"):
        rebuild_dataset(built, tmp_path, toy.root, images={"weights": toy.weights})
    folders = {"weights": toy.weights, "critic": toy.critic}
    found = rebuild_dataset(built, tmp_path, toy.root, "none", workers=2, images=folders)
    assert found.differences == ()
    assert files_of(tmp_path).keys() == files_of(built).keys()


def test_the_same_bytes_after_a_kill(built, tmp_path):
    words = [part for change in changes("images.rejected=keep") for part in ("--set", change)]
    command = [sys.executable, "-m", "flows", "build", "semantic_kitti", str(toy_images().root), *words]
    command += ["--out", str(tmp_path), "--engine", "none", "--workers", "1"]
    run = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, stderr=subprocess.PIPE)
    assert run.stderr is not None
    for _ in range(7):  # a line a finished job: in the images stage
        run.stderr.readline()
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    run.stderr.close()
    assert not (tmp_path / "manifest.json").exists()
    build_dataset(recipe("images.rejected=keep"), tmp_path, "none", workers=1)
    assert files_of(tmp_path) == files_of(built)


def test_rejected_samples_are_left_out_and_counted(built, tmp_path):
    notes = [sample.provenance["image"] for sample in read_manifest(built).samples]
    toy, critic = toy_images(), tmp_path / "critic"
    shutil.copytree(toy.critic, critic)
    bounds = json.loads((critic / "thresholds.json").read_text())
    bounds |= {"recall": {}, "depth_error": 99, "miou": float(np.median([note["miou"] for note in notes]))}
    (critic / "thresholds.json").write_text(json.dumps(bounds))
    out = tmp_path / "built"
    build_dataset(recipe(f"images.critic={critic}", "images.redraws=0"), out, "none", workers=1)
    assert verify_dataset(out) == []
    manifest, root = read_manifest(out), open_root(out)
    assert (len(manifest.samples), len(manifest.dropped)) == (2, 2)
    assert all(sample.provenance["image"]["miou"] >= bounds["miou"] for sample in manifest.samples)
    assert all("mIoU" in sample.provenance["image"]["rejected"][0] for sample in manifest.dropped)
    assert ["/".join(key) for key in root.frames("train")] == [sample.name for sample in manifest.samples]
    assert accepted_frames(root) == {sample.name for sample in manifest.samples}
    table = json.loads((out / "image_statistics.json").read_text())
    assert (table["samples"], table["accepted"]) == (4, 2)
    assert table["draws"] == {"attempts": 4, "rejected": 2, "blamed": 0}
    assert table["classes"]["road"] == {"attempts": 4, "rejected": 2, "blamed": 0}
    export_dataset(export_recipe(out, "webdataset"), tmp_path / "export")


def test_nothing_accepted_is_a_fault_with_a_remedy(tmp_path):
    toy, critic = toy_images(), tmp_path / "critic"
    shutil.copytree(toy.critic, critic)
    bounds = json.loads((critic / "thresholds.json").read_text()) | {"miou": 1.1}
    (critic / "thresholds.json").write_text(json.dumps(bounds))
    few = recipe(f"images.critic={critic}", "samples=1", "images.redraws=0")
    with pytest.raises(InputError, match=r"0 of 1; loosen images\.slack"):
        build_dataset(few, tmp_path / "built", "none", workers=1)


def test_several_images_of_one_scene_in_other_words(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "pipeline").symlink_to(toy_images().weights)
    more = ("samples=2", "images_per_scene=2", 'images.prompt.extras=["weather"]', "views.width_px=46")
    more += (
        "views.height_px=16",
        "source.grid.shape=[32, 32, 8]",
        "source.grid.voxel_size_m=1.6",
        "source.mask_poses=1",
    )
    town, out = load_recipe("town_images_tiny", tmp_path / "weights", more), tmp_path / "built"
    assert len(list(draw(town, range(1, 4)))) == 3
    build_dataset(town, out, "none", workers=1)
    one, two = read_manifest(out).samples
    assert one.provenance["town_seed"] == two.provenance["town_seed"]
    assert one.provenance["image"]["seed"] != two.provenance["image"]["seed"]
    first, second = (out / "sequences" / sample.name.replace("/", "/voxels/") for sample in (one, two))
    assert first.with_suffix(".label").read_bytes() == second.with_suffix(".label").read_bytes()
    image = read_image(out / "sequences" / f"{one.name.replace('/', '/image_2/')}.png")
    assert image.shape == (16, 46, 3)  # drawn at 48x16 and cut
    assert "accepted" not in one.provenance
    assert not (out / "image_statistics.json").exists()
    with pytest.raises(InputError, match="images_per_scene is for generated scenes"):
        recipe("images_per_scene=2")


def test_a_stock_folder_of_diffusers_own_classes_draws_a_build(tmp_path):
    """A pipeline and its ControlNet as diffusers' save_pretrained leaves them; nothing there was written by us."""
    stock = stock_pipeline(tmp_path / "letters")
    stock.save_pretrained(tmp_path / "stock")
    fields = [f"images.weights={tmp_path / 'stock'}", 'images.control.parts=["rgb"]', "images.prompt.negative=false"]
    fields += ["samples=2", "shard_samples=2", "gallery_samples=0", "images.synthesis.steps=2"]
    found = load_recipe("semantic_kitti", toy_images().root, ("images.kind=controlnet", *fields))
    build_dataset(found, tmp_path / "built", "none", workers=1)
    assert verify_dataset(tmp_path / "built") == []
    for sample in read_manifest(tmp_path / "built").samples:
        path = tmp_path / "built" / "sequences" / sample.name.replace("/", "/image_2/")
        assert read_image(path.with_suffix(".png")).shape == (20, 40, 3)


def test_fields_follow_the_weights():
    images = recipe().images
    assert images.prompt.negative is False  # as the tiny recipe learned it
    assert images.control.parts == ("rgb", "inverse_depth", "edges", "palette")
    plain = ("images.kind=controlnet", f"images.weights={toy_images().weights}")
    drawn = load_recipe("semantic_kitti", toy_images().root, plain).images.synthesis
    assert (drawn.steps, drawn.device) == (2, "cpu")  # as the tiny recipe draws its pictures
    changed = load_recipe("semantic_kitti", toy_images().root, (*plain, "images.synthesis.steps=5")).images.synthesis
    assert (changed.steps, changed.device) == (5, "cpu")
    moved = images.model_copy(update={"weights": Path("/elsewhere"), "critic": None})
    assert moved.model_dump_json() == images.model_dump_json()
    assert load_recipe("semantic_kitti", toy_images().root, ("images.kind=render",)).images.kind == "render"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("images.weights=",), "controlnet with images.weights=FOLDER"),
        (("images.weights=/nowhere",), "model_index.json"),
        (("images.critic=/nowhere",), "train-critic"),
        (("images.kind=photograph",), "images.kind render, or controlnet"),
        (("views.calibrated=false", "views.width_px=80", "views.height_px=40"), "about 40 x 20 px, as"),
        (('images.control.parts=["rgb", "edges", "inverse_depth", "metric_depth"]',), "6 control channels, found 8"),
        (("images.prompt.words=none",), "prompts/none.toml"),
        (("images.weights_digest=aa",), "expected the recipe's weights, aa"),
    ],
)
def test_faults_before_the_first_stage(tmp_path, more, words):
    with pytest.raises(InputError, match=words) as fault:
        build_dataset(recipe(*more), tmp_path / "out", "none", workers=1)
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "out" / "sequences").exists()


def test_a_judge_that_taught_the_pipeline_is_refused(tmp_path):
    toy, taught = toy_images(), tmp_path / "taught"
    shutil.copytree(toy.weights, taught)
    card = json.loads((taught / "card.json").read_text())
    files = json.loads((toy.critic / "weights" / "card.json").read_text())["files"]
    (taught / "card.json").write_text(json.dumps(card | {"critic": files}))
    with pytest.raises(InputError, match=r"images\.critic: expected another critic than images were learned with"):
        build_dataset(recipe(f"images.weights={taught}"), tmp_path / "out", "none", workers=1)
    (taught / "card.json").write_text(json.dumps(card | {"critic": {"model.safetensors": "another's"}}))
    build_dataset(recipe(f"images.weights={taught}", "images.rejected=keep", "samples=1"), tmp_path / "out", "none", 1)
