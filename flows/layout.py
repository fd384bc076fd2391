"""Where sample i of a build lies: its shard, its sequence folder and its frame number.

A generated build's samples fill its sequences one after another, named as SemanticKITTI's training sequences, so that
a stock loader finds them; a build from a split keeps its source's names.
"""

from __future__ import annotations

from dataclasses import dataclass

from flows.drives import sequence_name
from flows.recipes import BuildRecipe, SplitSource
from flows.sources import source_length, split_frames


@dataclass(frozen=True)
class Place:
    """A sample's sequence and frame as named on disk."""

    sequence: str
    frame: str

    @property
    def folder(self) -> str:
        return f"sequences/{self.sequence}"

    @property
    def name(self) -> str:
        return f"{self.sequence}/{self.frame}"


def shard_count(recipe: BuildRecipe) -> int:
    return -(-source_length(recipe) // recipe.shard_samples)


def shard_range(recipe: BuildRecipe, shard: int) -> range:
    """The samples of a shard."""
    start = shard * recipe.shard_samples
    return range(start, min(start + recipe.shard_samples, source_length(recipe)))


def sequence_of(recipe: BuildRecipe, index: int) -> tuple[int, int]:
    """A generated sample's sequence number and its place in it; sequences differ in length by one at most."""
    total = source_length(recipe)
    base, more = divmod(total, min(recipe.sequences, total))
    if index < more * (base + 1):
        return divmod(index, base + 1)
    sequence, place = divmod(index - more * (base + 1), base)
    return more + sequence, place


def place_of(recipe: BuildRecipe, index: int) -> Place:
    """Where sample `index` lies."""
    if isinstance(recipe.source, SplitSource):
        return Place(*split_frames(recipe.source)[index])
    sequence, frame = sequence_of(recipe, index)
    return Place(sequence_name("train", sequence), f"{frame:06d}")
