"""Prediction files: written and read exactly, scored from their bytes as the official rules score them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.image_files import write_image
from pipeline.datasets.kitti_calibration import Calibration, write_calibration
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import load_taxonomy
from ssc_eval import metrics
from ssc_eval.predictions import (
    check_files,
    in_view,
    open_truth,
    prediction_path,
    read_prediction,
    score_frames,
    why_no_view,
    write_prediction,
)
from tests.ssc_eval.slow_scores import official_confusion, official_scores

TAXONOMY = load_taxonomy("semantic_kitti")
K = len(TAXONOMY.classes)
GRID = VoxelGrid((16, 32, 8), 1.6, (0.0, -25.6, -2.0))
KEYS = (("08", "000000"), ("08", "000005"))
LEARNING_MAP = {  # of the published config, written out a second time; 255 is what isn't scored
    **{0: 0, 1: 255, 52: 255, 99: 255, 10: 1, 252: 1, 11: 2, 15: 3, 18: 4, 258: 4, 13: 5, 16: 5, 20: 5},
    **{256: 5, 257: 5, 259: 5, 30: 6, 254: 6, 31: 7, 253: 7, 32: 8, 255: 8, 40: 9, 60: 9, 44: 10, 48: 11, 49: 12},
    **{50: 13, 51: 14, 70: 15, 71: 16, 72: 17, 80: 18, 81: 19},
}
SCORED = sorted(raw for raw, label in LEARNING_MAP.items() if label != 255)
SIDEWAYS = np.array([[0, -1.0, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # camera axes from the velodyne's


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two labelled frames of raw ids of every kind, with masks, images of 64x20 and a calibration."""
    path, rng = tmp_path / "root", np.random.default_rng(5)
    for sequence, frame in KEYS:
        raw = rng.choice(sorted(LEARNING_MAP), GRID.shape).astype("<u2")
        raw[rng.random(GRID.shape) < 0.6] = 0
        invalid = (raw == 0) & (rng.random(GRID.shape) < 0.4)
        write_frame(path, Frame(sequence, frame, GRID, TAXONOMY, scan=raw > 0))
        voxels = path / "sequences" / sequence / "voxels"
        raw.tofile(voxels / f"{frame}.label")
        np.packbits(invalid).tofile(voxels / f"{frame}.invalid")
        write_image(path / "sequences" / sequence / "image_2" / f"{frame}.png", np.zeros((20, 64, 3), np.uint8))
    P2 = np.array([[40.0, 0, 31.5, 4], [0, 40, 9.5, 0], [0, 0, 1, 0]])
    write_calibration(path / "sequences" / "08" / "calib.txt", Calibration({"P2": P2}, SIDEWAYS))
    write_layout(path, GRID)
    return path


def predict(folder: Path, raw_of: dict[tuple[str, str], np.ndarray]) -> Path:
    for key, raw in raw_of.items():
        path = prediction_path(folder, *key)
        path.parent.mkdir(parents=True, exist_ok=True)
        raw.astype("<u2").tofile(path)
    return folder


def drawn(seed: int) -> dict[tuple[str, str], np.ndarray]:
    rng = np.random.default_rng(seed)
    return {key: np.where(rng.random(GRID.shape) < 0.5, 0, rng.choice(SCORED, GRID.shape)) for key in KEYS}


def official(root: Path, folder: Path) -> np.ndarray:
    """Counts by (prediction, target) as the official script makes them from the files' bytes."""
    table = np.full(400, 999)
    table[list(LEARNING_MAP)] = list(LEARNING_MAP.values())
    counts = np.zeros((K, K), np.int64)
    for sequence, frame in KEYS:
        voxels = root / "sequences" / sequence / "voxels"
        target = table[np.fromfile(voxels / f"{frame}.label", "<u2")]
        target[np.unpackbits(np.fromfile(voxels / f"{frame}.invalid", np.uint8)) == 1] = 255
        prediction = table[np.fromfile(folder / "sequences" / sequence / "predictions" / f"{frame}.label", "<u2")]
        counts += official_confusion(target, prediction, K)
    return counts


def adversarial(root: Path) -> dict[str, dict[tuple[str, str], np.ndarray]]:
    truth = {k: np.fromfile(root / f"sequences/{k[0]}/voxels/{k[1]}.label", "<u2").reshape(GRID.shape) for k in KEYS}
    known = {k: np.where(np.isin(raw, [1, 52, 99]), 0, raw) for k, raw in truth.items()}
    moving = {k: np.where(raw == 10, 252, raw) for k, raw in known.items()}
    blank = {k: np.zeros(GRID.shape) for k in KEYS}
    return {
        "random": drawn(1),
        "empty": blank,
        "the truth's own bytes, ignored ids as they are": truth,  # ignored exactly where they aren't scored
        "the truth": known,
        "moving ids": moving,
        "all one class": {k: raw + 81 for k, raw in blank.items()},
        "upside down": {k: raw[:, :, ::-1] for k, raw in known.items()},
    }


CASES = (
    "random",
    "empty",
    "the truth's own bytes, ignored ids as they are",
    "the truth",
    "moving ids",
    "all one class",
    "upside down",
)


@pytest.mark.parametrize("case", CASES)
def test_a_folder_scores_as_the_official_rules_score_its_bytes(root: Path, tmp_path: Path, case: str) -> None:
    cases = adversarial(root)
    assert tuple(cases) == CASES
    folder, truth = predict(tmp_path / "predictions", cases[case]), open_truth(root, "val")
    assert truth.keys == KEYS
    tally = score_frames(folder, truth, truth.keys, with_view=True)
    counts = official(root, folder)
    assert np.array_equal(tally.of(metrics.ALL), counts.T)
    found = metrics.scores(tally, TAXONOMY.classes)["regions"][metrics.ALL]
    expected = official_scores(counts)
    values = [found["iou"], found["precision"], found["recall"], found["miou"], *found["classes"].values()]
    assert values == pytest.approx(expected, abs=1e-12)
    if case in ("the truth", "moving ids"):
        assert found["iou"] == found["miou_present"] == 1


