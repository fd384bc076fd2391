"""SSCBench-KITTI-360: byte forms by hand, exact round trips, calibration, damaged files."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.datasets.image_files import write_image
from pipeline.datasets.kitti_360 import (
    PUBLISHED_SPLITS,
    Calibration360,
    calibration_of,
    drive_name,
    image_path,
    open_root,
    read_calibration,
    read_camera,
    read_frame,
    read_frame_image,
    write_calibration,
    write_frame,
    write_layout,
)
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.grid import SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy("kitti_360")
SMALL = VoxelGrid((4, 2, 2), 0.4, (0.0, 0.0, 0.0))
DRIVE = drive_name(6)
CLASSES = (
    "empty car bicycle motorcycle truck other-vehicle person road parking sidewalk other-ground building fence "
    "vegetation terrain pole traffic-sign other-structure other-object"
)
# the published lidar pose of the left camera, and its published projection
TO_VELODYNE = """0.04307104361 -0.08829286498 0.995162929 0.8043914418 -0.999004371 0.007784614041 0.04392796942
0.2993489574 -0.01162548558 -0.9960641394 -0.08786966659 -0.1770225824"""
P_RECT = "552.554261 0 682.049453 0 0 552.554261 238.769549 0 0 0 1 0"


def folder(root):
    return root / "data_2d_raw" / "2013_05_28_drive_0006_sync" / "voxels"


def written(root, **arrays_) -> Frame:
    write_layout(root, SMALL)
    write_frame(root, Frame(DRIVE, "000005", SMALL, TAXONOMY, **arrays_))
    return read_frame(open_root(root), DRIVE, "000005")


def test_classes_and_their_ignored_ids() -> None:
    assert " ".join(TAXONOMY.classes) == CLASSES
    raw = np.array([0, 1, 31, 32, 71, 253, 255, 52, 99, 60, 254, 259])
    assert TAXONOMY.from_raw(raw, "memory").tolist() == [0, *[255] * 6, 17, 18, 7, 6, 5]
    assert len(TAXONOMY.raw_to_class) == 34
    assert sum(TAXONOMY.voxel_counts) / (8487 * 2**21) == pytest.approx(0.167, abs=1e-3)  # most voxels are invalid


def test_published_splits() -> None:
    assert {split: len(members) for split, members in PUBLISHED_SPLITS.items()} == {"train": 7, "val": 1, "test": 1}
    assert PUBLISHED_SPLITS["test"] == ("2013_05_28_drive_0009_sync",)


def test_bytes_of_a_small_frame(tmp_path) -> None:
    labels = np.zeros(SMALL.shape, np.uint8)
    labels[0, 0, 1], labels[0, 1, 0], labels[3, 1, 1] = 18, 255, 7  # other-object, ignored, road
    invalid = np.zeros(SMALL.shape, bool)
    invalid[0, 1, 0] = invalid[3, 1, 1] = True
    back = written(tmp_path, labels=labels, invalid=invalid, scan=labels == 7)
    assert (folder(tmp_path) / "000005.label").read_bytes() == bytes([0, 0, 99, 0, *[0] * 26, 40, 0])
    assert (folder(tmp_path) / "000005.invalid").read_bytes() == bytes([0, 0, 1, *[0] * 12, 1])
    assert (folder(tmp_path) / "000005.bin").read_bytes() == bytes([0, 1])
    np.testing.assert_array_equal(back.labels, labels)  # the road voxel stays though .invalid names it


def test_invalid_as_bits_is_read_too(tmp_path) -> None:
    written(tmp_path, labels=np.zeros(SMALL.shape, np.uint8), invalid=np.zeros(SMALL.shape, bool))
    (folder(tmp_path) / "000005.invalid").write_bytes(bytes([0b00100000, 0b00000001]))
    frame = read_frame(open_root(tmp_path), DRIVE, "000005")
    assert np.argwhere(frame.invalid).tolist() == [[0, 1, 0], [3, 1, 1]]
    np.testing.assert_array_equal(frame.labels == 255, frame.invalid)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays(np.uint8, SMALL.shape, elements=st.sampled_from([*range(19), 255])), *[arrays(bool, SMALL.shape)] * 2)
def test_round_trip(tmp_path, labels, invalid, scan) -> None:
    back = written(tmp_path, labels=labels, invalid=invalid, scan=scan, occluded=scan)
    np.testing.assert_array_equal(back.labels, np.where(invalid & (labels == 0), 255, labels))
    np.testing.assert_array_equal(back.invalid, invalid)
    np.testing.assert_array_equal(back.scan, scan)
    assert back.occluded is None
    again = written(tmp_path, labels=back.labels, invalid=back.invalid, scan=back.scan)
    np.testing.assert_array_equal(again.labels, back.labels)


def test_the_published_grid_by_default(tmp_path) -> None:
    write_frame(tmp_path, Frame(DRIVE, "000005", SEMANTIC_KITTI_GRID, TAXONOMY, scan=np.ones((256, 256, 32), bool)))
    root = open_root(tmp_path)
    assert root.grid == SEMANTIC_KITTI_GRID
    assert root.frames("val") == ((DRIVE, "000005"),)
    assert root.frames("train") == ()


def test_image_and_camera(tmp_path, camera) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (376, 1408, 3), dtype=np.uint8)
    write_image(image_path(tmp_path, DRIVE, "000005"), picture)
    assert write_calibration(tmp_path, calibration_of(camera)) == [
        "calibration/perspective.txt",
        "calibration/calib_cam_to_velo.txt",
    ]
    np.testing.assert_array_equal(read_frame_image(tmp_path, DRIVE, "000005"), picture)
    back = read_camera(tmp_path, DRIVE, "000005")
    np.testing.assert_array_equal(back.K, camera.K)
    np.testing.assert_allclose(back.camera_from_world, camera.camera_from_world, atol=1e-12)
    assert (back.width_px, back.height_px) == (1408, 376)


def real_calibration(root) -> Calibration360:
    (root / "calibration").mkdir()
    R = "0.99997 -0.0071 0 0.0071 0.99997 -0.0032 0 0.0032 0.99999"
    text = f"calib_time: 28-May-2013 20:01:07\nP_rect_00: {P_RECT}\nR_rect_00: {R}\n"
    (root / "calibration/perspective.txt").write_text(text)
    (root / "calibration/calib_cam_to_velo.txt").write_text(TO_VELODYNE)
    return read_calibration(root)


def test_published_calibration(tmp_path) -> None:
    calibration = real_calibration(tmp_path)
    point = np.array([15.0, 2.0, -1.0])
    M = np.vstack([np.array(TO_VELODYNE.split(), float).reshape(3, 4), [0, 0, 0, 1]])
    in_camera = np.linalg.solve(M, np.append(point, 1))[:3]
    pixel, depth = calibration.camera((1408, 376), rectify=False).project(point)
    np.testing.assert_allclose(depth, in_camera[2])
    np.testing.assert_allclose(pixel[0], 552.554261 * in_camera[0] / in_camera[2] + 682.049453)
    assert 400 < pixel[0] < 682  # left of the middle
    rectified, _ = calibration.camera((1408, 376)).project(point)
    assert 1 < np.linalg.norm(rectified - pixel) < 6


def test_calibration_round_trip_is_exact(tmp_path) -> None:
    calibration = real_calibration(tmp_path)
    write_calibration(tmp_path, calibration)
    back = read_calibration(tmp_path)
    for name in ("projection", "rectification", "velodyne_from_camera"):
        np.testing.assert_array_equal(getattr(back, name), getattr(calibration, name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("000005.invalid", b"\0" * 3, r"000005\.invalid: expected a mask .*16 bytes or 2 bytes of bits, found 3 bytes"),
        ("000005.invalid", b"\0" * 15 + b"\2", "each 0 or 1, found 2"),
        ("000005.invalid", None, "no such file"),
        ("000005.label", b"\0" * 31, "of 32 bytes, found 31"),
        ("000005.label", b"\2\0" * 16, "raw ids of kitti_360, found unknown raw id 2"),
    ],
)
def test_damaged_voxel_files(tmp_path, name: str, content: bytes | None, message: str) -> None:
    written(tmp_path, labels=np.zeros(SMALL.shape, np.uint8), invalid=np.zeros(SMALL.shape, bool))
    (folder(tmp_path) / name).unlink()
    if content is not None:
        (folder(tmp_path) / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_frame(open_root(tmp_path), DRIVE, "000005")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("perspective.txt", "P_rect_00: " + P_RECT, "found no R_rect_00"),
        (
            "perspective.txt",
            f"P_rect_00: nan {P_RECT[11:]}\nR_rect_00: 1 0 0 0 1 0 0 0 1",
            "P_rect_00: expected finite",
        ),
        ("calib_cam_to_velo.txt", "1 2 3", r"calib_cam_to_velo\.txt: expected 12 numbers, found 3"),
        ("calib_cam_to_velo.txt", "0 " * 12, "expected a rotation"),
    ],
)
def test_damaged_calibration(tmp_path, name: str, text: str, message: str) -> None:
    real_calibration(tmp_path)
    (tmp_path / "calibration" / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_calibration(tmp_path)


def test_what_is_no_root(tmp_path) -> None:
    with pytest.raises(InputError, match="a kitti_360 root, which holds data_2d_raw/"):
        open_root(tmp_path)
