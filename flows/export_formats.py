"""How a shard of each export is written, and what belongs to the whole: root files, annotations, Croissant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from flows.export_splits import ExportPlace
from pipeline.datasets.dataset_card import Card
from pipeline.datasets.export_sample import MAIN, ExportSample, read_sample
from pipeline.datasets.manifest import FileRecord
from pipeline.datasets.monoscene_labels import write_monoscene_labels
from pipeline.datasets.semantic_kitti import KittiRoot, write_layout
from pipeline.scene.files import safe_join, write_atomic, write_json

Keep = Callable[[dict[str, Any]], None]  # takes a sample's note
_VIEW = re.compile(r"sequences/[^/]+/(?:image|depth|semantics)_([^/]+)/")
_OF_SAMPLE = re.compile(r"(?:sequences/([^/]+)/[^/]+/|labels/([^/]+)/)(\d+)(?:_1_[18])?\.\w+")
_OF_SEQUENCE = re.compile(r"sequences/([^/]+)/[^/]+")


@dataclass(frozen=True, eq=False)
class Build:
    """A finished build. files: paths of its manifest, by (sequence, frame), or by (sequence, "") where they belong to
    a whole sequence; cameras: suffixes of all cameras that have images, calib.txt's first."""

    root: KittiRoot
    files: Mapping[tuple[str, str], tuple[str, ...]]
    cameras: tuple[str, ...]


def build_of(root: KittiRoot, files: Iterable[FileRecord]) -> Build:
    """The build with its manifest's files in order."""
    found: dict[tuple[str, str], list[str]] = {}
    suffixes = set()
    for record in files:
        if match := _OF_SAMPLE.fullmatch(record.path):
            found.setdefault((match[1] or match[2], match[3]), []).append(record.path)
        elif match := _OF_SEQUENCE.fullmatch(record.path):
            found.setdefault((match[1], ""), []).append(record.path)
        if match := _VIEW.match(record.path):
            suffixes.add(match[1])
    by_key = {key: tuple(paths) for key, paths in found.items()}
    return Build(root, by_key, (MAIN, *sorted(suffixes - {MAIN})))


@dataclass(frozen=True, eq=False)
class Shard:
    """A run of samples of one split: its number there, and how many shards the split has."""

    build: Build
    split: str
    number: int
    count: int
    places: Sequence[ExportPlace]

    def samples(self, keep: Keep) -> Iterator[ExportSample]:
        """The samples, read one by one; `keep` is given each one's note."""
        for place in self.places:
            names = {"name": place.name, "split": place.split, "scene": place.scene}
            key = (place.built_sequence, place.frame)
            sample = read_sample(self.build.root, key, **names, provenance=place.provenance)
            keep(sample.note())
            yield sample


def no_files(*_: object) -> list[str]:
    return []


@dataclass(frozen=True)
class Writer:
    """A target. Each function returns the paths it wrote, relative to `out`: of a shard, of the whole, and what
    describes the files that were written."""

    write: Callable[[Path, Shard, Keep], list[str]]
    finish: Callable[[Path, Sequence[Shard]], list[str]] = no_files
    describe: Callable[[Path, Card, Sequence[FileRecord]], list[str]] = no_files
    packages: tuple[str, ...] = ()  # of the extra `exports`, which it needs
    splits: tuple[str, ...] = ()  # those that the format has; (): any


def _kitti_shard(out: Path, shard: Shard, keep: Keep) -> list[str]:
    """The build's own files, byte for byte, under the export's sequence names, and MonoScene's extra arrays."""
    written: list[str] = []
    for sample, place in zip(shard.samples(keep), shard.places, strict=True):
        files = shard.build.files[place.built_sequence, place.frame]
        written += [_copy(shard.build.root, path, out, place.sequence) for path in files]
        if not any(path.startswith("labels/") for path in files):
            written += write_monoscene_labels(out, replace(sample.frame, sequence=place.sequence))
    return written


def _kitti_whole(out: Path, shards: Sequence[Shard]) -> list[str]:
    """calib.txt, cameras.json, poses.txt and times.txt of every sequence, grid.json and splits.json."""
    build, written = shards[0].build, []
    sequences = {place.sequence: place for shard in shards for place in shard.places}
    for name, place in sequences.items():
        written += [_copy(build.root, path, out, name) for path in build.files[place.built_sequence, ""]]
    splits: dict[str, list[str]] = {}
    for name, place in sequences.items():
        splits.setdefault(place.split, []).append(name)
    return written + write_layout(out, build.root.grid, splits, build.root.taxonomy)


def _copy(root: KittiRoot, path: str, out: Path, sequence: str) -> str:
    """Copy a file of the build to the same place in another sequence."""
    top, _, *rest = PurePosixPath(path).parts
    target = "/".join((top, sequence, *rest))
    write_atomic(safe_join(out, target), safe_join(root.path, path).read_bytes())
    return target


def _tar_shard(out: Path, shard: Shard, keep: Keep) -> list[str]:
    from pipeline.datasets.webdataset import write_shard

    path = f"{shard.split}-{shard.number:05d}.tar"
    write_shard(out / path, shard.samples(keep))
    return [path]


def _tar_whole(out: Path, shards: Sequence[Shard]) -> list[str]:
    """dataset.json: classes, colours, and shards and samples by split."""
    root = shards[0].build.root
    splits: dict[str, dict[str, Any]] = {}
    for shard in shards:
        found = splits.setdefault(shard.split, {"shards": [], "samples": 0})
        found["shards"].append(f"{shard.split}-{shard.number:05d}.tar")
        found["samples"] += len(shard.places)
    table = {"classes": root.taxonomy.classes, "colors": root.taxonomy.colors, "splits": splits}
    write_json(out / "dataset.json", table)
    return ["dataset.json"]


def _parquet_shard(out: Path, shard: Shard, keep: Keep) -> list[str]:
    from pipeline.datasets.hub import write_parquet

    path = f"data/{shard.split}-{shard.number:05d}-of-{shard.count:05d}.parquet"
    write_parquet(out / path, shard.samples(keep), shard.build.cameras)
    return [path]


def _croissant(out: Path, card: Card, files: Sequence[FileRecord]) -> list[str]:
    from pipeline.datasets.croissant import croissant

    write_json(
        out / "croissant.json", croissant(card, [record for record in files if record.path.endswith(".parquet")])
    )
    return ["croissant.json"]


def _occ3d_shard(out: Path, shard: Shard, keep: Keep) -> list[str]:
    from flows.export_occ3d import write_sample

    return [path for sample in shard.samples(keep) for path in write_sample(out, sample)]


def _occ3d_whole(out: Path, shards: Sequence[Shard]) -> list[str]:
    from flows.export_occ3d import write_annotations

    places = [place for shard in shards for place in shard.places]
    return write_annotations(out, shards[0].build.root, places)


WRITERS: Mapping[str, Writer] = {
    "semantickitti": Writer(_kitti_shard, _kitti_whole),
    "webdataset": Writer(_tar_shard, _tar_whole),
    "parquet": Writer(_parquet_shard, describe=_croissant, packages=("pyarrow", "mlcroissant")),
    "occ3d": Writer(_occ3d_shard, _occ3d_whole, splits=("train", "val")),
}
