"""Convert a small dataset into every format and read it back; info tells of each."""

import numpy as np
import pytest

from flows.convert import convert_dataset
from flows.inspect import describe_root
from flows.recipes import ConvertRecipe
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
    for split in ("train", "val"):
        assert root.frames(split) == original.frames(split)
        for key in root.frames(split):
            expected = convert_scene(original.scene(*key), conversion, FORMATS[target].grid)
            np.testing.assert_array_equal(root.scene(*key).labels, expected.labels)
            assert root.scene(*key).grid.voxel_size_m == pytest.approx(0.4)
    text = describe_root(tmp_path)
    assert f"{target}\nframes: train 2, val 1" in text
    assert load_taxonomy(FORMATS[target].taxonomy).classes[1] in text


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
