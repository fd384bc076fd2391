"""What a spinning lidar at the origin would see of a voxel scene: the .bin of a scene that no sensor ever scanned."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

from pipeline.scene.grid import VoxelGrid
from renderers.traversal import trace_rays

ELEVATIONS_DEG = np.linspace(2.0, -24.9, 64)  # the HDL-64E's beams
AZIMUTHS = 2083  # firings a turn: 0.1728 degrees apart


def beam_directions() -> Float[np.ndarray, "n 3"]:
    """Unit directions of one turn in the vehicle frame, a beam after another."""
    elevation = np.radians(ELEVATIONS_DEG)[:, None]
    azimuth = np.linspace(0, 2 * np.pi, AZIMUTHS, endpoint=False)[None]
    x, y = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)
    return np.stack([x, y, np.broadcast_to(np.sin(elevation), x.shape)], axis=-1).reshape(-1, 3)


def scan_voxels(labels: UInt8[np.ndarray, "x y z"], grid: VoxelGrid) -> Bool[np.ndarray, "x y z"]:
    """Voxels that the beams of one turn hit, without noise; the sensor stands in the frame's origin."""
    hits = trace_rays(labels, grid, np.zeros((1, 3)), beam_directions())
    scan = np.zeros(labels.shape, bool)
    scan.ravel()[hits.voxel[hits.voxel >= 0]] = True
    return scan
