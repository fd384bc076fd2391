"""Rays for photographs: a Surface made ready for Embree, and what each triangle is made of."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from pipeline.scene.records import Surface
from renderers.photo_looks import CODES, code_of

SOLID, CROWN, LOOSE = range(3)  # not foliage; part of a closed foliage mesh; a leaf patch on its own


@dataclass(frozen=True, eq=False)
class Hits:
    """Where rays end: distance [m] (inf: nowhere), triangle (-1: none), how deep among leaves [m] (0: not)."""

    distance: Float[np.ndarray, "n"]
    triangle: Int64[np.ndarray, "n"]
    depth_m: Float[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class Stage:
    """A Surface ready for photographs; triangles' properties in the surface frame, textures in the world's."""

    scene: Any  # Open3D's RaycastingScene
    normal: Float[np.ndarray, "t 3"]
    code: Int64[np.ndarray, "t"]
    leaf: Int64[np.ndarray, "t"]  # SOLID, CROWN or LOOSE
    seed: Int64[np.ndarray, "t"]
    albedo: Float[np.ndarray, "t 3"]
    world_from_surface: Float[np.ndarray, "4 4"]

    def cast(
        self, origins: Float[np.ndarray, "n 3"], directions: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        """Distance in units of the direction's length (inf: none) and triangle (-1: none) of the first hits."""
        import open3d as o3d

        rays = np.concatenate([origins, directions], axis=1, dtype=np.float32)
        hits = self.scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)
        triangle = hits["primitive_ids"].numpy().astype(np.int64)
        triangle[triangle == 0xFFFFFFFF] = -1
        return hits["t_hit"].numpy().astype(np.float64), triangle

    def to_world(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        return rotated(self.world_from_surface, points) + self.world_from_surface[:3, 3]


def rotated(matrix: Float[np.ndarray, "r c"], vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """matrix[:3, :3] applied to each vector, without BLAS: the same bits on any number of threads."""
    x, y, z = vectors[:, 0:1], vectors[:, 1:2], vectors[:, 2:3]
    return x * matrix[:3, 0] + y * matrix[:3, 1] + z * matrix[:3, 2]


def stage(surface: Surface, world_from_surface: Float[np.ndarray, "4 4"] | None = None) -> Stage:
    """Build the ray structure (Embree) and the triangles' properties."""
    import libusb_package

    ctypes.CDLL(str(libusb_package.get_library_path()))  # Open3D's wheel looks for it when it is imported
    import open3d as o3d

    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    vertices = np.ascontiguousarray(surface.vertices, np.float32)
    triangles = np.ascontiguousarray(surface.triangles, np.uint32)
    scene.add_triangles(o3d.core.Tensor.from_numpy(vertices), o3d.core.Tensor.from_numpy(triangles))
    corner = np.asarray(surface.vertices, np.float64)[surface.triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    code = np.array([code_of(m.kind) for m in surface.materials], np.int64)[surface.material]
    seed = np.array([m.texture_seed for m in surface.materials], np.int64)[surface.material]
    albedo = np.array([m.albedo for m in surface.materials], np.float64).reshape(-1, 3)[surface.material]
    pose = np.eye(4) if world_from_surface is None else np.asarray(world_from_surface, np.float64)
    return Stage(scene, normal, code, _leaves(surface, code), seed, albedo, pose)


def _leaves(surface: Surface, code: Int64[np.ndarray, "t"]) -> Int64[np.ndarray, "t"]:
    """SOLID, CROWN or LOOSE a triangle: loose foliage shares no vertex with other foliage."""
    foliage = code == CODES["foliage"]
    uses = np.bincount(surface.triangles[foliage].ravel(), minlength=len(surface.vertices))
    loose = (uses[surface.triangles] == 1).all(axis=1)
    return np.where(foliage, np.where(loose, LOOSE, CROWN), SOLID)
