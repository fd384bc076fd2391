"""A scan of voxels by hand: a wall is hit, what it hides isn't, nor what lies above the beams."""

from dataclasses import replace

import numpy as np

from pipeline.scene.grid import VoxelGrid
from renderers.lidar import NOMINAL
from renderers.voxel_scan import scan_voxels

GRID = VoxelGrid((20, 11, 20), 1.0, (0.0, -5.5, -9.5))  # the sensor is in the voxel (0, 5, 9)


def test_the_nearest_wall_is_hit_and_hides_the_next() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[10] = 13
    labels[15] = 13
    scan = scan_voxels(labels, GRID)
    assert scan[10, 5, 9]  # straight ahead
    assert not scan[15].any()
    lowest, highest = 9 + np.round(10 * np.tan(np.radians([-24.9, 2.0]))).astype(int)
    assert scan[10, 5].nonzero()[0].tolist() == list(range(lowest, highest + 1))


def test_ignored_voxels_are_no_obstacle_and_near_ones_give_no_echo() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[1] = 255
    labels[12] = 9
    assert scan_voxels(labels, GRID)[12, 5, 9]
    assert not scan_voxels(labels, GRID, replace(NOMINAL, nearest_m=20.0)).any()
