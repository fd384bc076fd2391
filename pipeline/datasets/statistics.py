"""Class counts and weights, counted from a dataset's training split and stored beside it.

statistics.json carries two digests of what was counted: of the classes and the label files' paths and sizes, and of
their contents too (SHA-256). When either differs from what lies on disk, the split is counted anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from jaxtyping import Float64
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.datasets.checked_files import read_json
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of, safe_join, sha256_file, write_json
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, Taxonomy

STATISTICS_NAME = "statistics.json"
T = TypeVar("T")


class Statistics(BaseModel):
    """Counts over a split. By class id: voxels of each class among valid voxels, and frames in which it occurs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["occfactory-statistics-1"] = "occfactory-statistics-1"
    taxonomy: str
    classes: tuple[str, ...]
    split: str
    listing_digest: str  # of the raw-id map and the counted files' paths and sizes
    source_digest: str  # of the same and every file's SHA-256
    frames: int
    voxels: int  # of all frames, invalid ones included
    class_voxels: tuple[int, ...]
    class_frames: tuple[int, ...]

    @property
    def valid_voxels(self) -> int:
        return sum(self.class_voxels)

    @property
    def valid_share(self) -> float:
        """Share of the grid that is scored (SemanticKITTI: 0.724)."""
        return self.valid_voxels / max(self.voxels, 1)

    @property
    def occupied_share(self) -> float:
        """Share of the valid voxels that are occupied (SemanticKITTI: 0.0693)."""
        return sum(self.class_voxels[1:]) / max(self.valid_voxels, 1)

    @property
    def frequencies(self) -> Float64[np.ndarray, "k"]:
        """Share of each class, empty included, among the valid voxels."""
        return np.array(self.class_voxels, np.float64) / max(self.valid_voxels, 1)

    @property
    def occupied_frequencies(self) -> Float64[np.ndarray, "k"]:
        """Share of each class among the occupied voxels; 0 for empty."""
        solid = np.array((0, *self.class_voxels[1:]), np.float64)
        return solid / max(solid.sum(), 1)

    @property
    def frame_shares(self) -> Float64[np.ndarray, "k"]:
        """Share of the frames in which each class occurs."""
        return np.array(self.class_frames, np.float64) / max(self.frames, 1)

    @property
    def class_weights(self) -> Float64[np.ndarray, "k"]:
        """MonoScene's cross-entropy weights 1 / ln(f + 0.001), f the class's voxel count."""
        return class_weights(np.array(self.class_voxels, np.float64))


def class_weights(counts: Float64[np.ndarray, "k"]) -> Float64[np.ndarray, "k"]:
    """1 / ln(f + 0.001). A class below 2 voxels counts as 2, where the formula would blow up or turn negative."""
    return 1.0 / np.log(np.maximum(counts, 2.0) + 0.001)


class Counts(NamedTuple):
    """Plain counts of some scenes; see Statistics."""

    frames: int
    voxels: int
    class_voxels: tuple[int, ...]
    class_frames: tuple[int, ...]


class Countable(Protocol):
    """What a dataset's root offers to be counted."""

    @property
    def path(self) -> Path: ...

    @property
    def taxonomy(self) -> Taxonomy: ...

    def frames(self, split: str) -> tuple[tuple[str, str], ...]: ...

    def scene(self, sequence: str, frame: str) -> Scene: ...

    def label_files(self, sequence: str, frame: str) -> tuple[Path, ...]: ...


def count(scenes: Iterable[Scene], taxonomy: Taxonomy) -> Counts:
    """Count scenes one by one. Raises InputError on labels that the taxonomy doesn't have."""
    totals = np.zeros(256, np.int64)
    occurs = np.zeros(256, np.int64)
    frames = 0
    for scene in scenes:
        counts = np.bincount(scene.labels.ravel(), minlength=256)
        totals += counts
        occurs += counts > 0
        frames += 1
    k = len(taxonomy.classes)
    if totals[k:IGNORE].any():
        raise InputError("scenes", f"labels below {k}, or 255", f"{k + int(np.flatnonzero(totals[k:IGNORE])[0])}")
    return Counts(frames, int(totals.sum()), tuple(totals[:k].tolist()), tuple(occurs[:k].tolist()))


def dataset_statistics(
    root: Countable,
    split: str = "train",
    *,
    thorough: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Statistics:
    """A split's statistics: those stored beside it if its files are what was counted, else counted anew and stored.

    thorough: compare the files' contents (reads them all), not only their paths and sizes. progress(done, total) is
    called as frames are hashed and counted. A root that can't be written to is counted all the same. Training's lie in
    statistics.json, another split's in statistics_<split>.json. Raises InputError on a split without frames.
    """
    frames = root.frames(split)
    if not frames:
        raise InputError(root.path, f"frames in split {split}", "none")
    path = statistics_path(root.path, split)
    stored = read_statistics(path) if path.exists() else None
    listing = _digest(root, (_entry(root, *frame, hashed=False) for frame in frames))
    if stored and stored.listing_digest != listing:
        stored = None
    if stored and not thorough:
        return stored
    total = len(frames) * (1 if stored else 2)
    hashed = _reported((_entry(root, *frame, hashed=True) for frame in frames), progress, 0, total)
    source = _digest(root, hashed)
    if stored and stored.source_digest == source:
        return stored
    total = 2 * len(frames)
    counts = count(_reported((root.scene(*frame) for frame in frames), progress, len(frames), total), root.taxonomy)
    statistics = Statistics(
        taxonomy=root.taxonomy.name,
        classes=root.taxonomy.classes,
        split=split,
        listing_digest=listing,
        source_digest=source,
        **counts._asdict(),
    )
    if os.access(path.parent, os.W_OK):
        write_json(path, statistics.model_dump(mode="json"))
    return statistics


def statistics_path(root: Path, split: str) -> Path:
    """Where a split's statistics are stored."""
    return safe_join(root, STATISTICS_NAME if split == "train" else f"statistics_{split}.json")


def _entry(root: Countable, sequence: str, frame: str, hashed: bool) -> list[list[object]]:
    """(path relative to the root, size, and SHA-256 if asked) of every file a frame's labels come from."""
    paths = [path for path in root.label_files(sequence, frame) if path.exists()]
    return [
        [path.relative_to(root.path).as_posix(), path.stat().st_size, *([sha256_file(path)] if hashed else [])]
        for path in paths
    ]


def _digest(root: Countable, entries: Iterable[list[list[object]]]) -> str:
    return digest_of({"taxonomy": [root.taxonomy.name, root.taxonomy.raw_to_class], "files": list(entries)})


def _reported(items: Iterable[T], progress: Callable[[int, int], None], before: int, total: int) -> Iterator[T]:
    for done, item in enumerate(items, before + 1):
        yield item
        progress(done, total)


def read_statistics(path: Path) -> Statistics:
    """Read statistics.json. Raises InputError."""
    table = read_json(path, "occfactory statistics", limit=1 << 20)
    try:
        return Statistics.model_validate(table)
    except ValidationError as error:
        raise InputError(path, "occfactory statistics", str(error).splitlines()[0], "remove it") from None
