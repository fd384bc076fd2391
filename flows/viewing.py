"""The cameras of a sample: KITTI's typical ones or a real dataset's, with seeded jitter, or the source's own.

Jitter is drawn a sequence, not a sample: a sequence has one calib.txt, and a stock loader must find the right one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.layout import sequence_of
from flows.recipes import BuildRecipe, SplitSource
from flows.sources import open_source, split_frames
from flows.view_recipe import CameraConfig, ViewConfig
from pipeline.datasets.kitti_calibration import Calibration, calibration_of
from pipeline.datasets.semantic_kitti import (
    KittiRoot,
    frame_path,
    read_camera,
    read_sequence_calibration,
    write_frame_calibration,
)
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.records import Scene, View
from pipeline.scene.seeds import rng

KITTI_SIZE_PX = (1241, 376)  # of images whose size can't be read from a file


def cameras_of(recipe: BuildRecipe, index: int) -> dict[str, Camera]:
    """Sample `index`'s cameras by name, in the vehicle frame; the first one pairs with the image."""
    if recipe.views.calibrated:
        return {"front": own_camera(recipe.source, index)}
    from renderers.viewpoints import Jitter, jittered, zoomed

    views, sequence = recipe.views, _sequence_number(recipe, index)
    draw, lenses = rng(recipe.seed, "cameras", sequence), rng(recipe.seed, "lenses", sequence)
    mounting = Jitter(views.jitter_m, views.jitter_deg)
    mounted = {name: jittered(camera, mounting, draw) for name, camera in _rig(views, sequence).items()}
    return {name: zoomed(camera, math.exp(views.jitter_focal * lenses.normal())) for name, camera in mounted.items()}


def _rig(views: ViewConfig, sequence: int) -> dict[str, Camera]:
    """A sequence's cameras before any jitter."""
    from renderers.viewpoints import RIG_YAW_DEG, kitti_rig, turned

    if not views.real:
        return kitti_rig(views.cameras, (views.width_px, views.height_px))
    front = views.real[sequence % len(views.real)].camera()
    return {name: turned(front, RIG_YAW_DEG[name]) for name in views.cameras}


@dataclass(frozen=True, eq=False)
class Surrounded:
    """A scene as it is rendered. beyond: what lies around it, on a larger grid that is empty in the scene's place."""

    scene: Scene
    beyond: Scene | None = None

    def view(self, camera: Camera) -> View:
        """The scene's own view; where that shows nothing, what lies beyond. Raises InputError."""
        from renderers.shading import render

        own = render(self.scene, camera)
        if self.beyond is None:
            return own
        far, hit = render(self.beyond, camera), own.depth > 0
        return View(
            camera,
            rgb=np.where(hit[..., None], own.rgb, far.rgb),
            depth=np.where(hit, own.depth, far.depth),
            semantics=np.where(hit, own.semantics, far.semantics),
            normals=np.where(hit[..., None], own.normals, far.normals),
        )


def real_cameras(path: Path) -> tuple[CameraConfig, ...]:
    """Camera 2 of a root's training sequences, each different one once, in file order. Raises InputError."""
    root = open_source(path)
    if not (frames := root.frames("train")):
        raise InputError(path, "frames in split train, whose cameras are taken", "none")
    first = dict(reversed(frames))  # of each sequence
    cameras = [
        CameraConfig.of(_camera(root, sequence, first[sequence])) for sequence in dict.fromkeys(s for s, _ in frames)
    ]
    return tuple(dict.fromkeys(cameras))


def cameras_as_changes(changes: tuple[str, ...]) -> tuple[str, ...]:
    """A recipe's changes with that dataset's cameras, in JSON, for every views.real=ROOT. Raises InputError."""
    found = []
    for change in changes:
        path, _, value = change.partition("=")
        if path == "views.real" and not value.startswith("["):
            value = json.dumps([camera.model_dump() for camera in real_cameras(Path(value))])
        found.append(f"{path}={value}" if "=" in change else change)
    return tuple(found)


def _sequence_number(recipe: BuildRecipe, index: int) -> int:
    if not isinstance(recipe.source, SplitSource):
        return sequence_of(recipe, index)[0]
    sequences = [sequence for sequence, _ in split_frames(recipe.source)]
    return list(dict.fromkeys(sequences)).index(sequences[index])


def copy_frame_calibration(recipe: BuildRecipe, out: Path, index: int) -> list[str]:
    """Carry over a source frame's own calibration, where it has one and the views used it; the paths written."""
    source = recipe.source
    if not recipe.views.calibrated or not isinstance(source, SplitSource):
        return []
    root = open_source(source.root)
    sequence, frame = split_frames(source)[index]
    if not frame_path(root, sequence, "calib", f"{frame}.txt").exists():
        return []
    return [write_frame_calibration(out, sequence, frame, read_sequence_calibration(root, sequence, frame))]


def nominal_calibration(recipe: BuildRecipe, index: int) -> Calibration:
    """What calib.txt of sample `index`'s sequence says: the source's own, or that of the first camera."""
    source = recipe.source
    if recipe.views.calibrated and isinstance(source, SplitSource):
        return read_sequence_calibration(open_source(source.root), split_frames(source)[index][0])
    return calibration_of(next(iter(cameras_of(recipe, index).values())))


def own_camera(source: object, index: int) -> Camera:
    """Camera 2 of a split's frame, by its own calibration. Raises InputError."""
    if not isinstance(source, SplitSource):
        raise InputError("views.calibrated", "a source with calibration, a split", "a generated one", "set it to false")
    return _camera(open_source(source.root), *split_frames(source)[index])


def _camera(root: KittiRoot, sequence: str, frame: str) -> Camera:
    return read_camera(root, sequence, frame, size_px=None if has_image(root, sequence, frame) else KITTI_SIZE_PX)


def has_image(root: KittiRoot, sequence: str, frame: str) -> bool:
    """Whether the frame has a photograph."""
    return any(frame_path(root, sequence, "image_2", frame + suffix).exists() for suffix in (".png", ".jpg"))
