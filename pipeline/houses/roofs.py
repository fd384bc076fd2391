"""Roofs as heights over columns: each body's kind says how high its roof lies over each column.

Of bodies with as many storeys the higher roof wins, so that a wing's ridge runs into the main roof; a lower body's
roof ends at a higher one's walls. A roof of slope 1 is a row of stairs a level; steeper or level parts are full blocks.
Where heights fall by more than one the blocks between are laid as well, and walls reach up to the roof (gables).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from pipeline.houses.canvas import STAIRS, Canvas, Step
from pipeline.houses.materials import Style
from pipeline.houses.plan import Body

NONE = -99  # no roof over a column
STEEP = 2  # mansard: columns behind the eaves with slope 2; level farther in

Heights = Int[np.ndarray, "x y"]


def roof_heights(body: Body, edge: int) -> Heights:
    """Level of the roof's upper block over each column; NONE where the body has no roof."""
    x, y = np.meshgrid(np.arange(edge), np.arange(edge), indexing="ij")
    across_x = np.minimum(x - body.x, body.x_end - x)
    across_y = np.minimum(y - body.y, body.y_end - y)
    inset = np.minimum(across_x, across_y)  # 0 over walls, -1 beside them
    if body.roof == "flat":
        return np.where(inset >= 0, body.eaves + (inset == 0), NONE)  # a parapet over the walls
    if body.roof == "shed":
        return np.where(inset >= 0, body.eaves + (x - body.x if body.along else y - body.y) // 2, NONE)
    if body.roof == "mansard":
        return np.where(inset >= 0, body.eaves + 2 * np.minimum(inset, STEEP), NONE)
    slope = inset if body.roof in ("hip", "pyramid") else across_x if body.along else across_y
    return np.where(inset >= -1, body.eaves + slope, NONE)


def all_heights(bodies: Sequence[Body], footprints: Bool[np.ndarray, "s x y"]) -> list[Heights]:
    """The roofs of bodies of 1, 2, .. storeys. footprints: of storeys 0, 1, ..."""
    edge, found = footprints.shape[1], []
    for storeys in range(1, len(footprints) + 1):
        heights = [roof_heights(body, edge) for body in bodies if body.storeys == storeys]
        own = np.max(heights, axis=0) if heights else np.full((edge, edge), NONE)
        if storeys < len(footprints):
            own[footprints[storeys]] = NONE
        found.append(own)
    return found


def lay_roof(canvas: Canvas, heights: Heights, style: Style) -> None:
    """Lay the roof of the bodies of one height, wherever no wall stands yet."""
    for x, y in np.argwhere(heights > NONE).tolist():
        level, around = int(heights[x, y]), _around(heights, x, y)
        lowest = min((h for h in around.values() if h > NONE), default=level)
        for z in range(lowest + 1, level):
            canvas.grow((x, y, z), style.ridge)
        rise = _rise(around, level)
        canvas.grow((x, y, level), style.ridge if rise is None else style.slope.turned(STAIRS[rise]))


def _rise(around: dict[Step, int], level: int) -> Step | None:
    """The direction in which a roof goes up at a column, None on ridges and level parts."""
    opposite = {step: around[(-step[0], -step[1])] for step in around}
    strict = [step for step in around if around[step] > level > opposite[step]]
    crest = [step for step in around if around[step] == level > opposite[step] > NONE]
    return next(iter(strict + crest), None)


def _around(heights: Heights, x: int, y: int) -> dict[Step, int]:
    """The heights of a column's four neighbours."""
    padded = np.pad(heights[max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2], 1, constant_values=NONE)
    cx, cy = min(x, 1) + 1, min(y, 1) + 1
    return {(dx, dy): int(padded[cx + dx, cy + dy]) for dx, dy in STAIRS}
