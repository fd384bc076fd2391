"""Rays on a labelled Surface: Embree through Open3D; and the triangles of a voxel scene's exposed faces.

Embree computes in float32. Vertices and rays are shifted to a local origin first, so that at 100 m a hit is good to
about 0.05 mm (grazing rays: some mm).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8

from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Material, Scene, Surface
from pipeline.scene.taxonomy import EMPTY, IGNORE

_NONE = 0xFFFFFFFF  # Embree's "no triangle"


def load_open3d() -> Any:
    """Open3D, importable on a bare machine: its wheel links to libusb, which another wheel carries.

    Open3D also brings a TBB that is too old for numba, which would warn when it finds that loaded: TBB comes last then.
    """
    import libusb_package
    import numba

    numba.config.THREADING_LAYER_PRIORITY = sorted(numba.config.THREADING_LAYER_PRIORITY, key="tbb".__eq__)
    ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
    import open3d

    return open3d


@dataclass(frozen=True, eq=False)
class SurfaceHits:
    """The first triangle along each ray, by ray (*n) or pixel (height, width).

    depth: t, in lengths of the direction (for a camera's rays: z [m]), 0 = nothing hit; triangle: -1 = nothing hit;
    class_id, instance: the triangle's, 0 = nothing hit; normals: unit, towards the ray's origin, 0 = nothing hit;
    barycentric: weights of the triangle's second and third vertex.
    """

    depth: Float32[np.ndarray, "*n"]
    triangle: Int32[np.ndarray, "*n"]
    class_id: UInt8[np.ndarray, "*n"]
    instance: Int32[np.ndarray, "*n"]
    normals: Float32[np.ndarray, "*n 3"]
    barycentric: Float32[np.ndarray, "*n 2"]


class SurfaceCaster:
    """A Surface with its ray structure; built once, asked by many cameras and sensors.

    threads: for the casts; answers don't depend on it. Raises InputError for a surface whose arrays don't fit.
    """

    def __init__(self, surface: Surface, threads: int = 0):
        self.surface, self._threads = surface, threads
        _check(surface)
        o3d = load_open3d()
        vertices = np.asarray(surface.vertices, np.float64)
        self._origin = (vertices.min(0) + vertices.max(0)) / 2 if len(vertices) else np.zeros(3)
        self._tensor = o3d.core.Tensor.from_numpy
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=1)  # one thread: the same structure every time
        local = np.ascontiguousarray(vertices - self._origin, np.float32)
        if len(surface.triangles):
            triangles = np.ascontiguousarray(surface.triangles, np.uint32)
            self._scene.add_triangles(self._tensor(local), self._tensor(triangles))

    def cast(self, camera: Camera) -> SurfaceHits:
        """What every pixel's ray (`Camera.ray_directions`) hits."""
        directions = camera.ray_directions()
        return self.cast_rays(np.broadcast_to(camera.centre, directions.shape), directions)

    def cast_rays(self, origins: Float[np.ndarray, "*n 3"], directions: Float[np.ndarray, "*n 3"]) -> SurfaceHits:
        """What rays hit first; world frame, metres, directions of any length, float64 or float32."""
        answer = self._scene.cast_rays(self._rays(origins, directions), nthreads=self._threads)
        triangle = answer["primitive_ids"].numpy()
        hit = triangle != _NONE
        index = np.where(hit, triangle, -1).astype(np.int32)
        depth = np.where(hit, answer["t_hit"].numpy(), np.float32(0))
        normals = self._normals(answer["primitive_normals"].numpy(), directions, hit)
        return SurfaceHits(
            depth=depth,
            triangle=index,
            class_id=_of(self.surface.class_id, index, np.uint8),
            instance=_of(self.surface.instance, index, np.int32),
            normals=normals,
            barycentric=answer["primitive_uvs"].numpy(),
        )

    def distances(
        self, origins: Float[np.ndarray, "*n 3"], directions: Float[np.ndarray, "*n 3"]
    ) -> tuple[Float32[np.ndarray, "*n"], Int32[np.ndarray, "*n"]]:
        """t of the first hit in lengths of the direction (inf: none) and its triangle (-1: none)."""
        answer = self._scene.cast_rays(self._rays(origins, directions), nthreads=self._threads)
        triangle = answer["primitive_ids"].numpy()
        return answer["t_hit"].numpy(), np.where(triangle != _NONE, triangle, -1).astype(np.int32)

    def occluded(
        self,
        origins: Float[np.ndarray, "*n 3"],
        directions: Float[np.ndarray, "*n 3"],
        tfar: float | Float[np.ndarray, "*n"] = np.inf,
        tnear: float = 0.0,
    ) -> Bool[np.ndarray, "*n"]:
        """Whether anything lies on the ray between tnear and tfar, in lengths of the direction.

        tfar may differ from ray to ray (then tnear is a share of it).
        """
        if np.ndim(tfar):
            directions, tfar = directions * np.asarray(tfar)[..., None], 1.0
        rays = self._rays(origins, directions)
        return np.asarray(self._scene.test_occlusions(rays, tnear, float(tfar), self._threads).numpy())

    def _rays(self, origins: Float[np.ndarray, "*n 3"], directions: Float[np.ndarray, "*n 3"]) -> Any:
        rays = np.concatenate([origins - self._origin, directions], axis=-1, dtype=np.float32, casting="same_kind")
        return self._tensor(np.ascontiguousarray(rays))

    def _normals(
        self, normals: Float32[np.ndarray, "*n 3"], directions: Float[np.ndarray, "*n 3"], hit: Bool[np.ndarray, "*n"]
    ) -> Float32[np.ndarray, "*n 3"]:
        """Unit normals turned towards the ray's origin."""
        length = np.sqrt(np.square(normals).sum(-1))
        along = (normals * directions).sum(-1)
        scale = np.where(along > 0, -1, 1) / np.where(length > 0, length, 1)
        return np.where(hit[..., None], normals * scale[..., None], 0).astype(np.float32)


def _of(values: np.ndarray, index: Int32[np.ndarray, "*n"], dtype: type) -> np.ndarray:
    if len(values) == 0:
        return np.zeros(index.shape, dtype)
    return np.where(index >= 0, values[index], 0).astype(dtype)


def _check(surface: Surface) -> None:
    count = len(surface.triangles)
    if not len(surface.class_id) == len(surface.instance) == count:
        found = f"{len(surface.class_id)} classes and {len(surface.instance)} instances"
        raise InputError("Surface", f"a class and an instance for each of {count} triangles", found)
    if count and not 0 <= surface.triangles.min() <= surface.triangles.max() < len(surface.vertices):
        raise InputError("Surface", f"vertex indices below {len(surface.vertices)}", "one out of range")
    if not np.isfinite(surface.vertices).all():
        raise InputError("Surface", "finite vertices", "NaN or infinity")


def voxel_surface(scene: Scene, solid_ignored: bool = False) -> Surface:
    """The faces between solid and empty voxels, two triangles each, wound outwards, with their voxel's class.

    Vertices are shared between faces. Ignored voxels (255) are empty unless `solid_ignored`. One material per class.
    """
    solid = scene.labels != EMPTY if solid_ignored else (scene.labels != EMPTY) & (scene.labels != IGNORE)
    corners, classes = zip(*(_faces(scene.labels, solid, face) for face in range(6)), strict=True)
    used, index = np.unique(np.concatenate(corners), return_inverse=True)
    quads = index.reshape(-1, 4).astype(np.int32)
    triangles = quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    class_id = np.repeat(np.concatenate(classes), 2)
    return Surface(
        vertices=_corner_positions(scene.grid, used),
        triangles=triangles,
        class_id=class_id,
        instance=np.zeros(len(triangles), np.int32),
        material=class_id.astype(np.int32),
        materials=_materials(scene),
        taxonomy=scene.taxonomy,
    )


def _faces(
    labels: UInt8[np.ndarray, "x y z"], solid: Bool[np.ndarray, "x y z"], face: int
) -> tuple[np.ndarray, UInt8[np.ndarray, "q"]]:
    """Corner numbers (4 q) and classes (q) of the exposed faces on one side: 0..2 lower x y z, 3..5 upper."""
    upper, axis = divmod(face, 3)
    neighbour = np.zeros_like(solid)
    here: list[slice] = [slice(None)] * 3
    there = list(here)
    here[axis], there[axis] = (slice(None, -1), slice(1, None)) if upper else (slice(1, None), slice(None, -1))
    neighbour[tuple(here)] = solid[tuple(there)]
    voxels = np.argwhere(solid & ~neighbour)
    turn = [(0, 0), (1, 0), (1, 1), (0, 1)] if upper else [(0, 0), (0, 1), (1, 1), (1, 0)]
    offsets = np.zeros((4, 3), np.int64)
    offsets[:, axis] = upper
    offsets[:, [(axis + 1) % 3, (axis + 2) % 3]] = turn
    corner = voxels[:, None] + offsets  # (q, 4, 3)
    numbers = np.ravel_multi_index(tuple(np.moveaxis(corner, -1, 0)), tuple(n + 1 for n in labels.shape))
    return numbers.ravel(), labels[tuple(voxels.T)]


def _corner_positions(grid: VoxelGrid, numbers: np.ndarray) -> Float[np.ndarray, "v 3"]:
    corner = np.stack(np.unravel_index(numbers, tuple(n + 1 for n in grid.shape)), axis=-1)
    return np.asarray(grid.origin_m) + corner * grid.voxel_size_m


def _materials(scene: Scene) -> tuple[Material, ...]:
    """A plain material by label (unused ones black), its albedo the class colour in linear light."""
    linear = (scene.taxonomy.color_table() / 255.0) ** 2.2
    return tuple(Material("plain", (float(r), float(g), float(b))) for r, g, b in linear)
