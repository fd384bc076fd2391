"""Photographs of a Surface: rays -> textures -> light -> air -> lens and sensor.

They stand in for real camera images. Nothing here knows a class: colours come from materials and light alone. Embree
finds the hits, numba and numpy shade them; the same inputs give the same bytes on any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, UInt8

from pipeline.scene.camera import Camera
from pipeline.scene.records import Surface
from renderers.meshes import SurfaceCaster
from renderers.photo_conditions import Conditions
from renderers.photo_foliage import first_leaf_or_solid
from renderers.photo_light import MIRROR_GLOSS, ambient, leaving, mirrored, smoothed, sun_share, tiled_pairs
from renderers.photo_looks import TABLE
from renderers.photo_rays import Hits, Stage, rotated, stage
from renderers.photo_sensor import develop
from renderers.photo_sky import haze_colour, sky_radiance
from renderers.photo_textures import textured

SMALL_PX = 100_000  # pictures below it get four samples a pixel, larger ones two
STRIP_PX = 20_000  # pixels shaded at a time: what fits into caches
CLIP = 6.0  # radiance beyond which a sample counts no more, so that one glint doesn't make a jagged edge
CROWN_SHADE_M = 0.6  # depth among leaves at which the sky's light has fallen to 1/e
OFFSETS = {
    1: ((0.0, 0.0),),
    2: ((-0.25, -0.25), (0.25, 0.25)),
    4: ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375)),
}


def photograph(
    surface: Surface | SurfaceCaster | Stage,
    camera: Camera,
    conditions: Conditions,
    rng: np.random.Generator,
    world_from_surface: Float[np.ndarray, "4 4"] | None = None,
    samples: int | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of what the camera sees. The camera is in the surface's frame; pixel centres are at whole numbers.

    world_from_surface: where the surface's frame stands in the world, in which the sun and the textures are fixed
    (identity if not given). samples: rays a pixel, 1, 2 or 4.
    """
    world = surface if isinstance(surface, Stage) else stage(surface, world_from_surface)
    salt = int(rng.integers(1, 1 << 31))
    radiance = exposed(world, camera, conditions, salt, samples)
    return develop(radiance, conditions, rng)


