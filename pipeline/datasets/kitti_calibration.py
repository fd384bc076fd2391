"""KITTI's text files: calibration in odometry (P0..P3, Tr) and object form (R0_rect, Tr_velo_to_cam), poses, times.

Numbers are written so that they read back as exactly the same doubles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from pipeline.datasets.checked_files import exact_number, parse_row, read_table, read_text
from pipeline.scene.camera import Camera, kitti_camera
from pipeline.scene.errors import InputError
from pipeline.scene.files import write_atomic

LARGEST_CALIB = 1e6  # real entries stay below 1e3; beyond this a product could overflow
LARGEST_POSE_M = 1e9
_EXPECTED = "KITTI calibration"


@dataclass(frozen=True, eq=False)
class Calibration:
    """A sequence's cameras: projections "P0".."P3" (3x4 [px], from rectified camera 0) and the lidar's pose."""

    projections: Mapping[str, Float64[np.ndarray, "3 4"]]
    rectified_from_velodyne: Float64[np.ndarray, "4 4"]

    def camera(self, size_px: tuple[int, int], name: str = "P2", full_projection: bool = True) -> Camera:
        """A camera in the velodyne frame; size_px is (width, height). See `pipeline.scene.camera.kitti_camera`."""
        if name not in self.projections:
            raise InputError(_EXPECTED, f"a key {name}", f"{', '.join(self.projections)}")
        return kitti_camera(self.projections[name], self.rectified_from_velodyne, size_px, full_projection)


def calibration_of(camera: Camera) -> Calibration:
    """A synthetic camera's calibration: every P is [K | 0], Tr its camera_from_world, so that `camera` comes back."""
    projection = np.concatenate([camera.K, np.zeros((3, 1))], axis=1)
    return Calibration({f"P{i}": projection for i in range(4)}, camera.camera_from_world.astype(np.float64))


def read_calibration(path: Path) -> Calibration:
    """Read calib.txt in either form; P2 and the lidar's pose are required. Raises InputError.

    Object form: rectified_from_velodyne = R0_rect @ Tr_velo_to_cam.
    """
    rows = read_keys(path)
    keys: tuple[str, ...] = ("P0", "P1", "P2", "P3")
    projections = {key: parse_projection(rows[key], path, key) for key in keys if key in rows}
    needed = ["P2", "Tr"] if "R0_rect" not in rows else ["P2", "R0_rect", "Tr_velo_to_cam"]
    missing = [key for key in needed if key not in rows]
    if missing:
        raise InputError(path, f"the keys {', '.join(needed)}", f"no {', '.join(missing)}")
    if "Tr" in needed:
        return Calibration(projections, parse_rigid(rows["Tr"], path, "Tr", columns=4))
    rectify = parse_rigid(rows["R0_rect"], path, "R0_rect", columns=3)
    return Calibration(projections, rectify @ parse_rigid(rows["Tr_velo_to_cam"], path, "Tr_velo_to_cam", columns=4))


def read_keys(path: Path) -> dict[str, str]:
    """The text behind each `key:` of a calibration file. Raises InputError."""
    rows: dict[str, str] = {}
    for number, line in enumerate(read_text(path, _EXPECTED, limit=1 << 16).splitlines(), 1):
        if not line.strip():
            continue
        key, colon, values = line.partition(":")
        key = key.strip()
        if not colon:
            raise InputError(f"{path} line {number}", "key: numbers", repr(line[:40]))
        if key in rows:
            raise InputError(f"{path} line {number}", "each key once", f"{key[:40]} again")
        rows[key] = values
    return rows


def parse_projection(text: str, path: Path, key: str) -> Float64[np.ndarray, "3 4"]:
    """A projection K [I | t] from 12 numbers, row by row. Raises InputError naming `path` and `key`."""
    matrix = np.array(parse_row(text, 12, f"{path} {key}", LARGEST_CALIB)).reshape(3, 4)
    lower = [matrix[1, 0], matrix[2, 0], matrix[2, 1], matrix[2, 2] - 1]
    if np.abs(lower).max() > 1e-6 or min(matrix[0, 0], matrix[1, 1]) < 1e-3:
        raise InputError(f"{path} {key}", "K [I | t] with positive focal lengths", f"{matrix[:, :3].tolist()}")
    return matrix


def parse_rigid(text: str, path: Path, key: str, columns: int) -> Float64[np.ndarray, "4 4"]:
    """A rigid transform from a 3x3 or 3x4 matrix, row by row. Raises InputError naming `path` and `key`."""
    subject = f"{path} {key}".rstrip()
    matrix = np.eye(4)
    matrix[:3, :columns] = np.array(parse_row(text, 3 * columns, subject, LARGEST_CALIB)).reshape(3, columns)
    _check_rotation(matrix[:3, :3], subject)
    return matrix


def _check_rotation(rotation: Float64[np.ndarray, "3 3"], subject: str) -> None:
    off = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if off > 1e-2 or np.linalg.det(rotation) < 0:
        raise InputError(subject, "a rotation", f"{rotation.tolist()}")


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write calib.txt in odometry form; projections that aren't there are written as P2."""
    fallback = calibration.projections["P2"]
    rows = {f"P{i}": calibration.projections.get(f"P{i}", fallback) for i in range(4)}
    rows["Tr"] = calibration.rectified_from_velodyne[:3]
    write_atomic(path, "".join(f"{key}: {format_row(matrix)}\n" for key, matrix in rows.items()))


def format_row(matrix: Float64[np.ndarray, "r c"]) -> str:
    """A matrix row by row in one line, to be read back exactly."""
    return " ".join(exact_number(value) for value in matrix.ravel())


def read_poses(path: Path) -> Float64[np.ndarray, "n 4 4"]:
    """poses.txt: first_camera_from_camera of rectified camera 0 [m], a row of 3x4 a scan. Raises InputError."""
    rows = read_table(path, "KITTI poses", columns=12, largest=LARGEST_POSE_M).reshape(-1, 3, 4)
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows
    for number, pose in enumerate(poses, 1):
        _check_rotation(pose[:3, :3], f"{path} line {number}")
    return poses


def write_poses(path: Path, poses: Float64[np.ndarray, "n 4 4"]) -> None:
    """Write first_camera_from_camera poses, a row each."""
    write_atomic(path, "".join(format_row(pose[:3]) + "\n" for pose in poses))


def velodyne_poses(
    calibration: Calibration, camera_poses: Float64[np.ndarray, "n 4 4"]
) -> Float64[np.ndarray, "n 4 4"]:
    """first_velodyne_from_velodyne [m] from poses.txt: inv(Tr) @ pose @ Tr."""
    Tr = calibration.rectified_from_velodyne
    return np.linalg.inv(Tr) @ camera_poses @ Tr


def camera_poses(
    calibration: Calibration, velodyne_poses: Float64[np.ndarray, "n 4 4"]
) -> Float64[np.ndarray, "n 4 4"]:
    """What poses.txt holds, from first_velodyne_from_velodyne; the inverse of `velodyne_poses`."""
    Tr = calibration.rectified_from_velodyne
    return Tr @ velodyne_poses @ np.linalg.inv(Tr)


def read_times(path: Path) -> Float64[np.ndarray, "n"]:
    """times.txt: seconds since the first scan, one a line. Raises InputError."""
    return read_table(path, "KITTI times", columns=1, largest=1e12)[:, 0]


def write_times(path: Path, times: Float64[np.ndarray, "n"]) -> None:
    write_atomic(path, "".join(f"{exact_number(t)}\n" for t in times))
