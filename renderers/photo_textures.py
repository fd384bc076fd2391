"""Point, normal and material -> albedo and a perturbed normal: grain, blotches, bricks, slabs, cracks, leaves, stains.

Patterns live in world coordinates, so they stay where they are while the camera moves, and are shifted by each
material's own seed, so that no two objects are alike.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float, Int64

from renderers.photo_looks import COURSES, LEAVES, PAINT, PANE, ROAD, STONES, STREAKS, TURF, Look
from renderers.photo_noise import cells, fractal, hash01, kept, value


def textured(
    place: Float[np.ndarray, "n 8"],
    codes: Int64[np.ndarray, "n"],
    seeds: Int64[np.ndarray, "n"],
    albedo: Float[np.ndarray, "n 3"],
    season: float,
    table: np.ndarray,
) -> Float[np.ndarray, "n 6"]:
    """World points on surfaces -> linear albedo and shading normal, deterministic in every argument.

    place: point, outward normal, what a sample covers across and along the view [m]; blotches may alias a little,
    joints must not. table: the looks, by code.
    """
    out = np.empty((len(place), 6))
    _texture(place, codes, seeds, albedo, season, table, out)
    return out


@numba.njit(cache=True)
def _along(n: np.ndarray, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Surface coordinates (s, t) [m] and steepness: (x, y) on floors, (sideways, up the slope) elsewhere."""
    flat = math.sqrt(n[0] * n[0] + n[1] * n[1])
    if flat < 0.35:
        return x, y, flat
    return (x * -n[1] + y * n[0]) / flat, z / flat, flat


@numba.njit(cache=True)
def _courses(s: float, t: float, look: Look, footprint: float, seed: int) -> float:
    """Bricks, slabs, tiles in running bond: brightness of the unit or of the joint."""
    row = math.floor(t / look.course_m)
    s += 0.5 * look.unit_m * (row % 2)
    column = math.floor(s / look.unit_m)
    shade = 1 + look.unit * 2 * (hash01(int(column), int(row), 7, seed) - 0.5) * kept(look.unit_m * 2, footprint)
    a, b = s - column * look.unit_m, t - row * look.course_m
    edge = min(min(a, look.unit_m - a), min(b, look.course_m - b))
    sharp = max(footprint, 0.004)
    joint = min(1.0, max(0.0, 0.5 + (look.joint_m / 2 - edge) / sharp))
    share = look.joint_m * (1 / look.unit_m + 1 / look.course_m)
    fine = kept(look.course_m, 0.5 * footprint)
    joint = joint * fine + share * (1 - fine)
    return shade * (1 - joint) + look.joint * joint


@numba.njit(cache=True)
def _stones(s: float, t: float, look: Look, footprint: float, seed: int) -> float:
    """Round stones of unit_m: brightness; joints are where two cells meet."""
    fine = kept(look.unit_m * 1.5, footprint)
    if fine <= 0:
        return 1 - 0.4 * (1 - look.joint) * look.joint_m * 4
    near, second, name = cells(s / look.unit_m, t / look.unit_m, 0.5, seed)
    gap = min(1.0, (second - near) / (2 * look.joint_m))
    stone = (1 + look.unit * 2 * (name - 0.5)) * (look.joint + (1 - look.joint) * gap)
    return stone * fine + (1 - fine) * (1 - 0.4 * (1 - look.joint) * look.joint_m * 4)


