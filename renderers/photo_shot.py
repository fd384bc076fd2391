"""What one batch of camera rays sees: hits, their texture, the light they send back, and the air between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from pipeline.scene.camera import Camera
from renderers.photo_conditions import Conditions
from renderers.photo_foliage import first_leaf_or_solid
from renderers.photo_light import MIRROR_GLOSS, leaving, mirrored, sun_share
from renderers.photo_looks import wetted
from renderers.photo_rays import Hits, Stage, rotated
from renderers.photo_signs import draw_symbols
from renderers.photo_sky import haze_colour, sky_radiance
from renderers.photo_textures import textured

SHARP_GLOSS = 240.0  # below this gloss a mirror image is blurred: mixed with light from all around
CROWN_SHADE_M = 0.6  # depth among leaves at which the sky's light has fallen to 1/e


@dataclass(frozen=True, eq=False)
class Shot:
    """One ray a pixel (numbered row by row) and what it hit.

    hit: which rays hit something; normals face the camera.
    """

    pixels: Int64[np.ndarray, "n"]
    origin: Float[np.ndarray, "3"]
    directions: Float[np.ndarray, "n 3"]
    hits: Hits
    hit: Int64[np.ndarray, "m"]
    normal: Float[np.ndarray, "n 3"]
    pixel_rad: float

    def points(self, back_m: float | Float[np.ndarray, "m"] = 0.0) -> Float[np.ndarray, "m 3"]:
        """Hit points in the surface frame, or points so far before them."""
        return self.origin + (self.hits.distance[self.hit] - back_m)[:, None] * self.directions[self.hit]


def shoot(world: Stage, camera: Camera, offset: tuple[float, float], pixels: Int64[np.ndarray, "n"]) -> Shot:
    """Rays through the given pixels, `offset` (u, v) [px] beside their centres."""
    v, u = np.divmod(pixels, camera.width_px)
    through = np.stack([u + offset[0], v + offset[1], np.ones(len(pixels))], axis=1)
    directions = rotated(camera.world_from_camera[:3, :3] @ np.linalg.inv(camera.K), through)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    pixel_rad = 1.0 / float(camera.K[0, 0])
    hits = first_leaf_or_solid(world, np.broadcast_to(camera.centre, directions.shape), directions, pixel_rad)
    normal = world.normal[hits.triangle]
    normal *= -np.sign(np.einsum("ij,ij->i", normal, directions))[:, None]
    return Shot(pixels, camera.centre, directions, hits, np.flatnonzero(hits.triangle >= 0), normal, pixel_rad)


def radiance_of(
    world: Stage, conditions: Conditions, shot: Shot, fill: Float[np.ndarray, "p 3"], salt: int
) -> Float[np.ndarray, "n 3"]:
    """What each ray sees, haze included. fill: light from all around, a pixel of the picture."""
    toward = rotated(world.world_from_surface, shot.directions)
    out = np.empty_like(toward)
    sky, hit = shot.hits.triangle < 0, shot.hit
    out[sky] = sky_radiance(toward[sky], conditions)
    lit = _surface_light(world, conditions, shot, (toward[hit], fill[shot.pixels[hit]]), salt)
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
    place = np.concatenate([world.to_world(points), outward, _footprint(shot, outward, seen)], axis=1)
    code, table = world.code[triangle], wetted(conditions.wetness)
    texture = textured(place, code, world.seed[triangle], world.albedo[triangle], conditions.season, table)
    on_sign = np.flatnonzero(world.plates.of_triangle[triangle] >= 0)
    if len(on_sign):
        plate, albedo = world.plates.of_triangle[triangle[on_sign]], texture[on_sign, :3]
        draw_symbols(world.plates, plate, points[on_sign], normal[on_sign], albedo)
        texture[on_sign, :3] = albedo
    share = sun_share(world, conditions, points, normal, depth > 0, shot.pixels[hit], salt + 1)
    fill = fill * np.exp(-depth / CROWN_SHADE_M)[:, None]
    arriving = np.concatenate([fill, fill], axis=1)
    shiny = np.flatnonzero(table["gloss"][code] >= MIRROR_GLOSS)
    tilted = rotated(world.world_from_surface.T, texture[shiny, 3:])
    image = mirrored(world, conditions, points[shiny], tilted, shot.directions[hit[shiny]])
    sharp = np.minimum(table["gloss"][code[shiny]] / SHARP_GLOSS, 1.0)[:, None]
    arriving[shiny, 3:] = sharp * image + (1 - sharp) * fill[shiny]
    return leaving(texture, seen, share, arriving, (code, table), conditions.sun, conditions.sun_light)


def _footprint(
    shot: Shot, outward: Float[np.ndarray, "m 3"], seen: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "m 2"]:
    """What a sample covers across and along the view [m]; along it is tempered, since samples are jittered."""
    across = shot.hits.distance[shot.hit] * shot.pixel_rad
    facing = np.abs((outward * seen).sum(1))
    return np.stack([across, across / np.sqrt(np.maximum(facing, 0.04))], axis=1)
