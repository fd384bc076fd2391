"""Light at surface points: the sun with soft, dappled shadows, the sky with occlusion and one bounce, mirror images.

Quantities are radiances of a diffuse white (irradiance / pi), linear RGB. One hemisphere ray a pixel gathers the sky
and the first bounce; its noise is smoothed over neighbours on the same plane. The bounce's own shadows are guessed.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float, Int64

from renderers.photo_conditions import Conditions
from renderers.photo_foliage import first_leaf_or_solid
from renderers.photo_noise import hash01
from renderers.photo_rays import Stage, rotated
from renderers.photo_sky import sky_radiance

BOUNCE_SUNLIT = 0.45  # guessed share of first-bounce surfaces that the sun reaches
SUN_RADIUS_RAD = 0.006


@numba.njit(cache=True)
def _numbers(index: np.ndarray, salt: int, out: np.ndarray) -> None:
    for i in range(index.shape[0]):
        out[i, 0] = hash01(index[i], 1, 2, salt)
        out[i, 1] = hash01(index[i], 3, 4, salt)


def hashed_pairs(index: Int64[np.ndarray, "n"], salt: int) -> Float[np.ndarray, "n 2"]:
    """Two numbers in [0, 1) a sample, from its index alone."""
    out = np.empty((len(index), 2))
    _numbers(index, salt, out)
    return out


def tiled_pairs(size: tuple[int, int], salt: int) -> Float[np.ndarray, "n 2"]:
    """Evenly spread pairs (Roberts' R2 sequence), the same 64 in every tile of 8x8 pixels, so that a mean over any
    window of that size has hardly any noise."""
    y, x = np.mgrid[: size[0], : size[1]]
    place = ((y % 8) * 8 + x % 8).ravel()
    order = np.random.default_rng(salt).permutation(64)[place]
    return (0.5 + order[:, None] * np.array([0.7548776662466927, 0.5698402909980532])) % 1.0


def _cosine_directions(normals: Float[np.ndarray, "n 3"], pairs: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
    """Directions about normals, density cos / pi: a point on the unit sphere added to the normal."""
    z, angle = 1 - 2 * pairs[:, 0], 2 * np.pi * pairs[:, 1]
    r = np.sqrt(np.maximum(0, 1 - z * z))
    d = normals + 0.999 * np.stack([r * np.cos(angle), r * np.sin(angle), z], 1)
    return d / np.linalg.norm(d, axis=1, keepdims=True)


def ambient(
    world: Stage,
    conditions: Conditions,
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    pairs: Float[np.ndarray, "n 2"],
) -> Float[np.ndarray, "n 3"]:
    """One-ray estimate of the light from sky and first bounce at points; normals face the open side."""
    n = len(points)
    directions = _cosine_directions(normals, pairs)
    _, triangle = world.cast(points + 5e-3 * normals, directions)
    light = np.empty((n, 3))
    open_sky = triangle < 0
    light[open_sky] = sky_radiance(rotated(world.world_from_surface, directions[open_sky]), conditions, clouds=False)
    light[open_sky] = np.minimum(light[open_sky], 3 * conditions.sky_light)  # the disc is the sun's, not the sky's
    light[~open_sky] = reflected(world, conditions, triangle[~open_sky], directions[~open_sky])
    return light


def reflected(
    world: Stage, conditions: Conditions, triangle: Int64[np.ndarray, "n"], directions: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """Rough radiance of hit triangles, without further rays: for bounces and mirror images."""
    normal = world.normal[triangle]
    normal = normal * -np.sign((normal * directions).sum(1, keepdims=True))
    sun = rotated(world.world_from_surface.T, conditions.sun[None])
    facing = np.maximum((normal * sun).sum(1), 0.0)[:, None]
    up = 0.5 + 0.5 * rotated(world.world_from_surface, normal)[:, 2:3]
    sky = conditions.sky_light * (0.25 + 0.6 * up)
    return world.albedo[triangle] * (BOUNCE_SUNLIT * facing * conditions.sun_light + sky)


def sun_share(
    world: Stage,
    conditions: Conditions,
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    porous: np.ndarray,
    index: Int64[np.ndarray, "n"],
    salt: int,
) -> Float[np.ndarray, "n"]:
    """1 where the sun's (jittered) disc is seen, else 0. porous: points among leaves start further out."""
    if not conditions.sun_light.any():
        return np.zeros(len(points))
    pairs = hashed_pairs(index, salt)
    spread = SUN_RADIUS_RAD * (1 + 6 * conditions.cloud_cover**2)
    sun = rotated(world.world_from_surface.T, conditions.sun[None])[0]
    side = np.cross(sun, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side)
    radius, angle = spread * np.sqrt(pairs[:, :1]), 2 * np.pi * pairs[:, 1:]
    directions = sun + radius * (np.cos(angle) * side + np.sin(angle) * np.cross(side, sun))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    start = points + 4e-3 * normals + np.where(porous, 0.07, 0.0)[:, None] * directions
    hits = first_leaf_or_solid(world, start, directions, 1e-3, layers=4)
    return np.isinf(hits.distance).astype(np.float64)


def mirrored(
    world: Stage,
    conditions: Conditions,
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    directions: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, "n 3"]:
    """Radiance that arrives along the mirrored view rays."""
    cosine = (directions * normals).sum(1, keepdims=True)
    away = directions - 2 * cosine * normals
    _, triangle = world.cast(points + 8e-3 * normals, away)
    light = np.empty_like(points)
    sky = triangle < 0
    light[sky] = np.minimum(sky_radiance(rotated(world.world_from_surface, away[sky]), conditions), 6.0)
    light[~sky] = reflected(world, conditions, triangle[~sky], away[~sky])
    return light


def fresnel(mirror: Float[np.ndarray, "n"], cosine: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Schlick's reflectance from the one at right angles."""
    return mirror + (1 - mirror) * (1 - np.clip(cosine, 0, 1)) ** 5


@numba.njit(cache=True)
def smoothed(light: np.ndarray, normal: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Mean of (h, w, 3) light over 8x8 neighbours with a like normal and depth; depth inf: sky, left out."""
    h, w = depth.shape
    out = np.zeros_like(light)
    for i in range(h):
        for j in range(w):
            if math.isinf(depth[i, j]):
                continue
            total = 0.0
            for a in range(max(0, i - 4), min(h, i + 4)):
                for b in range(max(0, j - 4), min(w, j + 4)):
                    d = abs(depth[a, b] - depth[i, j])
                    if d > 0.06 * depth[i, j]:
                        continue
                    k = (
                        normal[a, b, 0] * normal[i, j, 0]
                        + normal[a, b, 1] * normal[i, j, 1]
                        + normal[a, b, 2] * normal[i, j, 2]
                    )
                    if k < 0.8:
                        continue
                    total += 1.0
                    for c in range(3):
                        out[i, j, c] += light[a, b, c]
            for c in range(3):
                out[i, j, c] /= max(total, 1.0)
    return out
