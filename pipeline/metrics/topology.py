"""Does a scene hang together: connected road, nothing that floats, things where they belong.

    road connectivity   seen from above, the share of the road's cells in the largest component of 8 neighbours. A cell
                        is road where its column holds road or parking area. A column that holds nothing but unknown,
                        empty and foreground voxels may join two cells, but doesn't count: what stands there hides it
    floating share      share of the occupied voxels whose component rests on nothing. Components join occupied and
                        unknown (255) voxels over 26 neighbours; one rests if it reaches the grid's bottom or a side
    relations           share of a class's instances that touch another class (26 neighbours): cars the ground

Classes are found by name; where a taxonomy lacks one the figure is nan. All are meant to be compared with the same
figure of held-out real scenes: theirs aren't 1 or 0 either, because the lidar doesn't see everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from pipeline.metrics.instances import OFFSETS_26, Components, components
from pipeline.scene.taxonomy import EMPTY, IGNORE, Taxonomy

Labels = UInt8[np.ndarray, "x y z"]
Table = Bool[np.ndarray, "256"]

ROAD = ("road", "parking", "driveable_surface")
GROUND = (*ROAD, "sidewalk", "other-ground", "terrain", "ground", "other_flat")
VEHICLES = ("car", "truck", "other-vehicle", "vehicle", "bus", "trailer", "construction_vehicle")
RIDERS = ("person", "bicyclist", "motorcyclist", "pedestrian", "bicycle", "motorcycle")
RELATIONS = (  # name, subjects, what they should touch
    ("vehicles on the ground", VEHICLES, GROUND),
    ("people and cycles on the ground", RIDERS, GROUND),
    ("trunks on the ground", ("trunk",), GROUND),
    ("trunks under vegetation", ("trunk",), ("vegetation",)),
    ("signs on poles", ("traffic-sign",), ("pole",)),
)


@dataclass(frozen=True)
class Topology:
    """Shares over all scenes: see above; nan where there is nothing to count.

    road_components: mean number of the road's components a scene; relations: by name.
    """

    road_connectivity: float
    road_components: float
    floating_share: float
    relations: dict[str, float]


def class_table(taxonomy: Taxonomy, names: Iterable[str]) -> Table:
    """Look-up table by label of those of the names that the taxonomy has."""
    table = np.zeros(256, bool)
    table[[k for k, name in enumerate(taxonomy.classes) if name in set(names)]] = True
    return table


def topology(scenes: Iterable[Labels], taxonomy: Taxonomy) -> Topology:
    """The figures of a set of scenes, each pooled over all its scenes' cells, voxels or instances."""
    road = class_table(taxonomy, ROAD)
    relations = [(name, class_table(taxonomy, a), class_table(taxonomy, b)) for name, a, b in RELATIONS]
    rows = [
        [*road_cells(labels, road, taxonomy.is_foreground()), *floating_voxels(labels)]
        + [n for _, subjects, objects in relations for n in touching(labels, subjects, objects)]
        for labels in scenes
    ]
    total = np.sum(rows, axis=0) if rows else np.zeros(5 + 2 * len(relations))
    shares = {name: _share(total[5 + 2 * n], total[6 + 2 * n]) for n, (name, _, _) in enumerate(relations)}
    return Topology(_share(total[0], total[1]), _share(total[2], len(rows)), _share(total[3], total[4]), shares)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def road_cells(labels: Labels, road: Table, foreground: Table) -> tuple[int, int, int]:
    """(cells of the largest component, all cells, components) of a scene's road seen from above.

    Hidden columns (unknown, empty and foreground voxels alone) join road cells without counting.
    """
    from scipy import ndimage

    cells = road[labels].any(axis=2)
    solid = (labels != EMPTY) & (labels != IGNORE) & ~foreground[labels]
    hidden = ~solid.any(axis=2) & (foreground[labels] | (labels == IGNORE)).any(axis=2)
    area, _ = ndimage.label(cells | hidden, np.ones((3, 3), int))
    sizes = np.bincount(area[cells])
    return int(sizes.max(initial=0)), int(sizes.sum()), int((sizes > 0).sum())


def floating_voxels(labels: Labels) -> tuple[int, int]:
    """(occupied voxels that float, occupied voxels) of a scene."""
    from scipy import ndimage

    parts, count = ndimage.label(labels != EMPTY, np.ones((3, 3, 3), int))
    rests = np.zeros(count + 1, bool)
    for face in (parts[:, :, 0], parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        rests[face] = True
    occupied = (labels != EMPTY) & (labels != IGNORE)
    return int((occupied & ~rests[parts]).sum()), int(occupied.sum())


def touching(labels: Labels, subjects: Table, objects: Table) -> tuple[int, int]:
    """(instances of the subject classes with an object voxel among their 26 neighbours, all their instances)."""
    found = components(labels, subjects)
    padded = np.pad(labels, 1, constant_values=IGNORE)
    return len(_touching(found, objects[padded])), found.number


def _touching(found: Components, padded_objects: Bool[np.ndarray, "x2 y2 z2"]) -> np.ndarray:
    near = found.position[:, None, :] + OFFSETS_26[None] + 1
    hit = padded_objects[near[..., 0], near[..., 1], near[..., 2]].any(axis=1)
    return np.unique(found.component[hit])
