"""A dataset of SemanticKITTI's kind on disk: sequences that hold `voxels/`, a grid and splits.

What differs between such datasets is a Layout. Frames are those that lie on disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.checked_files import read_json
from pipeline.datasets.voxel_frames import SEMANTIC_KITTI_RULES, Frame, VoxelRules, read_voxels, write_voxels
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join, write_atomic, write_json
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import Taxonomy, load_taxonomy, taxonomy_toml

GRID_NAME, SPLITS_NAME = "grid.json", "splits.json"
TAXONOMY_NAME = "taxonomy.toml"  # of a root whose classes are its own
LARGEST_GRID = 1 << 26  # voxels; the published grids have 2^21
_FRAME = re.compile(r"(\d{1,10})\.(bin|label)", re.ASCII)
_SEQUENCE = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Layout:
    """What differs from one dataset of this kind to the next.

    sequences: the folder that holds the sequences; images: the image folder inside a sequence; grid and splits: the
    published ones, used where the root has no file of its own.
    """

    taxonomy: str
    sequences: str
    images: str
    grid: VoxelGrid
    splits: Mapping[str, tuple[str, ...]]
    rules: VoxelRules = SEMANTIC_KITTI_RULES


@dataclass(frozen=True)
class KittiSequence:
    """Frames with voxel files, sorted, and those of them that have labels."""

    frames: tuple[str, ...]
    labelled: frozenset[str]


@dataclass(frozen=True, eq=False)
class KittiRoot:
    """A dataset on disk: its grid and classes, sequences by name, and sequence names by split."""

    path: Path
    layout: Layout
    grid: VoxelGrid
    taxonomy: Taxonomy
    sequences: Mapping[str, KittiSequence]
    splits: Mapping[str, tuple[str, ...]]

    def frames(self, split: str) -> tuple[tuple[str, str], ...]:
        """(sequence, frame) of a split in order. Raises InputError on an unknown split."""
        if split not in self.splits:
            raise InputError(self.path, f"a split of {', '.join(self.splits)}", repr(split))
        return tuple((s, f) for s in self.splits[split] for f in self.sequences[s].frames)

    def split_of(self, sequence: str) -> str:
        """The split that a sequence belongs to, "" if none."""
        return next((name for name, members in self.splits.items() if sequence in members), "")

    def scene(self, sequence: str, frame: str) -> Scene:
        """A labelled frame as a Scene. Raises InputError."""
        return read_frame(self, sequence, frame).scene()

    def label_files(self, sequence: str, frame: str) -> tuple[Path, ...]:
        """The files that a frame's labels come from."""
        return tuple(
            sequence_path(self.path, self.layout, sequence, "voxels", f"{frame}.{suffix}")
            for suffix in ("label", "invalid")
        )


def sequence_path(root: Path, layout: Layout, sequence: str, folder: str, name: str) -> Path:
    """`root/<sequences>/<sequence>/<folder>/<name>`, kept inside the root. Raises InputError."""
    return safe_join(root, "/".join(part for part in (layout.sequences, sequence, folder, name) if part))


def open_layout(root: Path, layout: Layout) -> KittiRoot:
    """Enumerate a root's sequences, frames and splits; no voxel file is read. Raises InputError."""
    root = Path(root)
    folder = safe_join(root, layout.sequences)
    if not folder.is_dir():
        expected = f"a {layout.taxonomy} root, which holds {layout.sequences}/"
        raise InputError(root, expected, "none", f"give the folder above {layout.sequences}")
    names = [name for name in _listing(folder) if _SEQUENCE.fullmatch(name)]
    voxels = {name: sequence_path(root, layout, name, "voxels", "") for name in names}
    found = {name: _enumerate(path) for name, path in voxels.items() if path.is_dir()}
    sequences = {name: sequence for name, sequence in found.items() if sequence.frames}
    if not sequences:
        raise InputError(folder, "frames in */voxels/NNNNNN.{bin,label}", "none")
    grid, splits = _read_grid(root, layout), _read_splits(root, layout, sequences)
    return KittiRoot(root, layout, grid, _read_taxonomy(root, layout), sequences, splits)


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(folder, "a folder that can be listed", str(error)) from None


def _enumerate(voxels: Path) -> KittiSequence:
    found = [m for name in _listing(voxels) if (m := _FRAME.fullmatch(name))]
    labelled = frozenset(m[1] for m in found if m[2] == "label")
    return KittiSequence(tuple(sorted({m[1] for m in found})), labelled)


