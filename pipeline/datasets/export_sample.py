"""A finished sample as exports take it: voxels, the bytes of its pictures, cameras, and a note of JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.datasets.checked_files import read_bounded, read_json
from pipeline.datasets.image_files import LARGEST_IMAGE_BYTES
from pipeline.datasets.semantic_kitti import KittiRoot, frame_path, read_camera, read_frame
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.camera import Camera
from pipeline.scene.taxonomy import IGNORE

KINDS = ("image", "depth", "semantics")  # of a camera's pictures, in the order of an export
MAIN = "2"  # the suffix of the camera that calib.txt describes
MASKS = ("invalid", "occluded", "scan")


@dataclass(frozen=True, eq=False)
class ExportSample:
    """name: "sequence/frame" in the export; scene: what no two splits share; cameras: in the velodyne frame, by suffix.

    pictures: PNG bytes by folder ("image_2", "depth_left"); provenance: what the build's manifest says of the sample.
    """

    name: str
    split: str
    scene: str
    frame: Frame
    cameras: Mapping[str, Camera]
    pictures: Mapping[str, bytes]
    provenance: Mapping[str, Any]

    def note(self) -> dict[str, Any]:
        """Everything but arrays, in JSON values; class_voxels counts valid voxels by class id."""
        grid, taxonomy = self.frame.grid, self.frame.taxonomy
        counts = np.bincount(self.frame.scene().labels.ravel(), minlength=256)
        return {
            "name": self.name,
            "split": self.split,
            "scene": self.scene,
            "taxonomy": taxonomy.name,
            "grid": {"shape": grid.shape, "voxel_size_m": grid.voxel_size_m, "origin_m": grid.origin_m},
            "cameras": {suffix: camera_table(camera) for suffix, camera in self.cameras.items()},
            "class_voxels": counts[: len(taxonomy.classes)].tolist(),
            "ignored_voxels": int(counts[IGNORE]),
            "prompt": stated(self.provenance, "prompt"),
            "accepted": stated(self.provenance, "accepted"),
            "provenance": dict(self.provenance),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """labels (uint8, 255 = not scored) and those masks (0 or 1) that the sample has."""
        masks = {name: getattr(self.frame, name) for name in MASKS}
        found = {name: mask.astype(np.uint8) for name, mask in masks.items() if mask is not None}
        return {"labels": self.frame.scene().labels, **found}


def camera_table(camera: Camera) -> dict[str, Any]:
    """A camera in JSON values, as cameras.json has it."""
    return {
        "K": camera.K.tolist(),
        "camera_from_velodyne": camera.camera_from_world.tolist(),
        "width_px": camera.width_px,
        "height_px": camera.height_px,
    }


def stated(provenance: Mapping[str, Any], key: str) -> Any:
    """What a sample's provenance says under a key, or one of its tables does; None where nothing does."""
    tables = [provenance, *(value for value in provenance.values() if isinstance(value, Mapping))]
    return next((table[key] for table in tables if key in table), None)


def read_sample(
    root: KittiRoot, key: tuple[str, str], *, name: str, split: str, scene: str, provenance: Mapping[str, Any]
) -> ExportSample:
    """A build's sample at (sequence, frame); name, split and scene are those of the export. Raises InputError."""
    cameras = read_cameras(root, *key)
    pictures = {}
    for kind in KINDS:
        for suffix in cameras:
            path = frame_path(root, key[0], f"{kind}_{suffix}", f"{key[1]}.png")
            if path.exists():
                pictures[f"{kind}_{suffix}"] = read_bounded(path, "a PNG image", LARGEST_IMAGE_BYTES)
    return ExportSample(name, split, scene, read_frame(root, *key), cameras, pictures, provenance)


def read_cameras(root: KittiRoot, sequence: str, frame: str) -> dict[str, Camera]:
    """The camera of calib.txt, then those of cameras.json that have images of their own."""
    cameras = {MAIN: read_camera(root, sequence, frame)}
    path = frame_path(root, sequence, "", "cameras.json")
    table = read_json(path, "cameras by name") if path.exists() else {}
    for name, row in sorted(table.items()):
        if frame_path(root, sequence, f"image_{name}", f"{frame}.png").exists():
            pose = np.array(row["camera_from_velodyne"], float)
            cameras[name] = Camera(np.array(row["K"], float), pose, row["width_px"], row["height_px"])
    return cameras