@numba.njit(cache=True)
def _road(x: float, y: float, footprint: float, seed: int) -> float:
    """Asphalt: mended patches, cracks, tar seams, oil."""
    shade = 1.0 + 0.30 * (fractal(x, y, 0.0, 11.0, 2, footprint, seed + 11) - 0.5)
    column, row = math.floor(x / 7.3), math.floor(y / 2.9)
    pick = hash01(int(column), int(row), 3, seed)
    if pick < 0.16:  # a mended rectangle with a tar seam
        u, v = x / 7.3 - column, y / 2.9 - row
        low, wide = (
            0.1 + 0.3 * hash01(int(column), int(row), 4, seed),
            0.3 + 0.3 * hash01(int(column), int(row), 5, seed),
        )
        inside = min(min(u - low, low + wide - u) * 7.3, min(v - 0.1, 0.75 - v) * 2.9)
        if inside > 0:
            shade *= 0.72 + 0.5 * hash01(int(column), int(row), 6, seed)
        if abs(inside) < 0.03 and footprint < 0.06:
            shade *= 0.55
    if footprint < 0.08:
        ridge = abs(fractal(x, y, 2.0, 1.9, 4, footprint, seed + 21) - 0.5)
        region = fractal(x, y, 4.0, 9.0, 2, footprint, seed + 23)
        if region > 0.53:
            shade *= 1 - 0.55 * max(0.0, 1 - ridge / (0.006 + footprint * 0.12)) * min(1.0, (region - 0.53) * 12)
    spot = value(x / 1.1, y / 0.9, 0.0, seed + 31)
    if spot > 0.86:
        shade *= 1 - 1.8 * (spot - 0.86)
    return shade


@numba.njit(cache=True)
def _plant(p: np.ndarray, footprint: float, season: float, leaf_m: float, seed: int, rgb: np.ndarray) -> None:
    """Hue and brightness of leaves and blades: clumps, single leaves, dry patches by season."""
    x, y, z = p[0], p[1], p[2]
    clump = fractal(x, y, z, leaf_m * 9, 3, footprint, seed + 41)
    fine = kept(leaf_m * 2, footprint)
    bend = 1.1 / leaf_m
    i = math.floor(x / leaf_m + 1.5 * value(y * bend, z * bend, x * bend, 3))
    j = math.floor(y / leaf_m + 1.5 * value(z * bend, x * bend, y * bend, 5))
    k = math.floor(z / leaf_m + 1.5 * value(x * bend, y * bend, z * bend, 7))
    single = 0.5 + (hash01(i, j, k, seed + 43) - 0.5) * (0.25 + 0.75 * fine)
    dry = season * 1.5 * fractal(x, y, z, leaf_m * 22, 3, footprint, seed + 47) + 0.5 * season * (single - 0.5)
    dry = min(0.85, max(0.0, dry - 0.22))
    soft = 0.25 * (rgb[0] + rgb[1] + rgb[2]) / 3  # leaves are greyer than paint: stems, dust, soil between
    rgb[0], rgb[1], rgb[2] = 0.75 * rgb[0] + 1.25 * soft, 0.75 * rgb[1] + 0.95 * soft, 0.75 * rgb[2] + 0.75 * soft
    shade = max(0.08, 0.15 + 1.7 * clump) * (0.5 + single)
    green = rgb[1]
    rgb[0] = shade * (rgb[0] * (1 - dry) + 1.15 * green * dry) * (1 + 0.35 * (single - 0.5))
    rgb[1] = shade * (rgb[1] * (1 - dry) + 0.78 * green * dry)
    rgb[2] = shade * (rgb[2] * (1 - dry) + 0.22 * green * dry) * (1 - 0.3 * (clump - 0.5))


@numba.njit(cache=True)
def _interior(s: float, t: float, seed: int, rgb: np.ndarray) -> None:
    """Behind a house's pane: dark rooms, curtains, blinds; cells of about a window's size."""
    column, row = math.floor(s / 1.35), math.floor(t / 2.8)
    kind = hash01(column, row, 11, seed)
    u, v = s / 1.35 - column, t / 2.8 - row
    light = 0.05 + 0.10 * hash01(column, row, 13, seed)
    if kind < 0.35:  # net curtains, in folds
        light = (0.28 + 0.25 * hash01(column, row, 17, seed)) * (0.8 + 0.4 * value(s * 14, row, column, seed))
    elif kind < 0.5 and (u < 0.3 or u > 0.7):  # drawn aside
        light = 0.3 * (0.7 + 0.6 * value(s * 11, row, column, seed))
    elif kind < 0.68 and v > 0.35 + 0.5 * hash01(column, row, 19, seed):  # a blind half down
        light = 0.42 + 0.12 * math.sin(t * 110)
    for c in range(3):
        rgb[c] = light * (0.75, 0.72, 0.64)[c]


