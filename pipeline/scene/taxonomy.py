"""Classes, colours, raw-id maps, published counts and the foreground set, read from data/taxonomies/*.toml.

Inside the project a label is a class id: 0 empty, 1..K-1 classes, 255 ignore. A format's own ids are *raw* ids and are
converted at its reader's door.
"""

from __future__ import annotations

import functools
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.files import data_path

EMPTY = 0
IGNORE = 255
_UNKNOWN = 254  # in the look-up table: a raw id the taxonomy does not name


@dataclass(frozen=True)
class Taxonomy:
    """A dataset's classes.

    classes: names by class id, the first one empty; plain: the same in plain words, for prompts; colors: RGB by class
    id; raw_ids: the raw id written for each class id; raw_to_class: (raw id, class id or 255) pairs; voxel_counts:
    published training counts by class id, () if none are; foreground: class ids of countable, thin or small things.
    """

    name: str
    classes: tuple[str, ...]
    plain: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    raw_ids: tuple[int, ...]
    raw_to_class: tuple[tuple[int, int], ...]
    voxel_counts: tuple[int, ...]
    foreground: frozenset[int]

    def id_of(self, name: str) -> int:
        """The class id of a name. Raises InputError."""
        if name not in self.classes:
            raise InputError(f"taxonomy {self.name}", f"one of {', '.join(self.classes)}", repr(name))
        return self.classes.index(name)

    def from_raw(self, raw: Integer[np.ndarray, "*n"], subject: str | Path) -> UInt8[np.ndarray, "*n"]:
        """Raw ids -> class ids; an unknown id raises InputError that names `subject` and the id."""
        lut = _lut(self)
        out_of_range = raw.size > 0 and (raw.min() < 0 or raw.max() >= lut.size)
        labels = lut.take(np.clip(raw, 0, lut.size - 1) if out_of_range else raw)  # twice as quick as lut[raw]
        unknown = (labels == _UNKNOWN) | (raw < 0) | (raw >= lut.size) if out_of_range else labels == _UNKNOWN
        if unknown.any():
            raise InputError(subject, f"raw ids of {self.name}", f"unknown raw id {int(raw[unknown].flat[0])}")
        return labels

    def to_raw(self, labels: UInt8[np.ndarray, "*n"], ignore_raw: int = 0) -> Integer[np.ndarray, "*n"]:
        """Class ids -> raw ids (uint16); 255 becomes `ignore_raw`."""
        lut = np.full(256, ignore_raw, np.uint16)
        lut[: len(self.raw_ids)] = self.raw_ids
        return lut.take(labels)

    def color_table(self) -> UInt8[np.ndarray, "256 3"]:
        """RGB by label, ignore and unused ids black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.colors)] = self.colors
        return table

    def is_foreground(self) -> Bool[np.ndarray, "256"]:
        """Look-up table of the foreground set by label."""
        table = np.zeros(256, bool)
        table[list(self.foreground)] = True
        return table


@functools.cache
def _lut(taxonomy: Taxonomy) -> UInt8[np.ndarray, "r"]:
    lut = np.full(max(raw for raw, _ in taxonomy.raw_to_class) + 1, _UNKNOWN, np.uint8)
    for raw, label in taxonomy.raw_to_class:
        lut[raw] = label
    return lut


@functools.cache
def load_taxonomy(name_or_path: str) -> Taxonomy:
    """A shipped taxonomy by name (semantic_kitti, carla_sc, occ3d, minecraft), or any .toml file of the same form."""
    is_file = name_or_path.endswith(".toml")
    path = Path(name_or_path) if is_file else data_path(f"taxonomies/{name_or_path}.toml")
    try:
        return parse_taxonomy(tomllib.loads(path.read_text()), path)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, "a taxonomy in TOML", str(error)) from None


def parse_taxonomy(table: dict[str, Any], subject: str | Path) -> Taxonomy:
    """A taxonomy from TOML: `name`, `ignore_raw`, and `[[class]]` rows.

    A row has name, color, raw (the raw ids read as that class) and may have plain, written (the raw id written back,
    default the first of raw), count and foreground.
    Raises InputError.
    """
    try:
        rows = table["class"]
        raw_pairs = [(int(raw), k) for k, row in enumerate(rows) for raw in row["raw"]]
        raw_pairs += [(int(raw), IGNORE) for raw in table.get("ignore_raw", [])]
        taxonomy = Taxonomy(
            name=str(table["name"]),
            classes=tuple(str(row["name"]) for row in rows),
            plain=tuple(str(row.get("plain", row["name"])) for row in rows),
            colors=tuple((int(r), int(g), int(b)) for r, g, b in (row["color"] for row in rows)),
            raw_ids=tuple(int(row.get("written", row["raw"][0])) for row in rows),
            raw_to_class=tuple(sorted(raw_pairs)),
            voxel_counts=tuple(int(row["count"]) for row in rows if "count" in row),
            foreground=frozenset(k for k, row in enumerate(rows) if row.get("foreground", False)),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(subject, "a name and [[class]] rows with name, color, raw", f"{error!r}") from None
    _check(taxonomy, subject)
    return taxonomy


def taxonomy_toml(taxonomy: Taxonomy) -> str:
    """A taxonomy as `parse_taxonomy` reads it back."""
    lines = [f"name = {_toml(taxonomy.name)}"]
    lines.append(f"ignore_raw = {_toml([raw for raw, label in taxonomy.raw_to_class if label == IGNORE])}")
    for label, name in enumerate(taxonomy.classes):
        raw = [raw for raw, own in taxonomy.raw_to_class if own == label]
        row: dict[str, object] = {
            "name": name,
            "plain": taxonomy.plain[label],
            "color": taxonomy.colors[label],
            "raw": raw,
        }
        row |= {"written": taxonomy.raw_ids[label], "foreground": label in taxonomy.foreground}
        row |= {"count": taxonomy.voxel_counts[label]} if taxonomy.voxel_counts else {}
        lines += ["", "[[class]]", *(f"{key} = {_toml(value)}" for key, value in row.items())]
    return "\n".join(lines) + "\n"


def short_form(taxonomy: Taxonomy) -> str:
    """A shipped taxonomy's name, or the TOML of any other one."""
    try:
        return taxonomy.name if load_taxonomy(taxonomy.name) == taxonomy else taxonomy_toml(taxonomy)
    except InputError:
        return taxonomy_toml(taxonomy)


