"""Which split, sequence and name every sample of a build gets in an export: splits are dealt by scene, none shared.

A scene is a town (whatever sequences its frames fill), a drive of recorded data, or one generated scene. A sequence
has one camera, so a sequence whose scenes fall into several splits becomes one sequence in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.drives import sequence_name
from pipeline.datasets.manifest import SampleRecord
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ExportPlace:
    """A sample's split, scene and sequence in the export, and where it lies in the build."""

    split: str
    scene: str
    sequence: str
    built_sequence: str
    frame: str
    provenance: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.sequence}/{self.frame}"

    @property
    def built_as(self) -> str:
        return f"{self.built_sequence}/{self.frame}"


def scene_of(sample: SampleRecord) -> str:
    """The scene that a sample shows a part of."""
    provenance = sample.provenance
    if "town_seed" in provenance:
        return f"town-{provenance['town_seed']}"
    if "scene" in provenance:  # several samples may show one
        return f"scene-{provenance['scene']}"
    if "sequence" in provenance:
        return f"{provenance.get('source', 'drive')}-{provenance['sequence']}"
    return sample.name


def deal_scenes(scenes: Sequence[str], val_share: float, test_share: float, seed: int) -> dict[str, str]:
    """Scene -> split, by seeded lot; a share above 0 gets one scene at least. Raises InputError on too few scenes."""
    lots = sorted(set(scenes), key=lambda scene: digest_of([seed, scene]))
    val, test = (max(1, round(len(lots) * share)) if share else 0 for share in (val_share, test_share))
    if val + test >= len(lots):
        expected = f"more than {val + test} scenes, so that some are left to train on"
        raise InputError("--val-share and --test-share", expected, f"{len(lots)}", "build more, or give smaller shares")
    names = ["val"] * val + ["test"] * test + ["train"] * (len(lots) - val - test)
    return dict(zip(lots, names, strict=True))


def places(
    samples: Sequence[SampleRecord], built: Mapping[str, Sequence[str]], shares: tuple[float, float], seed: int
) -> list[ExportPlace]:
    """Every sample's place, split by split. built: the build's own splits, sequences by name, kept if both shares
    (val, test) are 0. Raises InputError."""
    scenes = {sample.name: scene_of(sample) for sample in samples}
    if any(shares):
        dealt = deal_scenes(list(scenes.values()), *shares, seed)
        found = [(dealt[scenes[sample.name]], sample) for sample in samples]
    else:
        own = {sequence: split for split, members in built.items() for sequence in members}
        found = [(own.get(sample.name.partition("/")[0], "train"), sample) for sample in samples]
    order = {split: k for k, split in enumerate(dict.fromkeys([*SPLITS, *(split for split, _ in found)]))}
    found.sort(key=lambda pair: order[pair[0]])  # stable: the build's order within a split
    named = _sequences(found, renamed=any(shares))
    return [_place(split, scenes[sample.name], sample, named) for split, sample in found]


def _sequences(found: Sequence[tuple[str, SampleRecord]], renamed: bool) -> dict[tuple[str, str], str]:
    """(split, built sequence) -> exported sequence: SemanticKITTI's names for the split, or the build's own."""
    keys = dict.fromkeys((split, sample.name.partition("/")[0]) for split, sample in found)
    if not renamed:
        return {key: key[1] for key in keys}
    counts = dict.fromkeys(SPLITS, 0)
    names = {}
    for split, sequence in keys:
        names[split, sequence] = sequence_name(split, counts[split])  # type: ignore[arg-type]  # one of SPLITS
        counts[split] += 1
    return names


def _place(split: str, scene: str, sample: SampleRecord, named: Mapping[tuple[str, str], str]) -> ExportPlace:
    sequence, _, frame = sample.name.partition("/")
    exported = named[split, sequence]
    provenance = dict(sample.provenance)
    if exported != sequence:
        provenance["built_as"] = sample.name
    return ExportPlace(split, scene, exported, sequence, frame, provenance)


def shards_of(found: Sequence[ExportPlace], size: int) -> list[tuple[str, int, int, list[ExportPlace]]]:
    """(split, number in it, shards of it, members): runs of at most `size` samples of one split."""
    shards = []
    for split in dict.fromkeys(place.split for place in found):
        members = [place for place in found if place.split == split]
        runs = [members[k : k + size] for k in range(0, len(members), size)]
        shards += [(split, number, len(runs), run) for number, run in enumerate(runs)]
    return shards
