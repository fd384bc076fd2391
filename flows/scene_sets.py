"""Sets of scenes on disk: all labelled frames of a folder, a split, a seeded draw of one, a split's two halves."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipeline.datasets.formats import DatasetRoot, detect
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import rng
from pipeline.scene.taxonomy import Taxonomy

Key = tuple[str, str]


@dataclass(frozen=True)
class SceneSet:
    """Frames (sequence, frame) of a root, in order, under a name for people."""

    name: str
    root: Path
    keys: tuple[Key, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def scene(self, index: int) -> Scene:
        """One scene. Raises InputError."""
        return opened(self.root).scene(*self.keys[index])

    def labels(self) -> Iterator[UInt8[np.ndarray, "x y z"]]:
        """Every scene's labels, read one by one. Raises InputError."""
        return (opened(self.root).scene(*key).labels for key in self.keys)

    def part(self, indices: Sequence[int] | range, name: str = "") -> SceneSet:
        """Some of its scenes, in the given order."""
        return replace(self, keys=tuple(self.keys[i] for i in indices), name=name or self.name)

    def digest(self) -> str:
        """SHA-256 over the names and bytes of the labels' files."""
        root, found = opened(self.root), hashlib.sha256()
        for key in self.keys:
            for path in root.label_files(*key):
                found.update("/".join((*key, path.name)).encode() + (path.read_bytes() if path.exists() else b""))
        return found.hexdigest()


@functools.lru_cache(maxsize=16)
def opened(root: Path) -> DatasetRoot:
    """The root, enumerated once a process. Raises InputError."""
    return detect(root).open(root)


def split_set(root: Path, split: str, name: str = "") -> SceneSet:
    """A split's labelled frames. Raises InputError."""
    found = opened(root)
    keys = tuple(key for key in found.frames(split) if found.label_files(*key)[0].exists())
    if not keys:
        raise InputError(root, f"labelled frames in split {split}", "none")
    return SceneSet(name or split, root, keys)


def folder_set(root: Path, name: str = "") -> SceneSet:
    """All labelled frames of a folder, split after split: what a generator wrote. Raises InputError."""
    found = opened(root)
    keys = [key for split in found.splits for key in found.frames(split) if found.label_files(*key)[0].exists()]
    if not keys:
        raise InputError(root, "a folder of generated scenes, which have .label files", "none")
    return SceneSet(name or root.resolve().name, root, tuple(keys))


def drawn(scenes: SceneSet, count: int, seed: int) -> SceneSet:
    """A seeded draw without replacement, in the set's order; all where there are no more."""
    if count >= len(scenes):
        return scenes
    chosen = rng(seed, "draw", 0).permutation(len(scenes))[:count]
    return scenes.part(np.sort(chosen).tolist())


def halves(scenes: SceneSet, seed: int) -> tuple[list[int], list[int]]:
    """Indices of two halves of equal size, cut between whole sequences but for one.

    Neighbours in a drive look alike, so halves that share drives would seem nearer than new scenes are.
    """
    names = sorted({sequence for sequence, _ in scenes.keys})
    order = {names[k]: place for place, k in enumerate(rng(seed, "halves", 0).permutation(len(names)))}
    by_drive = sorted(range(len(scenes)), key=lambda i: (order[scenes.keys[i][0]], i))
    size = len(scenes) // 2
    return by_drive[:size], by_drive[size : 2 * size]


def grid_of(scenes: SceneSet) -> tuple[VoxelGrid, Taxonomy]:
    """Grid and taxonomy of its first scene. Raises InputError."""
    first = scenes.scene(0)
    return first.grid, first.taxonomy


def check_alike(scenes: SceneSet, real: SceneSet) -> None:
    """Refuse scenes that can't be compared with the real ones. Raises InputError."""
    (grid, taxonomy), (own_grid, own_taxonomy) = grid_of(real), grid_of(scenes)
    if own_grid.shape != grid.shape or abs(own_grid.voxel_size_m - grid.voxel_size_m) > 1e-9:
        raise InputError(
            scenes.root, f"the real grid, {_text(grid)}", _text(own_grid), "give the real root at that size (`convert`)"
        )
    if not np.allclose(own_grid.origin_m, grid.origin_m):
        raise InputError(scenes.root, f"the real grid's origin {grid.origin_m} m", f"{own_grid.origin_m} m")
    if own_taxonomy != taxonomy:
        raise InputError(scenes.root, f"the real taxonomy, {taxonomy.name}", own_taxonomy.name, "see `convert`")


def _text(grid: VoxelGrid) -> str:
    return f"{'x'.join(map(str, grid.shape))} voxels of {grid.voxel_size_m} m"
