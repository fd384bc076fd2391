"""3D-Craft houses: placed.json (how a house was built) and schematic.npy (how it ended), read and written.

    ROOT/houses/<workdir>/{placed.json, schematic.npy, stats.json}    ROOT/splits.json {split: [workdir, ...]}

The published splits have 1760, 252 and 503 houses; those that lie on disk are listed. A folder of bare schematics,
ROOT/*.npy, is read as a root too, without splits. stats.json is written for people; nothing is read from it.

Minecraft's axes are x east, y up, z south: right-handed. Ours are X forward, Y left, Z up, right-handed as well:
X = x, Y = -z, Z = y. So schematic.npy, uint8 (y, z, x, 2) of (block id, meta), becomes blocks (X, Y, Z) by
transposing and reversing z. One voxel is one block, a cube of 1 m.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pipeline.datasets.checked_files import read_bounded, read_json
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join, write_atomic, write_json
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import Taxonomy, load_taxonomy

LARGEST_EDGE = 512  # blocks; a published house has at most some hundred
LARGEST_HOUSE = 1 << 24  # blocks in the box
LARGEST_PLACED = 1 << 24  # bytes of placed.json
LARGEST_HEADER = 4096  # bytes of a .npy header
_ITEM = r" *'(\w+)' *: *('[^']{1,40}'|True|False|\((?:\d{1,9}L?, ?)*(?:\d{1,9}L?)?\)) *"
_HEADER = re.compile(rf"\{{{_ITEM},{_ITEM},{_ITEM},? *\}} *\n?", re.ASCII)


@dataclass(frozen=True, eq=False)
class House:
    """blocks, meta: a block's id (0 = air) and data value, (X, Y, Z) in our axes."""

    name: str
    blocks: UInt8[np.ndarray, "x y z"]
    meta: UInt8[np.ndarray, "x y z"]

    @property
    def occupied(self) -> int:
        """How many blocks aren't air."""
        return int(np.count_nonzero(self.blocks))

    def fits(self, edge: int = 32, blocks: int = 1024) -> bool:
        """Whether its box, air included, fits a cube of `edge` and it has at most `blocks` (Scaffold Diffusion)."""
        return max(self.blocks.shape) <= edge and self.occupied <= blocks

    def cropped(self) -> House:
        """The house without layers of air around it; a house of air alone stays as it is."""
        places = np.argwhere(self.blocks)
        if not len(places):
            return self
        box = tuple(slice(low, high + 1) for low, high in zip(places.min(axis=0), places.max(axis=0), strict=True))
        return House(self.name, np.ascontiguousarray(self.blocks[box]), np.ascontiguousarray(self.meta[box]))

    def scene(self) -> Scene:
        """The house as a Scene of 1 m voxels, its lowest corner in the origin. Raises InputError on an unknown id."""
        taxonomy = load_taxonomy("minecraft")
        labels = taxonomy.from_raw(self.blocks, self.name)
        x, y, z = self.blocks.shape
        return Scene(
            labels, VoxelGrid((x, y, z), 1.0, (0.0, 0.0, 0.0)), taxonomy, {"source": "3d-craft", "house": self.name}
        )


@dataclass(frozen=True, eq=False)
class CraftRoot:
    """A dataset on disk: house names by split ("all" without splits.json). bare: a folder of .npy schematics."""

    path: Path
    splits: Mapping[str, tuple[str, ...]]
    bare: bool = False

    @property
    def taxonomy(self) -> Taxonomy:
        return load_taxonomy("minecraft")

    def frames(self, split: str) -> tuple[tuple[str, str], ...]:
        """(house, file) of a split's houses. Raises InputError on an unknown split."""
        if split not in self.splits:
            raise InputError(self.path, f"a split of {', '.join(self.splits)}", repr(split))
        return tuple((name, self._file(name).name) for name in self.splits[split])

    def label_files(self, sequence: str, frame: str) -> tuple[Path, ...]:
        """The file that a house comes from."""
        return (self._file(sequence),)

    def scene(self, sequence: str, frame: str) -> Scene:
        """A finished house as a Scene. Raises InputError."""
        return self.house(sequence).scene()

    def _file(self, name: str) -> Path:
        if self.bare:
            return safe_join(self.path, f"{name}.npy")
        schematic = safe_join(self.path, f"houses/{name}/schematic.npy")
        return schematic if schematic.exists() else safe_join(self.path, f"houses/{name}/placed.json")

    def house(self, name: str) -> House:
        """A finished house, from schematic.npy, or replayed from placed.json where there is none. Raises InputError."""
        path = self._file(name)
        return read_schematic(path) if path.suffix == ".npy" else replay(read_placed(path), name)


