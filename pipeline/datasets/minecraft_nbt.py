"""Houses as Minecraft structures (.nbt), which structure blocks and most editors load, written through nbtlib.

The game named blocks by number and data value until 1.12 and by name and properties since; minecraft_states.toml says
which is which, for every number. Files say that they are of 1.16.5, so that later games bring them up to date. Air is
left out: placing a house doesn't dig. What stood in containers, on signs and on banners isn't in 3D-Craft.
"""

from __future__ import annotations

import functools
import gzip
import importlib
import io
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pipeline.datasets.craft3d import House, schematic_of
from pipeline.scene.errors import InputError
from pipeline.scene.files import write_atomic

DATA_VERSION = 2586  # of Java Edition 1.16.5
HALVED = (64, 71, 175, 193, 194, 195, 196, 197)  # doors and tall plants, whose halves share what they say
State = tuple[str, tuple[tuple[str, str], ...]]  # a block's name and its properties, sorted


def write_structure(path: Path, house: House) -> None:
    """Write a structure; the same house gives the same bytes. Raises InputError on a number that is no block."""
    nbt = _library()
    array = joined_halves(schematic_of(house))  # y z x 2
    places = np.argwhere(array[..., 0])
    kinds, index = np.unique(array[tuple(places.T)], axis=0, return_inverse=True)
    palette = []
    for block, data in kinds.tolist():
        name, properties = state_of(block, data)
        entry = {"Name": nbt.String(name)}
        if properties:
            entry["Properties"] = nbt.Compound({key: nbt.String(value) for key, value in properties})
        palette.append(nbt.Compound(entry))
    blocks = [
        nbt.Compound({"state": nbt.Int(k), "pos": nbt.List[nbt.Int]([nbt.Int(x), nbt.Int(y), nbt.Int(z)])})
        for (y, z, x), k in zip(places.tolist(), index.ravel().tolist(), strict=True)
    ]
    height, depth, width = array.shape[:3]
    content: Any = {
        "DataVersion": nbt.Int(DATA_VERSION),
        "size": nbt.List[nbt.Int]([nbt.Int(width), nbt.Int(height), nbt.Int(depth)]),
        "palette": nbt.List[nbt.Compound](palette),
        "blocks": nbt.List[nbt.Compound](blocks),
        "entities": nbt.List[nbt.Compound]([]),
    }
    buffer = io.BytesIO()
    nbt.File(content).write(buffer)
    write_atomic(path, gzip.compress(buffer.getvalue(), mtime=0))


def joined_halves(array: UInt8[np.ndarray, "y z x 2"]) -> UInt8[np.ndarray, "y z x 2"]:
    """Blocks with the data of doors and tall plants told to both halves; see minecraft_states.toml for the bits."""
    block, data = array[..., 0], array[..., 1]
    halved = np.isin(block, HALVED)
    upper = halved & (data & 8 > 0)
    below, above = np.zeros_like(data), np.zeros_like(data)
    below[1:] = np.where((block[:-1] == block[1:]) & ~upper[:-1], data[:-1], 0)
    above[:-1] = np.where((block[:-1] == block[1:]) & upper[1:], data[1:], 0)
    low, high = np.where(upper, below, data), np.where(upper, data, above)
    told = (low & 7) | np.where(upper, 8, 0).astype(np.uint8) | ((high & 1) << 4)
    return np.stack([block, np.where(halved, told, data)], axis=-1)


@functools.cache
def state_of(block: int, data: int) -> State:
    """The state of a numbered block. Raises InputError."""
    lists, rows = _table()
    for row in rows:
        if block in row["ids"] and _fits(row, data):
            properties = dict(row.get("fixed", {}))
            for key, (values, shift, mask) in row.get("state", {}).items():
                properties[key] = _word(lists[values], data >> shift & mask)
            return f"minecraft:{_name(row, lists, block, data)}", tuple(sorted(properties.items()))
    raise InputError("Minecraft block", "a number of 1.12, 1 to 252", str(block))


def _fits(row: dict[str, Any], data: int) -> bool:
    mask, values = row.get("only", (0, [0]))
    return data & mask in values


def _name(row: dict[str, Any], lists: dict[str, list[str]], block: int, data: int) -> str:
    kind = row["ids"].index(block) if row.get("by") == "id" else data >> row.get("shift", 0) & row.get("mask", 15)
    if "names" in row:
        return _word(row["names"], kind)
    return str(row["name"]).format(_word(lists[row["of"]], kind)) if "of" in row else str(row["name"])


def _word(words: list[str], index: int) -> str:
    return words[min(index, len(words) - 1)]


def _library() -> Any:
    try:
        return importlib.import_module("nbtlib")
    except ImportError:
        raise InputError("Minecraft structures", "the library nbtlib", "none", "pip install nbtlib") from None


@functools.cache
def _table() -> tuple[dict[str, list[str]], list[dict[str, Any]]]:
    table = tomllib.loads((Path(__file__).parent / "minecraft_states.toml").read_text(encoding="utf-8"))
    return table["lists"], table["block"]
