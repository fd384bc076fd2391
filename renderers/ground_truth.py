"""A frame's ground truth in SemanticKITTI's four parts, from geometry or from labelled scans over time.

From a Surface: labels are the geometry's shell at the frame's instant. From scans: labels are the majority of the
current scan and the next 70 between 2.5 and 70 m of their sensors, so what moves leaves a smear, as in the benchmark.
Either way `occupancy` is the current scan alone, and the masks follow from those voxels as occluders and the poses of
the drive. All is in the frame's own vehicle axes, where the first pose stands in the origin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Surface
from pipeline.scene.taxonomy import EMPTY, Taxonomy
from renderers.visibility import invalid_and_occluded
from renderers.voxelize import LabelledScan, occupancy, voxelize_scans, voxelize_surface


class GroundTruth(NamedTuple):
    """labels: class ids, 255 only where ignored points win; occupancy: .bin; invalid and occluded: see visibility."""

    labels: UInt8[np.ndarray, "x y z"]
    occupancy: Bool[np.ndarray, "x y z"]
    invalid: Bool[np.ndarray, "x y z"]
    occluded: Bool[np.ndarray, "x y z"]


@dataclass(frozen=True)
class ScanRecipe:
    """How scans become frames; the defaults are SemanticKITTI's.

    scans_ahead: later scans that join the current one; stride: scans from frame to frame; ranges_m: least and greatest
    distance of a labelled point from its sensor [m]; joined_raw: raw ids (from, to) joined before classes are counted.
    """

    scans_ahead: int = 70
    stride: int = 5
    ranges_m: tuple[float, float] = (2.5, 70.0)
    joined_raw: tuple[tuple[int, int], ...] = ((1, 0),)

    def __post_init__(self) -> None:
        if self.scans_ahead < 0 or self.stride < 1 or not 0 <= self.ranges_m[0] < self.ranges_m[1]:
            raise InputError("ScanRecipe", "scans_ahead >= 0, stride >= 1 and a range that isn't empty", repr(self))


class Scans(Protocol):
    """A sequence's scans, read when asked for: a list, or a reader's lazy view of a folder."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> LabelledScan: ...


def frame_from_surface(
    surface: Surface,
    grid: VoxelGrid,
    scan_points: Float32[np.ndarray, "n c"],
    poses: Float[np.ndarray, "p 4 4"],
    drop_unseen: bool = False,
) -> GroundTruth:
    """Ground truth of geometry: its shell, the current scan's voxels, and the masks over the drive's sensor poses.

    surface, scan_points and poses (world_from_sensor, the frame's own first) are in the frame's vehicle axes [m].
    drop_unseen: shell voxels that touch no seen empty voxel with a face (floors under houses, undersides, inner walls)
    become empty and invalid, as in real ground truth, whose sensor never measured them.
    """
    labels, scan = voxelize_surface(surface, grid), occupancy(scan_points, grid)
    labels, invalid, occluded = masked(labels, grid, poses, drop_unseen)
    return GroundTruth(labels, scan, invalid, occluded)


def masked(
    labels: UInt8[np.ndarray, "x y z"], grid: VoxelGrid, poses: Float[np.ndarray, "p 4 4"], drop_unseen: bool
) -> tuple[UInt8[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """(labels, invalid, occluded) of whole labels, which are without 255, seen from the poses; see above."""
    invalid, occluded = invalid_and_occluded(labels != EMPTY, grid, poses)
    if not drop_unseen:
        return labels, invalid, occluded
    unseen = (labels != EMPTY) & ~_beside((labels == EMPTY) & ~invalid)
    return np.where(unseen, np.uint8(EMPTY), labels), invalid | unseen, occluded


def _beside(voxels: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Which voxels share a face with one of the given."""
    beside = np.zeros_like(voxels)
    for axis in range(3):
        here, there = np.moveaxis(beside, axis, 0), np.moveaxis(voxels, axis, 0)
        here[1:] |= there[:-1]
        here[:-1] |= there[1:]
    return beside


def frame_from_scans(
    scans: Sequence[LabelledScan],
    grid_from_scan: Float[np.ndarray, "s 4 4"],
    grid: VoxelGrid,
    classes: int,
    ranges_m: tuple[float, float] = ScanRecipe.ranges_m,
) -> GroundTruth:
    """Ground truth of labelled scans, the current one first; every scan's pose also counts for visibility.

    grid_from_scan: sensor poses in the grid's frame [m]; classes: how many the taxonomy has, empty included.
    """
    labels, touched = voxelize_scans(scans, grid_from_scan, grid, classes, ranges_m)
    current = occupancy(scans[0].points, grid, grid_from_scan[0])
    return GroundTruth(labels, current, *invalid_and_occluded(touched, grid, grid_from_scan))


def frames_from_sequence(
    scans: Scans, poses: Float[np.ndarray, "n 4 4"], grid: VoxelGrid, taxonomy: Taxonomy, recipe: ScanRecipe
) -> Iterator[tuple[int, GroundTruth]]:
    """Yield (scan index, ground truth) for every `stride`-th scan of a sequence; the last ones have fewer scans ahead.

    poses: world_from_sensor [m]. Each scan is read once, and no more than scans_ahead + 1 are held at a time.
    Raises InputError when poses and scans differ in number or a pose isn't finite.
    """
    if len(poses) != len(scans) or not np.isfinite(poses).all():
        raise InputError("poses", f"{len(scans)} finite ones, one a scan", f"{len(poses)}, or one that isn't finite")
    held: dict[int, LabelledScan] = {}
    for frame in range(0, len(scans), recipe.stride):
        window = range(frame, min(frame + recipe.scans_ahead + 1, len(scans)))
        held = {n: held[n] if n in held else scans[n] for n in window}
        grid_from_scan = np.linalg.inv(poses[frame]) @ poses[window.start : window.stop]
        yield frame, frame_from_scans(list(held.values()), grid_from_scan, grid, len(taxonomy.classes), recipe.ranges_m)


def labelled_scan(
    points: Float32[np.ndarray, "n c"],
    raw: Integer[np.ndarray, "n"],
    taxonomy: Taxonomy,
    recipe: ScanRecipe,
    subject: str | Path,
) -> LabelledScan:
    """A scan from points and SemanticKITTI-style labels: the raw id in the lower 16 bits, an instance above.

    Raises InputError that names `subject` for a raw id that the taxonomy lacks.
    """
    ids = np.asarray(raw).astype(np.int64) & 0xFFFF
    for old, new in recipe.joined_raw:
        ids[ids == old] = new
    return LabelledScan(points, taxonomy.from_raw(ids, subject))
