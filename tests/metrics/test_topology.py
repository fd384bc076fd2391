"""Topology worked by hand on small scenes."""

import numpy as np
import pytest

from pipeline.metrics.topology import ROAD, class_table, floating_voxels, road_cells, topology, touching
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

TAXONOMY = load_taxonomy("semantic_kitti")
NAMES = ("car", "road", "parking", "sidewalk", "building", "vegetation", "trunk", "pole", "traffic-sign")
CAR, STREET, PARKING, SIDEWALK, BUILDING, VEGETATION, TRUNK, POLE, SIGN = (TAXONOMY.id_of(name) for name in NAMES)
TABLE, THINGS = class_table(TAXONOMY, ROAD), TAXONOMY.is_foreground()


def blank() -> np.ndarray:
    return np.zeros((10, 8, 6), np.uint8)


def test_road_in_two_parts() -> None:
    labels = blank()
    labels[:4, 2:4, 0] = STREET
    labels[5:8, 2, 0] = STREET
    labels[8, 3, 1] = PARKING  # joins over a corner, one voxel higher
    assert road_cells(labels, TABLE, THINGS) == (8, 12, 2)
    labels[4, 2, 0] = SIDEWALK
    assert road_cells(labels, TABLE, THINGS) == (8, 12, 2)


@pytest.mark.parametrize("cover", [CAR, IGNORE])
def test_what_hides_the_road_joins_it_without_counting(cover: int) -> None:
    labels = blank()
    labels[:4, 2, 0] = STREET
    labels[5:8, 2, 0] = STREET
    labels[4, 2, 1] = cover
    assert road_cells(labels, TABLE, THINGS) == (7, 7, 1)
    labels[4, 2, 3] = VEGETATION  # a crown above is background; the column is not hidden by things alone
    assert road_cells(labels, TABLE, THINGS) == (4, 7, 2)


def test_floating() -> None:
    labels = blank()
    labels[2:4, 2:4, 0] = STREET
    labels[3, 3, 1:3] = POLE
    labels[4, 4, 3] = SIGN  # over a corner
    assert floating_voxels(labels) == (0, 7)
    labels[7, 6, 4] = labels[6, 6, 4] = VEGETATION
    assert floating_voxels(labels) == (2, 9)
    labels[7, 5, 3] = IGNORE  # unknown, but still in the air
    assert floating_voxels(labels) == (2, 9)
    labels[7, 5, :3] = IGNORE  # unknown down to the ground
    assert floating_voxels(labels) == (0, 9)


def test_sides_support_and_the_top_does_not() -> None:
    labels = blank()
    labels[0, 4, 4] = BUILDING
    labels[5, 5, 5] = BUILDING
    assert floating_voxels(labels) == (1, 2)


def test_relations() -> None:
    labels = blank()
    labels[:, :, 0] = STREET
    labels[1:3, 1:3, 1] = CAR
    labels[6, 6, 3] = CAR
    cars, ground = class_table(TAXONOMY, ("car",)), class_table(TAXONOMY, ROAD)
    assert touching(labels, cars, ground) == (1, 2)
    assert touching(labels, class_table(TAXONOMY, ("trunk",)), ground) == (0, 0)


def test_pooled_over_scenes() -> None:
    first, second = blank(), blank()
    first[:, :, 0] = STREET
    first[2, 2, 1:3] = TRUNK
    first[2, 2, 3] = VEGETATION
    first[6, 6, 1] = TRUNK
    second[:3, 0, 0] = second[6, 7, 0] = STREET
    second[5, 3, 3] = CAR
    figures = topology([first, second], TAXONOMY)
    assert figures.road_connectivity == pytest.approx(83 / 84)
    assert figures.road_components == 1.5
    assert figures.floating_share == pytest.approx(1 / (84 + 5))
    assert figures.relations["trunks under vegetation"] == 0.5
    assert figures.relations["trunks on the ground"] == 1.0
    assert figures.relations["vehicles on the ground"] == 0.0
    assert np.isnan(figures.relations["signs on poles"])
