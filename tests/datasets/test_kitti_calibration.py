"""calib.txt in both forms, poses, times: exact round trips, real files, one line a fault."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.datasets.kitti_calibration import (
    Calibration,
    calibration_of,
    camera_poses,
    read_calibration,
    read_poses,
    read_times,
    velodyne_poses,
    write_calibration,
    write_poses,
    write_times,
)
from pipeline.scene.camera import look_at
from pipeline.scene.errors import InputError

P2 = "7 0 5 4.5 0 7 3 0.1 0 0 1 0.003"
TR = "0 -1 0 0 0 0 -1 -0.1 1 0 0 -0.3"
GOOD = f"P2: {P2}\nTr: {TR}\n"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_synthetic_camera_comes_back_exactly(tmp_path, camera, calibration) -> None:
    write_calibration(tmp_path / "calib.txt", calibration)
    back = read_calibration(tmp_path / "calib.txt").camera((camera.width_px, camera.height_px))
    np.testing.assert_array_equal(back.K, camera.K)
    np.testing.assert_array_equal(back.camera_from_world, camera.camera_from_world)
    assert (back.width_px, back.height_px) == (camera.width_px, camera.height_px)


def test_the_fourth_column_is_part_of_the_pose(tmp_path) -> None:
    calibration = read_calibration(written(tmp_path, GOOD))
    camera = calibration.camera((10, 6))
    # a point 1 m ahead of the lidar: rectified (0, -0.1, 0.7); P2 adds (4.5, 0.1, 0.003) after K
    pixel, depth = camera.project(np.array([1.0, 0, 0]))
    np.testing.assert_allclose(depth, 0.703)
    np.testing.assert_allclose(pixel, [(5 * 0.7 + 4.5) / 0.703, (7 * -0.1 + 3 * 0.7 + 0.1) / 0.703])
    short, short_depth = calibration.camera((10, 6), full_projection=False).project(np.array([1.0, 0, 0]))
    np.testing.assert_allclose(short_depth, 0.7)
    np.testing.assert_allclose(short, [5, 2])


def test_object_form(tmp_path) -> None:
    R = "0 0 1 1 0 0 0 1 0"
    calibration = read_calibration(
        written(tmp_path, f"P2: {P2}\nR0_rect: {R}\nTr_velo_to_cam: {TR}\nTr_imu_to_velo:\n")
    )
    np.testing.assert_array_equal(
        calibration.rectified_from_velodyne, [[1, 0, 0, -0.3], [0, -1, 0, 0], [0, 0, -1, -0.1], [0, 0, 0, 1]]
    )


@pytest.mark.parametrize("name", ["000000", "000001"])
def test_real_object_form(shared_data, name: str) -> None:
    path = shared_data / "kitti" / "object" / "calib" / f"{name}.txt"
    rows = {key: values.split() for key, _, values in (line.partition(":") for line in path.read_text().splitlines())}
    P = np.array(rows["P2"], float).reshape(3, 4)
    R, T = np.array(rows["R0_rect"], float).reshape(3, 3), np.array(rows["Tr_velo_to_cam"], float).reshape(3, 4)
    point = np.array([12.0, 3.0, -1.0])
    u, v, w = P @ np.append(R @ (T @ np.append(point, 1)), 1)
    pixel, depth = read_calibration(path).camera((1224, 370)).project(point)
    np.testing.assert_allclose([*pixel, depth], [u / w, v / w, w], atol=1e-9)


def test_a_missing_projection_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match="a key P3, found P2"):
        read_calibration(written(tmp_path, GOOD)).camera((10, 6), "P3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"file\.txt: expected the keys P2, Tr, found no P2, Tr"),
        (f"P2: {P2}\n", "found no Tr$"),
        (f"P2: {P2}\nR0_rect: 1 0 0 0 1 0 0 0 1\n", "expected the keys P2, R0_rect, Tr_velo_to_cam, found no Tr_velo"),
        (GOOD.replace("4.5", "nan"), r"file\.txt P2: expected finite numbers up to 1e\+06, found nan"),
        (GOOD.replace("4.5", "-inf"), "found -inf"),
        (GOOD.replace("4.5", "1e300"), r"found 1e\+300"),
        (GOOD.replace("4.5", "x"), r"file\.txt P2: expected numbers, found could not convert string to float: 'x'"),
        (GOOD.replace("4.5 ", ""), "expected 12 numbers, found 11"),
        (GOOD.replace("-0.3", "-0.3 1"), r"file\.txt Tr: expected 12 numbers, found 13"),
        ("P2: 0 0 0 0 0 0 0 0 0 0 0 0\nTr: " + TR, r"P2: expected K \[I \| t\] with positive focal lengths"),
        (f"P2: {P2}\nTr: 0 0 0 0 0 0 0 0 0 0 0 0\n", "Tr: expected a rotation"),
        (f"P2: {P2}\nTr: 1 0 0 0 0 1 0 0 0 0 -1 0\n", "Tr: expected a rotation"),
        (GOOD + "P2: 1\n", r"line 3: expected each key once, found P2 again"),
        ("hello\n", r"line 1: expected key: numbers, found 'hello'"),
        (b"P2: \xff", "in UTF-8, found byte 0xff"),
        ("P" * 70_000, "of at most 65536 bytes, found 70000 bytes"),
    ],
)
def test_damaged_calibration(tmp_path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_calibration(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def poses_along_x(count: int) -> np.ndarray:
    eyes = np.stack([np.linspace(0, 9.3, count), np.zeros(count), np.full(count, 0.1)], axis=1)
    return np.stack([np.linalg.inv(look_at(e, e + np.array([1, 0.2, 0]), np.array([0, 0, 1.0]))) for e in eyes])


def test_poses_round_trip(tmp_path) -> None:
    poses = poses_along_x(7)
    write_poses(tmp_path / "poses.txt", poses)
    np.testing.assert_array_equal(read_poses(tmp_path / "poses.txt"), poses)


def test_velodyne_poses_and_back(calibration) -> None:
    poses = poses_along_x(3)
    np.testing.assert_allclose(camera_poses(calibration, velodyne_poses(calibration, poses)), poses, atol=1e-12)


def test_real_poses_drive_forward(real_kitti_root) -> None:
    folder = real_kitti_root / "sequences" / "04"
    poses, times = read_poses(folder / "poses.txt"), read_times(folder / "times.txt")
    assert len(poses) == len(times) == 271
    drive = velodyne_poses(read_calibration(folder / "calib.txt"), poses)
    assert drive[-1, 0, 3] > 380  # 394 m along x, the vehicle's forward axis
    assert np.abs(drive[-1, 1:3, 3]).max() < 30
    assert (np.diff(times) > 0).all()


@given(arrays(np.float64, st.integers(0, 20), elements=st.floats(-1e12, 1e12)))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_times_round_trip(tmp_path, times: np.ndarray) -> None:
    write_times(tmp_path / "times.txt", times)
    np.testing.assert_array_equal(read_times(tmp_path / "times.txt"), times)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 0 0 1 0 0 0 0 1\n", r"file\.txt line 1: expected 12 numbers, found 11"),
        ("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 nan 0 1 0 0 0 0 1 0\n", r"line 2: expected finite numbers .*found nan"),
        ("1 0 0 0 0 1 0 0 0 0 1 0\n\n1 0 0 0 0 1 0 0 0 0 1 0\n", "line 2: expected 12 numbers, found 0"),
        ("2 0 0 0 0 1 0 0 0 0 1 0\n", "line 1: expected a rotation"),
        ("1e308 0 0 0 0 1 0 0 0 0 1 0\n", r"found 1e\+308"),
    ],
)
def test_damaged_poses(tmp_path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_poses(written(tmp_path, text))


def test_no_poses_are_no_poses(tmp_path) -> None:
    assert read_poses(written(tmp_path, "")).shape == (0, 4, 4)


def test_written_text_is_what_a_plain_parser_reads(tmp_path, camera) -> None:
    write_calibration(tmp_path / "calib.txt", calibration_of(camera))
    lines = (tmp_path / "calib.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["P0", "P1", "P2", "P3", "Tr"]
    assert all(len(line.split()) == 13 for line in lines)
    only = Calibration({"P2": np.hstack([camera.K, np.zeros((3, 1))])}, np.eye(4))
    write_calibration(tmp_path / "one.txt", only)
    assert set(read_calibration(tmp_path / "one.txt").projections) == {"P0", "P1", "P2", "P3"}
