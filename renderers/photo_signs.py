"""Symbols on sign faces: arrows, bars, digits and lines of writing, dark on bright faces and white on dark ones."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, Int32, Int64

from pipeline.scene.records import Surface
from renderers.photo_noise import hash01

BLOCK_PX = 0.24  # width of a letter's block in half plates


@dataclass(frozen=True, eq=False)
class Plates:
    """Connected faces of signs: which one a triangle belongs to (-1: none); centre and half size [m] of each."""

    of_triangle: Int64[np.ndarray, "t"]
    centre: Float[np.ndarray, "k 3"]
    half_m: Float[np.ndarray, "k 2"]  # sideways, up


def find_plates(surface: Surface, on_sign: np.ndarray) -> Plates:
    """The plates among the triangles marked `on_sign`: those that share vertices."""
    of_triangle = np.full(len(surface.triangles), -1, np.int64)
    if not on_sign.any():
        return Plates(of_triangle, np.zeros((0, 3)), np.ones((0, 2)))
    label = connected_pieces(surface.triangles[on_sign])
    of_triangle[on_sign] = label
    count = int(label.max()) + 1
    points = np.asarray(surface.vertices, np.float64)[surface.triangles[on_sign]]
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, label, points.min(axis=1))
    np.maximum.at(high, label, points.max(axis=1))
    size = np.maximum((high - low) / 2, 0.02)
    return Plates(of_triangle, (low + high) / 2, np.stack([np.hypot(size[:, 0], size[:, 1]), size[:, 2]], 1))


def connected_pieces(triangles: Int32[np.ndarray, "t 3"]) -> Int64[np.ndarray, "t"]:
    """Number triangles by piece: those that share vertices, directly or through others."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    used = np.zeros(int(triangles.max()) + 1, np.bool_)
    used[triangles] = True
    index = (np.cumsum(used) - 1)[triangles]
    edges = np.concatenate([index[:, [0, 1]], index[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges), np.int8), edges.T), shape=(int(used.sum()),) * 2)
    _, label = connected_components(graph, directed=False)
    return label[index[:, 0]].astype(np.int64)


def draw_symbols(
    plates: Plates,
    plate: Int64[np.ndarray, "n"],
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    albedo: Float[np.ndarray, "n 3"],
) -> None:
    """Paint symbols into `albedo`; points and normals in the surface frame, `plate` the plates they lie on."""
    offset = points - plates.centre[plate]
    flat = np.maximum(np.hypot(normals[:, 0], normals[:, 1]), 1e-6)
    s = (offset[:, 1] * normals[:, 0] - offset[:, 0] * normals[:, 1]) / flat / plates.half_m[plate, 0]
    t = offset[:, 2] / plates.half_m[plate, 1]
    name = np.round(plates.half_m[plate] * 997).sum(1).astype(np.int64)
    _draw(s, t, name + 31 * plate, plates.half_m[plate, 0] / plates.half_m[plate, 1], albedo)


@numba.njit(cache=True)
def _inked(s: float, t: float, kind: float, wide: float, seed: int) -> bool:
    """Whether the symbol covers a place of the plate; s, t in -1..1."""
    if wide > 1.5 or kind < 0.25:  # lines of writing
        lines = 1 if wide > 3 else 2 if wide > 1.2 else 3
        row = (t + 0.62) * lines / 1.24
        column = (s + 0.72) / (BLOCK_PX / max(wide, 1.0) * 1.4 / lines * 1.3)
        in_row = 0.15 < row % 1.0 < 0.8 and abs(t) < 0.62
        letter = hash01(int(column), int(row), 5, seed)
        return in_row and abs(s) < 0.72 and letter > 0.18 and (column % 1.0) < 0.45 + 0.4 * letter
    if kind < 0.5:  # an arrow
        head = t > 0.1 and abs(s) < 0.42 * (0.62 - t) / 0.52
        return head or (abs(s) < 0.13 and -0.6 < t <= 0.1)
    if kind < 0.7:  # a bar
        return abs(t) < 0.14 and abs(s) < 0.6
    body = abs(s) < 0.14 + 0.1 * t and -0.1 < t < 0.3  # somebody
    legs = -0.6 < t <= -0.1 and abs(abs(s) - 0.12 - 0.25 * (-0.1 - t)) < 0.08
    return body or legs or s * s + (t - 0.44) ** 2 < 0.02


@numba.njit(cache=True)
def _draw(s: np.ndarray, t: np.ndarray, seed: np.ndarray, wide: np.ndarray, albedo: np.ndarray) -> None:
    for n in range(s.shape[0]):
        bright = 0.2 * albedo[n, 0] + 0.7 * albedo[n, 1] + 0.1 * albedo[n, 2] > 0.28
        if _inked(s[n], t[n], hash01(seed[n], 1, 2, 3), wide[n], seed[n]):
            for c in range(3):
                albedo[n, c] = 0.025 if bright else 0.75
