"""Edited scenes on disk: a SemanticKITTI-layout root with masks, calibration, edit.json, and pictures to look at.

Voxels that the edit held, and that were valid, stay valid and as they were. What was generated is masked as recorded
ground truth is: what no pose of a drive through the scene sees is invalid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from pipeline.datasets.image_files import write_image
from pipeline.datasets.kitti_calibration import Calibration, calibration_of, write_calibration
from pipeline.datasets.semantic_kitti import frame_path, write_frame, write_layout
from pipeline.datasets.voxel_frames import Frame, frame_of
from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_folder, require_empty, write_json
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE

POSE_STEP_M = 4.0  # along a drive: five scans of 0.1 s at 8 m/s
PICTURES = 24  # the first scenes, drawn; no more
GAP_PX = 6


@dataclass(frozen=True, eq=False)
class Edited:
    """One frame to write, and in which split. steps: scenes to draw before the result."""

    split: str
    frame: Frame
    steps: tuple[Scene, ...] = ()
    calibration: Calibration | None = None


def write_edited(out: Path, scenes: Iterable[Edited], note: dict[str, Any]) -> int:
    """Write a root, whole or not at all; how many frames. note: what edit.json says beside their provenance.

    Raises InputError on an output that holds something, and unless all frames lie on one grid.
    """
    require_empty(out)
    splits: dict[str, list[str]] = {}
    provenance: dict[str, Any] = {}
    grid: VoxelGrid | None = None
    with atomic_folder(out) as folder:
        for edited in scenes:
            frame = edited.frame
            if grid is not None and frame.grid != grid:
                raise InputError(out, f"scenes of one grid, {grid.shape}", f"{frame.grid.shape}, {frame.key}")
            grid = frame.grid
            _write_scene(folder, edited, draw=len(provenance) < PICTURES)
            names = splits.setdefault(edited.split, [])
            names += [] if frame.sequence in names else [frame.sequence]
            provenance[frame.key] = dict(frame.provenance)
        if grid is None:
            raise InputError(out, "at least one scene to write", "none")
        write_layout(folder, grid, splits, edited.frame.taxonomy)
        write_json(folder / "edit.json", {**note, "scenes": provenance})
    return len(provenance)


def _write_scene(folder: Path, edited: Edited, draw: bool) -> None:
    frame = edited.frame
    write_frame(folder, frame)
    calibration = frame_path(folder, frame.sequence, "", "calib.txt")
    if not calibration.exists():
        write_calibration(calibration, edited.calibration or nominal_calibration())
    if draw:
        picture = comparison((*edited.steps, frame.scene()))
        write_image(folder / "pictures" / f"{frame.sequence}_{frame.name}.png", picture)


def masked_frame(
    scene: Scene, held: Bool[np.ndarray, "x y z"], sequence: str, name: str, lanes_m: Sequence[float]
) -> Frame:
    """The scene's frame with simulated scan, occluded and invalid voxels.

    held: voxels that stay valid whatever a drive sees; lanes_m: y of the roads along which drives go [m].
    """
    from renderers.ground_truth import masked
    from renderers.voxel_scan import scan_voxels

    whole = np.where(scene.valid, scene.labels, np.uint8(EMPTY))
    seen, invalid, occluded = masked(whole, scene.grid, drive_poses(scene.grid, lanes_m), drop_unseen=True)
    invalid = (invalid & ~held) | ~scene.valid
    labels = np.where(invalid, np.uint8(IGNORE), np.where(held, whole, seen))
    scan = scan_voxels(whole, scene.grid)
    return frame_of(replace(scene, labels=labels), sequence, name, invalid=invalid, occluded=occluded, scan=scan)


def drive_poses(grid: VoxelGrid, lanes_m: Sequence[float]) -> Float[np.ndarray, "p 4 4"]:
    """Where a sensor stands on drives along x, one a lane, all through the grid; the frame's own pose comes first."""
    along = np.arange(grid.origin_m[0], grid.upper_m[0] + POSE_STEP_M, POSE_STEP_M)
    places = [(0.0, 0.0), *((float(x), float(y)) for y in lanes_m for x in along)]
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    poses[:, :2, 3] = places
    return poses


def nominal_calibration() -> Calibration:
    """KITTI's typical camera, for scenes that no camera ever saw."""
    from renderers.viewpoints import kitti_rig

    return calibration_of(kitti_rig(("front",))["front"])


def comparison(scenes: Sequence[Scene]) -> UInt8[np.ndarray, "h w 3"]:
    """A column a scene: from above, and oblique below it. A long street lies on its side, forward to the right."""
    columns = [_stacked([_above(scene), _oblique(scene)]) for scene in map(_lying, scenes)]
    return _stacked([np.swapaxes(column, 0, 1) for column in columns]).swapaxes(0, 1)


def _lying(scene: Scene) -> Scene:
    """A scene much longer than wide, turned by a quarter: what was forward lies to the right; others as they are."""
    (x, y, z), size_m = scene.grid.shape, scene.grid.voxel_size_m
    if x <= 1.5 * y:
        return scene
    grid = VoxelGrid((y, x, z), size_m, (0.0, -x * size_m / 2, scene.grid.origin_m[2]))
    return Scene(np.ascontiguousarray(scene.labels.swapaxes(0, 1)[:, ::-1]), grid, scene.taxonomy)


def _above(scene: Scene) -> UInt8[np.ndarray, "h w 3"]:
    """The map at one to four pixels a voxel."""
    from renderers.bird_eye import bird_eye_image

    pixels = max(1, min(4, 1024 // max(scene.grid.shape[:2])))  # a voxel
    return bird_eye_image(scene, scene.grid.voxel_size_m / pixels)


def _oblique(scene: Scene) -> UInt8[np.ndarray, "h w 3"]:
    """The oblique view without the paper above and below it."""
    from renderers.bird_eye import OBLIQUE_SIZE_PX, PAPER, oblique_image

    scale = 2 if max(scene.grid.shape[:2]) > 96 else 1
    image = oblique_image(scene, (scale * OBLIQUE_SIZE_PX[0], scale * OBLIQUE_SIZE_PX[1]))
    rows = np.flatnonzero((image != PAPER).any(axis=(1, 2)))
    return image[rows[0] : rows[-1] + 1] if rows.size else image


def _stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures below each other, centred on white."""
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture in pictures:
        left = (width - picture.shape[1]) // 2
        sides = ((0, GAP_PX), (left, width - picture.shape[1] - left), (0, 0))
        rows.append(np.pad(picture, sides, constant_values=255))
    return np.concatenate(rows)[:-GAP_PX]
