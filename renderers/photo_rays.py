"""Rays for photographs: a Surface made ready for Embree, and what each triangle is made of."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, Int64

from pipeline.scene.errors import InputError
from pipeline.scene.records import Surface
from renderers.meshes import SurfaceCaster
from renderers.photo_looks import CODES, code_of
from renderers.photo_signs import Plates, connected_pieces, find_plates

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

    caster: SurfaceCaster
    normal: Float[np.ndarray, "t 3"]
    code: Int64[np.ndarray, "t"]
    leaf: Int64[np.ndarray, "t"]  # SOLID, CROWN or LOOSE
    seed: Int64[np.ndarray, "t"]
    albedo: Float[np.ndarray, "t 3"]
    plates: Plates
    world_from_surface: Float[np.ndarray, "4 4"]

    def cast(
        self, origins: Float[np.ndarray, "n 3"], directions: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        """Distance in units of the direction's length (inf: none) and triangle (-1: none) of the first hits."""
        distance, triangle = self.caster.distances(origins, directions)
        return distance.astype(np.float64), triangle.astype(np.int64)

    def to_world(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        return rotated(self.world_from_surface, points) + self.world_from_surface[:3, 3]


def rotated(matrix: Float[np.ndarray, "r c"], vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """matrix[:3, :3] applied to each vector, without BLAS: the same bits on any number of threads."""
    out = np.empty((len(vectors), 3))
    _rotate(np.ascontiguousarray(matrix[:3, :3], np.float64), vectors, out)
    return out


@numba.njit(cache=True)
def _rotate(m: np.ndarray, vectors: np.ndarray, out: np.ndarray) -> None:
    for n in range(vectors.shape[0]):
        x, y, z = vectors[n, 0], vectors[n, 1], vectors[n, 2]
        for c in range(3):
            out[n, c] = m[c, 0] * x + m[c, 1] * y + m[c, 2] * z


def stage(source: Surface | SurfaceCaster, world_from_surface: Float[np.ndarray, "4 4"] | None = None) -> Stage:
    """The ray structure, built here unless given, and the triangles' properties; InputError if there are none."""
    caster = source if isinstance(source, SurfaceCaster) else SurfaceCaster(source, threads=1)
    surface = caster.surface
    if len(surface.triangles) == 0:
        raise InputError("Surface", "at least one triangle to photograph", "none")
    corner = np.asarray(surface.vertices, np.float64)[surface.triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    code = np.array([code_of(m.kind) for m in surface.materials], np.int64)[surface.material]
    seed = np.array([m.texture_seed for m in surface.materials], np.int64)[surface.material]
    albedo = np.array([m.albedo for m in surface.materials], np.float64).reshape(-1, 3)[surface.material]
    pose = np.eye(4) if world_from_surface is None else np.asarray(world_from_surface, np.float64)
    plates = find_plates(surface, code == CODES["sign_face"])
    leaf = _leaves(surface, code)
    normal *= _outward(surface, leaf)[:, None]
    return Stage(caster, normal, code, leaf, seed, albedo, plates, pose)


def _outward(surface: Surface, leaf: Int64[np.ndarray, "t"]) -> Float[np.ndarray, "t"]:
    """-1 for connected pieces of crowns that are wound inwards, whose volume is negative; else 1."""
    sign = np.ones(len(leaf))
    crown = leaf == CROWN
    if not crown.any():
        return sign
    piece = connected_pieces(surface.triangles[crown])
    corner = np.asarray(surface.vertices, np.float64)[surface.triangles[crown]]
    middle = corner.mean(axis=1)
    centre = np.stack([np.bincount(piece, middle[:, c]) for c in range(3)], axis=1) / np.bincount(piece)[:, None]
    span = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    volume = np.bincount(piece, np.einsum("ij,ij->i", middle - centre[piece], span))
    sign[crown] = np.where(volume[piece] < 0, -1.0, 1.0)
    return sign


def _leaves(surface: Surface, code: Int64[np.ndarray, "t"]) -> Int64[np.ndarray, "t"]:
    """SOLID, CROWN or LOOSE a triangle: loose foliage shares no vertex with other foliage."""
    foliage = code == CODES["foliage"]
    uses = np.bincount(surface.triangles[foliage].ravel(), minlength=len(surface.vertices))
    loose = (uses[surface.triangles] == 1).all(axis=1)
    return np.where(foliage, np.where(loose, LOOSE, CROWN), SOLID)
