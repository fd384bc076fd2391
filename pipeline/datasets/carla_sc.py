"""CarlaSC's cartesian layout, read and written, at both resolutions.

    ROOT/{Train,Val,Test}/TownXX_{Heavy,Medium,Light}/cartesian/
        evaluation/       NNNNNN.label  uint32, raw CARLA tags
                          NNNNNN.bin    float32 hits, 0 = invalid
                          params.json   grid_size, min_bound, max_bound
        evaluation_fine/  NNNNNN.label  uint8, raw CARLA tags

C order over (x, y, z); 128x128x8 and 256x256x16. A voxel without a hit is invalid (255); the fine labels have no hits,
so there everything is valid. The fine download holds evaluation_fine alone: without params.json its box is the
published one.

CARLA is left-handed, and its points were binned as they came (the public generator negates nothing): the files' y
grows to the right. Ours grows to the left, so the y axis is reversed here, in reading and in writing. Deviation:
published cells are 0.4 x 0.4 x 0.375 m, while a VoxelGrid has cubes; the grid has the horizontal size and the true
lower corner, `bounds_m` keeps the true box.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from pipeline.datasets.checked_files import read_exact, read_json
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join, write_atomic, write_json
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, Taxonomy, load_taxonomy

Folder = Literal["evaluation", "evaluation_fine"]
Bounds = tuple[tuple[float, float, float], tuple[float, float, float]]
SPLITS: Mapping[str, str] = {"train": "Train", "val": "Val", "test": "Test"}
PUBLISHED_SHAPE = (128, 128, 8)
PUBLISHED_BOUNDS_M: Bounds = ((-25.6, -25.6, -2.0), (25.6, 25.6, 1.0))
PUBLISHED_CHANNELS = 25  # counters a voxel that the generator had; loaders read the field
LARGEST_GRID = 1 << 24  # voxels; the fine grid has 2^20
_LABEL_TYPE: Mapping[Folder, str] = {"evaluation": "<u4", "evaluation_fine": "<u1"}
_FRAME = re.compile(r"(\d{1,10})\.label", re.ASCII)


@dataclass(frozen=True, eq=False)
class CarlaRoot:
    """A dataset on disk at one resolution: (split, frames) by sequence; bounds_m: the true corners, in our axes."""

    path: Path
    folder: Folder
    grid: VoxelGrid
    bounds_m: Bounds
    taxonomy: Taxonomy
    sequences: Mapping[str, tuple[str, tuple[str, ...]]]

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Sequence names by split."""
        return {name: tuple(s for s, (split, _) in self.sequences.items() if split == name) for name in SPLITS}

    def frames(self, split: str) -> tuple[tuple[str, str], ...]:
        """(sequence, frame) of a split in order. Raises InputError on an unknown split."""
        if split not in SPLITS:
            raise InputError(self.path, f"a split of {', '.join(SPLITS)}", repr(split))
        return tuple((s, f) for s, (name, frames) in self.sequences.items() if name == split for f in frames)

    def label_files(self, sequence: str, frame: str) -> tuple[Path, ...]:
        """The files that a frame's labels come from."""
        kinds = ("label", "bin") if self.folder == "evaluation" else ("label",)
        return tuple(
            _file(self.path, self.sequences[sequence][0], sequence, self.folder, f"{frame}.{k}") for k in kinds
        )

    def scene(self, sequence: str, frame: str) -> Scene:
        """A frame as a Scene. Raises InputError."""
        if sequence not in self.sequences or frame not in self.sequences[sequence][1]:
            raise InputError(self.path, "a frame of the dataset", f"{sequence}/{frame}")
        files = self.label_files(sequence, frame)
        count, kind = prod(self.grid.shape), np.dtype(_LABEL_TYPE[self.folder])
        raw = np.frombuffer(read_exact(files[0], f"{kind.name} labels", count * kind.itemsize), kind)
        labels = self.taxonomy.from_raw(raw, files[0])
        if self.folder == "evaluation":
            hits = np.frombuffer(read_exact(files[1], "float32 hit counts", 4 * count), "<f4")
            if not (np.isfinite(hits).all() and (hits >= 0).all()):
                raise InputError(files[1], "finite hit counts >= 0", "another")
            labels = np.where(hits == 0, np.uint8(IGNORE), labels)
        split = self.sequences[sequence][0]
        provenance = {"source": "carla_sc", "split": split, "sequence": sequence, "frame": frame}
        turned = np.ascontiguousarray(labels.reshape(self.grid.shape)[:, ::-1])  # y to the left
        return Scene(turned, self.grid, self.taxonomy, provenance)


def _file(root: Path, split: str, sequence: str, folder: str, name: str) -> Path:
    return safe_join(root, "/".join(part for part in (SPLITS[split], sequence, "cartesian", folder, name) if part))


def open_carla_sc(root: Path, folder: Folder | None = None) -> CarlaRoot:
    """Enumerate a root's sequences and frames; every sequence must have the same params.json. Raises InputError.

    folder: which resolution; unless given the coarse one where there are such labels, else the fine one.
    """
    root = Path(root)
    folder = folder or _present(root)
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    boxes = set()
    for split, upper in SPLITS.items():
        for name in _listing(safe_join(root, upper)):
            frames = sorted(m[1] for f in _listing(_file(root, split, name, folder, "")) if (m := _FRAME.fullmatch(f)))
            if frames and name in found:
                raise InputError(root, "a sequence in one split only", f"{name} in {found[name][0]} and {split}")
            if frames:
                found[name] = (split, tuple(frames))
                boxes.add(_box(root, split, name, folder))
    if not found:
        expected = f"a CarlaSC root, which holds Train/*/cartesian/{folder}/NNNNNN.label"
        raise InputError(root, expected, "none", "give the folder above Train, Val and Test")
    if len(boxes) > 1:
        raise InputError(root, "the same params.json in every sequence", f"{len(boxes)} different ones")
    shape, bounds = boxes.pop()
    return CarlaRoot(root, folder, _grid(root, shape, bounds), bounds, load_taxonomy("carla_sc"), found)


