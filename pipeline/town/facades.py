"""A facade: a wall with recessed windows and doors.

It lies in the plane y = 0 and looks to -y; u = x runs to the right, v = z up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.town.materials import Skin
from pipeline.town.shapes import Mesh, box, merged, quads

RECESS_M = 0.14
FRAME_M = 0.07


@dataclass(frozen=True)
class Opening:
    """A hole in a facade: left, bottom, right, top [m]; kind: window, door or shop."""

    u0: float
    v0: float
    u1: float
    v1: float
    kind: str = "window"


@dataclass(frozen=True)
class FacadeSkins:
    wall: Skin
    frame: Skin
    glass: Skin
    door: Skin
    sill: Skin


def facade(width: float, low: float, high: float, openings: Sequence[Opening], skins: FacadeSkins) -> Mesh:
    """The wall from u = 0 to `width` and v = `low` to `high`, its openings (which must not overlap) filled."""
    parts = [quads(_rectangles(_solid(width, low, high, openings), 0.0), skins.wall)]
    if openings:
        holes = np.array([(o.u0, o.v0, o.u1, o.v1) for o in openings])
        parts.append(quads(_reveals(holes), skins.wall))
        for kind, pane in (("window", skins.glass), ("shop", skins.glass), ("door", skins.door)):
            chosen = holes[[o.kind == kind for o in openings]]
            if len(chosen):
                parts.append(quads(_rectangles(chosen + FRAME_M * np.array([1, 1, -1, -1]), RECESS_M), pane))
                parts.append(quads(_rectangles(_frames(chosen, kind == "window"), RECESS_M - 0.03), skins.frame))
        parts += [_sill(o, skins.sill) for o in openings if o.kind == "window"]
    return merged(parts)


def plain_facade(width: float, low: float, high: float, openings: Sequence[Opening], skins: FacadeSkins) -> Mesh:
    """The same at a distance: one wall with flush panes."""
    parts = [quads(_rectangles(np.array([[0, low, width, high]]), 0.0), skins.wall)]
    for pane, kinds in ((skins.glass, ("window", "shop")), (skins.door, ("door",))):
        flush = np.array([(o.u0, o.v0, o.u1, o.v1) for o in openings if o.kind in kinds])
        if len(flush):
            parts.append(quads(_rectangles(flush, -0.02), pane))
    return merged(parts)


def _solid(width: float, low: float, high: float, openings: Sequence[Opening]) -> np.ndarray:
    """Rectangles (u0, v0, u1, v1) of the wall around its openings: full-height piers, and what lies over and under."""
    columns: dict[tuple[float, float], list[Opening]] = {}
    for opening in openings:
        columns.setdefault((opening.u0, opening.u1), []).append(opening)
    breaks = sorted({0.0, width} | {u for span in columns for u in span})
    rectangles = []
    for u0, u1 in pairwise(breaks):
        bottom = low
        for opening in sorted((o for o in openings if o.u0 <= u0 and o.u1 >= u1), key=lambda o: o.v0):
            rectangles.append((u0, bottom, u1, opening.v0))
            bottom = opening.v1
        rectangles.append((u0, bottom, u1, high))
    solid = np.array(rectangles)
    return solid[(solid[:, 3] - solid[:, 1] > 1e-3) & (solid[:, 2] - solid[:, 0] > 1e-3)]


def _rectangles(r: np.ndarray, depth: float) -> np.ndarray:
    """Rectangles (k, 4) as quads (k, 4, 3) at y = depth, facing -y."""
    u0, v0, u1, v1 = r.T
    y = np.full(len(r), depth)
    return np.stack([np.stack(p, 1) for p in ((u0, y, v0), (u1, y, v0), (u1, y, v1), (u0, y, v1))], 1)


def _reveals(r: np.ndarray) -> np.ndarray:
    front, back = _rectangles(r, 0.0), _rectangles(r, RECESS_M)
    sides = [
        np.stack([front[:, i], back[:, i], back[:, j], front[:, j]], 1) for i, j in ((0, 1), (1, 2), (2, 3), (3, 0))
    ]
    return np.concatenate([s[:, ::-1] for s in sides])


def _frames(r: np.ndarray, mullion: bool) -> np.ndarray:
    u0, v0, u1, v1 = r.T
    f = FRAME_M
    bars = [(u0, v0, u0 + f, v1), (u1 - f, v0, u1, v1), (u0 + f, v0, u1 - f, v0 + f), (u0 + f, v1 - f, u1 - f, v1)]
    if mullion:
        middle = (u0 + u1) / 2
        bars.append((middle - f / 2, v0 + f, middle + f / 2, v1 - f))
    return np.concatenate([np.stack(bar, 1) for bar in bars])


def _sill(opening: Opening, sill: Skin) -> Mesh:
    return box((opening.u0 - 0.06, -0.07, opening.v0 - 0.06), (opening.u1 + 0.06, 0.02, opening.v0), sill)
