"""Where sample i of a build lies: its shard, its sequence folder and its frame number.

A generated build's samples fill its sequences one after another, named as SemanticKITTI's sequences of the same split,
so that a stock loader finds them; a build from a split keeps its source's names.
"""

from __future__ import annotations

from dataclasses import dataclass

from flows.drives import Split, sequence_name
from flows.recipes import BuildRecipe, SplitSource, TownSource
from flows.sources import source_length, split_frames
from pipeline.scene.errors import InputError


@dataclass(frozen=True)
class Place:
    """A sample's split, and its sequence and frame as named on disk."""

    split: str
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


def split_runs(recipe: BuildRecipe) -> list[tuple[Split, range, int]]:
    """(split, its samples, its sequences) of a generated build, training first; scenes are never shared.

    A share above 0 gets one scene at least. Raises InputError where none is left to train on.
    """
    total, each = source_length(recipe), _scene_samples(recipe)
    scenes = -(-total // each)
    shares: dict[Split, float] = {"val": recipe.val_share, "test": recipe.test_share}
    held = {split: max(1, round(scenes * share)) for split, share in shares.items() if share}
    start = (scenes - sum(held.values())) * each
    if start <= 0:
        expected = f"more than {sum(held.values())} scenes, so that some are left to train on"
        raise InputError("val_share and test_share", expected, f"{scenes}", "build more, or give smaller shares")
    runs: list[tuple[Split, range, int]] = [("train", range(min(start, total)), recipe.sequences)]
    for split, count in held.items():
        runs.append((split, range(start, min(start + count * each, total)), round(recipe.sequences * shares[split])))
        start += count * each
    return [(split, members, min(max(1, sequences), len(members))) for split, members, sequences in runs]


def _scene_samples(recipe: BuildRecipe) -> int:
    """How many samples, one after another, show parts of one scene."""
    source = recipe.source
    return recipe.images_per_scene * (source.frames_per_sequence if isinstance(source, TownSource) else 1)


def sequence_of(recipe: BuildRecipe, index: int) -> tuple[int, int]:
    """A generated sample's sequence number in the build and its place in it; see `_sequence`."""
    _, number, place = _sequence(recipe, index)
    return number[0], place


def _sequence(recipe: BuildRecipe, index: int) -> tuple[Split, tuple[int, int], int]:
    """Its split, its sequence's number in the build and in the split, and its place there.

    Sequences of a split differ in length by one at most.
    """
    before = 0
    for split, members, sequences in split_runs(recipe):
        if index in members:
            number, place = _dealt(len(members), sequences, index - members.start)
            return split, (before + number, number), place
        before += sequences
    raise InputError(f"recipe {recipe.name}", f"a sample below {source_length(recipe)}", str(index))


def _dealt(total: int, sequences: int, index: int) -> tuple[int, int]:
    base, more = divmod(total, sequences)
    if index < more * (base + 1):
        return divmod(index, base + 1)
    sequence, place = divmod(index - more * (base + 1), base)
    return more + sequence, place


def place_of(recipe: BuildRecipe, index: int) -> Place:
    """Where sample `index` lies."""
    if isinstance(recipe.source, SplitSource):
        return Place(recipe.source.split, *split_frames(recipe.source)[index])
    split, (_, number), place = _sequence(recipe, index)
    return Place(split, sequence_name(split, number), f"{place:06d}")
