"""SemanticKITTI's semantic scene completion layout, read and written.

    ROOT/sequences/XX/voxels/NNNNNN.{bin,label,invalid,occluded}   image_2/NNNNNN.{png,jpg}   depth_2/NNNNNN.png
                      velodyne/NNNNNN.bin   labels/NNNNNN.label    calib.txt   poses.txt   times.txt

Frames are those that lie on disk. Three additions to the published layout, each optional, which a stock loader
doesn't see: `ROOT/grid.json` {shape, voxel_size_m, origin_m} where the grid isn't the published one, `ROOT/splits.json`
{split: [sequence, ...]} where the splits aren't, and `calib/NNNNNN.txt` in a sequence, a frame's own calibration where
cameras differ from frame to frame (the object benchmark also keeps a file a frame); calib.txt is then the nominal one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from pipeline.datasets import kitti_root
from pipeline.datasets.image_files import image_size, read_depth, read_image
from pipeline.datasets.kitti_calibration import Calibration, read_calibration, write_calibration
from pipeline.datasets.kitti_root import KittiRoot, Layout, read_frame, sequence_path
from pipeline.datasets.voxel_files import read_point_labels, read_points
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.taxonomy import Taxonomy

__all__ = ["KittiRoot", "read_frame"]  # part of this format's interface

PUBLISHED_SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
        "val": ("08",),
        "test": tuple(f"{n:02d}" for n in range(11, 22)),
    }
)
LAYOUT = Layout("semantic_kitti", "sequences", "image_2", SEMANTIC_KITTI_GRID, PUBLISHED_SPLITS)


def open_root(root: Path) -> KittiRoot:
    """Enumerate a root's sequences, frames and splits; no voxel file is read. Raises InputError."""
    return kitti_root.open_layout(root, LAYOUT)


def write_frame(root: Path, frame: Frame) -> list[str]:
    """Write a frame's voxel files under ROOT; the paths written, relative to ROOT. See `voxel_frames.write_voxels`."""
    return kitti_root.write_frame(root, LAYOUT, frame)


def write_layout(
    root: Path,
    grid: VoxelGrid,
    splits: Mapping[str, Sequence[str]] | None = None,
    taxonomy: Taxonomy | None = None,
) -> list[str]:
    """Write grid.json and taxonomy.toml (unless they're the published ones) and splits.json (if given); the paths."""
    return kitti_root.write_root_files(root, LAYOUT, grid, splits, taxonomy)


def frame_path(root: KittiRoot | Path, sequence: str, folder: str, name: str) -> Path:
    """`ROOT/sequences/<sequence>/<folder>/<name>`, kept inside ROOT. Raises InputError."""
    return sequence_path(root.path if isinstance(root, KittiRoot) else Path(root), LAYOUT, sequence, folder, name)


def image_path(root: KittiRoot | Path, sequence: str, frame: str, folder: str = "image_2") -> Path:
    """The frame's .png, or its .jpg where there is no .png. Raises InputError where there is neither."""
    for suffix in (".png", ".jpg"):
        path = frame_path(root, sequence, folder, frame + suffix)
        if path.exists():
            return path
    raise InputError(frame_path(root, sequence, folder, f"{frame}.png"), "a PNG or JPEG image", "no such file")


def read_sequence_calibration(root: KittiRoot | Path, sequence: str, frame: str = "") -> Calibration:
    """A frame's own calibration if it has one, else the sequence's calib.txt. Raises InputError."""
    own = frame_path(root, sequence, "calib", f"{frame}.txt")
    return read_calibration(own if frame and own.exists() else frame_path(root, sequence, "", "calib.txt"))


def read_camera(
    root: KittiRoot | Path,
    sequence: str,
    frame: str,
    *,
    size_px: tuple[int, int] | None = None,
    full_projection: bool = True,
) -> Camera:
    """Camera 2 in the velodyne frame; its (width, height) is the image file's unless given. Raises InputError."""
    calibration = read_sequence_calibration(root, sequence, frame)
    size = size_px or image_size(image_path(root, sequence, frame))
    return calibration.camera(size, full_projection=full_projection)


def write_frame_calibration(root: Path, sequence: str, frame: str, calibration: Calibration) -> str:
    """Write a frame's own calibration; the path written, relative to ROOT."""
    path = frame_path(root, sequence, "calib", f"{frame}.txt")
    write_calibration(path, calibration)
    return path.relative_to(root).as_posix()


def read_frame_image(root: KittiRoot | Path, sequence: str, frame: str) -> UInt8[np.ndarray, "h w 3"]:
    """The frame's RGB image. Raises InputError."""
    return read_image(image_path(root, sequence, frame))


def read_frame_depth(root: KittiRoot | Path, sequence: str, frame: str) -> Float32[np.ndarray, "h w"]:
    """The frame's depth [m], 0 where there is none. Raises InputError."""
    return read_depth(frame_path(root, sequence, "depth_2", f"{frame}.png"))


def read_scan(root: KittiRoot | Path, sequence: str, scan: str) -> Float32[np.ndarray, "n 4"]:
    """A lidar scan: x, y, z [m, velodyne frame], reflectance. Raises InputError."""
    return read_points(frame_path(root, sequence, "velodyne", f"{scan}.bin"))


def read_scan_labels(
    root: KittiRoot, sequence: str, scan: str, points: int | None = None
) -> tuple[UInt16[np.ndarray, "n"], UInt16[np.ndarray, "n"]]:
    """Raw ids and instances of a scan's points. Raises InputError."""
    return read_point_labels(frame_path(root, sequence, "labels", f"{scan}.label"), root.taxonomy, points)
