"""Convert a small dataset into every format and read it back; info tells of each."""

import json

import numpy as np
import pytest

from flows.convert import convert_dataset
from flows.inspect import describe_root
from flows.recipes import ConvertRecipe
from pipeline.datasets import carla_sc, occ3d
from pipeline.datasets.convert import convert_scene, load_conversion
from pipeline.datasets.craft3d import Action, replay, write_house
from pipeline.datasets.formats import FORMATS, detect
from pipeline.datasets.semantic_kitti import open_root, write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy

GRID = VoxelGrid((16, 16, 8), 0.4, (0.0, -3.2, -1.0))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for sequence, frame in (("00", "000000"), ("00", "000005"), ("08", "000000")):
        labels = rng.choice(np.r_[np.arange(20), 255], GRID.shape).astype(np.uint8)
        write_frame(root, frame_of(Scene(labels, GRID, load_taxonomy("semantic_kitti")), sequence, frame))
    write_layout(root, GRID, {"train": ["00"], "val": ["08"]})
    return root


@pytest.mark.parametrize("target", ["semantic_kitti", "kitti_360", "carla_sc", "occ3d"])
def test_convert_and_read_back(source, tmp_path, target: str) -> None:
    losses = convert_dataset(ConvertRecipe(root=source, to=target, shard_frames=2), tmp_path, workers=2)
    assert bool(losses) == (target != "semantic_kitti")
    assert detect(tmp_path).name == target
    root, original = FORMATS[target].open(tmp_path), open_root(source)
    conversion = load_conversion("semantic_kitti", target)
    lift_m = FORMATS["semantic_kitti"].origin_height_m - FORMATS[target].origin_height_m
    for split in ("train", "val"):
        assert root.frames(split) == original.frames(split)
        for key in root.frames(split):
            expected = convert_scene(original.scene(*key), conversion, FORMATS[target].grid, lift_m)
            np.testing.assert_array_equal(root.scene(*key).labels, expected.labels)
            assert root.scene(*key).grid.voxel_size_m == pytest.approx(0.4)
            np.testing.assert_allclose(root.scene(*key).grid.origin_m, expected.grid.origin_m, atol=1e-9)
    text = describe_root(tmp_path)
    assert f"{target}\nframes: train 2, val 1" in text
    assert load_taxonomy(FORMATS[target].taxonomy).classes[1] in text


def test_the_fine_labels_of_carla_sc_alone_are_told_of_and_converted(tmp_path) -> None:
    grid = VoxelGrid((256, 256, 16), 0.2, (-25.6, -25.6, -2.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[100, 30, 2:5] = 10
    fine = Scene(labels, grid, load_taxonomy("carla_sc"))
    carla_sc.write_carla_fine_frame(tmp_path / "fine", "val", "Town10_Light", "000000", fine)
    assert "val: 1 frames, the first 256 x 256 x 16 voxels of 0.2 m" in describe_root(tmp_path / "fine")
    convert_dataset(ConvertRecipe(root=tmp_path / "fine", to="semantic_kitti"), tmp_path / "out")
    converted = open_root(tmp_path / "out").scene("Town10_Light", "000000")
    assert np.argwhere(converted.labels).tolist() == [[100, 30, 2], [100, 30, 3], [100, 30, 4]]
    assert converted.taxonomy.classes[converted.labels[100, 30, 2]] == "car"


@pytest.mark.parametrize("target", ["semantic_kitti", "carla_sc"])
def test_roads_keep_their_height_and_tokens_become_numbers(tmp_path, target: str) -> None:
    """Occ3D's origin lies on the road, a lidar's 1.7 to 1.8 m above it; only Occ3D calls frames by tokens."""
    semantics = np.full(occ3d.OCC3D_GRID.shape, 17, np.uint8)
    semantics[:, :, 2] = 11  # a road at -0.2 to 0.2 m
    seen = np.ones_like(semantics)
    for token in ("fd84", "0a1b"):
        occ3d.write_occ3d_frame(tmp_path / "occ", "scene-0001", token, occ3d.Occ3dFrame(semantics, seen, seen))
    occ3d.write_occ3d_annotations(tmp_path / "occ", {"train": ("scene-0001",)}, {})
    convert_dataset(ConvertRecipe(root=tmp_path / "occ", to=target), tmp_path / "out")
    root = FORMATS[target].open(tmp_path / "out")
    assert root.frames("train") == (("scene-0001", "000000"), ("scene-0001", "000001"))
    names = json.loads((tmp_path / "out/frame_names.json").read_text())
    assert names == {"scene-0001/000000": "0a1b", "scene-0001/000001": "fd84"}
    scene = root.scene("scene-0001", "000001")
    (height,) = np.unique(scene.grid.centre(np.argwhere(scene.labels == scene.taxonomy.id_of("road")))[:, 2])
    assert height == pytest.approx(-FORMATS[target].origin_height_m)


def test_written_annotations_say_what_comes_next(source, tmp_path) -> None:
    convert_dataset(ConvertRecipe(root=source, to="occ3d"), tmp_path)
    infos = json.loads((tmp_path / "annotations.json").read_text())["scene_infos"]
    first = {"gt_path": "gts/00/000000/labels.npz", "prev": "", "next": "000005"}
    last = {"gt_path": "gts/00/000005/labels.npz", "prev": "000000", "next": ""}
    assert infos == {
        "00": {"000000": first, "000005": last},
        "08": {"000000": {**first, "next": ""} | {"gt_path": "gts/08/000000/labels.npz"}},
    }


def test_losses_tell_of_classes_grid_and_cells(source, tmp_path) -> None:
    losses = convert_dataset(ConvertRecipe(root=source, to="occ3d"), tmp_path / "occ")
    assert "x outside 0 to 6.4 m isn't known (of -40 to 40)" in losses
    carla = tmp_path / "carla"
    convert_dataset(ConvertRecipe(root=source, to="carla_sc"), carla)
    assert FORMATS["carla_sc"].notes[0] in convert_dataset(ConvertRecipe(root=carla, to="kitti_360"), tmp_path / "360")


def test_info_of_houses(tmp_path) -> None:
    write_house(tmp_path, replay([Action(0, "a", (0, 0, 0), 5, 0, True), Action(0, "a", (1, 0, 0), 53, 0, True)], "h"))
    text = describe_root(tmp_path)
    assert "craft3d\nframes: all 1" in text
    assert "planks" in text
    assert "bedrock" not in text  # only blocks that occur are listed


def test_what_cannot_be_converted_is_said(source, tmp_path) -> None:
    with pytest.raises(InputError, match="one of semantic_kitti, kitti_360, carla_sc, occ3d"):
        convert_dataset(ConvertRecipe(root=source, to="craft3d"), tmp_path)
    with pytest.raises(InputError, match="a split of train, val"):
        convert_dataset(ConvertRecipe(root=source, to="occ3d", split="test"), tmp_path)
