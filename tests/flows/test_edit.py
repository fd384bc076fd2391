"""Edits from files to files with a toy generator: what is written, what survives, what is refused, the commands."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flows import edit_cli
from flows.edit import Frames, Region, inpaint_root, outpaint_root, tile_root
from flows.edited import drive_poses, masked_frame, write_edited
from flows.inspect import describe_root
from flows.refine import Predictions, refine_root
from pipeline.datasets.image_files import read_image
from pipeline.datasets.npy_arrays import bytes_array
from pipeline.datasets.semantic_kitti import open_root, read_frame, write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, load_taxonomy
from tests.generators.toy_generator import ToyGenerator

GRID = VoxelGrid((16, 12, 8), 0.4, (0.0, -2.4, -2.0))
TAXONOMY = load_taxonomy("semantic_kitti")
ROAD, CAR = TAXONOMY.id_of("road"), TAXONOMY.id_of("car")


def street(seed: int, invalid: float = 0.2) -> Scene:
    """A road with a car on it; some voxels invalid."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, 0] = ROAD
    labels[4:9, 3:7, 1:4] = CAR
    labels[rng.random(GRID.shape) < invalid] = IGNORE
    return Scene(labels, GRID, TAXONOMY)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("root")
    for k, (sequence, frame) in enumerate((("00", "000000"), ("00", "000005"), ("08", "000010"), ("08", "000015"))):
        write_frame(path, frame_of(street(k), sequence, frame))
    write_layout(path, GRID, {"train": ["00"], "val": ["08"]})
    return path


@pytest.fixture
def toy() -> ToyGenerator:
    return ToyGenerator(GRID, spread=0.05)


def test_inpainting_a_split(root, tmp_path, toy) -> None:
    region = Region(classes=("car",), dilation=1, only=("road",))
    assert inpaint_root(toy, Frames(root, split="val"), region, 3, tmp_path / "out") == 2
    old, new = open_root(root), open_root(tmp_path / "out")
    assert new.grid == GRID
    assert new.splits == {"val": ("08",)}
    assert new.frames("val") == (("08", "000010"), ("08", "000015"))
    for key in new.frames("val"):
        before, frame = old.scene(*key).labels, read_frame(new, *key)
        changeable = np.zeros(GRID.shape, bool)
        changeable[3:10, 2:8, 0:5] = True  # the car and one voxel around
        assert (frame.labels[~changeable] == before[~changeable]).all()  # invalid voxels included
        assert not np.isin(frame.labels[4:9, 3:7, 1:4], [CAR]).any()
        assert frame.scan is not None
        assert frame.occluded is not None
    table = json.loads((tmp_path / "out/edit.json").read_text())
    assert (table["edit"], table["seed"]) == ("inpaint", 3)
    assert table["scenes"]["08/000010"]["edits"][0]["edit"] == "inpaint"
    assert read_image(tmp_path / "out/pictures/08_000010.png").ndim == 3
    assert "val: 2 frames" in describe_root(tmp_path / "out")


def test_variants_of_one_frame_differ_and_are_the_same_again(root, tmp_path, toy) -> None:
    frames, region = Frames(root, frame="08/000010", count=3), Region(box_m=(0, -2, -2, 6, 2, 0))
    for name in ("a", "b"):
        assert inpaint_root(toy, frames, region, 0, tmp_path / name) == 3
    found = [open_root(tmp_path / name) for name in ("a", "b")]
    assert found[0].frames("val") == tuple(("08", f"00000{k}") for k in range(3))
    scenes = [[r.scene("08", f"00000{k}").labels for k in range(3)] for r in found]
    assert all((a == b).all() for a, b in zip(*scenes, strict=True))
    assert (scenes[0][0] != scenes[0][1]).any()


def test_foreground_alone(root, tmp_path, toy) -> None:
    inpaint_root(toy, Frames(root, split="train", count=1), Region(foreground=True), 0, tmp_path / "out")
    before = open_root(root).scene("00", "000000").labels
    after = open_root(tmp_path / "out").scene("00", "000000").labels
    assert (after[before == ROAD] == ROAD).all()
    assert set(np.unique(after)) <= {0, IGNORE, ROAD, *TAXONOMY.foreground}


def test_outpainting_keeps_the_old_part(root, tmp_path, toy) -> None:
    made, seams = outpaint_root(toy, Frames(root, split="val"), ("+x", "-y"), 1.6, 0, tmp_path / "out")
    assert made == 2
    assert 0 < seams.seam_change < 1
    old, new = open_root(root), open_root(tmp_path / "out")
    assert new.grid == VoxelGrid((28, 20, 8), 0.4, (0.0, -5.6, -2.0))
    for key in new.frames("val"):
        before, after = old.scene(*key).labels, new.scene(*key).labels
        assert (after[:16, 8:] == before).all()
        assert (after[16:] != IGNORE).any()


