"""Seeded noise in space, for textures: hashes, value noise, fractal sums, cells. Scalar numba functions, all in 0..1.

Every function depends on its arguments alone, so a texture is the same in any order and on any number of threads.
`footprint` is the length [m] that one sample covers; detail finer than it fades to its mean instead of aliasing.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

import math

import numba


@numba.njit(cache=True, inline="always")
def hash01(i: int, j: int, k: int, seed: int) -> float:
    """Four integers -> a number in [0, 1); 64-bit multiplication, overflow intended."""
    h = i * 0x1B873593A5F1D2C3 ^ j * 0x27D4EB2F165667C5 ^ k * 0x165667B19E3779F9 ^ seed * 0x2545F4914F6CDD1D
    h ^= h >> 29
    h *= 0x3F58476D1CE4E5B9
    h ^= h >> 32
    h *= 0x14D049BB133111EB
    h ^= h >> 29
    return (h & 0xFFFFFF) / 16777216.0


@numba.njit(cache=True)
def value(x: float, y: float, z: float, seed: int) -> float:
    """Value noise of unit wavelength: hashed lattice values, smoothly interpolated."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    i, j, k = int(i), int(j), int(k)
    a = hash01(i, j, k, seed) * (1 - u) + hash01(i + 1, j, k, seed) * u
    b = hash01(i, j + 1, k, seed) * (1 - u) + hash01(i + 1, j + 1, k, seed) * u
    c = hash01(i, j, k + 1, seed) * (1 - u) + hash01(i + 1, j, k + 1, seed) * u
    d = hash01(i, j + 1, k + 1, seed) * (1 - u) + hash01(i + 1, j + 1, k + 1, seed) * u
    return (a * (1 - v) + b * v) * (1 - w) + (c * (1 - v) + d * v) * w


@numba.njit(cache=True, inline="always")
def kept(wavelength: float, footprint: float) -> float:
    """How much of a detail of that wavelength survives at that footprint: 1 fine, 0 below half a wavelength."""
    return min(1.0, max(0.0, 2.0 * (1.0 - 2.0 * footprint / wavelength)))


@numba.njit(cache=True)
def fractal(x: float, y: float, z: float, wavelength: float, octaves: int, footprint: float, seed: int) -> float:
    """Sum of `octaves` of value noise, each half as long and as strong; 0.5 on average."""
    total, weights, amplitude = 0.0, 0.0, 1.0
    for octave in range(octaves):
        share = kept(wavelength, footprint)
        if share > 0:
            f = 1.0 / wavelength
            total += amplitude * share * (value(x * f, y * f, z * f, seed + octave) - 0.5)
        weights += amplitude
        amplitude *= 0.5
        wavelength *= 0.5
    return 0.5 + 1.9 * total / weights


@numba.njit(cache=True)
def cells(x: float, y: float, z: float, seed: int) -> tuple[float, float, float]:
    """Worley cells of unit size: distance to the nearest point, to the second nearest, and the nearest one's hash."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    near, second, name = 9.0, 9.0, 0.0
    for a in range(i - 1, i + 2):
        for b in range(j - 1, j + 2):
            for c in range(k - 1, k + 2):
                dx = a + hash01(a, b, c, seed) - x
                dy = b + hash01(a, b, c, seed + 1) - y
                dz = c + hash01(a, b, c, seed + 2) - z
                d = math.sqrt(dx * dx + dy * dy + dz * dz)
                if d < near:
                    near, second, name = d, near, hash01(a, b, c, seed + 3)
                elif d < second:
                    second = d
    return near, second, name