def from_short_form(text: str) -> Taxonomy:
    """The taxonomy whose `short_form` is `text`."""
    return parse_taxonomy(tomllib.loads(text), "a taxonomy") if "\n" in text else load_taxonomy(text)


def _toml(value: object) -> str:
    """Text, whole numbers, truths and lists of them are written in TOML as in JSON."""
    return json.dumps(value, ensure_ascii=False)


def _check(taxonomy: Taxonomy, subject: str | Path) -> None:
    raws = [raw for raw, _ in taxonomy.raw_to_class]
    if not 2 <= len(taxonomy.classes) <= 254 or len(set(taxonomy.classes)) != len(taxonomy.classes):
        raise InputError(subject, "2 to 254 classes of different names", f"{len(taxonomy.classes)}")
    if len(set(raws)) != len(raws) or min(raws) < 0 or max(raws) > 0xFFFF:
        raise InputError(subject, "each raw id once, in 0..65535", f"{sorted(raws)}")
    if not all(0 <= c <= 255 for color in taxonomy.colors for c in color):
        raise InputError(subject, "RGB colours in 0..255", "a colour out of range")
    if len(taxonomy.voxel_counts) not in (0, len(taxonomy.classes)) or taxonomy.foreground & {EMPTY}:
        raise InputError(subject, "a count for every class or for none, and a solid foreground", "neither")
