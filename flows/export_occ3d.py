"""An export in Occ3D's form: labels.npz on its grid and in its classes, images, and cameras in annotations.json.

Occ3D's frame stands on the road, so scenes are lifted; its grid reaches further than a forward one, and what isn't
known there is masked out. Both masks are the sample's valid voxels. Images lie at imgs/CAM_<NAME>/<token>.png.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from flows.export_splits import ExportPlace
from pipeline.datasets.convert import convert_scene, load_conversion
from pipeline.datasets.export_sample import MAIN, ExportSample, read_cameras
from pipeline.datasets.formats import FORMATS
from pipeline.datasets.occ3d import (
    OCC3D_GRID,
    frame_records,
    occ3d_frame,
    write_occ3d_annotations,
    write_occ3d_frame,
)
from pipeline.datasets.semantic_kitti import KittiRoot
from pipeline.scene.camera import Camera
from pipeline.scene.files import safe_join, write_atomic

LIFT_M = FORMATS["semantic_kitti"].origin_height_m - FORMATS["occ3d"].origin_height_m


def token_of(name: str) -> str:
    """A frame's token, which no other scene has: "00/000005" becomes "00_000005"."""
    return name.replace("/", "_")


def write_sample(out: Path, sample: ExportSample) -> list[str]:
    """labels.npz and the images of one sample; the paths written."""
    conversion = load_conversion(sample.frame.taxonomy.name, "occ3d")
    scene = convert_scene(sample.frame.scene(), conversion, OCC3D_GRID, LIFT_M)
    token, sequence = token_of(sample.name), sample.name.partition("/")[0]
    written = [write_occ3d_frame(out, sequence, token, occ3d_frame(scene))]
    for suffix in sample.cameras:
        if f"image_{suffix}" in sample.pictures:
            written.append(_image_path(suffix, token))
            write_atomic(safe_join(out, written[-1]), sample.pictures[f"image_{suffix}"])
    return written


def _image_path(suffix: str, token: str) -> str:
    return f"imgs/{_camera_name(suffix)}/{token}.png"


def _camera_name(suffix: str) -> str:
    return "CAM_FRONT" if suffix == MAIN else f"CAM_{suffix.upper()}"


def write_annotations(out: Path, root: KittiRoot, places: Sequence[ExportPlace]) -> list[str]:
    """annotations.json: splits by scene, and every frame's files and cameras."""
    splits: dict[str, tuple[str, ...]] = {}
    infos: dict[str, dict[str, dict[str, Any]]] = {}
    for sequence in dict.fromkeys(place.sequence for place in places):
        members = [place for place in places if place.sequence == sequence]
        splits[members[0].split] = (*splits.get(members[0].split, ()), sequence)
        records = frame_records(sequence, [token_of(place.name) for place in members])
        infos[sequence] = {
            token: {**record, "camera_sensor": _cameras(out, root, place, token)}
            for (token, record), place in zip(records.items(), members, strict=True)
        }
    return [write_occ3d_annotations(out, splits, infos)]


def _cameras(out: Path, root: KittiRoot, place: ExportPlace, token: str) -> dict[str, Any]:
    cameras = read_cameras(root, place.built_sequence, place.frame)
    return {
        _camera_name(suffix): {"img_path": _image_path(suffix, token), **_camera_record(camera)}
        for suffix, camera in cameras.items()
        if (out / _image_path(suffix, token)).exists()
    }


def _camera_record(camera: Camera) -> dict[str, Any]:
    """intrinsics (3x3 [px]) and extrinsic: ego_from_camera, translation [m] and unit quaternion (w, x, y, z)."""
    pose = camera.world_from_camera
    translation = pose[:3, 3] + [0, 0, LIFT_M]
    extrinsic = {"translation": translation.tolist(), "rotation": quaternion(pose[:3, :3])}
    return {"intrinsics": camera.K.tolist(), "extrinsic": extrinsic}


def quaternion(rotation: Float[np.ndarray, "3 3"]) -> list[float]:
    """The unit quaternion (w, x, y, z), w >= 0, of a rotation matrix."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat(canonical=True)
    return [float(value) for value in (w, x, y, z)]