def test_a_street_is_a_root_with_its_seams_measured(tmp_path, toy) -> None:
    report = tile_root(toy, (12.8, 8.0), 1.6, 1, tmp_path / "out", note={"weights": {"a": "b"}})
    root = open_root(tmp_path / "out")
    assert root.grid.shape == (32, 20, 8)
    assert report is not None
    assert 0 < report.seam_change < 1
    table = json.loads((tmp_path / "out/edit.json").read_text())
    assert table["seams"]["ratio"] == f"{report.ratio:.4g}"
    assert table["weights"] == {"a": "b"}
    frame = read_frame(root, "00", "000000")
    assert 0 < frame.invalid.mean() < 0.9
    assert "train: 1 frames" in describe_root(tmp_path / "out")


def test_a_street_may_begin_with_a_frame(root, tmp_path, toy) -> None:
    tile_root(toy, (9.6, 4.8), None, 1, tmp_path / "out", start=Frames(root, frame="08/000010"))
    before = open_root(root).scene("08", "000010")
    after = open_root(tmp_path / "out").scene("00", "000000").labels[:16]
    assert (after[before.valid] == before.labels[before.valid]).all()


def test_masks_hide_what_no_drive_sees_unless_it_was_held() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, 0] = ROAD
    labels[8, :, 1:8] = TAXONOMY.id_of("building")  # a wall across, seen from both sides
    labels[2:6, 9:12, 1:6] = TAXONOMY.id_of("building")  # a solid block
    scene = Scene(labels, GRID, TAXONOMY)
    frame = masked_frame(scene, np.zeros(GRID.shape, bool), "00", "0", [0.0])
    assert frame.invalid[3:5, 10, 2:4].all()  # its inside
    assert (frame.labels[frame.invalid] == IGNORE).all()
    assert (frame.labels[~frame.invalid] == labels[~frame.invalid]).all()
    held = np.zeros(GRID.shape, bool)
    held[3, 10, 2] = True
    kept = masked_frame(scene, held, "00", "0", [0.0])
    assert kept.labels[3, 10, 2] == labels[3, 10, 2]
    assert (kept.invalid == (frame.invalid & ~held)).all()


def test_drives_go_along_every_lane() -> None:
    poses = drive_poses(replace(GRID, origin_m=(-4.0, -2.4, -2.0)), [0.0, 10.0])
    assert poses[0, :2, 3].tolist() == [0, 0]
    assert poses[1:, :2, 3].tolist() == [[-4, 0], [0, 0], [4, 0], [-4, 10], [0, 10], [4, 10]]


