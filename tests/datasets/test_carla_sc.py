"""CarlaSC: hand-worked bytes, round trips at both resolutions, faults in one line."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.carla_sc import (
    open_carla_sc,
    write_carla_fine_frame,
    write_carla_frame,
    write_carla_params,
)
from pipeline.datasets.statistics import dataset_statistics
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy

SHAPE, BOUNDS = (4, 2, 2), ((-0.8, -0.4, -2.0), (0.8, 0.4, -1.2))


def by_hand(root: Path) -> None:
    """A frame whose bytes are written here: tag 10 (vehicle) at (3, 1, 0), tag 7 (road) at (0, 0, 1), no hit at 0."""
    folder = root / "Train/Town01_Heavy/cartesian/evaluation"
    folder.mkdir(parents=True)
    tags, hits = [0] * 16, [1.0] * 16
    tags[(3 * 2 + 1) * 2 + 0], tags[1], hits[0] = 10, 7, 0.0
    (folder / "000005.label").write_bytes(struct.pack("<16I", *tags))
    (folder / "000005.bin").write_bytes(struct.pack("<16f", *hits))
    table = {"num_channels": 1, "grid_size": SHAPE, "min_bound": BOUNDS[0], "max_bound": BOUNDS[1]}
    (folder / "params.json").write_text(json.dumps(table))


def test_hand_worked_bytes(tmp_path) -> None:
    by_hand(tmp_path)
    root = open_carla_sc(tmp_path)
    assert root.frames("train") == (("Town01_Heavy", "000005"),)
    assert root.frames("val") == ()
    scene = root.scene("Town01_Heavy", "000005")
    assert scene.labels[3, 0, 0] == scene.taxonomy.id_of("vehicle")  # the files' y grows to the right, ours to the left
    assert scene.labels[0, 1, 1] == 6  # CARLA's 7 is a road as 6 is
    assert scene.labels[0, 1, 0] == 255
    assert scene.valid.sum() == 15
    assert scene.grid.origin_m == (-0.8, -0.4, -2.0)
    assert scene.grid.voxel_size_m == pytest.approx(0.4)
    assert dataset_statistics(root).class_voxels[10] == 1


def test_params_as_published_and_none(tmp_path) -> None:
    """Floats, float32 in decimals, a field more; the fine download has no params.json at all."""
    by_hand(tmp_path)
    params = tmp_path / "Train/Town01_Heavy/cartesian/evaluation/params.json"
    low, high = np.array([-0.8, -0.2, -2.0], np.float32).tolist(), np.array([0.8, 0.6, -1.2], np.float32).tolist()
    table = {"grid_size": [4.0, 2.0, 2.0], "min_bound": low, "max_bound": high, "num_channels": 25}
    params.write_text(json.dumps(table | {"coordinates": "cartesian"}))
    root = open_carla_sc(tmp_path)
    assert root.bounds_m == ((-0.8, -0.6, -2.0), (0.8, 0.2, -1.2))  # right and left change places
    assert root.grid == VoxelGrid((4, 2, 2), 0.4, (-0.8, -0.6, -2.0))
    write_carla_params(tmp_path, "train", "Town01_Heavy", root.grid.shape, root.bounds_m)
    again = json.loads(params.read_text())
    assert again["min_bound"] == [-0.8, -0.2, -2.0]
    assert again["num_channels"] == 25
    params.write_text(json.dumps(table | {"coordinates": "cylindrical"}))
    with pytest.raises(InputError, match="cartesian coordinates, found 'cylindrical'"):
        open_carla_sc(tmp_path)
    fine = Scene(
        np.zeros((256, 256, 16), np.uint8), VoxelGrid((256, 256, 16), 0.2, (0.0, 0.0, 0.0)), load_taxonomy("carla_sc")
    )
    write_carla_fine_frame(tmp_path / "fine", "test", "Town07_Light", "000000", fine)
    assert open_carla_sc(tmp_path / "fine", "evaluation_fine").grid.origin_m == (-25.6, -25.6, -2.0)
    assert open_carla_sc(tmp_path / "fine").folder == "evaluation_fine"  # what is there
    with pytest.raises(InputError, match="a CarlaSC root"):
        open_carla_sc(tmp_path / "fine", "evaluation")


def test_a_sequence_in_two_splits_is_refused(tmp_path) -> None:
    by_hand(tmp_path)
    shutil.copytree(tmp_path / "Train", tmp_path / "Val")
    with pytest.raises(InputError, match="Town01_Heavy in train and val"):
        open_carla_sc(tmp_path)


def test_the_same_scene_gives_the_same_bytes(tmp_path) -> None:
    by_hand(tmp_path)
    scene = open_carla_sc(tmp_path).scene("Town01_Heavy", "000005")
    (name, _) = write_carla_frame(tmp_path / "copy", "train", "Town01_Heavy", "000005", scene)
    tags = struct.unpack("<16I", (tmp_path / "copy" / name).read_bytes())
    assert {place: tag for place, tag in enumerate(tags) if tag} == {
        14: 10,
        1: 6,
    }  # where they stood; roads are written as 6


def test_published_cells_are_flatter_than_cubes_and_said_to_be() -> None:
    published = VoxelGrid((128, 128, 8), 0.4, (-25.6, -25.6, -2.0))
    assert published.upper_m[2] == pytest.approx(1.2)  # the true box ends at 1.0


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 9)] * 3))
@settings(max_examples=25, deadline=None)
def test_any_grid_comes_back(tmp_path_factory, seed: int, shape: tuple[int, int, int]) -> None:
    rng, root = np.random.default_rng(seed), tmp_path_factory.mktemp("carla")
    labels = rng.choice(np.r_[np.arange(11), 255], shape).astype(np.uint8)
    grid = VoxelGrid(shape, 0.4, (-0.8, float(rng.integers(-99, 99)) / 10, -2.0))
    scene = Scene(labels, grid, load_taxonomy("carla_sc"))
    hits = np.where(scene.valid, rng.integers(1, 99, shape), 0).astype(np.float32)
    write_carla_frame(root, "test", "Town07_Light", "000000", scene, hits)
    write_carla_params(root, "test", "Town07_Light", grid.shape, (grid.origin_m, grid.upper_m))
    found = open_carla_sc(root).scene("Town07_Light", "000000")
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.grid.origin_m, grid.origin_m, atol=1e-6)
    assert found.grid.voxel_size_m == pytest.approx(0.4)
    stored = np.fromfile(root / "Test/Town07_Light/cartesian/evaluation/000000.bin", "<f4").reshape(shape)
    np.testing.assert_array_equal(stored[:, ::-1], hits)


def test_links_that_leave_the_root_are_refused(tmp_path) -> None:
    by_hand(tmp_path / "elsewhere")
    by_hand(tmp_path / "root")
    (tmp_path / "root/Val").symlink_to(tmp_path / "elsewhere/Train")
    with pytest.raises(InputError, match="a link to"):
        open_carla_sc(tmp_path / "root")


@pytest.mark.parametrize("seed", range(3))
def test_round_trip(tmp_path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    taxonomy, shape = load_taxonomy("carla_sc"), (128, 128, 8)
    labels = rng.choice(np.r_[np.arange(11), 255], shape).astype(np.uint8)
    scene = Scene(labels, VoxelGrid(shape, 0.4, (-25.6, -25.6, -2.0)), taxonomy)
    written = write_carla_frame(tmp_path, "val", "Town10_Light", "000000", scene)
    fine_labels = rng.integers(0, 11, (256, 256, 16), dtype=np.uint8)
    fine = Scene(fine_labels, VoxelGrid((256, 256, 16), 0.2, (-25.6, -25.6, -2.0)), taxonomy)
    written += write_carla_fine_frame(tmp_path, "val", "Town10_Light", "000000", fine)
    written.append(write_carla_params(tmp_path, "val", "Town10_Light"))
    assert all((tmp_path / name).is_file() for name in written)
    assert (tmp_path / written[0]).stat().st_size == 4 * 128 * 128 * 8
    coarse_root, fine_root = open_carla_sc(tmp_path), open_carla_sc(tmp_path, "evaluation_fine")
    np.testing.assert_array_equal(coarse_root.scene("Town10_Light", "000000").labels, labels)
    np.testing.assert_array_equal(fine_root.scene("Town10_Light", "000000").labels, fine_labels)
    assert fine_root.grid == VoxelGrid((256, 256, 16), 0.2, (-25.6, -25.6, -2.0))
    assert coarse_root.bounds_m[1][2] == 1.0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("000005.label", b"\0" * 63, "64 bytes"),
        ("000005.label", struct.pack("<16I", *[23] * 16), "unknown raw id 23"),
        ("000005.label", struct.pack("<16I", *[2**32 - 1] * 16), "unknown raw id 4294967295"),
        ("000005.bin", struct.pack("<16f", *[float("nan")] * 16), "finite hit counts"),
        ("params.json", b"{}", "grid_size"),
        ("params.json", b'{"grid_size": [4, 2, 0], "min_bound": [0,0,0], "max_bound": [1,1,1]}', "voxels in a box"),
        ("params.json", b'{"grid_size": [4, 2, 2], "min_bound": [0,0,0], "max_bound": [1,1,9]}', "nearly cubes"),
        (
            "params.json",
            b'{"grid_size": [1%s, 2, 2], "min_bound": [0,0,0], "max_bound": [1,1,9]}' % (b"0" * 400),
            "in a box",
        ),
        (
            "params.json",
            b'{"grid_size": [4, 2, 2], "min_bound": [-1e308,0,0], "max_bound": [1e308,1,9]}',
            "no coordinate",
        ),
        ("params.json", b'{"grid_size": [4, 2, 2], "min_bound": [2,0,0], "max_bound": [1,1,9]}', "voxels in a box"),
        ("params.json", b'{"grid_size": [9e9, 9e9, 2], "min_bound": [0,0,0], "max_bound": [1,1,9]}', "voxels in a box"),
    ],
)
def test_faults_are_one_line(tmp_path, name: str, content: bytes, message: str) -> None:
    by_hand(tmp_path)
    (tmp_path / "Train/Town01_Heavy/cartesian/evaluation" / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_carla_sc(tmp_path).scene("Town01_Heavy", "000005")
    assert "\n" not in str(caught.value)


def test_no_root_and_masks_that_disagree(tmp_path) -> None:
    with pytest.raises(InputError, match="a CarlaSC root"):
        open_carla_sc(tmp_path)
    scene = Scene(np.zeros((4, 2, 2), np.uint8), VoxelGrid(SHAPE, 0.4, (0.0, 0.0, 0.0)), load_taxonomy("carla_sc"))
    with pytest.raises(InputError, match="hits where the labels are valid"):
        write_carla_frame(tmp_path, "train", "T", "0", scene, np.zeros(SHAPE, np.float32))
