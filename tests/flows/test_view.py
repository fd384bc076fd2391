"""The commands view, mesh and blocks on what a user has: a root with a photograph, houses, bare files, weights."""

import base64
import io
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from flows import view_cli
from flows.generators import scene_seeds, with_batch
from flows.view_draws import drawn_scenes
from pipeline.datasets.craft3d import House, read_schematic, write_house, write_schematic
from pipeline.datasets.kitti_calibration import calibration_of, write_calibration
from pipeline.datasets.semantic_kitti import frame_path, write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.generators.whole_scene import WholeScene
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from tests.generators.tiny_methods import GRID, TAXONOMY, enliven, scene, whole

CAMERA_FROM_WORLD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 1], [0, 0, 0, 1]])
K = np.array([[40.0, 0, 32], [0, 40, 16], [0, 0, 1]])


def run(*arguments: object) -> str:
    """A command's output; a fault is raised as users of the library see it."""
    app = typer.Typer()
    view_cli.register(app)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def config_of(page: Path) -> dict:
    return json.loads(re.search(r'id="config">(.*?)</script>', page.read_text(), re.S)[1])


def labels_of(shown: dict) -> np.ndarray:
    """The last frame of a scene in a page."""
    changes = np.frombuffer(zlib.decompress(base64.b64decode(shown["data"])), np.uint8)
    return np.cumsum(changes.reshape(shown["frames"], *shown["shape"]), axis=0, dtype=np.uint8)[-1]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Four frames of sequence 08 with calibration, the first with a photograph, and one of 00 without any."""
    folder = tmp_path_factory.mktemp("root")
    for k, (sequence, frame) in enumerate([("08", f"{n:06d}") for n in range(4)] + [("00", "000007")]):
        write_frame(folder, frame_of(scene(k), sequence, frame))
    write_layout(folder, GRID, {"train": ("00",), "val": ("08",)})
    write_calibration(frame_path(folder, "08", "", "calib.txt"), calibration_of(Camera(K, CAMERA_FROM_WORLD, 64, 32)))
    photograph = frame_path(folder, "08", "image_2", "000000.png")
    photograph.parent.mkdir()
    Image.new("RGB", (64, 32), (10, 200, 30)).save(photograph)
    return folder


def picture(shown: dict) -> np.ndarray:
    content = base64.b64decode(shown["picture"].removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)))


def test_frames_of_a_root_with_what_their_camera_saw(root: Path, tmp_path) -> None:
    page = tmp_path / "a.html"
    assert "3 scenes" in run("view", root, "--split", "val", "--frames", 3, "--beside", 2, "--out", page)
    config = config_of(page)
    assert config["beside"] == 2
    assert [shown["name"] for shown in config["scenes"]] == ["08/000000", "08/000002", "08/000003"]
    np.testing.assert_array_equal(labels_of(config["scenes"][1]), scene(2).labels)
    first, second, _ = config["scenes"]
    assert picture(first).shape == (32, 64, 3)
    assert np.abs(picture(first).reshape(-1, 3).mean(0) - (10, 200, 30)).max() < 3  # the photograph
    assert picture(second).std() > 10  # the voxels
    run("view", root, "--frame", "00/000007", "--out", page)
    (shown,) = config_of(page)["scenes"]
    assert (shown["name"], shown["picture"]) == ("00/000007", None)
    run("view", root, "--no-pictures", "--first", "--out", page)
    assert [s["picture"] for s in config_of(page)["scenes"]] == [None] * 5


def test_label_files_with_their_root_or_a_like_one(root: Path, tmp_path) -> None:
    page, label = tmp_path / "a.html", root / "sequences/08/voxels/000001.label"
    run("view", label, "--no-pictures", "--out", page)
    np.testing.assert_array_equal(labels_of(config_of(page)["scenes"][0]), scene(1).labels)
    bare = tmp_path / "bare.label"
    bare.write_bytes(label.read_bytes())
    with pytest.raises(InputError, match=r"on a grid of 256x256x32.*--like"):
        run("view", bare, "--out", page)
    run("view", bare, "--like", root, "--out", page)
    (shown,) = config_of(page)["scenes"]
    assert shown["voxel_m"] == GRID.voxel_size_m
    known = scene(1).labels != 255
    np.testing.assert_array_equal(labels_of(shown)[known], scene(1).labels[known])


def house() -> House:
    blocks = np.zeros((3, 4, 2), np.uint8)
    blocks[0], blocks[2, 1, 1] = 5, 53
    return House("hut", blocks, np.where(blocks == 53, 2, 0).astype(np.uint8))


def test_houses_as_page_mesh_and_blocks(tmp_path) -> None:
    write_house(tmp_path, house())
    write_schematic(tmp_path / "single.npy", house())
    page = tmp_path / "a.html"
    for source, name in ((tmp_path, "hut"), (tmp_path / "houses/hut", "hut"), (tmp_path / "single.npy", "single")):
        run("view", source, "--out", page)
        (shown,) = config_of(page)["scenes"]
        assert shown["name"] == name
        np.testing.assert_array_equal(labels_of(shown), house().blocks)
        assert "9 blocks" in run("blocks", source, "--out", tmp_path / "b.npy")
        again = read_schematic(tmp_path / "b.npy")
        np.testing.assert_array_equal(again.meta, house().meta)
    pytest.importorskip("trimesh", reason="trimesh isn't installed (pip install trimesh)")
    assert "kB" in run("mesh", tmp_path, "--frame", "hut", "--out", tmp_path / "a.glb")
    assert (tmp_path / "a.glb").read_bytes().startswith(b"glTF")


def test_a_root_of_generated_houses_becomes_blocks(tmp_path) -> None:
    found = house().scene()
    write_house(tmp_path / "houses", house())
    nbtlib = pytest.importorskip("nbtlib", reason="nbtlib isn't installed (pip install nbtlib)")
    run("blocks", tmp_path / "houses", "--out", tmp_path / "a.nbt")
    assert len(nbtlib.load(tmp_path / "a.nbt")["blocks"]) == found.occupied.sum()


def test_draws_step_by_step(tmp_path) -> None:
    generator = WholeScene(whole())
    enliven(generator)
    generator.frequency = np.full(len(TAXONOMY.classes), 1 / len(TAXONOMY.classes))
    generator.save(tmp_path / "weights")
    expected = with_batch(generator, 2).sample(2, scene_seeds(5, range(2)))
    scenes = drawn_scenes(tmp_path / "weights", 2, 5, 16)
    assert [shown.captions for shown in scenes] == [("t = 6 of 6", "t = 4 of 6", "t = 2 of 6", "t = 0 of 6")] * 2
    for shown, drawn in zip(scenes, expected, strict=True):
        np.testing.assert_array_equal(shown.frames[-1], drawn.labels)
        assert len(np.unique(shown.frames[0])) == len(TAXONOMY.classes)  # uniform noise
        assert not np.array_equal(shown.frames[0], shown.frames[1])
    (single,) = drawn_scenes(tmp_path / "weights", 1, 5, 1)
    assert len(single.frames) == 1
    run("view", "--weights", tmp_path / "weights", "-n", 2, "--estimates", "--out", tmp_path / "a.html")
    config = config_of(tmp_path / "a.html")
    assert (config["beside"], [s["frames"] for s in config["scenes"]]) == (2, [4, 4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("view", "ROOT", "--out", "a.png"), "ending in .html"),
        (("view", "--out", "a.html"), "a path, or --weights, found neither"),
        (("view", "ROOT", "--frame", "08/9", "--out", "a.html"), "found '08/9'"),
        (("view", "ROOT", "--split", "dev", "--out", "a.html"), "a split of train, val"),
        (("mesh", "ROOT", "--out", "a.ply"), "one scene, found several; name one"),
        (("mesh", "ROOT", "--out", "a.obj"), "ending in .ply or .glb"),
        (("blocks", "ROOT", "--frame", "08/000000", "--out", "a.nbt"), "Minecraft's blocks, found one of semantic"),
        (("blocks", "ROOT/grid.json", "--out", "a.nbt"), "another file"),
    ],
)
def test_faults_in_one_line(root: Path, tmp_path, monkeypatch, arguments, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)):
        run(*(a.replace("ROOT", str(root)) for a in arguments))
    assert not list(tmp_path.iterdir())
