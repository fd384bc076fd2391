"""Instances against scipy's labelling of the whole grid, and worked by hand; class shares in closed form."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.metrics.composition import class_counts, compare, divergence
from pipeline.metrics.instances import class_summary, components, find_instances, relative_gaps
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

TAXONOMY = load_taxonomy("semantic_kitti")
GRID = VoxelGrid((10, 9, 8), 0.4, (0.0, 0.0, 0.0))
CAR, PERSON, ROAD, POLE = (TAXONOMY.id_of(name) for name in ("car", "person", "road", "pole"))


def blank() -> np.ndarray:
    return np.zeros(GRID.shape, np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_the_whole_grid(seed: int) -> None:
    labels = np.random.default_rng(seed).choice([0, 0, 0, CAR, PERSON, ROAD, IGNORE], GRID.shape).astype(np.uint8)
    found = components(labels, TAXONOMY.is_foreground())
    expected = []
    for label in (CAR, PERSON):
        parts, count = ndimage.label(labels == label, np.ones((3, 3, 3)))
        expected += [frozenset(map(tuple, np.argwhere(parts == n))) for n in range(1, count + 1)]
    got = [frozenset(map(tuple, found.position[found.component == n])) for n in range(found.number)]
    assert sorted(map(sorted, got)) == sorted(map(sorted, expected))
    assert (labels[tuple(found.position.T)] == found.label).all()


def test_two_cars_and_a_person() -> None:
    labels = blank()
    labels[0:4, 0:2, 1:3] = CAR  # 16 voxels: 1.6 x 0.8 x 0.8 m
    labels[4, 2, 3] = CAR  # joined over a corner
    labels[7, 7, 7] = CAR
    labels[5, 3, 3] = PERSON  # touches the car, is none
    labels[:, :, 0] = ROAD
    empty = blank()
    table = find_instances([labels, empty], GRID, TAXONOMY)
    rows = {row.name: row for row in class_summary(table, TAXONOMY)}
    assert sorted(table.voxels.tolist()) == [1, 1, 17]
    car = rows["car"]
    assert (car.instances, car.per_scene, car.scene_share) == (2, 1.0, 0.5)
    assert (car.median_voxels, car.mean_voxels) == (9.0, 9.0)
    assert car.extent_m == pytest.approx((0.4 * 3, 0.4 * 2, 0.4 * 2))  # medians of (5, 1), (3, 1), (3, 1)
    assert rows["person"].instances == 1
    assert rows["pole"].instances == 0
    assert np.isnan(rows["pole"].mean_voxels)


def test_no_scene_and_no_foreground() -> None:
    assert class_summary(find_instances([], GRID, TAXONOMY), TAXONOMY)[0].per_scene == 0
    assert find_instances([blank()], GRID, TAXONOMY).scenes == 1


def test_gaps_to_real_instances() -> None:
    one, two = blank(), blank()
    one[0, 0, 0] = CAR
    two[0, 0, 0:2] = CAR
    two[5, 5, 5:7] = CAR
    two[8, 8, 1] = POLE
    ours, real = (class_summary(find_instances([labels], GRID, TAXONOMY), TAXONOMY) for labels in (one, two))
    assert relative_gaps(ours, real) == {"car": (-0.5, -0.5), "pole": (-1.0, -1.0)}


def test_shares_count_valid_occupied_voxels() -> None:
    labels = blank()
    labels[0, 0, :6] = ROAD
    labels[0, 1, :2] = CAR
    labels[1] = IGNORE
    counts = class_counts([labels, labels], TAXONOMY)
    assert (counts[0], counts[ROAD], counts[CAR], counts.sum()) == (2 * (9 * 72 - 8), 12, 4, 2 * 9 * 72)
    figures = compare(counts, counts, TAXONOMY)
    assert figures.foreground_share == pytest.approx(0.25)
    assert figures.occupied_share == pytest.approx(8 / (9 * 72))
    assert figures.shares[ROAD] == pytest.approx(0.75)
    assert figures.kl == 0 == figures.kl_reverse


def test_divergence_in_closed_form() -> None:
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert divergence(p, q, smoothing=0) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert divergence(np.array([1.0, 0]), p, smoothing=0.5) == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))


def test_a_vanished_class_costs_more_one_way_than_the_other() -> None:
    real, ours = np.zeros(20, int), np.zeros(20, int)
    real[[ROAD, CAR]] = 90, 10
    ours[ROAD] = 100
    figures = compare(ours, real, TAXONOMY)
    assert figures.kl > 0.5 > figures.kl_reverse > 0
    with pytest.raises(InputError, match="occupied voxels"):
        compare(np.zeros(20, int), real, TAXONOMY)
