"""Scenes from one taxonomy, frame and grid to another, by tables that say what is lost.

Tables lie in data/conversions/; where there is none for a pair, two are joined that meet in SemanticKITTI's classes.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.files import data_path
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE, Taxonomy, load_taxonomy

HUB = "semantic_kitti"  # the taxonomy that tables lead to and from
SOLID_SHARE = 0.25  # of a coarse voxel's known volume, from which it is solid: a surface crosses half of 2x2x2


@dataclass(frozen=True)
class Conversion:
    """Class names of a source taxonomy by name -> those of a target, or "ignore"."""

    source: Taxonomy
    target: Taxonomy
    classes: Mapping[str, str]

    def table(self) -> UInt8[np.ndarray, "256"]:
        """Target label by source label."""
        table = np.full(256, IGNORE, np.uint8)
        for name, other in self.classes.items():
            table[self.source.id_of(name)] = IGNORE if other == "ignore" else self.target.id_of(other)
        return table

    def losses(self) -> list[str]:
        """What can't be told apart afterwards, in words; empty if nothing is lost."""
        found = [f"{name} is dropped" for name, other in self.classes.items() if other == "ignore"]
        for other in dict.fromkeys(self.classes.values()):
            names = [name for name, target in self.classes.items() if target == other]
            if other != "ignore" and len(names) > 1:
                found.append(f"{', '.join(names)} become {other}")
        return found


def load_conversion(source: str, target: str) -> Conversion:
    """A shipped table, two joined ones, or the identity of a taxonomy with itself. Raises InputError."""
    if source == target:
        taxonomy = load_taxonomy(source)
        return Conversion(taxonomy, taxonomy, {name: name for name in taxonomy.classes})
    found = _shipped(source, target)
    if found is None:
        first, second = _shipped(source, HUB), _shipped(HUB, target)
        if first is None or second is None:
            raise InputError("conversion", f"classes of {source} that have a place in {target}", "no table")
        joined = {**second.classes, "ignore": "ignore"}
        found = Conversion(first.source, second.target, {k: joined[v] for k, v in first.classes.items()})
    return found


def _shipped(source: str, target: str) -> Conversion | None:
    name = f"conversions/{source}_to_{target}.toml"
    try:
        table = tomllib.loads(data_path(name).read_text())
    except InputError:
        return None
    conversion = Conversion(load_taxonomy(table["source"]), load_taxonomy(table["target"]), table["classes"])
    if set(conversion.classes) != set(conversion.source.classes):
        raise InputError(name, "every class of its source once", f"{sorted(conversion.classes)}")
    conversion.table()
    return conversion


def lifted(grid: VoxelGrid, lift_m: float) -> VoxelGrid:
    """The grid in a frame whose origin lies `lift_m` lower [m], kept to the micrometre."""
    x, y, z = grid.origin_m
    return replace(grid, origin_m=(x, y, round(z + lift_m, 6)))


def convert_scene(scene: Scene, conversion: Conversion, grid: VoxelGrid | None = None, lift_m: float = 0.0) -> Scene:
    """The scene in the target's classes and, if given, on another grid.

    lift_m: how much higher above the road the source's frame has its origin than the target's [m]. Raises InputError
    on another source.
    """
    if scene.taxonomy.name != conversion.source.name:
        raise InputError("scene", f"classes of {conversion.source.name}", scene.taxonomy.name)
    place = lifted(scene.grid, lift_m)
    relabelled = Scene(conversion.table()[scene.labels], place, conversion.target, scene.provenance)
    return relabelled if grid is None or grid == place else resampled(relabelled, grid)


def grid_losses(source: VoxelGrid, target: VoxelGrid) -> list[str]:
    """What another grid loses, in words; empty if nothing."""
    found = []
    if target.voxel_size_m > 1.001 * source.voxel_size_m:
        found.append(f"voxels of {source.voxel_size_m:g} m become {target.voxel_size_m:g} m: thin things may go")
    spans = zip("xyz", source.origin_m, source.upper_m, target.origin_m, target.upper_m, strict=True)
    for axis, low, high, new_low, new_high in spans:
        if low < new_low - 1e-6 or high > new_high + 1e-6:
            found.append(f"{axis} outside {new_low:g} to {new_high:g} m is cut off (it was {low:g} to {high:g})")
        if low > new_low + 1e-6 or high < new_high - 1e-6:
            found.append(f"{axis} outside {low:g} to {high:g} m isn't known (of {new_low:g} to {new_high:g})")
    return found


def resampled(scene: Scene, grid: VoxelGrid) -> Scene:
    """The scene on another grid; what lies outside the source is 255.

    To finer or equal voxels: the source voxel at each centre. To coarser ones: of the source voxels whose centres lie
    in the target's, the most frequent solid class where solids are a quarter or more of the known ones, else empty;
    255 where more than half are unknown.
    """
    if grid.voxel_size_m > 1.001 * scene.grid.voxel_size_m:
        return Scene(_coarser(scene, grid), grid, scene.taxonomy, scene.provenance)
    index = scene.grid.index(grid.centres())
    inside = scene.grid.contains(index)
    labels = np.full(grid.shape, IGNORE, np.uint8)
    labels[inside] = scene.labels[tuple(index[inside].T)]
    return Scene(labels, grid, scene.taxonomy, scene.provenance)


def _coarser(scene: Scene, grid: VoxelGrid) -> UInt8[np.ndarray, "x y z"]:
    index = grid.index(scene.grid.centres())
    inside = grid.contains(index)
    place = np.ravel_multi_index(tuple(index[inside].T), grid.shape)
    count = functools.partial(np.bincount, minlength=int(np.prod(grid.shape)))
    labels = scene.labels[inside]
    parts, known = count(place), count(place[labels != IGNORE])
    solid = count(place[(labels != IGNORE) & (labels != EMPTY)])
    best, label = np.zeros_like(parts), np.zeros(len(parts), np.uint8)
    for k in np.unique(labels[(labels != IGNORE) & (labels != EMPTY)]):
        votes = count(place[labels == k])
        label = np.where(votes > best, k, label)
        best = np.maximum(votes, best)
    out = np.where(solid >= SOLID_SHARE * np.maximum(known, 1), label, np.uint8(EMPTY))
    return np.where(2 * known < np.maximum(parts, 1), np.uint8(IGNORE), out).astype(np.uint8).reshape(grid.shape)
