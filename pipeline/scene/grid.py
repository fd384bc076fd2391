"""Where voxels lie: shape, size and origin; world <-> index.

Axes are X forward, Y left, Z up, in metres. Voxel (i, j, k) is the half-open box
[origin + size*(i, j, k), origin + size*(i+1, j+1, k+1)); its centre is at +0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from pipeline.scene.errors import InputError


@dataclass(frozen=True)
class VoxelGrid:
    """A regular grid of cubes.

    shape: (X, Y, Z) voxels; voxel_size_m: a cube's edge [m]; origin_m: the grid's lowest corner [m].
    """

    shape: tuple[int, int, int]
    voxel_size_m: float
    origin_m: tuple[float, float, float]

    def __post_init__(self) -> None:
        if (
            len(self.shape) != 3
            or min(self.shape) < 1
            or not self.voxel_size_m > 0
            or not np.isfinite(self.origin_m).all()
        ):
            raise InputError("VoxelGrid", "three positive sizes, a positive voxel and a finite origin", repr(self))

    @property
    def extent_m(self) -> tuple[float, float, float]:
        """Edge lengths of the whole grid [m]."""
        x, y, z = (n * self.voxel_size_m for n in self.shape)
        return (x, y, z)

    @property
    def upper_m(self) -> tuple[float, float, float]:
        """The grid's highest corner [m]."""
        x, y, z = (o + e for o, e in zip(self.origin_m, self.extent_m, strict=True))
        return (x, y, z)

    def coordinates(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Continuous index coordinates: 0 at the grid's lower face, 0.5 at the first voxel's centre."""
        return (points - np.asarray(self.origin_m)) / self.voxel_size_m

    def index(self, points: Float[np.ndarray, "*n 3"]) -> Int[np.ndarray, "*n 3"]:
        """The voxel a point lies in; may fall outside the grid (see `contains`)."""
        return np.floor(self.coordinates(points)).astype(np.int64)

    def centre(self, index: Int[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """World position of voxel centres [m]: origin + (index + 0.5) * size."""
        return np.asarray(self.origin_m) + (index + 0.5) * self.voxel_size_m

    def contains(self, index: Int[np.ndarray, "*n 3"]) -> Bool[np.ndarray, "*n"]:
        """Whether an index lies inside the grid."""
        return np.asarray(((index >= 0) & (index < np.asarray(self.shape))).all(axis=-1))

    def centres(self) -> Float[np.ndarray, "x y z 3"]:
        """World position of every voxel's centre [m]."""
        axes = [o + (np.arange(n) + 0.5) * self.voxel_size_m for o, n in zip(self.origin_m, self.shape, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


SEMANTIC_KITTI_GRID = VoxelGrid((256, 256, 32), 0.2, (0.0, -25.6, -2.0))
DEFAULT_GRID = VoxelGrid((128, 128, 16), 0.4, (0.0, -25.6, -2.0))  # the same box at 0.4 m
COMPARISON_GRID = VoxelGrid((64, 64, 16), 0.4, (0.0, -12.8, -2.0))  # its part on which two cores train