def _read_grid(root: Path, layout: Layout) -> VoxelGrid:
    path = safe_join(root, GRID_NAME)
    if not path.exists():
        return layout.grid
    table = read_json(path, "a voxel grid")
    try:
        x, y, z = (_integer(n) for n in table["shape"])
        ox, oy, oz = (float(v) for v in table["origin_m"])
        grid = VoxelGrid((x, y, z), float(table["voxel_size_m"]), (ox, oy, oz))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(path, "shape, voxel_size_m and origin_m of a grid", f"{error!r}") from None
    if x * y * z > LARGEST_GRID or not grid.voxel_size_m < 1e6 or np.abs(grid.origin_m).max() > 1e9:
        raise InputError(path, f"a grid of at most {LARGEST_GRID} voxels and sane lengths", f"{table}"[:200])
    return grid


def _read_taxonomy(root: Path, layout: Layout) -> Taxonomy:
    path = safe_join(root, TAXONOMY_NAME)
    return load_taxonomy(str(path) if path.exists() else layout.taxonomy)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no integer")
    return value


def _read_splits(root: Path, layout: Layout, sequences: Mapping[str, KittiSequence]) -> dict[str, tuple[str, ...]]:
    path = safe_join(root, SPLITS_NAME)
    if not path.exists():
        return {split: tuple(s for s in members if s in sequences) for split, members in layout.splits.items()}
    table = read_json(path, "splits")
    if not isinstance(table, dict) or not all(_is_names(members) for members in table.values()):
        raise InputError(path, "{split: [sequence, ...]}", f"{table!r}"[:200])
    listed = [name for members in table.values() for name in members]
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise InputError(path, "a sequence in one split only", f"{twice[0]!r} in two")
    absent = sorted(set(listed) - set(sequences))
    if absent:
        raise InputError(path, "sequences that lie on disk", f"{absent[0]!r}")
    return {split: tuple(members) for split, members in table.items()}


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def read_frame(root: KittiRoot, sequence: str, frame: str) -> Frame:
    """A frame's voxel files. Sequences without any .label (test) give frames without labels. Raises InputError."""
    known = _known_sequence(root, sequence)
    if frame not in known.frames:
        raise InputError(root.path, f"a frame of sequence {sequence}", repr(frame))
    if known.labelled and frame not in known.labelled:
        path = sequence_path(root.path, root.layout, sequence, "voxels", f"{frame}.label")
        raise InputError(path, "a label for every frame of a labelled sequence", "no such file")
    provenance = {"source": root.taxonomy.name, "split": root.split_of(sequence), "sequence": sequence, "frame": frame}
    empty = Frame(sequence, frame, root.grid, root.taxonomy, provenance=provenance)
    folder = f"{root.layout.sequences}/{sequence}/voxels"
    return read_voxels(root.path, folder, empty, labelled=bool(known.labelled), rules=root.layout.rules)


def _known_sequence(root: KittiRoot, sequence: str) -> KittiSequence:
    if sequence not in root.sequences:
        raise InputError(root.path, f"a sequence of {', '.join(root.sequences)}", repr(sequence))
    return root.sequences[sequence]


def write_frame(root: Path, layout: Layout, frame: Frame) -> list[str]:
    """Write a frame's voxel files; the paths written, relative to `root`. See `write_voxels`."""
    return write_voxels(root, f"{layout.sequences}/{frame.sequence}/voxels", frame, layout.rules)


def write_root_files(
    root: Path,
    layout: Layout,
    grid: VoxelGrid,
    splits: Mapping[str, Sequence[str]] | None = None,
    taxonomy: Taxonomy | None = None,
) -> list[str]:
    """Write grid.json and taxonomy.toml (unless they're the published ones) and splits.json (if given); the paths."""
    written = []
    if grid != layout.grid:
        table = {"shape": list(grid.shape), "voxel_size_m": grid.voxel_size_m, "origin_m": list(grid.origin_m)}
        write_json(root / GRID_NAME, table)
        written.append(GRID_NAME)
    if splits is not None:
        write_json(root / SPLITS_NAME, {name: list(members) for name, members in splits.items()})
        written.append(SPLITS_NAME)
    if taxonomy is not None and taxonomy != load_taxonomy(layout.taxonomy):
        write_atomic(root / TAXONOMY_NAME, taxonomy_toml(taxonomy))
        written.append(TAXONOMY_NAME)
    return written
