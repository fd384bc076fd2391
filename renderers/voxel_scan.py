"""What a spinning lidar at the origin would see of a voxel scene: the .bin of a scene that no sensor ever scanned."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from pipeline.scene.grid import VoxelGrid
from renderers.lidar import NOMINAL, Lidar, beam_directions
from renderers.traversal import trace_rays


def scan_voxels(
    labels: UInt8[np.ndarray, "x y z"], grid: VoxelGrid, lidar: Lidar = NOMINAL
) -> Bool[np.ndarray, "x y z"]:
    """Voxels that the beams of one turn hit, without noise; the sensor stands in the frame's origin."""
    hits = trace_rays(labels, grid, np.zeros((1, 3)), beam_directions(lidar).reshape(-1, 3))
    reached = hits.voxel[(hits.voxel >= 0) & (hits.depth >= lidar.nearest_m) & (hits.depth <= lidar.farthest_m)]
    scan = np.zeros(labels.shape, bool)
    scan.ravel()[reached] = True
    return scan
