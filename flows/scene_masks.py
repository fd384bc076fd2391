"""What a passing sensor would know of a generated scene: masks simulated from poses straight ahead.

A generated scene has no drive, so one is assumed: the vehicle goes on along +x as recorded drives do, a pose every 5 m
for 70 m (SemanticKITTI aggregates 70 scans ahead), leaving out places where something solid stands in its way.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY, IGNORE

STEP_M, LENGTH_M = 5.0, 70.0
HALF_WIDTH_M, HALF_LENGTH_M = 0.8, 1.5  # of the space that a pose needs
LOW_M, HIGH_M = -1.0, 0.4  # of that space, against the sensor, which stands 1.73 m above the road


def forward_poses(labels: UInt8[np.ndarray, "x y z"], grid: VoxelGrid) -> Float[np.ndarray, "p 4 4"]:
    """Poses (world_from_vehicle) from which a scene is seen; the first is the origin, whatever stands there."""
    centres = [o + (np.arange(n) + 0.5) * grid.voxel_size_m for o, n in zip(grid.origin_m, grid.shape, strict=True)]
    beside, level = np.abs(centres[1]) < HALF_WIDTH_M, (centres[2] > LOW_M) & (centres[2] < HIGH_M)
    solid = (labels != EMPTY) & (labels != IGNORE)
    blocked = centres[0][solid[:, beside][:, :, level].any((1, 2))]  # x of what stands in the way [m]
    places = np.arange(0.0, LENGTH_M + STEP_M / 2, STEP_M)
    free = [x for x in places if x == 0 or not (np.abs(blocked - x) < HALF_LENGTH_M).any()]
    poses = np.tile(np.eye(4), (len(free), 1, 1))
    poses[:, 0, 3] = free
    return poses


def simulate_masks(
    labels: UInt8[np.ndarray, "x y z"], grid: VoxelGrid
) -> tuple[UInt8[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """(labels with 255 where not seen, invalid, occluded) of a scene without 255, as recorded ground truth has them."""
    from renderers.ground_truth import masked

    seen, invalid, occluded = masked(labels, grid, forward_poses(labels, grid), True)
    return np.where(invalid, np.uint8(IGNORE), seen), invalid, occluded
