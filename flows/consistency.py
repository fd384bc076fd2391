"""Whether a build's samples agree with themselves: the written voxels, seen through the written calibration, must give
the written depth and semantics, and images of the cameras' sizes. A wrong file that is hashed as it stands is found so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.image_files import read_depth, read_image, read_label_image
from pipeline.datasets.manifest import Manifest
from pipeline.datasets.semantic_kitti import KittiRoot, frame_path, image_path, open_root, read_camera, read_frame
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.records import View
from pipeline.scene.taxonomy import EMPTY

DEPTH_STEP_M = 1 / 256  # of the files; writing rounds to it
FARTHEST_M = 65535.5 / 256  # beyond, the files say 0: none


def contradictions(directory: Path, manifest: Manifest) -> Iterator[tuple[str, str | None]]:
    """Yield (path, fault) for every sample of a build, path being the file at odds; fault None means that all agree."""
    root = open_root(directory)
    source = manifest.recipe.get("source")
    recorded = isinstance(source, dict) and source.get("kind") == "split"  # its scans and labels may differ in truth
    rendered = (manifest.recipe.get("images") or {}).get("kind") == "render"  # else renders are beside the images
    for sample in manifest.samples:
        sequence, _, frame = sample.name.partition("/")
        try:
            yield sample.name, _fault(root, sequence, frame, recorded, rendered)
        except InputError as error:
            yield sample.name, str(error)


def _fault(root: KittiRoot, sequence: str, frame: str, recorded: bool, rendered: bool) -> str | None:
    from renderers.shading import render

    found = read_frame(root, sequence, frame)
    fault = None if recorded else _masks_fault(found)
    for suffix, camera in _cameras(root, sequence, frame).items():
        if fault is None:
            fault = _view_fault(root, sequence, frame, suffix, render(found.scene(), camera), rendered)
    return fault


def _masks_fault(found: Frame) -> str | None:
    """A simulated scan hits solid voxels alone."""
    labels = found.scene().labels
    if found.scan is not None and (found.scan & (labels == EMPTY)).any():
        return f"{int((found.scan & (labels == EMPTY)).sum())} voxels of .bin are empty in .label"
    return None


def _cameras(root: KittiRoot, sequence: str, frame: str) -> dict[str, Camera]:
    """By the suffix of their files: camera 2 by its calibration, the others from cameras.json."""
    cameras = {"2": read_camera(root, sequence, frame)}
    path = frame_path(root, sequence, "", "cameras.json")
    table = json.loads(path.read_text()) if path.is_file() else {}
    for name, row in list(table.items())[1:]:
        pose = np.array(row["camera_from_velodyne"], float)
        cameras[name] = Camera(np.array(row["K"], float), pose, row["width_px"], row["height_px"])
    return cameras


def _view_fault(root: KittiRoot, sequence: str, frame: str, suffix: str, view: View, rendered: bool) -> str | None:
    """How the written files of one camera differ from the view of the written voxels."""
    image = read_image(image_path(root, sequence, frame, f"image_{suffix}"))
    size = (view.camera.height_px, view.camera.width_px)
    depth = read_depth(frame_path(root, sequence, f"depth_{suffix}", f"{frame}.png"))
    semantics = read_label_image(frame_path(root, sequence, f"semantics_{suffix}", f"{frame}.png"))
    for name, pixels in (("image", image), ("depth", depth), ("semantics", semantics)):
        if pixels.shape[:2] != size:
            return f"{name}_{suffix} has {pixels.shape[1]}x{pixels.shape[0]} pixels, its camera {size[1]}x{size[0]}"
    off = int((semantics != view.semantics).sum())
    if off:
        return f"semantics_{suffix} differs from the voxels' view in {off} of {semantics.size} pixels"
    written = np.where(view.depth > FARTHEST_M, 0, view.depth)
    far = float(np.abs(depth - written).max())
    if far > DEPTH_STEP_M:
        return f"depth_{suffix} is up to {far:.2f} m off the voxels' view"
    beside = frame_path(root, sequence, f"render_{suffix}", f"{frame}.png")
    if not rendered and not beside.exists():
        return None
    shown = image if rendered else read_image(beside)
    return (
        None
        if np.array_equal(shown, view.rgb)
        else f"{'image' if rendered else 'render'}_{suffix} is not the voxels' render"
    )