@pytest.fixture
def predictions(tmp_path) -> Path:
    """Two benchmark predictions, cars where there are none, and confidence in them."""
    for k, frame in enumerate(("000010", "000015")):
        labels = np.where(street(k + 2, invalid=0).labels == 0, np.uint8(CAR), street(k + 2, invalid=0).labels)
        folder = tmp_path / "predictions/sequences/08"
        for kind in ("predictions", "confidence"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        TAXONOMY.to_raw(labels).astype("<u2").tofile(folder / "predictions" / f"{frame}.label")
        confidence = np.zeros(GRID.shape, np.uint8)
        confidence[4:9, 3:7, 1:4] = 250
        (folder / "confidence" / f"{frame}.npy").write_bytes(bytes_array(confidence))
    return tmp_path / "predictions"


def test_refining_predictions(root, predictions, tmp_path, toy) -> None:
    free = refine_root(toy, Predictions(predictions, truth=root), 0, tmp_path / "free")
    kept = refine_root(toy, Predictions(predictions, trust=0.9, truth=root), 0, tmp_path / "kept")
    assert free is not None
    assert kept is not None
    assert free.frames == 2
    assert free.before == kept.before
    assert free.before.class_iou[CAR - 1] < 0.2
    assert free.after.class_iou[CAR - 1] == 0  # the toy removes all cars
    assert kept.after.class_iou[CAR - 1] == 1  # but not those that are trusted
    root_out = open_root(tmp_path / "kept")
    assert (root_out.scene("08", "000010").labels == street(2, invalid=0).labels).all()
    assert json.loads((tmp_path / "kept/edit.json").read_text())["scores"] == kept.lines()


def test_a_root_of_voxels_is_refined_too(root, tmp_path, toy) -> None:
    assert refine_root(toy, Predictions(root, count=1), 0, tmp_path / "out") is None
    labels = open_root(tmp_path / "out").scene("00", "000000").labels
    assert (labels[open_root(root).scene("00", "000000").labels == ROAD] == ROAD).all()
    assert not (labels == CAR).any()


# --- faults


def test_faults_are_found_before_work(root, predictions, tmp_path, toy) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    box = Region(box_m=(0, -2, -2, 6, 2, 0))
    val = Frames(root, split="val")
    with pytest.raises(InputError, match="a new or empty folder"):
        inpaint_root(toy, val, box, 0, tmp_path / "full")
    with pytest.raises(InputError, match="either --frame SEQUENCE/NAME or --split"):
        inpaint_root(toy, Frames(root), box, 0, tmp_path / "out")
    with pytest.raises(InputError, match="a frame of sequence 08"):
        inpaint_root(toy, Frames(root, frame="08/000099"), box, 0, tmp_path / "out")
    with pytest.raises(InputError, match="SEQUENCE/NAME"):
        inpaint_root(toy, Frames(root, frame="08"), box, 0, tmp_path / "out")
    with pytest.raises(InputError, match="one of --box, --classes and --foreground"):
        Region()
    with pytest.raises(InputError, match="one of empty, car"):
        inpaint_root(toy, val, Region(classes=("cat",)), 0, tmp_path / "out")
    with pytest.raises(InputError, match="a box inside"):
        inpaint_root(toy, val, Region(box_m=(90, 0, 0, 91, 1, 1)), 0, tmp_path / "out")
    with pytest.raises(InputError, match="at least the generator's"):
        tile_root(toy, (1.0, 1.0), None, 0, tmp_path / "out")
    with pytest.raises(InputError, match="grid"):
        inpaint_root(ToyGenerator(), val, box, 0, tmp_path / "out")
    with pytest.raises(InputError, match=r"confidence as a uint8 array"):
        refine_root(toy, Predictions(root, trust=0.5), 0, tmp_path / "out")
    with pytest.raises(InputError, match="at least one scene"):
        write_edited(tmp_path / "out", [], {})
    assert not (tmp_path / "out").exists()


# --- commands


@pytest.fixture
def cli(monkeypatch, toy) -> typer.Typer:
    """The commands on an app of their own, with the toy's folder as weights."""
    generators = pytest.importorskip("flows.generators")
    monkeypatch.setattr(generators, "load_generator", lambda folder: ToyGenerator(GRID, spread=0.05))
    app = typer.Typer()
    edit_cli.register(app)
    return app


def test_commands(cli, root, predictions, tmp_path) -> None:
    def run(*arguments: object) -> str:
        result = CliRunner().invoke(cli, [*map(str, arguments), "--weights", str(tmp_path)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    a, b, c, d = (tmp_path / name for name in "abcd")
    frame = ("--frame", "08/000010")
    assert f"{a}: 2 scenes" in run("inpaint", root, *frame, "-n", 2, "--box", "0,-2,-2,6,2,0", "--out", a)
    assert f"{b}: 1 scenes; of neighbours differ" in run(
        "outpaint", root, *frame, "--to", "-x", "--overlap", 1.6, "--out", b
    )
    assert "% across seams" in run("tile", "--size", "12.8x4.8", "--out", c)
    assert "mIoU" in run("refine", predictions, "--truth", root, "--out", d, "-n", 1)
    assert open_root(b).grid.origin_m[0] == pytest.approx(-4.8)
    for folder in (a, b, c, d):
        assert list((folder / "pictures").glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inpaint", "ROOT", "--split", "val", "--box", "1,2", "--out", "OUT"], "six numbers"),
        (["inpaint", "ROOT", "--split", "val", "--out", "OUT"], "one of --box, --classes and --foreground"),
        (["tile", "--size", "long", "--out", "OUT"], "XxY in metres"),
        (["tile", "--size", "20x20", "--frame", "00/0", "--out", "OUT"], "together, or neither"),
        (["outpaint", "ROOT", "--split", "val", "--to", "up", "--out", "OUT"], r"one of \+x, -x, \+y, -y"),
    ],
)
def test_commands_refuse_in_one_line(cli, root, tmp_path, arguments: list[str], message: str) -> None:
    filled = [a.replace("ROOT", str(root)).replace("OUT", str(tmp_path / "out")) for a in arguments]
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(cli, [*filled, "--weights", str(tmp_path)], catch_exceptions=False)
    assert not (tmp_path / "out").exists()
