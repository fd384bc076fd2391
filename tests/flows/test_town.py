"""The town root: read as if recorded, the same bytes in any way, the same truth when made again from its scans."""

from pathlib import Path

import numpy as np
import pytest

from flows.drives import drives, sequence_name
from flows.recipes import RenderRecipe, SplitSource, TownRecipe, VoxelizeRecipe
from flows.render import render_root
from flows.sheet import write_sheet
from flows.town import make_town, scans_of
from flows.voxelize import voxelize_root
from pipeline.datasets.image_files import read_depth, read_image
from pipeline.datasets.kitti_calibration import read_poses, velodyne_poses
from pipeline.datasets.semantic_kitti import open_root, read_camera, read_frame, read_sequence_calibration
from pipeline.scene.errors import InputError
from tests.flows.toy_plan import files_of

SMALL = TownRecipe(frames=4, sequence_frames=2, width_px=96, height_px=32, poses=2, pose_step=2, frame_step=2)
BY_SCANS = SMALL.model_copy(update={"truth": "scans", "scans": True})


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Path:
    return make_town(BY_SCANS, tmp_path_factory.mktemp("town"))


def test_layout_of_a_root() -> None:
    found = drives(TownRecipe(frames=2000))
    assert sum(drive.frames for drive in found) == 2000
    assert [d.sequence for d in found if d.split == "train"][:11] == [
        *(f"{k:02d}" for k in range(8)),
        "09",
        "10",
        "1010",
    ]
    assert [d.sequence for d in found if d.split == "val"][:2] == ["08", "2001"]
    assert len({d.sequence for d in found}) == len({d.seed for d in found}) == len(found) == 100
    assert sequence_name("test", 10) == "21"
    with pytest.raises(InputError, match="drives to train on"):
        drives(TownRecipe(frames=3, val_share=0.9))


def test_a_town_root_reads_like_a_recorded_one(town: Path) -> None:
    root = open_root(town)
    assert {split: len(root.frames(split)) for split in root.splits} == {"train": 2, "val": 1, "test": 1}
    for split in ("train", "val"):
        for sequence, frame in root.frames(split):
            record = read_frame(root, sequence, frame)
            assert record.scene().occupied.any()
            assert record.scan is not None
            assert record.occluded is not None
            camera = read_camera(root, sequence, frame)
            assert (camera.width_px, camera.height_px) == (96, 32)
    assert read_frame(root, *root.frames("test")[0]).labels is None


def test_poses_start_at_the_origin_and_move_on(town: Path) -> None:
    poses = velodyne_poses(read_sequence_calibration(town, "00"), read_poses(town / "sequences/00/poses.txt"))
    assert len(poses) == scans_of(BY_SCANS, drives(BY_SCANS)[0])
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-9)
    assert 0.1 < poses[1][0, 3] < 3  # forward, at a town's speed


def test_the_same_bytes_by_two_workers(town: Path, tmp_path) -> None:
    make_town(BY_SCANS, tmp_path, workers=2)
    assert files_of(tmp_path) == files_of(town)


def test_voxelizing_the_roots_own_scans_gives_its_voxels(town: Path, tmp_path) -> None:
    recipe = VoxelizeRecipe(root=town, grid=BY_SCANS.grid, scans_ahead=4, stride=2, shard_frames=2)
    voxelize_root(recipe, tmp_path, workers=2)
    here, there = open_root(tmp_path), open_root(town)
    compared = 0
    for sequence, frame in (*there.frames("train"), *there.frames("val")):
        ours, theirs = read_frame(here, sequence, frame), read_frame(there, sequence, frame)
        for name in ("labels", "invalid", "occluded", "scan"):
            same = np.mean(getattr(ours, name) == getattr(theirs, name))
            assert same > 0.995, name  # poses pass through text: a ray along an edge may go by on its other side
        compared += 1
    assert compared == 3


def test_render_and_sheet(town: Path, tmp_path) -> None:
    render_root(RenderRecipe(source=SplitSource(root=town), frames=1), tmp_path / "views")
    (sequence, frame), *_ = open_root(town).frames("train")
    folder = tmp_path / "views" / sequence
    assert read_image(folder / "rgb" / f"{frame}.png").shape == (32, 96, 3)
    assert read_depth(folder / "depth" / f"{frame}.png").max() > 2
    write_sheet(town, "train", 2, tmp_path / "sheet.png")
    assert read_image(tmp_path / "sheet.png").shape[0] == 2 * (128 + 4)
    with pytest.raises(InputError, match=r"ending in \.png"):
        write_sheet(town, "train", 2, tmp_path / "sheet.gif")


def test_voxelize_says_what_is_missing(town: Path, tmp_path) -> None:
    with pytest.raises(InputError, match="sequences with velodyne/ and labels/"):
        voxelize_root(VoxelizeRecipe(root=tmp_path), tmp_path / "out")
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(town, broken)
    lines = (broken / "sequences/00/poses.txt").read_text().splitlines()
    (broken / "sequences/00/poses.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match="a pose for each of 7 scans, found 6"):
        voxelize_root(VoxelizeRecipe(root=broken), tmp_path / "out")
