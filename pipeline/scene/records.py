"""The frozen records that stages hand each other: Surface -> Scene -> View -> Sample.

Arrays are in the world frame (X forward, Y left, Z up, metres) unless a name says otherwise. Records carry data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8

from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY, IGNORE, Taxonomy


@dataclass(frozen=True, eq=False)
class Scene:
    """A labelled voxel grid: class ids, 0 = empty, 255 = ignore (not scored).

    provenance says where it came from, in JSON values (source, split, frame or seed).
    """

    labels: UInt8[np.ndarray, "x y z"]
    grid: VoxelGrid
    taxonomy: Taxonomy
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels.shape != self.grid.shape:
            raise InputError("Scene", f"labels of the grid's shape {self.grid.shape}", f"{self.labels.shape}")

    @property
    def valid(self) -> Bool[np.ndarray, "x y z"]:
        """True where a voxel is scored."""
        return self.labels != IGNORE

    @property
    def occupied(self) -> Bool[np.ndarray, "x y z"]:
        """True where a voxel is solid and scored."""
        return (self.labels != EMPTY) & self.valid


@dataclass(frozen=True)
class Material:
    """What a triangle is made of, for photographs.

    kind: a word the photograph's shader knows ("asphalt", "brick", "glass", "foliage", ...); albedo: linear RGB in
    0..1; texture_seed: varies the pattern from object to object.
    """

    kind: str
    albedo: tuple[float, float, float]
    texture_seed: int = 0


@dataclass(frozen=True, eq=False)
class Surface:
    """Labelled triangles of a continuous world.

    vertices [m]; triangles: vertex indices; class_id: taxonomy ids; instance: 0 = none, else an object's number that
    is unique in the surface; material: index into `materials`.
    """

    vertices: Float[np.ndarray, "v 3"]
    triangles: Int32[np.ndarray, "t 3"]
    class_id: UInt8[np.ndarray, "t"]
    instance: Int32[np.ndarray, "t"]
    material: Int32[np.ndarray, "t"]
    materials: tuple[Material, ...]
    taxonomy: Taxonomy


@dataclass(frozen=True, eq=False)
class View:
    """What one camera sees of a scene; every image is (height, width).

    rgb: class-coloured, shaded; depth: z [m], 0 where nothing is hit; semantics: class ids, 0 where nothing is hit;
    normals: unit, world axes, 0 where nothing is hit; instance: 0 = none, or None where the scene has no instances.
    """

    camera: Camera
    rgb: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    semantics: UInt8[np.ndarray, "h w"]
    normals: Float32[np.ndarray, "h w 3"]
    instance: Int32[np.ndarray, "h w"] | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One exported pair: a scene, its view, and the image that pairs with the voxels (H, W, 3 as the view).

    extras: prompt, seeds, accept scores and the like, in JSON values.
    """

    name: str
    scene: Scene
    view: View
    image: UInt8[np.ndarray, "h w 3"]
    extras: Mapping[str, Any] = field(default_factory=dict)
