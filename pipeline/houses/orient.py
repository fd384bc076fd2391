"""Data values for blocks that have none: which way doors, stairs, ladders and torches look, by what is around them.

A generator draws block ids alone, and with a data value of 0 everywhere the game would show doors without upper halves
and roofs whose stairs all rise to the east. Colours and kinds of wood stay 0.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from pipeline.houses.canvas import DOOR_TOP, DOORS, LADDERS, STAIRS, TORCHES, Step
from pipeline.houses.materials import minecraft
from pipeline.houses.roles import role

STANDING = 5  # a torch on the ground


def oriented(ids: UInt8[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
    """Data values of a house's blocks."""
    data, around = np.zeros_like(ids), np.pad(ids, 1)
    full = np.pad(around, ((0, 0), (0, 0), (0, 1)))
    solid = (full != 0) & ~(role("thin") | role("door"))[full]
    names = minecraft().classes
    for x, y, z in np.argwhere((role("door") | role("stairs") | role("thin"))[ids]).tolist():
        name, place = names[ids[x, y, z]], (x + 1, y + 1, z + 1)
        if role("door")[ids[x, y, z]]:
            data[x, y, z] = _door(around, solid, data, place)
        elif role("stairs")[ids[x, y, z]]:
            data[x, y, z] = STAIRS[max(STAIRS, key=lambda step: _rise(solid, place, step))]
        elif name in ("ladder", "torch"):
            held = [step for step in LADDERS if solid[place[0] - step[0], place[1] - step[1], place[2]]]
            if name == "ladder":
                data[x, y, z] = LADDERS[held[0]] if held else 2
            else:
                data[x, y, z] = TORCHES[held[0]] if held else STANDING
    return data


def _door(around: np.ndarray, solid: np.ndarray, data: np.ndarray, place: tuple[int, int, int]) -> int:
    """An upper half above a lower one of its kind; a lower half by the way in: from the open air to under a roof."""
    x, y, z = place
    if around[x, y, z - 1] == around[x, y, z] and data[x - 1, y - 1, z - 2] != DOOR_TOP:
        return DOOR_TOP

    def inward(step: Step) -> int:
        (dx, dy), above = step, slice(z + 2, None)
        beside = int(solid[x + dy, y + dx, z]) + int(solid[x - dy, y - dx, z])  # the wall that it stands in
        covered = int(solid[x + dx, y + dy, above].any()) - int(solid[x - dx, y - dy, above].any())
        return 2 * beside + covered - 2 * int(solid[x + dx, y + dy, z])

    return DOORS[max(DOORS, key=inward)]


def _rise(solid: np.ndarray, place: tuple[int, int, int], step: Step) -> int:
    """How much speaks for stairs that rise in a direction: what lies ahead and higher, and is missing behind."""
    (x, y, z), (dx, dy) = place, step
    ahead, behind = solid[x + dx, y + dy], solid[x - dx, y - dy]
    return 3 * int(ahead[z + 1]) + int(ahead[z]) - 3 * int(behind[z + 1]) - int(behind[z])