def exposed(
    world: Stage, camera: Camera, conditions: Conditions, salt: int, samples: int | None = None
) -> Float[np.ndarray, "h w 3"]:
    """The linear radiance that reaches the lens."""
    h, w = camera.height_px, camera.width_px
    offsets = OFFSETS[samples or (4 if h * w < SMALL_PX else 2)]
    step = max(1, STRIP_PX // w)
    strips = [range(top, min(top + step, h)) for top in range(0, h, step)]
    first = [_shot(world, camera, offsets[0], rows) for rows in strips]
    fill = _fill(world, conditions, first, salt, (h, w))
    total = np.zeros((h, w, 3))
    for number, offset in enumerate(offsets):
        for rows, shot in zip(strips, first, strict=True):
            again = shot if number == 0 else _shot(world, camera, offset, rows)
            light = fill[rows.start : rows.stop].reshape(-1, 3)
            radiance = _radiance(world, conditions, again, light, salt + 10 * number)
            total[rows.start : rows.stop] += np.minimum(radiance, CLIP).reshape(-1, w, 3)
    return total / len(offsets)


@dataclass(frozen=True, eq=False)
class Shot:
    """One ray a pixel and what it hit; `hit` indexes the rays that hit something, normals face the camera."""

    origin: Float[np.ndarray, "3"]
    directions: Float[np.ndarray, "n 3"]
    hits: Hits
    hit: Int64[np.ndarray, "m"]
    normal: Float[np.ndarray, "n 3"]
    pixel_rad: float
    start: int  # the first pixel's number in the picture

    def points(self, back_m: float | Float[np.ndarray, "m"] = 0.0) -> Float[np.ndarray, "m 3"]:
        """Hit points in the surface frame, or points so far before them."""
        return self.origin + (self.hits.distance[self.hit] - back_m)[:, None] * self.directions[self.hit]


def _shot(world: Stage, camera: Camera, offset: tuple[float, float], rows: range) -> Shot:
    v, u = np.mgrid[rows.start : rows.stop, : camera.width_px].astype(np.float64)
    pixels = np.stack([u + offset[0], v + offset[1], np.ones_like(u)], -1).reshape(-1, 3)
    directions = rotated(camera.world_from_camera[:3, :3] @ np.linalg.inv(camera.K), pixels)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    pixel_rad = 1.0 / float(camera.K[0, 0])
    hits = first_leaf_or_solid(world, np.broadcast_to(camera.centre, directions.shape), directions, pixel_rad)
    normal = world.normal[hits.triangle]
    away = (normal * directions).sum(1) > 0
    normal = np.where(away[:, None], -normal, normal)
    hit = np.flatnonzero(hits.triangle >= 0)
    return Shot(camera.centre, directions, hits, hit, normal, pixel_rad, rows.start * camera.width_px)


def _fill(
    world: Stage, conditions: Conditions, shots: list[Shot], salt: int, size: tuple[int, int]
) -> Float[np.ndarray, "h w 3"]:
    """Light from sky and first bounce a pixel, smoothed; for leaves it is gathered where the ray entered the crown."""
    pairs = tiled_pairs(size, salt)
    light = np.zeros((size[0] * size[1], 3))
    for shot in shots:
        entry = shot.points(shot.hits.depth_m[shot.hit])
        at = shot.start + shot.hit
        light[at] = ambient(world, conditions, entry, shot.normal[shot.hit], pairs[at])
    normal = np.concatenate([shot.normal for shot in shots]).reshape(*size, 3)
    return smoothed(light.reshape(*size, 3), normal, np.concatenate([s.hits.distance for s in shots]).reshape(size))


def _radiance(
    world: Stage, conditions: Conditions, shot: Shot, fill: Float[np.ndarray, "n 3"], salt: int
) -> Float[np.ndarray, "n 3"]:
    toward = rotated(world.world_from_surface, shot.directions)
    out = np.empty_like(toward)
    sky, hit = shot.hits.triangle < 0, shot.hit
    out[sky] = sky_radiance(toward[sky], conditions)
    lit = _surface_light(world, conditions, shot, (toward[hit], fill[hit]), salt)
    clear = np.exp(-shot.hits.distance[hit, None] / conditions.haze_m)
    out[hit] = lit * clear + haze_colour(toward[hit], conditions) * (1 - clear)
    return out


def _surface_light(
    world: Stage, conditions: Conditions, shot: Shot, pixel: tuple[np.ndarray, np.ndarray], salt: int
) -> Float[np.ndarray, "m 3"]:
    """What leaves the hit points towards the camera; pixel: view directions in the world, light from all around."""
    hit, (seen, fill) = shot.hit, pixel
    triangle, normal, depth = shot.hits.triangle[hit], shot.normal[hit], shot.hits.depth_m[hit]
    points = shot.points()
    outward = rotated(world.world_from_surface, normal)
    texture = textured(
        world.to_world(points),
        outward,
        world.code[triangle],
        world.seed[triangle],
        world.albedo[triangle],
        _footprint(shot, outward, seen),
        conditions.season,
    )
    look = TABLE[world.code[triangle]]
    share = sun_share(world, conditions, points, normal, depth > 0, shot.start + hit, salt + 1)
    fill = fill * np.exp(-depth / CROWN_SHADE_M)[:, None]
    arriving = np.concatenate([fill, fill], axis=1)
    shiny = np.flatnonzero(look["gloss"] >= MIRROR_GLOSS)
    tilted = rotated(world.world_from_surface.T, texture[shiny, 3:])
    arriving[shiny, 3:] = mirrored(world, conditions, points[shiny], tilted, shot.directions[hit[shiny]])
    return leaving(texture, seen, share, arriving, look, conditions.sun, conditions.sun_light)


def _footprint(
    shot: Shot, outward: Float[np.ndarray, "m 3"], seen: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "m 2"]:
    """What a sample covers across and along the view [m]; along it is tempered, since samples are jittered."""
    across = shot.hits.distance[shot.hit] * shot.pixel_rad
    facing = np.abs((outward * seen).sum(1))
    return np.stack([across, across / np.sqrt(np.maximum(facing, 0.04))], axis=1)
