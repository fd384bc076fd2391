"""Roofs over a rectangle 0..width by 0..depth: gabled, half-hipped and hipped (one formula), flat with a parapet."""

from __future__ import annotations

import numpy as np

from pipeline.town.materials import Skin
from pipeline.town.shapes import Mesh, box, merged, polygon, quads, transformed, turned

OVERHANG_M = 0.45
GABLE_SHARE = {"gable": 1.0, "half_hip": 0.6, "hip": 0.0}  # how much of the end wall rises before the hip begins


def pitched_roof(width: float, depth: float, eaves: float, pitch: float, kind: str, tiles: Skin, wall: Skin) -> Mesh:
    """A roof whose ridge runs along x. kind: a key of GABLE_SHARE; eaves: the walls' height [m]; pitch [rad]."""
    share, o, t = GABLE_SHARE[kind], OVERHANG_M, np.tan(pitch)
    y_hip = -o + share * (depth / 2 + o)  # where, going up the slope, the hip begins
    x_low, x_high = -o, width + o
    inset = depth / 2 - y_hip

    def z(y: float) -> float:
        return eaves + y * t + 0.02

    front = [
        (x_low, -o, z(-o)),
        (x_high, -o, z(-o)),
        (x_high, y_hip, z(y_hip)),
        (x_high - inset, depth / 2, z(depth / 2)),
    ]
    front += [(x_low + inset, depth / 2, z(depth / 2)), (x_low, y_hip, z(y_hip))]
    slopes = [polygon(_distinct(np.array(front)), tiles)]
    ends = []
    if inset > 0.05:
        hip = np.array(
            [(x_high, y_hip, z(y_hip)), (x_high, depth - y_hip, z(y_hip)), (x_high - inset, depth / 2, z(depth / 2))]
        )
        slopes.append(polygon(hip, tiles))
    if y_hip > 0.05:
        top = min(y_hip, depth / 2)
        end = [(width, 0, eaves), (width, depth, eaves), (width, depth - top, z(top)), (width, top, z(top))]
        ends.append(polygon(_distinct(np.array(end)), wall))
    fascia = box((x_low, -o - 0.02, z(-o) - 0.18), (x_high, -o + 0.06, z(-o) + 0.01), tiles)
    half = merged([*slopes, *ends, fascia, _soffit(x_low, x_high, o, z(-o) - 0.16, wall)])
    other = transformed(turned(half, np.pi, 2), (width, depth, 0))
    return merged([half, other])


def _soffit(x_low: float, x_high: float, overhang: float, height: float, one_skin: Skin) -> Mesh:
    return quads(
        np.array([[(x_low, 0, height), (x_high, 0, height), (x_high, -overhang, height), (x_low, -overhang, height)]]),
        one_skin,
    )


def _distinct(corners: np.ndarray) -> np.ndarray:
    keep = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1) > 1e-3
    return corners[keep]


def roof_height(depth: float, pitch: float) -> float:
    """From the eaves to the ridge [m]."""
    return float(depth / 2 * np.tan(pitch))


def flat_roof(width: float, depth: float, height: float, cover: Skin, wall: Skin, parapet: float = 0.5) -> Mesh:
    """A flat roof inside a parapet."""
    edge = 0.25
    roof = quads(np.array([[(0, 0, height), (width, 0, height), (width, depth, height), (0, depth, height)]]), cover)
    top = height + parapet
    walls = [
        box((0, 0, height), (width, edge, top), wall),
        box((0, depth - edge, height), (width, depth, top), wall),
        box((0, edge, height), (edge, depth - edge, top), wall),
        box((width - edge, edge, height), (width, depth - edge, top), wall),
    ]
    return merged([roof, *walls])


def chimney(x: float, y: float, low: float, high: float, one_skin: Skin) -> Mesh:
    return box((x - 0.3, y - 0.22, low), (x + 0.3, y + 0.22, high), one_skin)


def dormer(x: float, width: float, low: float, run: float, pitch: float, skins: tuple[Skin, Skin, Skin]) -> Mesh:
    """A dormer on the front slope; low: height of its foot, `run` [m] behind the eaves; skins: wall, tiles, glass."""
    wall, tiles, glass = skins
    height, back = 1.25, 1.25 / np.tan(pitch)
    body = box((x - width / 2, run, low), (x + width / 2, run + back, low + height), wall)
    top = low + height
    peak = top + 0.35 * width
    roof = [
        [(x - width / 2 - 0.15, run - 0.15, top), (x, run - 0.15, peak), (x, run + back + 0.9, peak)],
        [(x + width / 2 + 0.15, run - 0.15, top), (x + width / 2 + 0.15, run + back, top), (x, run + back + 0.9, peak)],
    ]
    left = polygon(np.array([*roof[0], (x - width / 2 - 0.15, run + back, top)]), tiles)
    right = polygon(np.array([*roof[1], (x, run - 0.15, peak)]), tiles)
    gable = polygon(np.array([(x - width / 2, run, top), (x + width / 2, run, top), (x, run, peak)]), wall)
    pane = box((x - width / 2 + 0.18, run - 0.03, low + 0.15), (x + width / 2 - 0.18, run + 0.02, top - 0.1), glass)
    return merged([body, left, right, gable, pane])