def _present(root: Path) -> Folder:
    labels = {kind: root.glob(f"*/*/cartesian/{kind}/*.label") for kind in _LABEL_TYPE}
    found = {k for k, paths in labels.items() if any(p.parts[-5] in SPLITS.values() for p in paths)}
    return "evaluation_fine" if found == {"evaluation_fine"} else "evaluation"


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        raise InputError(folder, "a folder that can be listed", str(error)) from None


def _box(root: Path, split: str, name: str, folder: Folder) -> tuple[tuple[int, int, int], Bounds]:
    """A sequence's shape and bounds; the fine labels' from their own params.json, else twice the coarse ones' shape."""
    own, coarse = (_file(root, split, name, place, "params.json") for place in (folder, "evaluation"))
    if own.exists() or folder == "evaluation":
        return _read_params(own)
    (x, y, z), bounds = _read_params(coarse) if coarse.exists() else (PUBLISHED_SHAPE, PUBLISHED_BOUNDS_M)
    return (2 * x, 2 * y, 2 * z), bounds


def _read_params(path: Path) -> tuple[tuple[int, int, int], Bounds]:
    table = read_json(path, "CarlaSC's params")
    try:
        x, y, z = (int(n) for n in table["grid_size"])  # published as 128.0
        x0, y0, z0 = (_metres(v) for v in table["min_bound"])
        x1, y1, z1 = (_metres(v) for v in table["max_bound"])
        coordinates = table.get("coordinates", "cartesian")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(path, "grid_size, min_bound and max_bound of three numbers", f"{error!r}"[:200]) from None
    if coordinates != "cartesian":
        raise InputError(path, "cartesian coordinates", f"{coordinates!r}"[:100])
    if not (min(x, y, z) >= 1 and x * y * z * 8 <= LARGEST_GRID and x0 < x1 and y0 < y1 and z0 < z1):
        raise InputError(path, f"a grid of at most {LARGEST_GRID // 8} voxels in a box", f"{table}"[:200])
    return (x, y, z), ((x0, -y1, z0), (x1, -y0, z1))


def _metres(value: object) -> float:
    """A coordinate to the micrometre: the published ones are float32 in decimals, -25.600000381469727."""
    number = float(value)  # type: ignore[arg-type]
    if not abs(number) < 1e6:
        raise ValueError(f"{number} is no coordinate")
    return round(number, 6)


def _grid(root: Path, shape: tuple[int, int, int], bounds: Bounds) -> VoxelGrid:
    size = (np.array(bounds[1]) - bounds[0]) / shape
    if size.max() > 1.1 * size.min():
        raise InputError(root, "voxels that are nearly cubes", f"{size.round(4).tolist()} m")
    return VoxelGrid(shape, round(float(size[0]), 9), bounds[0])


def write_carla_frame(
    root: Path, split: str, sequence: str, frame: str, scene: Scene, hits: Float32[np.ndarray, "x y z"] | None = None
) -> list[str]:
    """Write evaluation/<frame>.label and .bin; the paths written, relative to ROOT.

    hits: counts a voxel; without them 1 where the scene is valid, 0 where it isn't. Raises InputError unless the
    hits say what the labels say.
    """
    counts = scene.valid.astype(np.float32) if hits is None else hits.astype(np.float32)
    if counts.shape != scene.labels.shape or not np.array_equal(counts > 0, scene.valid):
        raise InputError(f"{sequence}/{frame}", "hits where the labels are valid and nowhere else", "others")
    files = [_file(root, split, sequence, "evaluation", f"{frame}.{kind}") for kind in ("label", "bin")]
    write_atomic(files[0], scene.taxonomy.to_raw(scene.labels)[:, ::-1].astype("<u4").tobytes())
    write_atomic(files[1], counts[:, ::-1].astype("<f4").tobytes())
    return [path.relative_to(root).as_posix() for path in files]


def write_carla_fine_frame(root: Path, split: str, sequence: str, frame: str, scene: Scene) -> list[str]:
    """Write evaluation_fine/<frame>.label, which has no place for invalid voxels: InputError if there are any."""
    if not scene.valid.all():
        raise InputError(f"{sequence}/{frame}", "valid voxels only, as fine labels have no mask", "ignored ones")
    path = _file(root, split, sequence, "evaluation_fine", f"{frame}.label")
    write_atomic(path, scene.taxonomy.to_raw(scene.labels)[:, ::-1].astype("<u1").tobytes())
    return [path.relative_to(root).as_posix()]


def write_carla_params(
    root: Path,
    split: str,
    sequence: str,
    shape: tuple[int, int, int] = PUBLISHED_SHAPE,
    bounds_m: Bounds = PUBLISHED_BOUNDS_M,
) -> str:
    """Write a sequence's evaluation/params.json from a box in our axes; the path written, relative to ROOT."""
    (x0, y0, z0), (x1, y1, z1) = bounds_m
    table = {
        "coordinates": "cartesian",
        "num_channels": PUBLISHED_CHANNELS,
        "grid_size": list(shape),
        "min_bound": [x0, -y1, z0],
        "max_bound": [x1, -y0, z1],
    }
    path = _file(root, split, sequence, "evaluation", "params.json")
    write_json(path, table)
    return path.relative_to(root).as_posix()
