"""What a house is to be, drawn from its seed: bodies, storeys, roofs, chimney, porch, garden. No block is laid here.

The front looks along -X, towards the street; turning is the business of who trains on houses. Bodies are rectangles of
whole blocks, walls included; a house has one, or a main body and a wing at its side or back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline.houses.materials import STYLES, RoofKind, Style, roof_kinds

T = TypeVar("T")
STOREY = 4  # blocks from floor to floor
LOWEST = 0  # level of the ground, where foundations, floors and lawns lie


@dataclass(frozen=True)
class Limits:
    """edge: of the cube that a house fits, roofs and garden included; blocks: at most so many."""

    edge: int = 32
    blocks: int = 1024

    @property
    def scale(self) -> float:
        """How much longer bodies may be than with 1024 blocks."""
        return float(np.sqrt(self.blocks / 1024))


@dataclass(frozen=True)
class Body:
    """A box: corner and size in blocks, storeys, and its roof. along: the axis of its ridge, 0 or 1."""

    x: int
    y: int
    width: int
    depth: int
    storeys: int
    roof: RoofKind
    along: int

    @property
    def x_end(self) -> int:
        return self.x + self.width - 1

    @property
    def y_end(self) -> int:
        return self.y + self.depth - 1

    @property
    def eaves(self) -> int:
        """The level right above its walls."""
        return LOWEST + STOREY * self.storeys


@dataclass(frozen=True)
class Garden:
    """A lot around the house. front, around: blocks of lawn before it and on its other sides; plants, trees: how many
    at most; fenced: all round but for a gate."""

    front: int
    around: int
    plants: float
    trees: int
    fenced: bool


@dataclass(frozen=True)
class HousePlan:
    """door: its Y in the front wall of the main body; windows: blocks from one to the next, their width and height.

    chimney: none, inside at the back, or outside of the back wall; furniture: how many pieces.
    """

    style: Style
    bodies: tuple[Body, ...]
    door: int
    window_step: int
    window_width: int
    window_height: int
    chimney: str | None
    porch: bool
    furniture: int
    garden: Garden | None

    @property
    def main(self) -> Body:
        return self.bodies[0]


def draw_plan(random: np.random.Generator, limits: Limits, reserved: bool) -> HousePlan:
    """A house; it may still turn out to have too many blocks. reserved: see `roof_kinds`."""
    style = int(random.choice([k for k in range(len(STYLES)) if roof_kinds(k, reserved)]))
    kinds = roof_kinds(style, reserved)
    bodies = _bodies(random, limits, kinds)
    main = bodies[0]
    gap = _choice(random, (3, 3, 4))
    return HousePlan(
        style=STYLES[style],
        bodies=_placed(bodies, limits.edge),
        door=_between(random, 2, main.depth - 3),
        window_step=gap,
        window_width=_choice(random, (1, 1, 2)) if gap > 3 else 1,
        window_height=_choice(random, (1, 1, 2)),
        chimney=_choice(random, ("inside", "outside", "outside", None)),
        porch=bool(random.random() < 0.35),
        furniture=_between(random, 1, 4),
        garden=_garden(random) if random.random() < 0.75 else None,
    )


def _bodies(random: np.random.Generator, limits: Limits, kinds: tuple[RoofKind, ...]) -> tuple[Body, ...]:
    """Corners relative to the main body's, which is (0, 0)."""
    shape = _choice(random, ("cottage", "cottage", "house", "house", "long", "tower", "wing", "wing"))
    longest = round(11 * limits.scale)
    storeys = {"cottage": 1, "long": 1, "house": 2, "tower": 3, "wing": _between(random, 1, 2)}[shape]
    width, depth = _between(random, 7, longest), _between(random, 7, longest)
    if shape == "long":
        width, depth = _between(random, 6, 8), _between(random, longest, longest + 4)
    if shape == "tower":
        width = depth = _choice(random, (5, 7))
    width, depth = _odd(width, random), _odd(depth, random)
    roof = _fitting(random, kinds, width, depth, shape)
    main = Body(0, 0, width, depth, storeys, roof, int(depth >= width))
    return (main, _wing(random, main)) if shape == "wing" else (main,)


def _wing(random: np.random.Generator, main: Body) -> Body:
    """A lower or as high a body at the side or back of the main one, sharing its wall line."""
    size, reach = _between(random, 5, max(5, main.width - 2)), _between(random, 5, 7)
    storeys = _between(random, 1, main.storeys)
    roof: RoofKind = main.roof if main.roof in ("gable", "flat", "hip", "shed") else "gable"
    if random.random() < 0.3:
        return Body(main.width - 1, _between(random, 0, main.depth - 5), reach, 5, storeys, roof, 0)
    y = main.depth - 1 if random.random() < 0.5 else 1 - reach
    return Body(_between(random, 0, main.width - size), y, size, reach, storeys, roof, 1)


def _fitting(random: np.random.Generator, kinds: tuple[RoofKind, ...], width: int, depth: int, shape: str) -> RoofKind:
    """A kind that looks right on such a plan."""
    fitting = [kind for kind in kinds if kind != "pyramid" or abs(width - depth) <= 2]
    if shape == "tower":
        fitting = [kind for kind in fitting if kind not in ("shed", "gable")] or fitting
    return _choice(random, tuple(fitting or kinds))


def _placed(bodies: tuple[Body, ...], edge: int) -> tuple[Body, ...]:
    """The bodies moved to the middle of a cube's floor."""
    low = [min(b.x for b in bodies), min(b.y for b in bodies)]
    high = [max(b.x_end for b in bodies), max(b.y_end for b in bodies)]
    dx, dy = ((edge - 1 - a - b) // 2 for a, b in zip(low, high, strict=True))
    return tuple(Body(b.x + dx, b.y + dy, b.width, b.depth, b.storeys, b.roof, b.along) for b in bodies)


def _garden(random: np.random.Generator) -> Garden:
    around = _choice(random, (0, 0, 2, 2, 3))
    return Garden(
        front=_between(random, 3, 5),
        around=around,
        plants=float(random.uniform(0.04, 0.2)),
        trees=_choice(random, (0, 1, 1)),
        fenced=bool(random.random() < 0.6),
    )


def _odd(size: int, random: np.random.Generator) -> int:
    """Mostly odd sizes: their roofs end in a ridge and doors find a middle."""
    return size if size % 2 or random.random() < 0.25 else size - 1


def _between(random: np.random.Generator, low: int, high: int) -> int:
    return int(random.integers(low, max(low, high) + 1))


def _choice(random: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(random.integers(len(options)))]
