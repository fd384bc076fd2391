"""Views in class colours: sun, a little light from the sky, haze, a sky above and a plain below the horizon.

One look for voxels and surfaces. Nothing but + - * / and square roots, so that a view has the same bytes on any machine
and any number of threads.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int8, Int32, UInt8

from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.records import Scene, Surface, View
from renderers.meshes import SurfaceCaster
from renderers.traversal import trace

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """How views are lit and coloured; RGB in 0..255.

    sun: direction towards it (world axes, any length); ambient: light on a face that looks down, sky: what a face that
    looks up gets on top of it, sunlight: what a face square to the sun gets on top; grain: voxels' or objects' spread
    of brightness (0.06: +-6 %); haze_m: distance at which half of a colour is haze.
    """

    sun: tuple[float, float, float] = (-0.5, 0.34, 0.8)
    ambient: float = 0.42
    sky: float = 0.22
    sunlight: float = 0.44
    grain: float = 0.06
    haze_m: float = 140.0
    zenith: Colour = (118, 164, 222)
    horizon: Colour = (222, 230, 238)
    plain: Colour = (148, 144, 134)

    def table(self) -> Float64[np.ndarray, "6 3"]:
        """Rows: sun (unit); ambient, sky, sunlight; zenith; horizon; plain; grain, haze_m, -."""
        sun = np.array(self.sun) / np.sqrt(np.square(self.sun).sum())
        light = (self.ambient, self.sky, self.sunlight)
        return np.array([sun, light, self.zenith, self.horizon, self.plain, (self.grain, self.haze_m, 0)], np.float64)


LOOK = Look()


def render(
    scene: Scene,
    camera: Camera,
    look: Look = LOOK,
    instances: Int32[np.ndarray, "x y z"] | None = None,
    solid_ignored: bool = False,
) -> View:
    """What a camera sees of a voxel scene.

    instances: an object number a voxel (0 = none), for View.instance. Ignored voxels (255) are empty, or black solids
    if `solid_ignored`; see traversal.py for a camera inside a solid voxel. Raises InputError.
    """
    if instances is not None and instances.shape != scene.labels.shape:
        raise InputError("render", f"instances of shape {scene.labels.shape}", f"{instances.shape}")
    hits = trace(scene.labels, scene.grid, camera, solid_ignored)
    normals = _face_normals(hits.face)
    rgb = _coloured(scene.taxonomy.color_table(), camera, look, hits.label, hits.depth, normals, hits.voxel)
    instance = None if instances is None else np.where(hits.voxel >= 0, instances.ravel()[hits.voxel], 0)
    return View(camera, rgb, hits.depth, hits.label, normals, None if instance is None else instance.astype(np.int32))


def render_surface(surface: Surface | SurfaceCaster, camera: Camera, look: Look = LOOK) -> View:
    """What a camera sees of labelled triangles, in the same look; normals face the camera.

    Pass a SurfaceCaster to take several views of one surface.
    """
    caster = surface if isinstance(surface, SurfaceCaster) else SurfaceCaster(surface)
    hits = caster.cast(camera)
    colors = caster.surface.taxonomy.color_table()
    rgb = _coloured(colors, camera, look, hits.class_id, hits.depth, hits.normals, hits.instance)
    return View(camera, rgb, hits.depth, hits.class_id, hits.normals, hits.instance)


def _face_normals(face: Int8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    table = np.zeros((7, 3), np.float32)
    for axis in range(3):
        table[3 + axis + 1, axis], table[3 - axis - 1, axis] = 1, -1
    return table.take(face + np.int8(3), axis=0)


def _coloured(
    colors: UInt8[np.ndarray, "256 3"],
    camera: Camera,
    look: Look,
    semantics: UInt8[np.ndarray, "h w"],
    depth: Float32[np.ndarray, "h w"],
    normals: Float32[np.ndarray, "h w 3"],
    grain: Int32[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    rgb = np.empty((*depth.shape, 3), np.uint8)
    pixels = camera.world_from_camera[:3, :3] @ np.linalg.inv(camera.K)
    _shade(colors.astype(np.float64), pixels, look.table(), semantics, depth, normals, grain, rgb)
    return rgb


@numba.njit(cache=True, inline="always")
def _spread(number: int) -> float:
    """A fixed number in -1..1 for each integer (the finaliser of MurmurHash3)."""
    h = np.uint32(number)
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return float(h ^ (h >> np.uint32(16))) / 2147483648.0 - 1.0


@numba.njit(cache=True, parallel=True)
def _shade(
    tint: Float64[np.ndarray, "256 3"],
    pixels: Float64[np.ndarray, "3 3"],
    look: Float64[np.ndarray, "6 3"],
    semantics: UInt8[np.ndarray, "h w"],
    depth: Float32[np.ndarray, "h w"],
    normals: Float32[np.ndarray, "h w 3"],
    grain: Int32[np.ndarray, "h w"],
    rgb: UInt8[np.ndarray, "h w 3"],
) -> None:
    for v in numba.prange(depth.shape[0]):
        for u in range(depth.shape[1]):
            dx = pixels[0, 0] * u + (pixels[0, 1] * v + pixels[0, 2])
            dy = pixels[1, 0] * u + (pixels[1, 1] * v + pixels[1, 2])
            dz = pixels[2, 0] * u + (pixels[2, 1] * v + pixels[2, 2])
            length = np.sqrt(dx * dx + dy * dy + dz * dz)
            if depth[v, u] > 0:
                nx, ny, nz = normals[v, u, 0], normals[v, u, 1], normals[v, u, 2]
                facing = max(0.0, nx * look[0, 0] + ny * look[0, 1] + nz * look[0, 2])
                light = look[1, 0] + look[1, 1] * (0.5 + 0.5 * nz) + look[1, 2] * facing
                light *= 1.0 + look[5, 0] * _spread(grain[v, u])
                ratio = depth[v, u] * length / look[5, 1]
                haze = ratio * ratio / (1.0 + ratio * ratio)
                for c in range(3):
                    value = tint[semantics[v, u], c] * light
                    rgb[v, u, c] = int(min(255.0, value + (look[3, c] - value) * haze + 0.5))
            else:
                rise = dz / length  # sine of the ray's elevation
                far = 4 if rise < 0 else 2
                share = abs(rise) / (abs(rise) + 0.25) if rise >= 0 else -rise / (0.04 - rise)
                for c in range(3):
                    rgb[v, u, c] = int(look[3, c] + (look[far, c] - look[3, c]) * share + 0.5)
