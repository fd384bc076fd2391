"""Conversion tables, resampling by hand-worked cases, formats recognised."""

import numpy as np
import pytest

from pipeline.datasets.carla_sc import write_carla_frame, write_carla_params
from pipeline.datasets.convert import convert_scene, grid_losses, load_conversion, resampled
from pipeline.datasets.craft3d import Action, replay, write_house, write_schematic
from pipeline.datasets.formats import FORMATS, detect, written_names
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.scene.errors import InputError
from pipeline.scene.files import data_path
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy

KITTI = load_taxonomy("semantic_kitti")
TABLES = sorted(path.stem.split("_to_") for path in data_path("conversions").iterdir())


@pytest.mark.parametrize(("source", "target"), TABLES)
def test_every_table_is_whole(source: str, target: str) -> None:
    conversion = load_conversion(source, target)
    table = conversion.table()
    assert table[0] == 0
    assert table[255] == 255
    for name, other in conversion.classes.items():
        expected = 255 if other == "ignore" else conversion.target.id_of(other)
        assert table[conversion.source.id_of(name)] == expected


def test_losses_are_named() -> None:
    losses = load_conversion("semantic_kitti", "carla_sc").losses()
    assert "car, bicycle, motorcycle, truck, other-vehicle become vehicle" in losses
    assert load_conversion("carla_sc", "semantic_kitti").losses() == ["other is dropped"]
    assert load_conversion("semantic_kitti", "semantic_kitti").losses() == []
    with pytest.raises(InputError, match="no table"):
        load_conversion("minecraft", "occ3d")


def test_tables_are_joined_where_none_is_shipped() -> None:
    joined = load_conversion("occ3d", "carla_sc")
    assert joined.classes["bus"] == "vehicle"  # by way of other-vehicle
    assert joined.classes["traffic-cone"] == "ignore"
    assert joined.classes["manmade"] == "building"
    assert set(joined.classes) == set(load_taxonomy("occ3d").classes)
    assert joined.target.name == "carla_sc"


def test_grids_lose_what_lies_outside() -> None:
    fine, coarse = VoxelGrid((4, 4, 4), 0.2, (0.0, 0.0, -0.4)), VoxelGrid((4, 2, 2), 0.4, (0.0, 0.0, 0.0))
    assert grid_losses(fine, fine) == []
    assert grid_losses(fine, coarse) == [
        "voxels of 0.2 m become 0.4 m: thin things may go",
        "x outside 0 to 0.8 m isn't known (of 0 to 1.6)",
        "z outside 0 to 0.8 m is cut off (it was -0.4 to 0.4)",
        "z outside -0.4 to 0.4 m isn't known (of 0 to 0.8)",
    ]


def test_names_that_a_format_cannot_write_become_numbers() -> None:
    frames = [("train", "a", "ff"), ("train", "a", "000007"), ("val", "b", "000003"), ("val", "c", "0a")]
    assert written_names(FORMATS["semantic_kitti"], frames) == ["000000", "000001", "000003", "000000"]
    assert written_names(FORMATS["occ3d"], frames) == ["ff", "000007", "000003", "0a"]


def scene(labels: list, size_m: float = 0.2) -> Scene:
    array = np.array(labels, np.uint8)
    return Scene(array, VoxelGrid(array.shape, size_m, (0.0, 0.0, 0.0)), KITTI)


def test_classes_are_converted_and_others_refused() -> None:
    converted = convert_scene(scene([[[1, 9, 255, 0]]]), load_conversion("semantic_kitti", "carla_sc"))
    names = [converted.taxonomy.classes[k] if k != 255 else "ignored" for k in converted.labels.ravel()]
    assert names == ["vehicle", "road", "ignored", "empty"]
    with pytest.raises(InputError, match="classes of carla_sc"):
        convert_scene(scene([[[1]]]), load_conversion("carla_sc", "semantic_kitti"))


def test_coarsening_by_hand() -> None:
    cells = np.zeros((2, 2, 8), np.uint8)
    cells[0, 0, 0] = cells[0, 1, 0] = 1  # two cars of eight: a quarter is solid
    cells[0, 0, 2] = 9  # one of eight: empty
    cells[:, :, 4] = 9  # four roads, and three cars above
    cells[0, 0, 5] = cells[0, 1, 5] = cells[1, 0, 5] = 1
    cells[:, :, 6:] = 255
    cells[0, 0, 6] = 9  # one known of eight
    coarse = resampled(scene(cells.tolist()), VoxelGrid((1, 1, 4), 0.4, (0.0, 0.0, 0.0)))
    assert coarse.labels.ravel().tolist() == [1, 0, 9, 255]


def test_refining_repeats_and_outside_is_unknown() -> None:
    fine = resampled(scene([[[1, 9]]], size_m=0.4), VoxelGrid((2, 2, 5), 0.2, (0.0, 0.0, 0.0)))
    assert fine.labels[0, 0].tolist() == [1, 1, 9, 9, 255]
    assert np.array_equal(fine.labels[1, 1], fine.labels[0, 0])


def test_formats_are_recognised(tmp_path) -> None:
    one = scene([[[1, 0]]])
    write_frame(tmp_path / "kitti", frame_of(one, "00", "000000"))
    write_layout(tmp_path / "kitti", one.grid)
    carla = convert_scene(one, load_conversion("semantic_kitti", "carla_sc"))
    write_carla_frame(tmp_path / "carla", "train", "Town01_Heavy", "000000", carla)
    write_carla_params(tmp_path / "carla", "train", "Town01_Heavy", (1, 1, 2), ((0, 0, 0), (0.2, 0.2, 0.4)))
    write_house(tmp_path / "craft", replay([Action(0, "a", (0, 0, 0), 1, 0, True)], "h"))
    for folder, name in (("kitti", "semantic_kitti"), ("carla", "carla_sc"), ("craft", "craft3d")):
        form = detect(tmp_path / folder)
        root = form.open(tmp_path / folder)
        keys = [key for split in root.splits for key in root.frames(split)]
        assert form.name == name
        assert root.scene(*keys[0]).occupied.sum() == 1
        assert root.taxonomy.name == form.taxonomy
    write_schematic(tmp_path / "bare/a.npy", replay([Action(0, "a", (0, 0, 0), 1, 0, True)], "a"))
    assert detect(tmp_path / "bare").name == "craft3d"
    with pytest.raises(InputError, match="semantic_kitti: sequences"):
        detect(tmp_path)
    assert set(FORMATS) == {"semantic_kitti", "kitti_360", "carla_sc", "occ3d", "craft3d"}