def house_of(scene: Scene, name: str) -> House:
    """A scene of Minecraft's taxonomy as blocks with data 0; what isn't known becomes air."""
    blocks = scene.taxonomy.to_raw(np.where(scene.valid, scene.labels, 0).astype(np.uint8)).astype(np.uint8)
    return House(name, blocks, np.zeros_like(blocks))


def open_craft3d(root: Path) -> CraftRoot:
    """Enumerate a root's houses and splits, or a folder of bare schematics; no house is read. Raises InputError."""
    root = Path(root)
    found = _house_names(root)
    if found:
        return CraftRoot(root, _read_splits(root, found))
    bare = tuple(sorted(path.stem for path in root.glob("*.npy")))
    if not bare:
        expected = "a 3D-Craft root, which holds houses/*/schematic.npy or placed.json, or a folder of .npy files"
        raise InputError(root, expected, "none")
    return CraftRoot(root, {"all": bare}, bare=True)


def _house_names(root: Path) -> tuple[str, ...]:
    folder = safe_join(root, "houses")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    files = ("schematic.npy", "placed.json")
    return tuple(name for name in names if any(safe_join(root, f"houses/{name}/{file}").is_file() for file in files))


def _read_splits(root: Path, found: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    path = safe_join(root, "splits.json")
    if not path.exists():
        return {"all": found}
    table = read_json(path, "3D-Craft's splits")
    if not isinstance(table, dict) or not all(_is_names(members) for members in table.values()):
        raise InputError(path, "{split: [house, ...]}", f"{table!r}"[:200])
    twice = [name for name, times in Counter(chain(*table.values())).items() if times > 1]
    if twice:
        raise InputError(path, "each house once, in one split", f"{twice[0]!r} again")
    on_disk = set(found)
    return {split: tuple(name for name in members if name in on_disk) for split, members in table.items()}


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def read_schematic(path: Path) -> House:
    """schematic.npy, or any .npy of that form. The header is checked before the array is made. Raises InputError."""
    content = read_bounded(path, "a schematic .npy", 2 * LARGEST_HOUSE + 4096)
    shape, start = _header(content, path)
    if not all(1 <= n <= LARGEST_EDGE for n in shape[:3]) or math.prod(shape[:3]) > LARGEST_HOUSE:
        raise InputError(path, f"edges of 1 to {LARGEST_EDGE} and at most {LARGEST_HOUSE} blocks", f"{shape[:3]}")
    if len(content) - start != math.prod(shape):
        raise InputError(path, f"{math.prod(shape)} bytes of blocks", f"{len(content) - start}")
    array = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    return House(path.parent.name if path.name == "schematic.npy" else path.stem, *_ours(array))


def _header(content: bytes, path: Path) -> tuple[tuple[int, ...], int]:
    """Shape, and where the blocks start. numpy's parser evaluates it as Python, warns or fails oddly."""
    if content[:6] != b"\x93NUMPY" or len(content) < 12 or content[6] not in (1, 2, 3):
        raise InputError(path, "a .npy file", f"one that starts with {content[:8]!r}")
    start = 8 + (2 if content[6] == 1 else 4)
    end = start + int.from_bytes(content[8:start], "little")
    found = (
        _HEADER.fullmatch(content[start:end].decode("latin-1")) if end <= min(len(content), LARGEST_HEADER) else None
    )
    table = dict(zip(found.groups()[::2], found.groups()[1::2], strict=True)) if found else {}
    if set(table) != {"descr", "fortran_order", "shape"} or table["fortran_order"] not in ("True", "False"):
        raise InputError(path, "a .npy header", f"{content[start : start + 60]!r}")
    order = "Fortran order" if table["fortran_order"] == "True" else "C order"
    shape = tuple(int(n) for n in re.findall(r"\d+", table["shape"]))
    if table["descr"] not in ("'|u1'", "'<u1'") or order != "C order" or len(shape) != 4 or shape[3] != 2:
        found_text = f"{table['descr'][1:-1]} {shape} in {order}"
        raise InputError(path, "uint8 in C order, of shape (y, z, x, 2)", found_text)
    return shape, end


def _ours(array: UInt8[np.ndarray, "y z x 2"]) -> tuple[UInt8[np.ndarray, "x y z"], UInt8[np.ndarray, "x y z"]]:
    turned = array.transpose(2, 1, 0, 3)[:, ::-1]  # (x, -z, y, 2)
    return np.ascontiguousarray(turned[..., 0]), np.ascontiguousarray(turned[..., 1])


def schematic_of(house: House) -> UInt8[np.ndarray, "y z x 2"]:
    """The array that schematic.npy holds."""
    ours = np.stack([house.blocks, house.meta], axis=-1)
    return np.ascontiguousarray(ours[:, ::-1].transpose(2, 1, 0, 3))


def write_schematic(path: Path, house: House) -> None:
    """Write schematic.npy; the same house gives the same bytes."""
    buffer = io.BytesIO()
    np.save(buffer, schematic_of(house), allow_pickle=False)
    write_atomic(path, buffer.getvalue())


@dataclass(frozen=True)
class Action:
    """One step of a builder: at `position` (x, y, z in Minecraft's axes) a block is placed, or broken."""

    tick: int
    builder: str | int
    position: tuple[int, int, int]
    block: int  # id 0..255
    meta: int
    placed: bool


def read_placed(path: Path) -> list[Action]:
    """placed.json: rows [tick, builder, [x, y, z], [id, meta], "P" | "B"]; negative ids are signed bytes.

    Raises InputError with the row.
    """
    rows = read_json(path, "a list of actions", LARGEST_PLACED)
    if not isinstance(rows, list):
        raise InputError(path, "a list of actions", type(rows).__name__)
    return [_action(row, f"{path} row {number}") for number, row in enumerate(rows)]


def _action(row: Any, subject: str) -> Action:
    try:
        tick, builder, (x, y, z), (block, meta), kind = row
        numbers = (tick, x, y, z, block, meta)
        if kind not in ("P", "B") or not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
            raise TypeError
        if not isinstance(builder, str | int):
            raise TypeError
    except (TypeError, ValueError):
        raise InputError(subject, '[tick, builder, [x, y, z], [id, meta], "P" or "B"]', f"{row!r}"[:100]) from None
    if not (-128 <= block <= 255 and -128 <= meta <= 255 and max(map(abs, (x, y, z))) < 1 << 31):
        raise InputError(subject, "an id and a meta of a byte, and coordinates of 32 bits", f"{row!r}"[:100])
    return Action(tick, builder, (x, y, z), block & 0xFF, meta & 0xFF, kind == "P")


def write_placed(path: Path, actions: Iterable[Action]) -> None:
    """Write placed.json."""
    rows = [[a.tick, a.builder, list(a.position), [a.block, a.meta], "P" if a.placed else "B"] for a in actions]
    write_json(path, rows)


def replay(actions: Iterable[Action], name: str) -> House:
    """The house that stands after all actions, cut to its blocks; "B" and placing air remove. Raises InputError.

    Actions are taken by tick, those of one tick in their order.
    """
    standing: dict[tuple[int, int, int], tuple[int, int]] = {}
    for action in sorted(actions, key=lambda a: a.tick):
        if action.placed and action.block:
            standing[action.position] = (action.block, action.meta)
        else:
            standing.pop(action.position, None)
    if not standing:
        raise InputError(name, "a house that stands at the end", "no block")
    places = np.array(list(standing))  # (n, 3): x y z
    low = places.min(axis=0)
    x, y, z = (int(n) for n in places.max(axis=0) - low + 1)
    if max(x, y, z) > LARGEST_EDGE or x * y * z > LARGEST_HOUSE:
        raise InputError(name, f"edges of at most {LARGEST_EDGE}, {LARGEST_HOUSE} blocks in all", f"{x} x {y} x {z}")
    array = np.zeros((y, z, x, 2), np.uint8)
    at = places - low
    array[at[:, 1], at[:, 2], at[:, 0]] = np.array(list(standing.values()), np.uint8)
    return House(name, *_ours(array))


def write_house(root: Path, house: House, actions: Iterable[Action] = ()) -> list[str]:
    """Write houses/<name>/{schematic.npy, stats.json} and, if there are actions, placed.json; the paths written."""
    folder = f"houses/{house.name}"
    write_schematic(safe_join(root, f"{folder}/schematic.npy"), house)
    write_json(safe_join(root, f"{folder}/stats.json"), {"blocks": house.occupied, "shape": list(house.blocks.shape)})
    written = [f"{folder}/schematic.npy", f"{folder}/stats.json"]
    actions = list(actions)
    if actions:
        written.append(f"{folder}/placed.json")
        write_placed(safe_join(root, written[-1]), actions)
    return written


def write_splits(root: Path, splits: Mapping[str, tuple[str, ...]]) -> str:
    """Write splits.json; the path written."""
    write_json(safe_join(root, "splits.json"), {name: list(members) for name, members in splits.items()})
    return "splits.json"
