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
from renderers.photo_conditions import Conditions
from renderers.photo_foliage import first_leaf_or_solid
from renderers.photo_light import ambient, fresnel, mirrored, smoothed, sun_share, tiled_pairs
from renderers.photo_looks import TABLE
from renderers.photo_rays import Hits, Stage, rotated, stage
from renderers.photo_sensor import develop
from renderers.photo_sky import haze_colour, sky_radiance
from renderers.photo_textures import textured

SMALL_PX = 100_000  # pictures below it get four samples a pixel, larger ones two
CLIP = 6.0  # radiance beyond which a sample counts no more, so that one glint doesn't make a jagged edge
CROWN_SHADE_M = 0.6  # depth among leaves at which the sky's light has fallen to 1/e
OFFSETS = {
    1: ((0.0, 0.0),),
    2: ((-0.25, -0.25), (0.25, 0.25)),
    4: ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375)),
}


def photograph(
    surface: Surface | Stage,
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
    shots = [_shot(world, camera, offset) for offset in offsets]
    fill = _fill(world, conditions, shots[0], salt, (h, w))
    total = np.zeros((h * w, 3))
    for number, shot in enumerate(shots):
        total += np.minimum(_radiance(world, conditions, shot, fill, salt + 10 * number), CLIP)
    return (total / len(shots)).reshape(h, w, 3)


@dataclass(frozen=True, eq=False)
class Shot:
    """One ray a pixel and what it hit; `hit` indexes the rays that hit something, normals face the camera."""

    origin: Float[np.ndarray, "3"]
    directions: Float[np.ndarray, "n 3"]
    hits: Hits
    hit: Int64[np.ndarray, "m"]
    normal: Float[np.ndarray, "n 3"]
    pixel_rad: float

    def points(self, back_m: float | Float[np.ndarray, "m"] = 0.0) -> Float[np.ndarray, "m 3"]:
        """Hit points in the surface frame, or points so far before them."""
        return self.origin + (self.hits.distance[self.hit] - back_m)[:, None] * self.directions[self.hit]


def _shot(world: Stage, camera: Camera, offset: tuple[float, float]) -> Shot:
    v, u = np.mgrid[: camera.height_px, : camera.width_px].astype(np.float64)
    pixels = np.stack([u + offset[0], v + offset[1], np.ones_like(u)], -1).reshape(-1, 3)
    directions = rotated(camera.world_from_camera[:3, :3] @ np.linalg.inv(camera.K), pixels)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    pixel_rad = 1.0 / float(camera.K[0, 0])
    hits = first_leaf_or_solid(world, np.broadcast_to(camera.centre, directions.shape), directions, pixel_rad)
    normal = world.normal[hits.triangle]
    away = (normal * directions).sum(1) > 0
    normal = np.where(away[:, None], -normal, normal)
    return Shot(camera.centre, directions, hits, np.flatnonzero(hits.triangle >= 0), normal, pixel_rad)


def _fill(
    world: Stage, conditions: Conditions, shot: Shot, salt: int, size: tuple[int, int]
) -> Float[np.ndarray, "n 3"]:
    """Light from sky and first bounce a pixel, smoothed; for leaves it is gathered where the ray entered the crown."""
    light = np.zeros((len(shot.directions), 3))
    entry = shot.points(shot.hits.depth_m[shot.hit])
    light[shot.hit] = ambient(world, conditions, entry, shot.normal[shot.hit], tiled_pairs(size, salt)[shot.hit])
    mean = smoothed(light.reshape(*size, 3), shot.normal.reshape(*size, 3), shot.hits.distance.reshape(size))
    return mean.reshape(-1, 3)


def _radiance(
    world: Stage, conditions: Conditions, shot: Shot, fill: Float[np.ndarray, "n 3"], salt: int
) -> Float[np.ndarray, "n 3"]:
    toward = rotated(world.world_from_surface, shot.directions)
    out = np.empty_like(toward)
    sky, hit = shot.hits.triangle < 0, shot.hit
    out[sky] = sky_radiance(toward[sky], conditions)
    lit = _surface_light(world, conditions, shot, fill[hit], salt)
    clear = np.exp(-shot.hits.distance[hit, None] / conditions.haze_m)
    out[hit] = lit * clear + haze_colour(toward[hit], conditions) * (1 - clear)
    return out


def _surface_light(
    world: Stage, conditions: Conditions, shot: Shot, fill: Float[np.ndarray, "n 3"], salt: int
) -> Float[np.ndarray, "n 3"]:
    """Diffuse, translucent and mirrored light that leaves the hit points towards the camera."""
    hit = shot.hit
    triangle, normal, directions, depth = (
        shot.hits.triangle[hit],
        shot.normal[hit],
        shot.directions[hit],
        shot.hits.depth_m[hit],
    )
    points = shot.points()
    facing = -(normal * directions).sum(1)
    across = shot.hits.distance[hit] * shot.pixel_rad
    footprint = np.stack([across, across / np.sqrt(np.maximum(facing, 0.04))], axis=1)
    albedo, bumped = textured(
        world.to_world(points),
        rotated(world.world_from_surface, normal),
        world.code[triangle],
        world.seed[triangle],
        world.albedo[triangle],
        footprint,
        conditions.season,
    )
    look = TABLE[world.code[triangle]]
    slope = (bumped * conditions.sun).sum(1)
    share = sun_share(world, conditions, points, normal, depth > 0, hit, salt + 1)
    through = look["leaf"] * np.maximum(-slope, 0.0)
    direct = (share * (np.maximum(slope, 0.0) + through))[:, None] * conditions.sun_light
    fill = fill * np.exp(-depth / CROWN_SHADE_M)[:, None]
    diffuse = albedo * (direct + fill)
    return _with_mirror(world, conditions, (points, directions, bumped), look, diffuse, (fill, share))


def _with_mirror(
    world: Stage,
    conditions: Conditions,
    geometry: tuple[np.ndarray, np.ndarray, np.ndarray],
    look: np.ndarray,
    diffuse: Float[np.ndarray, "n 3"],
    light: tuple[np.ndarray, np.ndarray],
) -> Float[np.ndarray, "n 3"]:
    points, directions, bumped = geometry
    fill, share = light
    seen = rotated(world.world_from_surface, directions)
    cosine = np.abs((bumped * seen).sum(1))
    weight = np.where(look["mirror"] > 0, fresnel(look["mirror"], cosine), 0.0)
    half = conditions.sun - seen
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    glint = np.maximum((bumped * half).sum(1), 0.0) ** look["gloss"] * (look["gloss"] + 2) / 8
    shiny = look["gloss"] >= 100
    arriving = fill.copy()
    tilted = rotated(world.world_from_surface.T, bumped[shiny])
    arriving[shiny] = mirrored(world, conditions, points[shiny], tilted, directions[shiny])
    weight = np.where(shiny, weight, look["mirror"])[:, None]
    return diffuse * (1 - weight) + weight * (arriving + (share * glint)[:, None] * conditions.sun_light)
