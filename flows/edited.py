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
    """One scene to write, and where.

    held: voxels that stay valid whatever a drive sees; steps: scenes to draw to the left of the result.
    """

    split: str
    sequence: str
    frame: str
    scene: Scene
    held: Bool[np.ndarray, "x y z"]
    steps: tuple[Scene, ...] = ()
    calibration: Calibration | None = None

    @property
    def key(self) -> str:
        return f"{self.sequence}/{self.frame}"


def write_edited(out: Path, scenes: Iterable[Edited], lanes_m: Sequence[float], note: dict[str, Any]) -> int:
    """Write a root, whole or not at all; how many scenes there are. Refuses an output that holds something.

    lanes_m: y of the roads along which the masks' drives go [m]; note: what edit.json says beside each scene's
    provenance. Raises InputError, also unless all scenes lie on one grid.
    """
    require_empty(out)
    splits: dict[str, list[str]] = {}
    provenance: dict[str, Any] = {}
    grid: VoxelGrid | None = None
    with atomic_folder(out) as folder:
        for edited in scenes:
            if grid is not None and edited.scene.grid != grid:
                raise InputError(out, f"scenes of one grid, {grid.shape}", f"{edited.scene.grid.shape}, {edited.key}")
            grid = edited.scene.grid
            _write_scene(folder, edited, lanes_m, draw=len(provenance) < PICTURES)
            names = splits.setdefault(edited.split, [])
            names += [] if edited.sequence in names else [edited.sequence]
            provenance[edited.key] = dict(edited.scene.provenance)
        if grid is None:
            raise InputError(out, "at least one scene to write", "none")
        write_layout(folder, grid, splits)
        write_json(folder / "edit.json", {**note, "scenes": provenance})
    return len(provenance)


def _write_scene(folder: Path, edited: Edited, lanes_m: Sequence[float], draw: bool) -> None:
    frame = masked_frame(edited, lanes_m)
    write_frame(folder, frame)
    calibration = frame_path(folder, edited.sequence, "", "calib.txt")
    if not calibration.exists():
        write_calibration(calibration, edited.calibration or nominal_calibration())
    if draw:
        picture = comparison((*edited.steps, frame.scene()))
        write_image(folder / "pictures" / f"{edited.sequence}_{edited.frame}.png", picture)


def masked_frame(edited: Edited, lanes_m: Sequence[float]) -> Frame:
    """The scene's frame with simulated scan, occluded and invalid voxels; see above for which stay valid."""
    from renderers.ground_truth import masked
    from renderers.voxel_scan import scan_voxels

    scene = edited.scene
    whole = np.where(scene.valid, scene.labels, np.uint8(EMPTY))
    seen, invalid, occluded = masked(whole, scene.grid, drive_poses(scene.grid, lanes_m), drop_unseen=True)
    invalid = (invalid & ~edited.held) | ~scene.valid
    labels = np.where(invalid, np.uint8(IGNORE), np.where(edited.held, whole, seen))
    scan = scan_voxels(whole, scene.grid)
    written = replace(scene, labels=labels)
    return frame_of(written, edited.sequence, edited.frame, invalid=invalid, occluded=occluded, scan=scan)


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
    """A column a scene: from above, and oblique below it."""
    columns = [_stacked([above(scene), _oblique(scene)]) for scene in scenes]
    return _stacked([np.swapaxes(column, 0, 1) for column in columns]).swapaxes(0, 1)


def above(scene: Scene) -> UInt8[np.ndarray, "h w 3"]:
    """The map at one to four pixels a voxel; a long street lies on its side, forward to the right."""
    from renderers.bird_eye import bird_eye_image

    pixels = max(1, min(4, 1024 // max(scene.grid.shape[:2])))  # a voxel
    image = bird_eye_image(scene, scene.grid.voxel_size_m / pixels)
    return np.rot90(image, -1) if scene.grid.shape[0] > 1.5 * scene.grid.shape[1] else image


def _oblique(scene: Scene) -> UInt8[np.ndarray, "h w 3"]:
    from renderers.bird_eye import OBLIQUE_SIZE_PX, oblique_image

    scale = 2 if max(scene.grid.shape[:2]) > 96 else 1
    return oblique_image(scene, (scale * OBLIQUE_SIZE_PX[0], scale * OBLIQUE_SIZE_PX[1]))


def _stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures below each other, centred on white."""
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture in pictures:
        left = (width - picture.shape[1]) // 2
        sides = ((0, GAP_PX), (left, width - picture.shape[1] - left), (0, 0))
        rows.append(np.pad(picture, sides, constant_values=255))
    return np.concatenate(rows)[:-GAP_PX]
