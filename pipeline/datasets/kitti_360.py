"""SSCBench-KITTI-360's layout, read and written (arXiv 2306.09001).

    ROOT/data_2d_raw/2013_05_28_drive_NNNN_sync/voxels/NNNNNN.{bin,label,invalid}   image_00/data_rect/NNNNNN.png
    ROOT/calibration/perspective.txt   calib_cam_to_velo.txt        shared by all sequences

It differs from SemanticKITTI's in its classes (taxonomy kitti_360), in that there is no .occluded, in that .invalid
leaves occupied voxels valid, and in the form of .invalid: the public preprocessing reads a byte a voxel where the
paper's tables suggest bits. Both are read, told apart by size; bytes are written. Without grid.json and splits.json
the published ones hold. A frame of the test sequence (09) has labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float64, UInt8

from pipeline.datasets import kitti_root
from pipeline.datasets.checked_files import read_text
from pipeline.datasets.image_files import image_size, read_image
from pipeline.datasets.kitti_calibration import (
    Calibration,
    format_row,
    parse_projection,
    parse_rigid,
    read_keys,
)
from pipeline.datasets.kitti_root import KittiRoot, Layout, read_frame, sequence_path
from pipeline.datasets.voxel_frames import Frame, VoxelRules
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join, write_atomic
from pipeline.scene.grid import SEMANTIC_KITTI_GRID, VoxelGrid

__all__ = ["KittiRoot", "read_frame"]  # part of this format's interface


def drive_name(number: int) -> str:
    """A sequence's folder, such as 2013_05_28_drive_0006_sync for 6."""
    return f"2013_05_28_drive_{number:04d}_sync"


PUBLISHED_SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": tuple(drive_name(n) for n in (0, 2, 3, 4, 5, 7, 10)),
        "val": (drive_name(6),),
        "test": (drive_name(9),),
    }
)
LAYOUT = Layout(
    "kitti_360",
    "data_2d_raw",
    "image_00/data_rect",
    SEMANTIC_KITTI_GRID,
    PUBLISHED_SPLITS,
    VoxelRules(invalid_bytes=True, occupied_is_valid=True),
)


@dataclass(frozen=True, eq=False)
class Calibration360:
    """The left perspective camera: P_rect_00 [px], R_rect_00 as 4x4, and calib_cam_to_velo.txt's pose [m]."""

    projection: Float64[np.ndarray, "3 4"]
    rectification: Float64[np.ndarray, "4 4"]
    velodyne_from_camera: Float64[np.ndarray, "4 4"]

    def camera(self, size_px: tuple[int, int], *, rectify: bool = True) -> Camera:
        """The camera in the velodyne frame; `rectify=False` leaves R_rect_00 out, as SSCBench's own loaders do."""
        camera_from_velodyne = np.linalg.inv(self.velodyne_from_camera)
        pose = self.rectification @ camera_from_velodyne if rectify else camera_from_velodyne
        return Calibration({"P0": self.projection}, pose).camera(size_px, "P0")


def calibration_of(camera: Camera) -> Calibration360:
    """A synthetic camera's calibration: P_rect_00 = [K | 0], no rectification."""
    projection = np.concatenate([camera.K, np.zeros((3, 1))], axis=1)
    return Calibration360(projection, np.eye(4), np.linalg.inv(camera.camera_from_world))


def open_root(root: Path) -> KittiRoot:
    """Enumerate a root's sequences, frames and splits; no voxel file is read. Raises InputError."""
    return kitti_root.open_layout(root, LAYOUT)


def write_frame(root: Path, frame: Frame) -> list[str]:
    """Write a frame's voxel files, .occluded left out; the paths written, relative to ROOT."""
    return kitti_root.write_frame(root, LAYOUT, replace(frame, occluded=None))


def write_layout(root: Path, grid: VoxelGrid, splits: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Write grid.json (unless it's the published grid) and splits.json (if given); the paths written."""
    return kitti_root.write_root_files(root, LAYOUT, grid, splits)


def image_path(root: Path, sequence: str, frame: str) -> Path:
    """Where the left camera's image lies. Raises InputError on a path that leaves ROOT."""
    return sequence_path(root, LAYOUT, sequence, LAYOUT.images, f"{frame}.png")


def read_frame_image(root: Path, sequence: str, frame: str) -> UInt8[np.ndarray, "h w 3"]:
    """The frame's RGB image (1408x376 as published). Raises InputError."""
    return read_image(image_path(root, sequence, frame))


def read_camera(root: Path, sequence: str, frame: str, *, rectify: bool = True) -> Camera:
    """The left camera in the velodyne frame; its size is the image file's. Raises InputError."""
    return read_calibration(root).camera(image_size(image_path(root, sequence, frame)), rectify=rectify)


def read_calibration(root: Path) -> Calibration360:
    """Read calibration/perspective.txt and calibration/calib_cam_to_velo.txt. Raises InputError."""
    perspective = safe_join(root, "calibration/perspective.txt")
    rows = read_keys(perspective)
    missing = [key for key in ("P_rect_00", "R_rect_00") if key not in rows]
    if missing:
        raise InputError(perspective, "the keys P_rect_00, R_rect_00", f"no {', '.join(missing)}")
    to_velodyne = safe_join(root, "calibration/calib_cam_to_velo.txt")
    text = read_text(to_velodyne, "a 3x4 matrix", limit=1 << 12)
    return Calibration360(
        parse_projection(rows["P_rect_00"], perspective, "P_rect_00"),
        parse_rigid(rows["R_rect_00"], perspective, "R_rect_00", columns=3),
        parse_rigid(text, to_velodyne, "", columns=4),
    )


def write_calibration(root: Path, calibration: Calibration360) -> list[str]:
    """Write both files, the right camera's entries equal to the left one's; the paths written, relative to ROOT."""
    P, R = format_row(calibration.projection), format_row(calibration.rectification[:3, :3])
    texts = {
        "calibration/perspective.txt": "".join(f"P_rect_{i}: {P}\nR_rect_{i}: {R}\n" for i in ("00", "01")),
        "calibration/calib_cam_to_velo.txt": format_row(calibration.velodyne_from_camera[:3]) + "\n",
    }
    for path, text in texts.items():
        write_atomic(safe_join(root, path), text)
    return list(texts)
