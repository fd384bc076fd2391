"""Blocks being laid: arrays of ids and data values, and Minecraft's directions as data values.

Axes are ours: X and Y level, Z up; Minecraft's x (east) is X, its z (south) is -Y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import UInt8

from pipeline.houses.materials import Block

Step = tuple[int, int]  # along X and Y
STAIRS = {(1, 0): 0, (-1, 0): 1, (0, -1): 2, (0, 1): 3}  # by the direction in which they rise
DOORS = {(1, 0): 0, (0, -1): 1, (-1, 0): 2, (0, 1): 3}  # lower half, by the direction in which one walks in
DOOR_TOP = 8
LADDERS = {(0, 1): 2, (0, -1): 3, (-1, 0): 4, (1, 0): 5}  # by the direction away from the wall that holds them
TORCHES = {(1, 0): 1, (-1, 0): 2, (0, -1): 3, (0, 1): 4}  # likewise
BEDS = {(0, -1): 0, (-1, 0): 1, (0, 1): 2, (1, 0): 3}  # by the direction from foot to head
BED_HEAD = 8


@dataclass(frozen=True, eq=False)
class Canvas:
    """ids, data: (X, Y, Z), written in place."""

    ids: UInt8[np.ndarray, "x y z"]
    data: UInt8[np.ndarray, "x y z"]

    @classmethod
    def new(cls, edge: int) -> Self:
        """An empty cube."""
        return cls(np.zeros((edge,) * 3, np.uint8), np.zeros((edge,) * 3, np.uint8))

    def put(self, where: Any, block: Block) -> None:
        """Lay a block wherever a numpy index says."""
        self.ids[where], self.data[where] = block.id, block.data

    def grow(self, where: tuple[int, int, int], block: Block) -> None:
        """Lay a block if the place is free."""
        if not self.ids[where]:
            self.put(where, block)

    def clear(self, where: Any) -> None:
        """Take blocks away."""
        self.ids[where] = self.data[where] = 0

    @property
    def count(self) -> int:
        """Blocks laid."""
        return int(np.count_nonzero(self.ids))
