"""Contact sheets of scenes, and the masks that a passing sensor would give them."""

from pathlib import Path

import numpy as np
import pytest

from flows.scene_masks import forward_poses, simulate_masks
from flows.scene_pictures import boxed, legend, scene_views, stacked
from flows.scene_sets import split_set
from flows.scene_sheet import evenly, write_scene_sheet
from pipeline.datasets.image_files import read_image
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

GRID = VoxelGrid((32, 24, 8), 0.4, (0.0, -4.8, -2.0))
TAXONOMY = load_taxonomy("semantic_kitti")
ROAD, CAR = TAXONOMY.id_of("road"), TAXONOMY.id_of("car")


def street(cars: int = 0) -> Scene:
    """A road, and cars in a row on the left."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, 0] = ROAD
    for k in range(cars):
        labels[2 + 7 * k : 7 + 7 * k, 17:22, 1:5] = CAR
    return Scene(labels, GRID, TAXONOMY)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("root")
    for sequence in ("00", "08"):
        for k in range(3):
            write_frame(path, frame_of(street(k + 1), sequence, f"{k:06d}"))
    write_layout(path, GRID, {"train": ["00"], "val": ["08"]})
    return path


def test_three_views_of_one_height_show_the_scene() -> None:
    views, bare = scene_views(street(3), 96), scene_views(street(), 96)
    for picture, empty in zip(vars(views).values(), vars(bare).values(), strict=True):
        assert picture.shape[0] == 96
        assert picture.dtype == np.uint8
        assert picture.shape != empty.shape or (picture != empty).any()
    above = views.above.astype(int)
    blue = (above[..., 2] > above[..., 0] + 40) & (above[..., 2] > above[..., 1] + 20) & (above[..., 1] > 60)
    _, columns = np.nonzero(blue)
    assert columns.mean() < 0.4 * above.shape[1]  # left in the world is left in the map


def test_a_sheet_shows_generated_beside_real(root, tmp_path) -> None:
    alone, both = tmp_path / "alone.png", tmp_path / "both.jpg"
    assert write_scene_sheet(root, alone, first=2) == 2
    assert write_scene_sheet(root, both, real=root, first=2) == 2
    one, two = read_image(alone), read_image(both)
    assert one.shape[1] > 700
    assert two.shape[1] > 1.9 * one.shape[1]


def test_evenly_spaced_scenes(root) -> None:
    val = split_set(root, "val")
    assert [frame for _, frame in evenly(val, 2).keys] == ["000000", "000002"]
    assert len(evenly(val, 9)) == 3


def test_refusals(root, tmp_path) -> None:
    with pytest.raises(InputError, match=r"\.png or \.jpg"):
        write_scene_sheet(root, tmp_path / "sheet.gif")
    small = VoxelGrid((16, 24, 8), 0.4, GRID.origin_m)
    scene = Scene(street().labels[:16].copy(), small, TAXONOMY)
    write_frame(tmp_path / "other", frame_of(scene, "00", "0"))
    write_layout(tmp_path / "other", small, {"train": ["00"]})
    with pytest.raises(InputError, match="the real grid"):
        write_scene_sheet(tmp_path / "other", tmp_path / "sheet.png", real=root)


def test_pictures_are_put_together_to_the_pixel() -> None:
    dark = np.zeros((4, 10, 3), np.uint8)
    assert boxed(dark, 6).shape == (4, 6, 3)
    wide = boxed(dark, 15)
    assert (wide[:, 2:12] == 0).all()
    assert (wide[:, :2] == 255).all()
    assert (wide[:, 12:] == 255).all()
    assert stacked([dark, dark], 3).shape == (11, 10, 3)
    assert legend(TAXONOMY, 400).shape[0] > legend(TAXONOMY, 1600).shape[0]
    colours = {tuple(pixel) for pixel in legend(TAXONOMY, 800).reshape(-1, 3).tolist()}
    assert set(TAXONOMY.colors[1:]) <= colours


# --- masks


def test_a_free_road_is_driven_to_its_end() -> None:
    poses = forward_poses(street(3).labels, GRID)
    assert poses[:, 0, 3].tolist() == [5.0 * k for k in range(15)]
    assert (poses[:, 1:3, 3] == 0).all()


def test_no_pose_stands_in_something_solid_but_the_first() -> None:
    labels = street().labels.copy()
    labels[0:2, 11:13, 3:5] = CAR  # around the origin
    labels[12:14, 11:13, 3:5] = CAR  # x from 4.8 to 5.6 m
    assert forward_poses(labels, GRID)[:3, 0, 3].tolist() == [0, 10, 15]


def test_masks_of_a_scene() -> None:
    labels = street(1).labels.copy()
    labels[20, :, 1:8] = TAXONOMY.id_of("building")  # a wall across
    labels[23:28, 2:8, 1:7] = TAXONOMY.id_of("building")  # a block behind it
    seen, invalid, occluded = simulate_masks(labels, GRID)
    assert ((seen == IGNORE) == invalid).all()
    assert (seen[~invalid] == labels[~invalid]).all()
    assert invalid[25, 4, 3]  # inside the block
    assert not invalid[10, 12].any()  # the road ahead and the air above it
    assert occluded.sum() >= (invalid & (labels == 0)).sum()
