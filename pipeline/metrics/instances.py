"""Foreground instances: components of one class, joined over faces, edges and corners (26 neighbours).

Foreground is a few hundred voxels of a scene, so components are found among those alone, not on the whole grid.
Voxels labelled 255 are unknown and join nothing: what the lidar didn't see of an object is no part of it, in real and
generated scenes alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY, IGNORE, Taxonomy

Labels = UInt8[np.ndarray, "x y z"]
OFFSETS_26 = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if (i, j, k) != (0, 0, 0)])


class Components(NamedTuple):
    """Voxels of some classes and the component each belongs to; components count from 0 in no special order."""

    position: Int[np.ndarray, "v 3"]
    label: UInt8[np.ndarray, "v"]
    component: Int[np.ndarray, "v"]
    number: int


def components(labels: Labels, chosen: Bool[np.ndarray, "256"]) -> Components:
    """The 26-connected components of equal label among the voxels whose label is chosen (look-up table by label)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    padded = np.pad(labels, 1, constant_values=IGNORE)
    inner = chosen[padded] & (padded != IGNORE)
    flat = np.flatnonzero(inner)
    place = np.full(padded.size, -1, np.int32)
    place[flat] = np.arange(len(flat), dtype=np.int32)
    cells = padded.ravel()
    first, second = [], []
    for offset in OFFSETS_26[13:] @ np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1]):
        other = flat + offset
        same = np.flatnonzero(cells[other] == cells[flat])
        first.append(same)
        second.append(place[other[same]])
    rows, columns = np.concatenate(first), np.concatenate(second)
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(flat), len(flat)))
    count, component = connected_components(graph, directed=False) if len(flat) else (0, np.zeros(0, np.int32))
    index = np.stack(np.unravel_index(flat, padded.shape), axis=1) - 1
    return Components(index, cells[flat], component, int(count))


@dataclass(frozen=True, eq=False)
class Instances:
    """Instances of many scenes, a row each.

    scenes: how many scenes were looked at; scene: the row's scene; class_id; voxels: its size; extent_m: edges of its
    bounding box [m].
    """

    scenes: int
    scene: Int[np.ndarray, "n"]
    class_id: Int[np.ndarray, "n"]
    voxels: Int[np.ndarray, "n"]
    extent_m: Float[np.ndarray, "n 3"]


def find_instances(scenes: Iterable[Labels], grid: VoxelGrid, taxonomy: Taxonomy) -> Instances:
    """Every foreground instance of the scenes."""
    chosen = taxonomy.is_foreground()
    rows = [_measure(components(labels, chosen), grid) for labels in scenes]
    numbers = [np.full(len(class_id), n) for n, (class_id, _, _) in enumerate(rows)]
    empty: tuple[np.ndarray, ...] = (np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3)))
    class_id, voxels, extent = (np.concatenate(column) for column in zip(empty, *rows, strict=True))
    return Instances(len(rows), np.concatenate([np.zeros(0, int), *numbers]), class_id, voxels, extent)


def _measure(
    found: Components, grid: VoxelGrid
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], Float[np.ndarray, "n 3"]]:
    class_id = np.zeros(found.number, int)
    class_id[found.component] = found.label
    low, high = np.full((found.number, 3), np.iinfo(int).max), np.full((found.number, 3), -1)
    np.minimum.at(low, found.component, found.position)
    np.maximum.at(high, found.component, found.position)
    return class_id, np.bincount(found.component, minlength=found.number), (high - low + 1) * grid.voxel_size_m


@dataclass(frozen=True)
class ClassInstances:
    """A class's instances over many scenes; sizes are nan where it has none.

    per_scene: mean count a scene; scene_share: share of the scenes with at least one; sizes in voxels; extent_m:
    median edges of the bounding box along X, Y, Z [m].
    """

    name: str
    instances: int
    per_scene: float
    scene_share: float
    median_voxels: float
    mean_voxels: float
    extent_m: tuple[float, float, float]


def class_summary(table: Instances, taxonomy: Taxonomy) -> tuple[ClassInstances, ...]:
    """A row a foreground class, in the order of class ids."""
    return tuple(_summary(table, taxonomy, class_id) for class_id in sorted(taxonomy.foreground))


def _summary(table: Instances, taxonomy: Taxonomy, class_id: int) -> ClassInstances:
    rows = table.class_id == class_id
    count, scenes = int(rows.sum()), max(table.scenes, 1)
    x, y, z = np.median(table.extent_m[rows], axis=0) if count else (np.nan,) * 3
    return ClassInstances(
        name=taxonomy.classes[class_id],
        instances=count,
        per_scene=count / scenes,
        scene_share=len(np.unique(table.scene[rows])) / scenes,
        median_voxels=float(np.median(table.voxels[rows])) if count else float("nan"),
        mean_voxels=float(table.voxels[rows].mean()) if count else float("nan"),
        extent_m=(float(x), float(y), float(z)),
    )


def relative_gaps(ours: Sequence[ClassInstances], real: Sequence[ClassInstances]) -> dict[str, tuple[float, float]]:
    """By class name: instances a scene and mean size against real ones, as ratio - 1.

    Classes that real scenes lack are left out. A class that we lack altogether has the gap -1 in both.
    """
    pairs = [(a, b) for a, b in zip(ours, real, strict=True) if b.instances]
    return {b.name: (a.per_scene / b.per_scene - 1, _ratio(a, b) - 1) for a, b in pairs}


def _ratio(ours: ClassInstances, real: ClassInstances) -> float:
    return ours.mean_voxels / real.mean_voxels if ours.instances else 0.0


def occupied(labels: Labels) -> Bool[np.ndarray, "x y z"]:
    """Solid voxels whose label is known."""
    return (labels != EMPTY) & (labels != IGNORE)
