"""`occfactory edit-houses`: houses finished from a half, recoloured on their own map, or made anew inside a box.

What is kept is kept exactly, and what is generated is conditioned on it. Air is kept like any block: where a house may
grow or not is asked of the generator's own maps, unless the house's own map is to stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, UInt8

from flows.edit import bar, chunks
from flows.generators import as_house, fitting
from flows.scene_paths import chosen_keys, key_of, named_frames
from pipeline.datasets.craft3d import write_house, write_splits
from pipeline.generators.protocol import Known
from pipeline.generators.scaffold import Scaffold
from pipeline.generators.tokens import placed
from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_folder, require_empty, write_json
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import EMPTY, IGNORE

Side = Literal["lower", "upper", "front", "back", "left", "right"]  # front is -X, left +Y
_SIDES: dict[str, tuple[int, bool]] = {  # axis, and whether the lower half along it is kept
    "lower": (2, True),
    "upper": (2, False),
    "front": (0, True),
    "back": (0, False),
    "right": (1, True),
    "left": (1, False),
}
Labels = UInt8[np.ndarray, "x y z"]


@dataclass(frozen=True)
class HouseEdit:
    """What is made anew: all but a half (`keep`), every block's class (`recolour`), or what lies in a box of blocks.

    box: (x0, y0, z0, x1, y1, z1), half open, from the lowest corner of the house's own box. own_map: blocks stay where
    they are and get new classes. only: names of classes that new blocks may take; () for any.
    """

    keep: Side | None = None
    recolour: bool = False
    box: tuple[int, int, int, int, int, int] | None = None
    own_map: bool = False
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.keep is not None) + self.recolour + (self.box is not None) != 1:
            raise InputError("edit-houses", "one of --keep, --recolour and --box", "none or several of them")
        if self.keep is not None and self.keep not in get_args(Side):
            raise InputError("--keep", f"one of {', '.join(get_args(Side))}", repr(self.keep))

    @property
    def fixed_map(self) -> bool:
        """Whether blocks stay where they are."""
        return self.own_map or self.recolour

    def region(self, labels: Labels) -> Bool[np.ndarray, "x y z"]:
        """What is made anew of a house that lies in a generator's grid. Raises InputError."""
        places = np.argwhere(labels != EMPTY)
        low, high = places.min(0), places.max(0) + 1
        region = np.ones(labels.shape, bool)
        if self.keep is not None:
            axis, lower = _SIDES[self.keep]
            middle = int(low[axis] + -(-(high[axis] - low[axis]) // 2))
            kept = [slice(None)] * 3
            kept[axis] = slice(None, middle) if lower else slice(middle, None)
            region[tuple(kept)] = False
        elif self.box is not None:
            first, end = low + self.box[:3], low + self.box[3:]
            if (first < 0).any() or (end <= first).any() or (end > labels.shape).any():
                found = ",".join(map(str, self.box))
                raise InputError("--box", f"x0,y0,z0,x1,y1,z1 in a grid of {labels.shape} from {low.tolist()}", found)
            region[:] = False
            region[tuple(slice(a, b) for a, b in zip(first, end, strict=True))] = True
        return region

    def known(self, scene: Scene, generator: Scaffold) -> Known:
        """What is kept of a house. Raises InputError."""
        labels = placed(scene, generator.grid)
        region = self.region(labels)
        if self.fixed_map:
            region &= labels != EMPTY
        allowed = tuple(generator.taxonomy.id_of(name) for name in self.only) or None
        return Known(np.where(region, np.uint8(IGNORE), labels), allowed)


@dataclass(frozen=True)
class Chosen:
    """Which houses of a root: one of them, as `count` variants, or the first `count` of a split that fit."""

    root: Path
    house: str | None = None
    split: str | None = None
    count: int = 8

    def scenes(self, generator: Scaffold) -> list[tuple[str, Scene]]:
        """(name, house). Raises InputError."""
        if self.house is not None:
            (named,) = named_frames(self.root, (key_of(self.root, self.house),))
            return [(f"{named.name}_{k:02d}", named.scene) for k in range(self.count)]
        keys = chosen_keys(self.root, self.split, 1 << 30)
        return list(_first(self.root, keys, generator, self.count))


def _first(root: Path, keys: tuple[Any, ...], generator: Scaffold, count: int) -> Iterator[tuple[str, Scene]]:
    for key in keys:
        (named,) = named_frames(root, (key,))
        if count and list(fitting([named.scene], generator.grid)):
            count -= 1
            yield named.name, named.scene


def edit_houses(
    generator: Scaffold, chosen: Chosen, edit: HouseEdit, seed: int, out: Path, quiet: bool = True
) -> dict[str, float]:
    """Write edited houses as a 3D-Craft root with edit.json; how many, and how much of them is new. Raises InputError.

    The returned `recovered` is the share of blocks made anew that came out as they had been, and `map_recovered` the
    overlap (intersection over union) of new and former blocks' places within what was made anew.
    """
    require_empty(out)
    if edit.fixed_map:
        generator.source = None
    elif generator.source is None:
        raise InputError("weights", "a generator of maps", "none", "give --own-map: blocks stay where they are")
    scenes = chosen.scenes(generator)
    if not scenes:
        raise InputError(chosen.root, f"a house that fits {generator.grid.shape}", "none")
    known = [edit.known(scene, generator) for _, scene in scenes]  # faults before long work
    counts, names = np.zeros(4, int), []
    with atomic_folder(out) as folder, bar("edit-houses", quiet) as advance:
        for first, part in chunks(scenes):
            held = known[first : first + len(part)]
            seeds = [integer_seed(seed, "edit houses", first + k) for k in range(len(part))]
            for (name, before), own, after in zip(part, held, generator.sample(len(part), seeds, held), strict=True):
                write_house(folder, as_house(after, name).cropped())
                names.append(name)
                counts += _compared(placed(before, generator.grid), after.labels, own.labels == IGNORE)
            advance(first + len(part), len(scenes))
        write_splits(folder, {"train": tuple(names)})
        same, former, both, either = (int(n) for n in counts)
        figures = {"houses": len(names), "new_blocks": either, "recovered": same / max(former, 1)}
        figures["map_recovered"] = both / max(either, 1)
        write_json(folder / "edit.json", {"seed": seed, "edit": asdict(edit), **figures})
    return figures


def _compared(before: Labels, after: Labels, new: Bool[np.ndarray, "x y z"]) -> tuple[int, int, int, int]:
    """Within what is new: blocks as before, blocks before, places taken before and after, and before or after."""
    was, now = (before != EMPTY) & new, (after != EMPTY) & new
    return int((was & (before == after)).sum()), int(was.sum()), int((was & now).sum()), int((was | now).sum())
