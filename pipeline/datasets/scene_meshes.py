"""Scenes as meshes with class colours, for modelling programs: PLY and binary glTF (.glb), written through trimesh.

Two triangles a face, and faces between unlike occupancies only, wound so that they show outwards. Ignored voxels (255)
are left out as empty ones are. PLY keeps the scene's axes and metres (X forward, Y left, Z up), a colour a vertex and
the class id a face. glTF has its own axes (Y up, Z forward, so X left): x = Y, y = Z, z = X; each class is a part of
its own, with its name and material.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.files import write_atomic
from pipeline.scene.records import Scene

if TYPE_CHECKING:
    import trimesh


def boundary_faces(scene: Scene) -> tuple[Float64[np.ndarray, "f 4 3"], UInt8[np.ndarray, "f"]]:
    """Corners [m] of every face between an occupied and another voxel, seen from outside anticlockwise; classes."""
    solid, corners, labels = np.pad(scene.occupied, 1), [], []
    inner = solid[1:-1, 1:-1, 1:-1]
    for axis in range(3):
        for side in (0, 1):
            beyond = np.roll(solid, 1 - 2 * side, axis)[1:-1, 1:-1, 1:-1]
            at = np.argwhere(inner & ~beyond)
            corners.append(at[:, None] + _square(axis, side))
            labels.append(scene.labels[tuple(at.T)])
    voxels = np.concatenate(corners).astype(np.float64)
    return np.asarray(scene.grid.origin_m) + voxels * scene.grid.voxel_size_m, np.concatenate(labels)


def _square(axis: int, side: int) -> Int64[np.ndarray, "4 3"]:
    """A unit voxel's face: its four corners, anticlockwise seen from outside."""
    square = np.zeros((4, 3), np.int64)
    square[:, axis] = side
    square[:, (axis + 1) % 3] = (0, 1, 1, 0)
    square[:, (axis + 2) % 3] = (0, 0, 1, 1)
    return square if side else square[::-1]


def write_ply(path: Path, scene: Scene) -> None:
    """Write binary PLY; see above. Raises InputError on a scene without a face, or without trimesh."""
    mesh = _mesh(*_found(path, scene), scene)
    write_atomic(path, _library().exchange.ply.export_ply(mesh))


def write_glb(path: Path, scene: Scene) -> None:
    """Write binary glTF; see above. Raises InputError on a scene without a face, or without trimesh."""
    corners, labels = _found(path, scene)
    trimesh = _library()
    whole = trimesh.Scene()
    for label in np.unique(labels).tolist():
        name, color = scene.taxonomy.classes[label], np.array(scene.taxonomy.colors[label]) / 255
        part = _triangles(corners[labels == label][..., [1, 2, 0]])
        material = trimesh.visual.material.PBRMaterial(
            name=name, baseColorFactor=[*_linear(color), 1.0], metallicFactor=0.0, roughnessFactor=0.9
        )
        visual = trimesh.visual.TextureVisuals(material=material)
        whole.add_geometry(trimesh.Trimesh(**part, visual=visual, process=False), node_name=name, geom_name=name)
    write_atomic(path, whole.export(file_type="glb"))


WRITERS: Mapping[str, Callable[[Path, Scene], None]] = MappingProxyType({".ply": write_ply, ".glb": write_glb})


def _found(path: Path, scene: Scene) -> tuple[Float64[np.ndarray, "f 4 3"], UInt8[np.ndarray, "f"]]:
    corners, labels = boundary_faces(scene)
    if not len(labels):
        raise InputError(path, "a scene with an occupied voxel", "an empty one")
    return corners, labels


def _triangles(corners: Float64[np.ndarray, "f 4 3"]) -> dict[str, Any]:
    first = 4 * np.arange(len(corners))[:, None, None]
    faces = (first + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    return {"vertices": corners.reshape(-1, 3), "faces": faces}


def _mesh(corners: Float64[np.ndarray, "f 4 3"], labels: UInt8[np.ndarray, "f"], scene: Scene) -> trimesh.Trimesh:
    colors = scene.taxonomy.color_table()[np.repeat(labels, 4)]
    faces = {"label": np.repeat(labels, 2)}
    return _library().Trimesh(**_triangles(corners), vertex_colors=colors, face_attributes=faces, process=False)


def _linear(color: Float64[np.ndarray, "3"]) -> list[float]:
    """sRGB -> linear, which glTF's factors are."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4).tolist()


def _library() -> Any:
    try:
        import trimesh
        import trimesh.exchange.ply
        import trimesh.visual.material
    except ImportError:
        raise InputError("meshes", "the library trimesh", "none", "pip install trimesh") from None
    return trimesh
