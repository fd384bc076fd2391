"""Whether a build's samples agree with themselves: the written voxels, seen through the written calibration, must give
the written depth and semantics, and images of the cameras' sizes. A wrong file that is hashed as it stands is found so.

Where a recipe extends its scenes, what a view shows beyond the grid isn't on disk: those pixels must lie outside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
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
EDGE = 0.05  # voxels: a surface on the grid's face may come out as far inside, by the depth's rounding


@dataclass(frozen=True)
class Shown:
    """What a build's views show. rendered: images are shaded renders themselves; extended: more than the voxels."""

    rendered: bool
    extended: bool


def contradictions(directory: Path, manifest: Manifest) -> Iterator[tuple[str, str | None]]:
    """Yield (path, fault) for every sample of a build, path being the file at odds; fault None means that all agree."""
    root = open_root(directory)
    source = manifest.recipe.get("source")
    recorded = isinstance(source, dict) and source.get("kind") == "split"  # its scans and labels may differ in truth
    rendered = (manifest.recipe.get("images") or {}).get("kind") == "render"  # else renders are beside the images
    extended = isinstance(source, dict) and bool(source.get("extend_m"))
    for sample in manifest.samples:
        sequence, _, frame = sample.name.partition("/")
        try:
            yield sample.name, _fault(root, sequence, frame, recorded, Shown(rendered, extended))
        except InputError as error:
            yield sample.name, str(error)


def _fault(root: KittiRoot, sequence: str, frame: str, recorded: bool, shown: Shown) -> str | None:
    from renderers.shading import render

    found = read_frame(root, sequence, frame)
    fault = None if recorded else _masks_fault(found)
    for suffix, camera in _cameras(root, sequence, frame).items():
        if fault is None:
            fault = _view_fault(root, (sequence, frame), suffix, render(found.scene(), camera), shown)
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


def _view_fault(root: KittiRoot, key: tuple[str, str], suffix: str, view: View, shown: Shown) -> str | None:
    """How the written files of one camera differ from the view of the written voxels."""
    sequence, frame = key
    image = read_image(image_path(root, sequence, frame, f"image_{suffix}"))
    size = (view.camera.height_px, view.camera.width_px)
    depth = read_depth(frame_path(root, sequence, f"depth_{suffix}", f"{frame}.png"))
    semantics = read_label_image(frame_path(root, sequence, f"semantics_{suffix}", f"{frame}.png"))
    for name, pixels in (("image", image), ("depth", depth), ("semantics", semantics)):
        if pixels.shape[:2] != size:
            return f"{name}_{suffix} has {pixels.shape[1]}x{pixels.shape[0]} pixels, its camera {size[1]}x{size[0]}"
    beyond = _beyond(root, view, depth, semantics) if shown.extended else np.zeros(size, bool)
    off = int(((semantics != view.semantics) & ~beyond).sum())
    if off:
        return f"semantics_{suffix} differs from the voxels' view in {off} of {semantics.size} pixels"
    written = np.where(view.depth > FARTHEST_M, 0, view.depth)
    far = float(np.abs(np.where(beyond, 0, depth - written)).max())
    if far > DEPTH_STEP_M:
        return f"depth_{suffix} is up to {far:.2f} m off the voxels' view"
    beside = frame_path(root, sequence, f"render_{suffix}", f"{frame}.png")
    if not shown.rendered and not beside.exists():
        return None
    picture = image if shown.rendered else read_image(beside)
    if (picture == view.rgb)[~beyond].all():
        return None
    return f"{'image' if shown.rendered else 'render'}_{suffix} is not the voxels' render"


def _beyond(root: KittiRoot, view: View, depth: np.ndarray, semantics: np.ndarray) -> np.ndarray:
    """Pixels that show something where the written voxels have nothing, as far as it lies outside the grid."""
    height, width = depth.shape
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(float)
    points = root.grid.coordinates(view.camera.unproject(pixels, depth.astype(np.float64)))
    inside = ((points > EDGE) & (points < np.array(root.grid.shape) - EDGE)).all(axis=-1)
    return (view.semantics == EMPTY) & (semantics != EMPTY) & ~inside
