"""Labels from geometry (a Surface) and from labelled scans, on any VoxelGrid.

Surface: a voxel gets the class with the largest area of triangles inside it, clipped exactly; the area of foreground
classes (countable, thin or small things: poles, signs, people) counts twice, so that a pole's foot is not drowned by
the ground it stands on; ties go to the lower class id. Voxels that are only touched (less than 1e-6 of a voxel's face)
stay empty, and a face that lies exactly between two voxels belongs to the upper one, as VoxelGrid's boxes do.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Surface
from pipeline.scene.taxonomy import EMPTY
from renderers.clip_area import heaviest_classes

FOREGROUND_WEIGHT = 2.0


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
