"""How a town root is laid out: which drives there are, in which split, under which sequence name.

SemanticKITTI's own names come first, so that a stock loader finds its splits; further drives follow from 1000
(training), 2000 (validation) and 3000 (test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flows.recipes import TownRecipe
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import integer_seed

Split = Literal["train", "val", "test"]
_NAMES: dict[Split, tuple[int, ...]] = {
    "train": (0, 1, 2, 3, 4, 5, 6, 7, 9, 10),
    "val": (8,),
    "test": tuple(range(11, 22)),
}
_FURTHER: dict[Split, int] = {"train": 1000, "val": 2000, "test": 3000}


@dataclass(frozen=True)
class Drive:
    """One sequence: its split, folder name, town seed and number of labelled frames."""

    split: Split
    sequence: str
    seed: int
    frames: int


def drives(recipe: TownRecipe) -> list[Drive]:
    """Every drive of the root, training first; val and test have at least one each. Raises InputError."""
    count = max(3, -(-recipe.frames // recipe.sequence_frames))
    val = max(1, round(count * recipe.val_share))
    test = max(1, round(count * recipe.test_share)) if recipe.test_share else 0
    if val + test >= count:
        raise InputError("town", "shares of val and test that leave drives to train on", f"{val} + {test} of {count}")
    sizes: dict[Split, int] = {"train": count - val - test, "val": val, "test": test}
    base, more = divmod(recipe.frames, count)
    found: list[Drive] = []
    for split, size in sizes.items():
        for place in range(size):
            k = len(found)
            seed = integer_seed(recipe.seed, "town", k)
            found.append(Drive(split, sequence_name(split, place), seed, base + (k < more)))
    return found


def sequence_name(split: Split, place: int) -> str:
    """The folder of a split's drive number `place`."""
    names = _NAMES[split]
    return f"{names[place]:02d}" if place < len(names) else str(_FURTHER[split] + place)
