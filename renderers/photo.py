"""Photographs of a Surface: rays -> textures -> light -> air -> lens and sensor.

They stand in for real camera images. Nothing here knows a class: colours come from materials and light alone. Embree
finds the hits, numba and numpy shade them; the same inputs give the same bytes on any number of threads.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from pipeline.scene.camera import Camera
from pipeline.scene.records import Surface
from renderers.meshes import SurfaceCaster
from renderers.photo_conditions import Conditions
from renderers.photo_light import ambient, smoothed, tiled_pairs
from renderers.photo_rays import Stage, stage
from renderers.photo_sensor import LUMINANCE, develop
from renderers.photo_shot import Shot, radiance_of, shoot

BATCH = 20_000  # samples shaded at a time: what fits into caches
CLIP = 6.0  # radiance beyond which a sample counts no more, so that one glint doesn't make a jagged edge
OFFSETS = ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375))  # a rotated grid within the pixel
BUSY_SHARE, BUSY_SHARE_LARGE = 0.35, 0.13  # of the pixels, those with most contrast around them, get all four samples
SMALL_PX = 100_000


def photograph(
    surface: Surface | SurfaceCaster | Stage,
    camera: Camera,
    conditions: Conditions,
    rng: np.random.Generator,
    world_from_surface: Float[np.ndarray, "4 4"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of what the camera sees. The camera is in the surface's frame; pixel centres are at whole numbers.

    world_from_surface: where the surface's frame stands in the world, in which the sun and the textures are fixed
    (identity if not given; a Stage has its own).
    """
    world = surface if isinstance(surface, Stage) else stage(surface, world_from_surface)
    salt = int(rng.integers(1, 1 << 31))
    return develop(exposed(world, camera, conditions, salt), conditions, rng)


def exposed(world: Stage, camera: Camera, conditions: Conditions, salt: int) -> Float[np.ndarray, "h w 3"]:
    """The linear radiance that reaches the lens: a sample in every pixel, three more where it is busy."""
    size = (camera.height_px, camera.width_px)
    first = [shoot(world, camera, OFFSETS[0], pixels) for pixels in _batches(np.arange(size[0] * size[1]))]
    fill = _fill(world, conditions, first, salt, size)
    total = np.zeros((size[0] * size[1], 3))
    for shot in first:
        total[shot.pixels] = np.minimum(radiance_of(world, conditions, shot, fill, salt), CLIP)
    busy = _busy(total.reshape(*size, 3))
    for number, offset in enumerate(OFFSETS[1:], start=1):
        for pixels in _batches(busy):
            shot = shoot(world, camera, offset, pixels)
            total[pixels] += np.minimum(radiance_of(world, conditions, shot, fill, salt + 10 * number), CLIP)
    total[busy] /= len(OFFSETS)
    return total.reshape(*size, 3)


def _batches(pixels: Int64[np.ndarray, "n"]) -> list[Int64[np.ndarray, "m"]]:
    return np.array_split(pixels, max(1, len(pixels) // BATCH))


def _busy(radiance: Float[np.ndarray, "h w 3"]) -> Int64[np.ndarray, "n"]:
    """Numbers of the pixels among whose neighbours brightness differs most."""
    from scipy.ndimage import maximum_filter, minimum_filter

    level = np.log(radiance @ LUMINANCE.astype(np.float64) + 0.02)
    contrast = (maximum_filter(level, 3) - minimum_filter(level, 3)).ravel()
    count = int((BUSY_SHARE if contrast.size < SMALL_PX else BUSY_SHARE_LARGE) * contrast.size)
    threshold = max(np.partition(contrast, -count - 1)[-count - 1], 0.02)
    return np.flatnonzero(contrast > threshold)


def _fill(
    world: Stage, conditions: Conditions, shots: list[Shot], salt: int, size: tuple[int, int]
) -> Float[np.ndarray, "n 3"]:
    """Light from sky and first bounce a pixel: gathered in some pixels (of leaves: where the ray entered the
    crown), then smoothed twice, so that the window's edges don't show."""
    pairs = tiled_pairs(size, salt)
    light = np.full((size[0] * size[1], 3), np.nan)
    for shot in shots:
        at = shot.pixels[shot.hit]
        chosen = np.flatnonzero(_sparse(at, size))
        entry = shot.points(shot.hits.depth_m[shot.hit])[chosen]
        light[at[chosen]] = ambient(world, conditions, entry, shot.normal[shot.hit[chosen]], pairs[at[chosen]])
    normal = np.concatenate([shot.normal for shot in shots]).reshape(*size, 3)
    distance = np.concatenate([shot.hits.distance for shot in shots]).reshape(size)
    once = smoothed(light.reshape(*size, 3), normal, distance, conditions.sky_light, 1)
    return smoothed(once, normal, distance, conditions.sky_light, 2).reshape(-1, 3)


def _sparse(pixels: Int64[np.ndarray, "n"], size: tuple[int, int]) -> Bool[np.ndarray, "n"]:
    """Every other pixel of a small picture, every fourth of a large one."""
    v, u = np.divmod(pixels, size[1])
    return (u + v) % 2 == 0 if size[0] * size[1] < SMALL_PX else (u % 2 == 0) & (v % 2 == 0)
