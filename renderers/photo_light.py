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
from renderers.photo_rays import SOLID, Stage, rotated
from renderers.photo_sky import sky_radiance

BOUNCE_SUNLIT = 0.45  # guessed share of first-bounce surfaces that the sun reaches
SUN_RADIUS_RAD = 0.006
LEAF_GAPS = 0.5  # share of the sky that is seen through foliage
FACING_AWAY = -0.25  # below this cosine no bump turns towards the sun
MIRROR_GLOSS = 100.0  # from this gloss on a surface shows mirror images


def tiled_pairs(size: tuple[int, int], salt: int) -> Float[np.ndarray, "n 2"]:
    """Evenly spread pairs (Roberts' R2 sequence), the same 64 in every tile of 16x16 pixels (by twos), so that a mean
    over any window of that size has hardly any noise."""
    y, x = np.mgrid[: size[0], : size[1]] // 2
    place = ((y % 8) * 8 + x % 8).ravel()
    order = np.random.default_rng(salt).permutation(64)[place]
    return (0.5 + order[:, None] * np.array([0.7548776662466927, 0.5698402909980532])) % 1.0


@numba.njit(cache=True)
def _scattered(normals: np.ndarray, pairs: np.ndarray, out: np.ndarray) -> None:
    """Directions about normals, density cos / pi: a point on the unit sphere added to the normal."""
    for n in range(normals.shape[0]):
        z, angle = 1 - 2 * pairs[n, 0], 2 * math.pi * pairs[n, 1]
        r = 0.999 * math.sqrt(max(0.0, 1 - z * z))
        x, y = normals[n, 0] + r * math.cos(angle), normals[n, 1] + r * math.sin(angle)
        z = normals[n, 2] + 0.999 * z
        length = math.sqrt(x * x + y * y + z * z)
        out[n, 0], out[n, 1], out[n, 2] = x / length, y / length, z / length


def ambient(
    world: Stage,
    conditions: Conditions,
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    pairs: Float[np.ndarray, "n 2"],
) -> Float[np.ndarray, "n 3"]:
    """One-ray estimate of the light from sky and first bounce at points; normals face the open side."""
    directions = np.empty_like(points)
    _scattered(normals, pairs, directions)
    _, triangle = world.cast(points + 5e-3 * normals, directions)
    light = sky_radiance(rotated(world.world_from_surface, directions), conditions, clouds=False)
    light = np.minimum(light, 3 * conditions.sky_light)  # the disc is the sun's, not the sky's
    hit = np.flatnonzero(triangle >= 0)
    leaves = world.leaf[triangle[hit]] != SOLID
    bounced = reflected(world, conditions, triangle[hit], directions[hit])
    light[hit] = np.where(leaves[:, None], bounced + LEAF_GAPS * light[hit], bounced)
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
    share = np.zeros(len(points))
    if not conditions.sun_light.any():
        return share
    spread = SUN_RADIUS_RAD * (1 + 2 * conditions.cloud_cover**2)
    sun = rotated(world.world_from_surface.T, conditions.sun[None])[0]
    side = np.cross(sun, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side)
    lit = np.flatnonzero(porous | ((normals * sun).sum(1) > FACING_AWAY))
    points, normals, porous = points[lit], normals[lit], porous[lit]
    directions = np.empty_like(points)
    _towards_disc(index[lit], salt, sun, spread * side, spread * np.cross(side, sun), directions)
    start = points + 4e-3 * normals + np.where(porous, 0.07, 0.0)[:, None] * directions
    hits = first_leaf_or_solid(world, start, directions, 1e-3, layers=3)
    share[lit] = np.isinf(hits.distance)
    return share


@numba.njit(cache=True)
def _towards_disc(
    index: np.ndarray, salt: int, sun: np.ndarray, side: np.ndarray, other: np.ndarray, out: np.ndarray
) -> None:
    for n in range(index.shape[0]):
        radius = math.sqrt(hash01(index[n], 1, 2, salt))
        angle = 2 * math.pi * hash01(index[n], 3, 4, salt)
        for c in range(3):
            out[n, c] = sun[c] + radius * (math.cos(angle) * side[c] + math.sin(angle) * other[c])


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


@numba.njit(cache=True)
def leaving(
    texture: np.ndarray,
    seen: np.ndarray,
    share: np.ndarray,
    arriving: np.ndarray,
    looks: tuple[np.ndarray, np.ndarray],
    sun: np.ndarray,
    sunlight: np.ndarray,
) -> np.ndarray:
    """Light that leaves each point towards the camera, linear RGB (n, 3).

    texture: albedo and shading normal (n, 6); seen: view direction in the world (n, 3); share: of the sun (n,);
    arriving: light from all around and along the mirrored ray (n, 6); looks: codes (n,)
    and the table they index. Diffuse and
    translucent light, Blinn's highlight, and a mirror image by Schlick's formula,
    which is capped: what mirrors little is rough, too.
    """
    out = np.empty((texture.shape[0], 3))
    codes, table = looks
    for n in range(texture.shape[0]):
        look = table[codes[n]]
        mirror, gloss = look.mirror, look.gloss
        slope, cosine, half, length = 0.0, 0.0, 0.0, 0.0
        for c in range(3):
            normal, h = texture[n, 3 + c], sun[c] - seen[n, c]
            slope += normal * sun[c]
            cosine -= normal * seen[n, c]
            half += normal * h
            length += h * h
        direct = share[n] * max(slope, -look.leaf * slope)
        glint = 0.0
        if mirror > 0:
            if gloss >= MIRROR_GLOSS:
                mirror += (min(1.0, 9 * mirror) - mirror) * (1 - min(1.0, abs(cosine))) ** 5
            if share[n] > 0 and half > 0:
                glint = share[n] * (half / math.sqrt(length)) ** gloss * (gloss + 2) / 8
        for c in range(3):
            diffuse = texture[n, c] * (direct * sunlight[c] + arriving[n, c])
            out[n, c] = diffuse * (1 - mirror) + mirror * (arriving[n, 3 + c] + glint * sunlight[c])
    return out


@numba.njit(cache=True)
def smoothed(light: np.ndarray, normal: np.ndarray, depth: np.ndarray, default: np.ndarray, stride: int) -> np.ndarray:
    """Mean of (h, w, 3) light over 8x8 neighbours with a like normal and depth.

    stride: only every so many of them are read. NaN: no sample there; depth inf: sky, left out; default: for places
    without a sample around.
    """
    h, w = depth.shape
    out = np.zeros_like(light)
    for i in range(h):
        for j in range(w):
            if math.isinf(depth[i, j]):
                continue
            total = 0.0
            for a in range(max(0, i - 4), min(h, i + 4), stride):
                for b in range(max(0, j - 4), min(w, j + 4), stride):
                    if math.isnan(light[a, b, 0]) or abs(depth[a, b] - depth[i, j]) > 0.06 * depth[i, j]:
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
                out[i, j, c] = out[i, j, c] / total if total > 0 else default[c]
    return out
