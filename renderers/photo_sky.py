"""The sky of a photograph: gradient, glow about the sun, seeded clouds, and a far skyline below them.

A hand-made model: radiance falls from horizon to zenith, and clouds are fractal noise on a plane 1 km up.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float

from renderers.photo_conditions import Conditions
from renderers.photo_noise import fractal


def sky_radiance(
    directions: Float[np.ndarray, "n 3"], conditions: Conditions, clouds: bool = True
) -> Float[np.ndarray, "n 3"]:
    """Linear radiance from unit world directions; below the horizon the far land. clouds=False: their mean alone."""
    out = np.empty((len(directions), 3))
    _sky(
        np.ascontiguousarray(directions, np.float64),
        conditions.sun,
        conditions.sun_light,
        conditions.sky_light,
        conditions.cloud_cover,
        conditions.seed & 0xFFFFF if clouds else -1,
        out,
    )
    return out


def haze_colour(directions: Float[np.ndarray, "n 3"], conditions: Conditions) -> Float[np.ndarray, "n 3"]:
    """What distance fades to: the light of the sky just above the horizon, brighter towards the sun."""
    sky, sun = conditions.sky_light, conditions.sun_light
    towards = np.maximum(directions @ conditions.sun, 0.0)[:, None] ** 6
    return 1.15 * sky * np.array([1.06, 1.0, 0.93]) + towards * 0.25 * sun


@numba.njit(cache=True)
def _cloud(x: float, y: float, z: float, cover: float, seed: int) -> float:
    """Optical thickness 0..1 of the clouds in a direction."""
    scale = 1.0 / (z + 0.09)
    density = fractal(x * scale, y * scale, 0.37, 0.9, 5, 0.012 * scale, seed)
    density += 0.25 * (fractal(x * scale, y * scale, 5.1, 3.1, 2, 0.0, seed + 9) - 0.5)
    return min(1.0, max(0.0, (density - (0.86 - 0.72 * cover)) * 4.0))


@numba.njit(cache=True)
def _skyline(x: float, y: float, seed: int) -> float:
    """Elevation (as z) of far trees and hills in a direction; it changes with azimuth alone."""
    r = math.sqrt(x * x + y * y) + 1e-9
    far = fractal(x / r, y / r, 0.5, 0.8, 3, 0.0, seed + 71)
    near = fractal(x / r, y / r, 2.5, 0.16, 4, 0.0, seed + 73)
    return 0.006 + 0.035 * far + 0.03 * max(0.0, near - 0.4)


@numba.njit(cache=True)
def _sky(
    d: np.ndarray,
    sun: np.ndarray,
    sunlight: np.ndarray,
    sky: np.ndarray,
    cover: float,
    seed: int,
    out: np.ndarray,
) -> None:
    for i in range(d.shape[0]):
        x, y, z = d[i, 0], d[i, 1], d[i, 2]
        cosine = x * sun[0] + y * sun[1] + z * sun[2]
        up = max(z, 0.0)
        horizon = math.exp(-4.0 * up)
        glow = 0.12 * math.exp(6.0 * (cosine - 1.0)) + 0.6 * math.exp(60.0 * (cosine - 1.0))
        disc = 12.0 if cosine > 0.99996 else 6.0 * math.exp(900.0 * (cosine - 1.0))
        cloud, body = 0.5 * cover, 1.0
        if seed >= 0 and z > 0.0:
            cloud = _cloud(x, y, z, cover, seed)
            lit = _cloud(x + 0.05 * sun[0], y + 0.05 * sun[1], z, cover, seed)
            body = 1.15 - 0.5 * cloud * (0.4 + 0.6 * lit)
        fade = math.exp(-14.0 * up)
        cloud = cloud * (1.0 - fade) + 0.5 * cover * fade
        land = 0.0
        if z < 0.08 and seed >= 0:
            land = min(1.0, max(0.0, (_skyline(x, y, seed) - z) / 0.003))
        for c in range(3):
            deep = (0.42, 0.66, 1.0)[c]
            clear = sky[c] * (deep + (1 - deep) * horizon) * (0.75 + 0.95 * horizon) + sunlight[c] * glow
            white = (0.8 * sky[1] * (0.96 + 0.04 * c) + 0.7 * sunlight[c]) * body + sunlight[c] * glow * 0.7
            thin = max(0.0, 1.0 - 1.6 * cloud)
            above = clear * (1 - cloud) + white * cloud + sunlight[c] * disc * thin
            wood = (0.030, 0.042, 0.022)[c] * (sky[c] + 0.4 * sunlight[c]) + 0.45 * above
            out[i, c] = above * (1 - land) + wood * land
        if seed < 0 and z < 0.0:
            for c in range(3):
                out[i, c] *= 0.2