def test_parts_add_up_and_progress_is_told(root: Path, tmp_path: Path) -> None:
    folder, truth = predict(tmp_path / "p", drawn(2)), open_truth(root, "val")
    calls: list[tuple[int, int]] = []
    whole = score_frames(folder, truth, truth.keys, True, lambda done, total: calls.append((done, total)))
    parts = score_frames(folder, truth, truth.keys[:1], True) + score_frames(folder, truth, truth.keys[1:], True)
    assert np.array_equal(whole.confusions, parts.confusions)
    assert whole.frames == parts.frames == 2
    assert calls == [(1, 2), (2, 2)]


def test_in_view_uses_the_whole_projection(root: Path) -> None:
    """P2's fourth column: 4 px m over 40 px is a camera 0.1 m to the right of where Tr has it: u = 40 (.1 - y) / x."""
    truth = open_truth(root, "val")
    seen = in_view(truth.camera(KEYS[0]), GRID)
    x, y, z = np.moveaxis(GRID.centres(), -1, 0)
    u, v = 31.5 + 40 * (0.1 - y) / x, 9.5 - 40 * z / x
    assert np.array_equal(seen, (u >= -0.5) & (u < 63.5) & (v >= -0.5) & (v < 19.5))
    assert 0 < seen.mean() < 0.5
    tally = score_frames(predict(root.parent / "p", drawn(3)), truth, KEYS, with_view=True)
    assert np.array_equal(tally.of(metrics.IN_VIEW) + tally.of(metrics.OUT_OF_VIEW), tally.of(metrics.ALL))


def test_a_root_without_images_or_calibration_has_no_view(root: Path) -> None:
    assert why_no_view(open_truth(root, "val")) == ""
    (root / "sequences" / "08" / "image_2" / "000000.png").unlink()
    assert "image" in why_no_view(open_truth(root, "val"))


def test_written_predictions_read_back_as_the_benchmarks_ids(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, K, GRID.shape, dtype=np.uint8)
    path = write_prediction(tmp_path, KEYS[0], labels, TAXONOMY)
    assert path == tmp_path / "sequences/08/predictions/000000.label"
    assert path.stat().st_size == 2 * labels.size
    inverse = [0, 10, 11, 15, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 70, 71, 72, 80, 81]
    assert np.array_equal(np.fromfile(path, "<u2"), np.array(inverse)[labels.ravel()])
    assert np.array_equal(read_prediction(path, GRID, TAXONOMY), labels)


@pytest.mark.parametrize("wrong", [255, K])
def test_what_is_no_class_is_not_written(tmp_path: Path, wrong: int) -> None:
    with pytest.raises(InputError, match=r"000000\.label: expected class ids below 20"):
        write_prediction(tmp_path, KEYS[0], np.full(GRID.shape, wrong, np.uint8), TAXONOMY)
    assert not list(tmp_path.rglob("*.label"))


def test_missing_and_extra_files_are_named_in_a_line(root: Path, tmp_path: Path) -> None:
    folder = predict(tmp_path / "p", drawn(4))
    check_files(folder, KEYS)
    extra = prediction_path(folder, "08", "000003")
    extra.write_bytes(b"")
    with pytest.raises(InputError, match=r"found 1 others: sequences/08/predictions/000003\.label; --allow-extra"):
        check_files(folder, KEYS)
    check_files(folder, KEYS, allow_extra=True)
    prediction_path(folder, *KEYS[1]).unlink()
    with pytest.raises(InputError, match=r"each of 2 frames, found 1 missing: .*000005\.label"):
        check_files(folder, KEYS, allow_extra=True)
    many = [("08", f"{n:06d}") for n in range(9)]
    with pytest.raises(InputError, match=r"7 missing: .*000001.*000002.*000004\.label, \.\.\.$"):
        check_files(folder, many)
    with pytest.raises(InputError, match="no sequences/; give the folder above sequences"):
        check_files(folder / "sequences", KEYS)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            np.zeros(GRID.shape[:2]),
            r"000005\.label: expected uint16 labels of a 16x32x8 grid of 8192 bytes, found 1024",
        ),
        (np.full(GRID.shape, 77), r"000005\.label: expected raw ids of semantic_kitti, found unknown raw id 77"),
        (np.full(GRID.shape, 99), r"000005\.label: expected a class or empty in every scored voxel"),
        (np.full(GRID.shape, 2560), r"000005\.label: .* unknown raw id 2560"),
    ],
)
def test_files_that_cannot_be_scored_are_named_in_a_line(
    root: Path, tmp_path: Path, raw: np.ndarray, said: str
) -> None:
    folder = predict(tmp_path / "p", {**drawn(5), KEYS[1]: raw})
    truth = open_truth(root, "val")
    with pytest.raises(InputError, match=said):
        score_frames(folder, truth, truth.keys, with_view=False)


def test_a_split_without_labels_cannot_be_scored(root: Path) -> None:
    with pytest.raises(InputError, match="labelled frames in split train, found none"):
        open_truth(root, "train")


def test_a_link_out_of_the_folder_is_refused(root: Path, tmp_path: Path) -> None:
    folder = predict(tmp_path / "p", drawn(6))
    path = prediction_path(folder, *KEYS[0])
    path.unlink()
    path.symlink_to(root / "sequences" / "08" / "voxels" / "000000.label")
    with pytest.raises(InputError, match="a link to"):
        check_files(folder, KEYS)
