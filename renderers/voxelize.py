"""Labels from geometry (a Surface) and from labelled scans, on any VoxelGrid.

Surface: a voxel gets the class with the largest area of triangles inside it, clipped exactly; the area of foreground
classes (countable, thin or small things: poles, signs, people) counts twice, so that a pole's foot is not drowned by
the ground it stands on; ties go to the lower class id. Voxels that are only touched (less than 1e-6 of a voxel's face)
stay empty, and a face that lies exactly between two voxels belongs to the upper one, as VoxelGrid's boxes do.

Scans: a voxel gets the most frequent class among the points of all scans in it, ties to the lower id. Points of class 0
(unlabelled) and of class 255 (labels the taxonomy ignores) count as classes of their own: where the first win a voxel
comes out as 0, as in SemanticKITTI's own files, and where the second win as 255; either blocks sight all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Surface
from pipeline.scene.taxonomy import EMPTY
from renderers.clip_area import heaviest_classes
from renderers.scan_counts import OUTSIDE, most_frequent, voxels_of_points

FOREGROUND_WEIGHT = 2.0
ANY_RANGE_M = (0.0, np.inf)


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """One turn of a lidar: points x, y, z (further columns are ignored) in the sensor's own frame [m], and classes.

    class_id: class ids, 0 where a point is unlabelled, 255 where its label is ignored.
    """

    points: Float32[np.ndarray, "n c"]
    class_id: UInt8[np.ndarray, "n"]

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] < 3 or self.class_id.shape != (len(self.points),):
            found = f"points {self.points.shape} and classes {self.class_id.shape}"
            raise InputError("LabelledScan", "points (N, 3 or more) and as many classes", found)


def voxelize_surface(surface: Surface, grid: VoxelGrid) -> UInt8[np.ndarray, "x y z"]:
    """The surface's shell: a class id in every voxel that a triangle passes through, 0 elsewhere.

    Triangles of class 0, or of an id the taxonomy lacks (255), are left out. Raises nothing.
    """
    classes = len(surface.taxonomy.classes)
    solid = (surface.class_id != EMPTY) & (surface.class_id < classes)
    weights = np.where(surface.taxonomy.is_foreground()[:classes], FOREGROUND_WEIGHT, 1.0)
    return heaviest_classes(
        grid.coordinates(surface.vertices), surface.triangles[solid], surface.class_id[solid], weights, grid.shape
    )


def voxelize_scans(
    scans: Sequence[LabelledScan],
    grid_from_scan: Float[np.ndarray, "s 4 4"],
    grid: VoxelGrid,
    classes: int,
    ranges_m: tuple[float, float] = ANY_RANGE_M,
) -> tuple[UInt8[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """Labels by majority of all scans' points, and which voxels have a point at all.

    grid_from_scan: where each scan was taken, in the grid's frame [m]; classes: how many the taxonomy has, empty
    included; ranges_m: least and greatest distance of a point from its own sensor, both included.
    """
    if len(scans) == 0 or len(scans) != len(grid_from_scan):
        raise InputError(
            "scans", "at least one, and a pose for each", f"{len(scans)} scans, {len(grid_from_scan)} poses"
        )
    voxels = np.empty(sum(len(s.points) for s in scans), np.int32)
    end = 0
    for scan, pose in zip(scans, grid_from_scan, strict=True):
        start, end = end, end + len(scan.points)
        _bin(scan.points, pose, grid, ranges_m, voxels[start:end])
    class_id = np.concatenate([s.class_id for s in scans])
    labels, touched = most_frequent(voxels, class_id, int(np.prod(grid.shape)), classes + 1)
    return labels.reshape(grid.shape), touched.reshape(grid.shape)


def occupancy(
    points: Float32[np.ndarray, "n c"], grid: VoxelGrid, grid_from_scan: Float[np.ndarray, "4 4"] | None = None
) -> Bool[np.ndarray, "x y z"]:
    """Which voxels hold a point of one scan: SemanticKITTI's .bin (which knows no limit of range)."""
    voxels = np.empty(len(points), np.int32)
    _bin(points, np.eye(4) if grid_from_scan is None else grid_from_scan, grid, ANY_RANGE_M, voxels)
    occupied = np.zeros(grid.shape, bool)
    occupied.ravel()[voxels[voxels != OUTSIDE]] = True
    return occupied


def _bin(
    points: Float32[np.ndarray, "n c"],
    grid_from_scan: Float[np.ndarray, "4 4"],
    grid: VoxelGrid,
    ranges_m: tuple[float, float],
    out: Int32[np.ndarray, "n"],
) -> None:
    transform: Float64[np.ndarray, "3 4"] = np.ascontiguousarray(grid_from_scan[:3], np.float64)
    placement = np.array([*grid.origin_m, grid.voxel_size_m])
    low, high = float(ranges_m[0]), float(ranges_m[1])
    voxels_of_points(np.ascontiguousarray(points, np.float32), transform, placement, grid.shape, (low, high), out)
