"""The cameras of a sample: KITTI's, set in the vehicle frame with seeded jitter, or the source's own.

Jitter is drawn a sequence, not a sample: a sequence has one calib.txt, and a stock loader must find the right one.
"""

from __future__ import annotations

from pathlib import Path

from flows.layout import sequence_of
from flows.recipes import BuildRecipe, SplitSource
from flows.sources import open_source, split_frames
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
from pipeline.scene.seeds import rng

KITTI_SIZE_PX = (1241, 376)  # of images whose size can't be read from a file


def cameras_of(recipe: BuildRecipe, index: int) -> dict[str, Camera]:
    """Sample `index`'s cameras by name, in the vehicle frame; the first one pairs with the image."""
    if recipe.views.calibrated:
        return {"front": own_camera(recipe.source, index)}
    from renderers.viewpoints import Jitter, jittered, kitti_rig

    views = recipe.views
    draw = rng(recipe.seed, "cameras", _sequence_number(recipe, index))
    rig = kitti_rig(views.cameras, (views.width_px, views.height_px))
    return {name: jittered(camera, Jitter(views.jitter_m, views.jitter_deg), draw) for name, camera in rig.items()}


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
    root = open_source(source.root)
    sequence, frame = split_frames(source)[index]
    return read_camera(root, sequence, frame, size_px=None if has_image(root, sequence, frame) else KITTI_SIZE_PX)


def has_image(root: KittiRoot, sequence: str, frame: str) -> bool:
    """Whether the frame has a photograph."""
    return any(frame_path(root, sequence, "image_2", frame + suffix).exists() for suffix in (".png", ".jpg"))
