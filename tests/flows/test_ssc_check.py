"""`ssc check`: a sound root passes every check, and each way to get a root wrong is found and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flows import ssc_score_cli
from flows.ssc_check import all_facts, check_root, learn_one, open_for_check
from flows.ssc_check_axes import Turn, mutual_information, overlay, shown_frames, turns
from flows.ssc_check_files import Finding, check_calibration, likeness, reordered
from pipeline.datasets.carla_sc import write_carla_frame, write_carla_params
from pipeline.datasets.image_files import read_image, write_image
from pipeline.datasets.kitti_calibration import Calibration, calibration_of, write_calibration
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy
from renderers.shading import render
from renderers.viewpoints import kitti_front
from ssc_eval.predictions import open_truth

TAXONOMY = load_taxonomy("semantic_kitti")
ID = {name: TAXONOMY.id_of(name) for name in TAXONOMY.classes}
GRID = VoxelGrid((32, 32, 8), 0.8, (0.0, -12.8, -2.4))
NAMES = tuple(f"{n:06d}" for n in range(0, 40, 5))
CAMERA = kitti_front(size_px=(96, 32))
FOLDER = "sequences/00"


def street(seed: int) -> np.ndarray:
    """A road, houses on its left, trees on its right, cars anywhere on it."""
    rng, labels = np.random.default_rng(seed), np.zeros(GRID.shape, np.uint8)
    labels[:, :, 0] = ID["terrain"]
    labels[:, 12:20, 0] = ID["road"]
    for start in range(0, 32, 8):
        labels[start : start + rng.integers(3, 8), 24:30, 1 : rng.integers(4, 8)] = ID["building"]
        x, y = start + rng.integers(0, 6), rng.integers(2, 10)
        labels[x : x + 2, y : y + 2, 2:6] = ID["vegetation"]
    for _ in range(2):
        x, y = rng.integers(6, 28), rng.integers(12, 17)
        labels[x : x + 4, y : y + 3, 1:3] = ID["car"]
    return labels


def photograph(labels: np.ndarray, seed: int) -> np.ndarray:
    """What the camera sees, in colours of its own and with noise."""
    rng = np.random.default_rng(7)
    paint = rng.integers(30, 220, (256, 3))
    view = render(Scene(labels, GRID, TAXONOMY), CAMERA)
    noise = np.random.default_rng(seed).normal(0, 12, view.rgb.shape)
    return np.clip(paint[view.semantics] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("root")
    for number, name in enumerate(NAMES):
        labels = street(number)
        invalid = (labels == 0) & (np.arange(8) == 7)
        labels_read = np.where(invalid, np.uint8(255), labels)
        write_frame(path, Frame("00", name, GRID, TAXONOMY, labels_read, invalid, invalid, labels > 0))
        write_image(path / FOLDER / "image_2" / f"{name}.png", photograph(labels, number))
    write_calibration(path / FOLDER / "calib.txt", calibration_of(CAMERA))
    write_layout(path, GRID, {"train": ["00"]})
    return path


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(sound, tmp_path / "root"))


def findings(root: Path, frames: int = 8, picture: Path | None = None) -> dict[str, Finding]:
    opened = open_for_check(root, "train")
    found = list(check_root(opened, all_facts(opened.files), frames, picture))
    assert len({finding.name for finding in found}) == len(found)
    assert all("\n" not in finding.line() for finding in found)
    return {finding.name: finding for finding in found}


def test_a_sound_root_passes_and_is_drawn(sound: Path, tmp_path: Path) -> None:
    found = findings(sound, picture=tmp_path / "overlay.png")
    assert {name: finding.verdict for name, finding in found.items()} == dict.fromkeys(found, "ok")
    assert list(found) == [
        *("images", "labels", "invalid", "occluded", "scan", "file order", "up"),
        *("calibration", "in view", "axes", "photographs", "picture"),
    ]
    assert "8 frames, 5 of 19 classes, no bicycle," in found["labels"].found
    assert "P2's fourth column is zero" in found["calibration"].found
    assert read_image(tmp_path / "overlay.png").shape[0] > 6 * 224


def each(root: Path, suffix: str, change: Callable[[bytes], bytes]) -> None:
    for path in (root / FOLDER / "voxels").glob(f"*{suffix}"):
        path.write_bytes(change(path.read_bytes()))


def raw_of(content: bytes) -> np.ndarray:
    return np.frombuffer(content, "<u2").reshape(GRID.shape)


def as_class_ids(content: bytes) -> bytes:
    return TAXONOMY.from_raw(raw_of(content), "test").astype("<u2").tobytes()


def mirrored_bits(content: bytes) -> bytes:
    return np.packbits(np.unpackbits(np.frombuffer(content, np.uint8)), bitorder="little").tobytes()


LABEL_FAULTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "one byte": (lambda c: c[::2], "1 bytes a voxel: write uint16"),
    "four bytes": (lambda c: np.frombuffer(c, "<u2").astype("<u4").tobytes(), "4 bytes a voxel: write uint16"),
    "another grid": (lambda c: c + c[:512], "tell shape, voxel_size_m and origin_m in grid.json"),
    "class ids": (as_class_ids, "class ids? write raw ids, such as 10 for car"),
    "big endian": (lambda c: np.frombuffer(c, "<u2").byteswap().tobytes(), "bytes are swapped: write uint16 little"),
    "unknown": (lambda c: b"\x4d\0" + c[2:], "unknown raw id 77"),
}


@pytest.mark.parametrize("case", list(LABEL_FAULTS))
def test_labels_that_cannot_be_read(root: Path, case: str) -> None:
    change, said = LABEL_FAULTS[case]
    each(root, ".label", change)
    found = findings(root)
    assert found["labels"].verdict == "FAULT"
    assert "8 of 8 frames: " in found["labels"].found
    assert said in found["labels"].line()
    assert "axes" not in found


def test_one_bad_frame_among_many_is_named(root: Path) -> None:
    (root / FOLDER / "voxels" / "000010.label").write_bytes(b"\x4d\0" * 32 * 32 * 8)
    found = findings(root)
    assert "1 of 8 frames: " in found["labels"].found
    assert "000010.label" in found["labels"].found
    assert found["invalid"].verdict == "ok"


def test_empty_frames(root: Path) -> None:
    each(root, ".invalid", lambda c: b"\0" * len(c))
    path = root / FOLDER / "voxels" / "000005.label"
    path.write_bytes(b"\0" * path.stat().st_size)
    found = findings(root)
    assert found["labels"].verdict == "note"
    assert "1 frames are empty, 00/000005 first" in found["labels"].found
    assert found["invalid"].verdict == "note"
    assert "no sensor saw" in found["invalid"].found


def test_masks_turned_round_packed_backwards_or_of_others(root: Path) -> None:
    raws = {path.stem: raw_of(path.read_bytes()) for path in (root / FOLDER / "voxels").glob("*.label")}
    solid = {name: raw > 0 for name, raw in raws.items()}
    for name, mask in solid.items():  # tight masks, so that a wrong bit meets something solid
        np.packbits(~mask).tofile(root / FOLDER / "voxels" / f"{name}.invalid")
    assert findings(root)["invalid"].verdict == "ok"
    each(root, ".invalid", mirrored_bits)
    assert "most significant first" in findings(root)["invalid"].remedy
    each(root, ".invalid", mirrored_bits)
    each(root, ".invalid", lambda c: bytes(255 - byte for byte in c))
    assert "1 is invalid, 0 is valid" in findings(root)["invalid"].remedy
    for name in NAMES:
        other = solid[NAMES[(NAMES.index(name) + 1) % len(NAMES)]]
        np.packbits(~other).tofile(root / FOLDER / "voxels" / f"{name}.invalid")
    found = findings(root)["invalid"]
    assert found.verdict == "FAULT"
    assert "of the same frame" in found.remedy


def test_a_scan_that_is_not_of_the_labels(root: Path) -> None:
    each(root, ".bin", lambda c: np.packbits(np.unpackbits(np.frombuffer(c, np.uint8))[::-1]).tobytes())
    assert findings(root)["scan"].verdict == "FAULT"
    for path in (root / FOLDER / "voxels").glob("*.occluded"):
        path.write_bytes(b"\0" * path.stat().st_size)
    found = findings(root)["occluded"]
    assert found.verdict == "note"
    assert found.found.startswith("0.0 %")


def relaid(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """All voxel files with their axes changed alike; files stay as long as they were."""
    each(root, ".label", lambda c: np.ascontiguousarray(change(raw_of(c))).astype("<u2").tobytes())
    for suffix in (".invalid", ".occluded", ".bin"):
        each(
            root,
            suffix,
            lambda c: np.packbits(change(np.unpackbits(np.frombuffer(c, np.uint8)).reshape(GRID.shape))).tobytes(),
        )


def test_files_whose_axes_come_in_another_order(root: Path) -> None:
    relaid(root, lambda voxels: voxels.transpose(2, 1, 0))
    found = findings(root)["file order"]
    assert found.verdict == "FAULT"
    assert "if the file's axes were z, x, y or z, y, x" in found.found
    assert "C order" in found.remedy


MIRRORED = {
    "left and right": (lambda v: v[:, ::-1], "labels[:, ::-1, :]"),
    "x right, y ahead": (lambda v: v.transpose(1, 0, 2)[::-1], "labels.transpose(1, 0, 2)[:, ::-1, :]"),
    "backwards": (lambda v: v[::-1], "labels[::-1, :, :]"),
}


@pytest.mark.parametrize("case", list(MIRRORED))
def test_mirrored_and_turned_labels_are_told_by_their_photographs(root: Path, case: str) -> None:
    change, back = MIRRORED[case]
    relaid(root, change)
    found = findings(root)
    assert found["axes"].verdict == "FAULT"
    assert found["axes"].remedy == back
    assert found["file order"].verdict == found["up"].verdict == "ok"


def test_a_world_upside_down(root: Path) -> None:
    relaid(root, lambda voxels: voxels[:, :, ::-1])
    found = findings(root)
    assert found["up"].verdict == "FAULT"
    assert found["axes"].verdict == "FAULT"
    assert found["axes"].remedy == "labels[:, :, ::-1]"


def test_photographs_of_other_frames(root: Path) -> None:
    images = sorted((root / FOLDER / "image_2").iterdir())
    contents = [path.read_bytes() for path in images]
    for path, content in zip(images, contents[3:] + contents[:3], strict=True):
        path.write_bytes(content)
    found = findings(root)["photographs"]
    assert found.verdict == "note"
    assert "belong together" in found.remedy


def test_few_frames_are_not_judged_and_missing_images_are_named(root: Path) -> None:
    assert findings(root, frames=2)["axes"].verdict == "note"
    (root / FOLDER / "image_2" / "000020.png").unlink()
    found = findings(root)
    assert found["images"].verdict == "FAULT"
    assert "1 of 8 frames of split train have none, 00/000020 first" in found["images"].found
    assert found["calibration"].verdict == "FAULT"


def recalibrated(root: Path, K: np.ndarray, pose: np.ndarray, fourth: float = 0.0) -> Finding:
    P2 = np.concatenate([K, [[fourth], [0], [0]]], axis=1)
    write_calibration(root / FOLDER / "calib.txt", Calibration({"P2": P2}, pose))
    truth = open_truth(root, "train")
    return check_calibration(truth, truth.keys[:2])


def test_calibrations_that_do_not_fit(root: Path) -> None:
    K, pose = CAMERA.K, CAMERA.camera_from_world
    large = np.diag([4.0, 4, 1]) @ K
    assert "images of another size" in recalibrated(root, large, pose).remedy
    wide = K.copy()
    wide[0, 0] = 4
    assert "degrees wide" in recalibrated(root, wide, pose).found
    assert "camera looks" in recalibrated(root, K, np.linalg.inv(pose)).found
    far = pose.copy()
    far[2, 3] += 30
    assert "camera stands at" in recalibrated(root, K, far).found
    shifted = recalibrated(root, K, pose, fourth=0.1 * K[0, 0])
    assert shifted.verdict == "ok"
    assert "P2's fourth column is used: without it voxels move by" in shifted.found
    (root / FOLDER / "calib.txt").write_text("P2: 1 2 3\n")
    found = findings(root)
    assert found["calibration"].verdict == "FAULT"
    assert found["axes"].verdict == "FAULT"


def test_a_grid_that_lies_elsewhere_is_not_in_view(root: Path) -> None:
    write_layout(root, VoxelGrid(GRID.shape, 0.8, (0.0, 60.0, -2.4)), {"train": ["00"]})
    found = findings(root)
    assert found["calibration"].verdict == "FAULT" or found["in view"].verdict == "FAULT"


def test_a_real_root_passes_but_for_what_one_frame_cannot_tell(real_kitti_root: Path) -> None:
    """A single real scan: no masks, and a photograph of another place."""
    found = findings(real_kitti_root)
    verdicts = {name: finding.verdict for name, finding in found.items()}
    assert {name for name, verdict in verdicts.items() if verdict == "note"} == {"invalid", "axes"}
    assert "FAULT" not in verdicts.values()
    assert "1241x376" in found["calibration"].found or "1224x370" in found["calibration"].found
    assert "P2's fourth column is used" in found["calibration"].found


def test_a_format_without_cameras_is_refused(tmp_path: Path) -> None:
    labels = np.zeros((8, 8, 4), np.uint8)
    scene = Scene(labels, VoxelGrid((8, 8, 4), 0.4, (0.0, 0.0, 0.0)), load_taxonomy("carla_sc"))
    write_carla_frame(tmp_path, "val", "Town10", "000000", scene)
    write_carla_params(tmp_path, "val", "Town10", scene.grid.shape, (scene.grid.origin_m, scene.grid.upper_m))
    with pytest.raises(InputError, match="a dataset with cameras, found carla_sc; occfactory convert"):
        open_for_check(tmp_path, "val")


# --- the command

TINY = ("--recipe", "tiny", "--set", "network.relation_prior=false", "--set", "training.steps=2")


def run(*words: object) -> tuple[int, list[str]]:
    app = typer.Typer()
    app.callback()(lambda: None)
    ssc_score_cli.register(app)
    result = CliRunner().invoke(app, ["check", *map(str, words), "--quiet", "--frames", "3"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout.splitlines()


def test_the_command_says_when_a_frame_could_not_be_learnt(sound: Path, tmp_path: Path) -> None:
    status, lines = run(sound, "--out", tmp_path / "o.png", *TINY, "--frame", "00/000010")
    assert status == 1
    assert [line[:5] for line in lines] == ["ok   "] * 12 + ["FAULT"]
    assert lines[-1].startswith("FAULT  one frame    could not be learnt above 95 %: 00/000010 to IoU ")
    assert ", 2 steps, " in lines[-1]
    assert "training.steps=2000" in lines[-1]
    assert (tmp_path / "o.png").exists()


def test_the_command_learns_nothing_from_a_faulty_root(root: Path, tmp_path: Path) -> None:
    each(root, ".label", lambda c: c[:-2])
    status, lines = run(root, "--out", tmp_path / "o.png", *TINY)
    assert status == 1
    assert lines[-1] == "note   one frame    not tried: put the faults right first"
    assert run(root, "--out", tmp_path / "o.png", "--no-overfit")[1] == lines[:-1]


def test_a_frame_that_could_be_learnt_is_ok(sound: Path, monkeypatch) -> None:
    """A network that learns takes minutes: here the mark to reach is lowered instead."""
    monkeypatch.setattr("ssc_eval.training.REACHED", -1.0)
    changes = ("network.relation_prior=false", "training.steps=2")
    finding = learn_one(open_for_check(sound, "train"), "tiny", changes)
    assert finding.verdict == "ok"
    assert finding.found.startswith("learnt 00/000020 to IoU")


# --- the pieces


def test_facts_count_by_hand(sound: Path) -> None:
    facts = all_facts(open_for_check(sound, "train").files)
    labels = street(0)
    assert facts[0].occupied == (labels > 0).sum()
    assert facts[0].below == (labels[:, :, :4] > 0).sum()
    assert facts[0].invalid == (labels[:, :, 7] == 0).sum()
    assert (facts[0].hidden, facts[0].unseen) == (0, 0)
    assert facts[0].scanned == facts[0].labelled == facts[0].occupied


def test_likeness_and_reordering() -> None:
    slab = np.zeros((4, 6, 2), np.uint16)
    slab[:, :, 0] = 40
    assert likeness(slab) == pytest.approx((1 + 1 + 0) / 3)
    assert likeness(np.zeros((2, 2, 2), np.uint16)) == 1
    numbered = np.arange(48, dtype=np.uint16).reshape(4, 6, 2)
    written = np.ascontiguousarray(numbered.transpose(2, 0, 1)).reshape(4, 6, 2)
    assert np.array_equal(reordered(written, (2, 0, 1)), numbered)


def test_turns_are_all_different_and_undone_by_their_code() -> None:
    square, oblong = turns(GRID), turns(VoxelGrid((4, 6, 2), 1.0, (0.0, 0.0, 0.0)))
    assert (len(square), len(oblong)) == (9, 5)
    assert square[0].code() == "labels"
    labels = np.arange(32, dtype=np.uint8).reshape(4, 4, 2)
    assert len({turn.of(labels).tobytes() for turn in square}) == 9
    for turn in square:
        assert np.array_equal(eval(turn.code(), {"labels": labels}), turn.of(labels))
    assert np.array_equal(Turn(True, (False, True, False)).of(labels), labels.transpose(1, 0, 2)[:, ::-1])


def test_mutual_information_of_closed_cases() -> None:
    halves = np.repeat(np.array([0, 1], np.uint8), 50).reshape(10, 10)
    assert mutual_information(halves, halves + 5) == pytest.approx(np.log(2))
    assert mutual_information(halves, halves.T.copy()) == pytest.approx(0)
    assert mutual_information(halves, np.zeros_like(halves)) == 0


def test_dots_lie_on_their_voxels(sound: Path) -> None:
    frame = shown_frames(open_truth(sound, "train"), 1)[0]
    drawn = overlay(frame)
    plain = overlay(type(frame)(frame.key, frame.scene, frame.camera, np.zeros_like(frame.photograph)))
    height, width = drawn.shape[:2]
    assert (height, width) == (448, 1344)
    magenta = (plain == TAXONOMY.colors[ID["road"]]).all(-1)
    yellow = (plain == TAXONOMY.colors[ID["building"]]).all(-1)
    assert magenta.any()
    assert np.argwhere(magenta)[:, 0].min() > 0.4 * height  # below the horizon
    assert np.argwhere(yellow)[:, 1].max() < 0.6 * width  # houses are on the left
