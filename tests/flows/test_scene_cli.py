"""The commands about scene generators end to end on a root that the test writes; their faults in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from flows.cli import app
from flows.generator_recipes import TINY_GRID
from flows.scene_masks import forward_poses, simulate_masks
from pipeline.datasets.semantic_kitti import open_root, write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy


def street(seed: int) -> np.ndarray:
    """A road, grass beside it, and a box of cars somewhere."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(TINY_GRID.shape, np.uint8)
    labels[:, :, 0] = 17
    labels[:, 5:11, 0] = 9
    x = int(rng.integers(0, 12))
    labels[x : x + 4, 6:9, 1:3] = 1
    return labels


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder, taxonomy = tmp_path_factory.mktemp("root"), load_taxonomy("semantic_kitti")
    for split, sequence, count in (("train", "00", 8), ("val", "08", 4)):
        for index in range(count):
            scene = Scene(street(index + 100 * (split == "val")), TINY_GRID, taxonomy)
            write_frame(folder, frame_of(scene, sequence, f"{index:06d}"))
    write_layout(folder, TINY_GRID, {"train": ["00"], "val": ["08"], "test": []})
    return folder


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_train_by_stage_then_sample(root, tmp_path) -> None:
    out = tmp_path / "run"
    for stage in ("fusion", "background"):
        run("train-generator", "comp_d3pm_tiny", root, "--out", out, "--stage", stage)
        assert not (out / "weights").exists()
    run("train-generator", "comp_d3pm_tiny", root, "--out", out)
    longer = ("train-generator", "comp_d3pm_tiny", root, "--from", out / "weights", "--out", tmp_path / "longer")
    run(*longer, "--set", "*.training.steps=1", "--set", "*.training.learning_rate=1e-12")
    before, after = (load_file(folder / "weights/fusion.safetensors") for folder in (out, tmp_path / "longer"))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    run("halve-weights", out / "weights", "--out", tmp_path / "half", "--note", "training=4 steps")
    assert json.loads((tmp_path / "half/card.json").read_text())["training"] == "4 steps"
    size, half = (sum(p.stat().st_size for p in f.glob("*.safetensors")) for f in (out / "weights", tmp_path / "half"))
    assert half < 0.6 * size
    run("sample", "--weights", tmp_path / "half", "-n", 1, "--out", tmp_path / "from_half", "--quiet")
    run("sample", "--weights", out / "weights", "-n", 5, "--out", tmp_path / "scenes", "--quiet")
    run("sample", "--weights", out / "weights", "-n", 5, "--out", tmp_path / "whole", "--quiet", "--complete")
    seen, whole = open_root(tmp_path / "scenes"), open_root(tmp_path / "whole")
    assert len(seen.frames("train")) == len(whole.frames("train")) == 5
    for key in whole.frames("train"):
        complete, masked = whole.scene(*key).labels, seen.scene(*key).labels
        assert (complete != 255).all()
        assert ((masked == complete) | (masked == 255)).all()


def test_sweep_of_rates(root, tmp_path) -> None:
    options = ["--recipe", "whole_scene_tiny", "--rates", "1e-3,1e-4", "--steps", 20]
    run("sweep-rates", root, "--out", tmp_path / "rates", *options)
    losses = json.loads((tmp_path / "rates" / "rates.json").read_text())["losses"]["whole_scene_tiny"]["fine"]
    assert set(losses) == {"0.001", "0.0001"}
    assert all(np.isfinite(loss) for loss in losses.values())


def test_encoder(root, tmp_path) -> None:
    changes = [
        f"--set={field}"
        for field in ("features=4", "width=8", "channels=4", "train.steps=2", 'train.schedule={"kind":"constant"}')
    ]
    run("train-encoder", root, "--out", tmp_path / "encoder", *changes)
    assert json.loads((tmp_path / "encoder/weights/card.json").read_text())["held_out"]["scenes"] == 4
    with pytest.raises(InputError, match="frozen by its digest"):
        run("halve-weights", tmp_path / "encoder/weights", "--out", tmp_path / "half")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train-generator", "nonsense", "ROOT", "--out", "OUT"], "one of comp_d3pm"),
        (["train-generator", "comp_d3pm_tiny", "ROOT", "--out", "OUT", "--stage", "last"], "one of background"),
        (["train-generator", "comp_d3pm", "ROOT", "--out", "OUT"], "training scene"),
        (["sample", "--weights", "ROOT", "--out", "OUT"], r"card"),
        (["halve-weights", "ROOT", "--out", "OUT", "--note", "training"], "NAME=TEXT"),
        (["sweep-rates", "ROOT", "--out", "OUT", "--rates", "fast"], "numbers with commas"),
        (["ablation", "ROOT", "--out", "OUT", "--variants", "best"], "some of comp_full"),
    ],
)
def test_faults_are_input_errors(root, tmp_path, arguments, message) -> None:
    places = {"ROOT": str(root), "OUT": str(tmp_path / "out")}
    with pytest.raises(InputError, match=message) as caught:
        run(*[places.get(a, a) for a in arguments])
    assert "\n" not in str(caught.value)


def test_the_assumed_drive_leaves_out_what_stands_in_its_way() -> None:
    labels = np.zeros(COMPARISON_GRID.shape, np.uint8)
    labels[:, :, 0] = 9  # road: z from -2 to -1.6 m, below the space a pose needs
    assert forward_poses(labels, COMPARISON_GRID)[:, 0, 3].tolist() == [5.0 * k for k in range(15)]
    labels[24:27, 32, 3:5] = 1  # x 9.6 to 10.8 m, y 0 to 0.4 m, z -0.8 to 0 m
    assert forward_poses(labels, COMPARISON_GRID)[:, 0, 3].tolist() == [5.0 * k for k in range(15) if k != 2]
    labels[30:40, 50:58, :12] = 13  # a solid building, whose inside no one sees
    seen, invalid, _ = simulate_masks(labels, COMPARISON_GRID)
    assert invalid[33:37, 53:55, 3:9].all()
    assert ((seen == labels) | (seen == 255)).all()
    assert (seen == 255).sum() == invalid.sum() > 0
