"""Scenes by path, as people name them: a dataset's root, a 3D-Craft house's folder, one .npy or one .label file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.scene_sets import Key, folder_set, opened, split_set
from pipeline.datasets.craft3d import CraftRoot, House, house_of, read_placed, read_schematic, replay
from pipeline.datasets.semantic_kitti import open_root
from pipeline.datasets.voxel_files import read_raw_labels
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, DEFAULT_GRID, SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import Taxonomy, load_taxonomy

LABEL_BYTES = {2 * int(np.prod(grid.shape)): grid for grid in (SEMANTIC_KITTI_GRID, DEFAULT_GRID, COMPARISON_GRID)}
KINDS = "a dataset's root, a house's folder with schematic.npy or placed.json, a .npy schematic or a .label file"


@dataclass(frozen=True, eq=False)
class Named:
    """A scene and what to call it; root and key where it is a dataset's frame."""

    name: str
    scene: Scene
    root: Path | None = None
    key: Key | None = None


def named_frames(root: Path, keys: tuple[Key, ...]) -> list[Named]:
    """Frames of a root by (sequence, frame). Raises InputError."""
    dataset = opened(root)
    return [Named(_title(dataset, key), dataset.scene(*key), root, key) for key in keys]


def _title(dataset: object, key: Key) -> str:
    return key[0] if isinstance(dataset, CraftRoot) else "/".join(key)


def chosen_keys(root: Path, split: str | None, count: int, first: bool = False) -> tuple[Key, ...]:
    """So many labelled frames of a split (None: of all splits), evenly spread or the first ones. Raises InputError."""
    keys = (split_set(root, split) if split else folder_set(root)).keys
    if first or count >= len(keys):
        return keys[:count]
    return tuple(keys[i] for i in np.linspace(0, len(keys) - 1, count).round().astype(int))


def key_of(root: Path, text: str) -> Key:
    """The key of SEQUENCE/FRAME, or of a house's name. Raises InputError."""
    dataset = opened(root)
    for split in dataset.splits:
        for key in dataset.frames(split):
            if text in ("/".join(key), _title(dataset, key)):
                return key
    raise InputError(root, "a labelled frame, as SEQUENCE/FRAME, or a house's name", repr(text))


def is_single(path: Path) -> bool:
    """Whether a path is one scene: a file, or a house's folder."""
    return Path(path).is_file() or _house_file(path) is not None


def one_scene(path: Path, frame: str | None = None, like: Path | None = None) -> Named:
    """The scene of a file or house's folder, or of a root the frame so called. Raises InputError."""
    if is_single(path):
        return single_scene(path, like)
    return named_frames(path, (_one_key(path, frame),))[0]


def one_house(path: Path, frame: str | None = None) -> House:
    """The same as blocks with their data; a scene of a generator has no data but 0. Raises InputError."""
    if is_single(path) and path.suffix != ".label":
        return single_house(path)
    if not is_single(path) and isinstance(dataset := opened(path), CraftRoot):
        return dataset.house(_one_key(path, frame)[0])
    found = one_scene(path, frame)
    if found.scene.taxonomy.name != "minecraft":
        raise InputError(path, "a scene of Minecraft's blocks", f"one of {found.scene.taxonomy.name}")
    return house_of(found.scene, found.name.replace("/", "_"))


def _one_key(root: Path, frame: str | None) -> Key:
    if frame is not None:
        return key_of(root, frame)
    keys = chosen_keys(root, None, 2)
    if len(keys) > 1:
        raise InputError(root, "one scene", "several", "name one with --frame")
    return keys[0]


def single_scene(path: Path, like: Path | None = None) -> Named:
    """The one scene of a file or a house's folder; `like`: a root on whose grid a .label lies. Raises InputError."""
    if Path(path).suffix == ".label":
        return _label_file(Path(path), like)
    house = single_house(path)
    return Named(house.name, house.scene())


def single_house(path: Path) -> House:
    """A house from its folder or a .npy schematic. Raises InputError."""
    file = _house_file(path) or Path(path)
    name = file.stem if file.stem not in ("schematic", "placed") else file.resolve().parent.name
    if file.name == "placed.json":
        return replay(read_placed(file), name)
    if file.suffix != ".npy":
        raise InputError(path, KINDS, "another file" if file.is_file() else "nothing of these")
    house = read_schematic(file)
    return House(name, house.blocks, house.meta)


def _house_file(path: Path) -> Path | None:
    files = (Path(path) / name for name in ("schematic.npy", "placed.json"))
    return next((file for file in files if file.is_file()), None)


def _label_file(path: Path, like: Path | None) -> Named:
    """A frame of the root that it lies in, with its invalid voxels, or a file of its own, without."""
    parts = path.resolve().parts
    if like is None and len(parts) > 5 and parts[-4] == "sequences" and parts[-2] == "voxels":
        root, key = path.resolve().parents[3], (parts[-3], path.stem)
        return Named("/".join(key), open_root(root).scene(*key), root, key)
    grid, taxonomy = _grid_of(path, like)
    labels = taxonomy.from_raw(read_raw_labels(path, grid), path)
    return Named(path.stem, Scene(labels, grid, taxonomy, {"source": path.name}))


def _grid_of(path: Path, like: Path | None) -> tuple[VoxelGrid, Taxonomy]:
    if like is not None:
        dataset = opened(like)
        (key,) = chosen_keys(like, None, 1)
        return dataset.scene(*key).grid, dataset.taxonomy
    size = path.stat().st_size if path.is_file() else 0
    if size not in LABEL_BYTES:
        expected = "a .label file on a grid of " + ", ".join("x".join(map(str, g.shape)) for g in LABEL_BYTES.values())
        raise InputError(path, expected, f"{size} bytes", "name a root on its grid with --like")
    return LABEL_BYTES[size], load_taxonomy("semantic_kitti")
