"""Which places of a house can be walked to from its doors: steps of one block up and down, ladders, doors, no jumps."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from pipeline.houses.materials import minecraft
from pipeline.houses.roles import role

Cell = tuple[int, int, int]
DROP = 3  # blocks that one may fall


def reached(
    ids: UInt8[np.ndarray, "x y z"], blocked: Bool[np.ndarray, "x y z"], indoors: Bool[np.ndarray, "x y"]
) -> tuple[int, int]:
    """(reached, all): places indoors with a block below, room for two and a block above. Starts are doors at ground.

    blocked: what nobody walks through; the arrays' outermost columns are air.
    """
    free = ~blocked
    ladder = ids == minecraft().id_of("ladder")
    room = free & np.pad(free, ((0, 0), (0, 0), (0, 1)))[:, :, 1:]
    stand = room & (np.pad(blocked, ((0, 0), (0, 0), (1, 0)))[:, :, :-1] | ladder)
    cover = np.logical_or.accumulate(blocked[:, :, ::-1], axis=2)[:, :, ::-1]
    wanted = stand & cover & indoors[..., None] & ~role("door")[ids]
    wanted[:, :, 0] = False
    cells = [tuple(cell) for cell in np.argwhere(role("door")[ids] & (stand)) if cell[2] == 1]
    seen: set[Cell] = {(int(x), int(y), int(z)) for x, y, z in cells}
    queue = list(seen)
    while queue:
        for cell in _next(queue.pop(), stand, free, ladder):
            if cell not in seen and indoors[cell[:2]]:
                seen.add(cell)
                queue.append(cell)
    return sum(bool(wanted[cell]) for cell in seen), int(wanted.sum())


def _next(cell: Cell, stand: np.ndarray, free: np.ndarray, ladder: np.ndarray) -> list[Cell]:
    x, y, z = cell
    height = stand.shape[2]
    found = [(x, y, z + 1)] if ladder[cell] and z + 2 < height and free[x, y, z + 1] else []
    found += [(x, y, z - 1)] if ladder[x, y, z - 1] else []
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        place = (x + dx, y + dy)
        if z + 2 < height and stand[(*place, z + 1)] and free[x, y, z + 2]:
            found.append((*place, z + 1))
        for down in range(min(DROP, z - 1) + 1):
            if not free[(*place, z - down)] or (down == 0 and not free[(*place, z + 1)]):
                break
            if stand[(*place, z - down)]:
                found.append((*place, z - down))
                break
    return found
