"""`ssc evaluate` and `ssc submission`: the commands on a small root, any number of workers, one-line faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flows import ssc_score_cli
from flows.ssc_score import score_folder, to_json
from pipeline.datasets.image_files import write_image
from pipeline.datasets.kitti_calibration import calibration_of, write_calibration
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import load_taxonomy
from renderers.viewpoints import kitti_front
from ssc_eval.predictions import prediction_path, write_prediction

TAXONOMY = load_taxonomy("semantic_kitti")
GRID = VoxelGrid((16, 16, 8), 0.8, (0.0, -6.4, -2.0))
VAL = tuple(f"{n:06d}" for n in range(0, 200, 5))
TEST = tuple(str(n) for n in range(11, 22))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty labelled frames in sequence 08, each image 64x20, and a frame without labels in each of 11 to 21."""
    path, rng = tmp_path_factory.mktemp("root"), np.random.default_rng(0)
    for name in VAL:
        labels = rng.integers(0, 20, GRID.shape, dtype=np.uint8)
        labels[rng.random(GRID.shape) < 0.3] = 255
        write_frame(path, Frame("08", name, GRID, TAXONOMY, labels))
        write_image(path / "sequences" / "08" / "image_2" / f"{name}.png", np.zeros((20, 64, 3), np.uint8))
    for sequence in TEST:
        write_frame(path, Frame(sequence, "000000", GRID, TAXONOMY, scan=np.zeros(GRID.shape, bool)))
    write_calibration(path / "sequences" / "08" / "calib.txt", calibration_of(kitti_front(size_px=(64, 20))))
    write_layout(path, GRID)
    return path


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for key in [("08", name) for name in VAL] + [(sequence, "000000") for sequence in TEST]:
        write_prediction(tmp_path / "p", key, rng.integers(0, 20, GRID.shape, dtype=np.uint8), TAXONOMY)
    return tmp_path / "p"


def run(*words: object) -> tuple[int, str, str]:
    app = typer.Typer()
    ssc_score_cli.register(app)
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_scores_do_not_depend_on_the_workers(root: Path, predictions: Path) -> None:
    calls: list[tuple[int, int]] = []
    alone = score_folder(predictions, root, "val", workers=1)
    many = score_folder(predictions, root, "val", workers=2, progress=lambda done, total: calls.append((done, total)))
    assert to_json(alone) == to_json(many)
    assert calls == [(16, 40), (32, 40), (40, 40)]
    assert alone.tally.frames == 40
    assert alone.tally.regions == ("all", "12.8 m", "in view", "out of view")
    assert 0 < alone.tally.of("in view").sum() < alone.tally.of("all").sum()


def test_evaluate_prints_a_table_and_writes_json(root: Path, predictions: Path, tmp_path: Path) -> None:
    status, text, errors = run("evaluate", predictions, root, "--out", tmp_path / "s.json", "--workers", 1)
    assert status == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert f"split val: {found['frames']} frames, in percent" in text
    assert f"| all | {found['regions']['all']['voxels']:,} | {100 * found['regions']['all']['iou']:.2f} |" in text
    assert "| out of view |" in text
    assert errors.splitlines()[-1] == "scoring: 40/40 frames"
    assert len(errors.splitlines()) == 10
    whole = np.array(found["confusions"]["all"])
    assert whole.sum() == found["regions"]["all"]["voxels"]
    assert whole[1:, 1:].sum() / (whole.sum() - whole[0, 0]) == pytest.approx(found["regions"]["all"]["iou"])
    assert found["grid"]["shape"] == [16, 16, 8]


def test_without_calibration_the_view_is_left_out_and_said(root: Path, predictions: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(root, bare)
    (bare / "sequences" / "08" / "calib.txt").unlink()
    status, text, errors = run("evaluate", predictions, bare, "--workers", 1)
    assert status == 0
    assert "view" not in text
    assert "Not split into in and out of view:" in errors
    assert "calib.txt" in errors
    assert run("evaluate", predictions, bare, "--workers", 1, "--quiet")[2] == ""


def test_extra_predictions_are_refused_or_passed_over(root: Path, predictions: Path) -> None:
    prediction_path(predictions, "08", "000001").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 others: sequences/08/predictions/000001\.label; --allow-extra"):
        run("evaluate", predictions, root)
    assert run("evaluate", predictions, root, "--workers", 1, "--allow-extra")[0] == 0


def test_a_submission_is_packed_checked_and_found_wanting(root: Path, predictions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zip"
    status, text, _ = run("submission", predictions, root, "--out", out)
    assert status == 0
    assert text.startswith(f"{out}: 0.0 MB, whole, but of another grid than the benchmark's: (16, 16, 8)")
    (root / "sequences" / "11" / "voxels" / "000005.bin").write_bytes(b"\0" * 256)
    try:
        status, text, _ = run("submission", out, root)
    finally:
        (root / "sequences" / "11" / "voxels" / "000005.bin").unlink()
    assert status == 1
    assert text.splitlines() == [
        "sequences/11/predictions/000005.label: missing",
        f"{out}: 1 faults; the benchmark would refuse it",
    ]
    with pytest.raises(InputError, match=r"--out: expected a \.zip to write"):
        run("submission", predictions, root)