@numba.njit(cache=True)
def _pattern(
    p: np.ndarray, n: np.ndarray, look: Look, cover: np.ndarray, season: float, seed: int, rgb: np.ndarray
) -> None:
    """Multiply the pattern of the kind into rgb."""
    footprint = 0.6 * cover[0]
    s, t, steep = _along(n, p[0], p[1], p[2])
    shade = 1.0
    if look.pattern == COURSES:
        shade = _courses(s, t, look, cover[1], seed)
    elif look.pattern == STONES:
        shade = _stones(s, t, look, cover[1], seed)
    elif look.pattern == ROAD:
        shade = _road(p[0], p[1], footprint, seed)
    elif look.pattern == PAINT:
        worn = fractal(p[0], p[1], 0.0, 0.35, 4, footprint, seed + 51)
        worn += 0.5 * (fractal(p[0], p[1], 0.0, 5.0, 2, footprint, seed + 53) - 0.5)
        shade = 1 - 0.72 * min(1.0, max(0.0, (worn - 0.56) * 7))
    elif look.pattern == TURF or look.pattern == LEAVES:
        _plant(p, footprint, season, 0.035 if look.pattern == TURF else 0.075, seed, rgb)
    elif look.pattern == PANE:
        if steep > 0.995 and seed > 0:
            _interior(s, t, seed, rgb)
    elif look.pattern == STREAKS:
        shade = 0.6 + 0.8 * fractal(s / look.unit_m, t * 0.9, 0.0, 1.0, 3, footprint / look.unit_m * 0.5, seed + 61)
    if look.streak > 0 and steep > 0.3:
        run = fractal(s * 4, t * 0.35, 0.0, 1.0, 3, footprint * 2, seed + 71)
        shade *= 1 - look.streak * 2 * max(0.0, run - 0.45)
    for c in range(3):
        rgb[c] *= shade


@numba.njit(cache=True)
def _texture(
    place: np.ndarray,
    codes: np.ndarray,
    seeds: np.ndarray,
    albedo: np.ndarray,
    season: float,
    table: np.ndarray,
    out: np.ndarray,
) -> None:
    rgb, p = np.empty(3), np.empty(3)
    for i in range(place.shape[0]):
        look, seed, normal, cover = table[codes[i]], seeds[i], place[i, 3:6], place[i, 6:]
        f = 0.6 * cover[0]
        for c in range(3):
            p[c] = place[i, c] + 0.013 * (seed % 997)
            rgb[c] = albedo[i, c]
        x, y, z = p[0], p[1], p[2]
        blotch = fractal(x, y, z, look.mottle_m, 3, f, seed) - 0.5
        speck = fractal(x, y, z, look.grain_m, 2, f, seed + 5) - 0.5
        shade = look.shade * (1 + 2 * look.mottle * blotch + 2 * look.grain * speck)
        hue = fractal(x, y, z, look.mottle_m * 1.7, 2, f, seed + 7) - 0.5
        rgb[0] *= shade * (1 + look.tint * 2 * hue)
        rgb[1] *= shade
        rgb[2] *= shade * (1 - look.tint * 2 * hue)
        _pattern(p, normal, look, cover, season, seed, rgb)
        _bump(p, normal, look.bump, look.grain_m * 2, f, seed, out[i, 3:])
        for c in range(3):
            out[i, c] = min(0.95, max(0.004, rgb[c]))


@numba.njit(cache=True)
def _bump(p: np.ndarray, n: np.ndarray, bump: float, size: float, footprint: float, seed: int, out: np.ndarray) -> None:
    """Tilt a normal by noise; what is too fine for the footprint still tilts a little, as roughness would."""
    share = bump * (0.3 + 0.7 * kept(size, footprint))
    size = max(size, 2 * footprint)
    x, y, z = p[0] / size, p[1] / size, p[2] / size
    length = 0.0
    for c in range(3):
        out[c] = n[c] + 2 * share * (value(x, y, z, seed + 81 + c) - 0.5)
        length += out[c] * out[c]
    length = math.sqrt(length)
    for c in range(3):
        out[c] /= length
