"""Class-aware pooling against plain loops over eq. 6, and on scenes of the embedded world."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from pipeline.generators.comp_d3pm import CompConfig
from pipeline.scene.downsample import block_of, class_frequency, coarse_grid, enlarge, pool, share_in_block
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.split import split
from pipeline.scene.taxonomy import IGNORE, load_taxonomy
from pipeline.town.plan import plan_town
from pipeline.town.surface import surface_at
from renderers.voxelize import voxelize_surface

K = 5
FREQUENCY = np.array([0.9, 0.05, 0.001, 0.04, 0.009])
TAXONOMY = load_taxonomy("semantic_kitti")
COMMON = st.sampled_from([0] * 5 + [IGNORE] * 3 + [1, 1, 1, 3, 3, 2, 4])


def plain(labels: np.ndarray, block: tuple[int, int, int], frequency: np.ndarray, threshold: float) -> np.ndarray:
    """Eq. 6, a block and a class at a time."""
    shape = [n // size for n, size in zip(labels.shape, block, strict=True)]
    out = np.zeros(shape, np.uint8)
    for a, b, c in np.ndindex(*shape):
        corner = [index * size for index, size in zip((a, b, c), block, strict=True)]
        cell = [
            int(labels[corner[0] + i, corner[1] + j, corner[2] + k])
            for i, j, k in itertools.product(*(range(size) for size in block))
        ]
        empty, invalid = cell.count(0), cell.count(IGNORE)
        scores = {k: cell.count(k) / frequency[k] ** (1 / 3) for k in range(1, len(frequency)) if k in cell}
        if not scores or (empty + invalid) / len(cell) > threshold:
            out[a, b, c] = IGNORE if invalid > empty else 0
        else:
            out[a, b, c] = max(scores, key=lambda k: scores[k])  # the first of equals
    return out


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint8, (4, 8, 4), elements=COMMON),
    st.sampled_from([(2, 2, 2), (4, 4, 2), (1, 2, 4), (4, 8, 4), (1, 1, 1)]),
    st.sampled_from([0.5, 0.75, 0.85, 0.98]),
)
def test_pool_against_plain_loops(labels: np.ndarray, block: tuple[int, int, int], threshold: float) -> None:
    found = pool(labels, block, FREQUENCY, threshold)
    assert found.dtype == np.uint8
    assert np.array_equal(found, plain(labels, block, FREQUENCY, threshold))


def cell_of(*labels: int) -> np.ndarray:
    return np.array(labels, np.uint8).reshape(2, 2, 2)


@pytest.mark.parametrize(
    ("labels", "threshold", "expected"),
    [
        ((0, 0, 0, 0, 0, 0, 1, 1), 0.75, 1),  # six of eight are empty: not more than the threshold
        ((0, 0, 0, 0, 0, 0, 1, 1), 0.74, 0),
        ((0, 0, 0, 0, 0, 0, 0, 2), 0.98, 2),  # one voxel is enough
        ((1, 1, 1, 1, 1, 1, 2, 2), 0.5, 2),  # 6 / cbrt(.05) = 16.3 < 2 / cbrt(.001) = 20
        ((1, 1, 1, 1, 1, 1, 1, 2), 0.5, 1),  # 7 / cbrt(.05) = 19 > 1 / cbrt(.001) = 10
        ((255, 255, 255, 255, 0, 0, 0, 3), 0.5, 255),  # invalid counts as nothing, and is the larger part of it
        ((255, 255, 255, 0, 0, 0, 0, 3), 0.5, 0),
        ((255, 255, 255, 255, 0, 0, 0, 0), 0.5, 0),
        ((255,) * 8, 0.99, 255),
        ((255,) * 7 + (4,), 0.98, 4),
        ((0,) * 8, 1.0, 0),  # a block of nothing never takes a class, whatever the threshold
    ],
)
def test_thresholds_and_invalid_voxels(labels: tuple[int, ...], threshold: float, expected: int) -> None:
    assert pool(cell_of(*labels), (2, 2, 2), FREQUENCY, threshold).item() == expected


def test_frequency_by_hand_and_a_class_that_never_occurs() -> None:
    assert class_frequency(np.array([6, 0, 2])).tolist() == [0.75, 0.125, 0.25]
    assert np.isfinite(class_frequency(np.zeros(3, np.int64))).all()


def test_enlarged_labels_pool_to_themselves() -> None:
    coarse = np.random.default_rng(0).choice(np.array([0, 1, 2, 3, 4, IGNORE], np.uint8), (3, 4, 2))
    fine = enlarge(coarse, (4, 2, 3))
    assert fine.shape == (12, 8, 6)
    assert fine[5, 3, 4] == coarse[1, 1, 1]
    assert np.array_equal(pool(fine, (4, 2, 3), FREQUENCY, 0.5), coarse)


def test_share_in_block_by_hand() -> None:
    voxels = np.zeros((2, 4, 2), bool)
    voxels[0, 0, 0] = voxels[1, 1, 1] = voxels[0, 3, 0] = True
    assert share_in_block(voxels, (2, 2, 2)).ravel().tolist() == [0.25, 0.125]


def test_blocks_in_metres() -> None:
    assert block_of(COMPARISON_GRID, (1.6, 1.6, 0.8)) == (4, 4, 2)
    assert block_of(SEMANTIC_KITTI_GRID, (1.6, 1.6, 0.8)) == (8, 8, 4)
    assert coarse_grid(COMPARISON_GRID, (4, 4, 2)) == (16, 16, 8)
    grid = VoxelGrid((6, 6, 4), 0.4, (0.0, 0.0, 0.0))
    for edges in ((1.6, 1.2, 0.8), (1.0, 1.2, 0.8), (0.0, 1.2, 0.8)):  # 4 doesn't divide 6; 2.5 voxels; none
        with pytest.raises(InputError, match=r"pooling block: expected edges in whole voxels of 0\.4 m"):
            block_of(grid, edges)


def survivors(labels: np.ndarray, pooled: np.ndarray, block: tuple[int, int, int]) -> tuple[int, int]:
    """(instances of which at least one block keeps the class, instances): 26-connected parts of one class."""
    kept = enlarge(pooled, block)
    total = alive = 0
    for k in sorted(TAXONOMY.foreground):
        parts, count = ndimage.label(labels == k, np.ones((3, 3, 3)))
        total += count
        alive += len(np.unique(parts[(kept == k) & (parts > 0)]))
    return alive, total


def test_nearly_all_foreground_instances_survive_the_default_thresholds() -> None:
    """Scenes of the embedded world on the comparison grid, once whole and once with a third not known."""
    fields = CompConfig.model_fields
    block = block_of(COMPARISON_GRID, fields["block_m"].default)
    towns = [plan_town("train", seed, 20) for seed in range(3)]
    scenes = [voxelize_surface(surface_at(town, 0, radius_m=30), COMPARISON_GRID) for town in towns]
    frequency = class_frequency(np.bincount(np.concatenate([s.ravel() for s in scenes]), minlength=20))
    rng = np.random.default_rng(0)
    holes = [enlarge((rng.random((16, 8, 4)) < 0.33).astype(np.uint8), (4, 8, 4)) > 0 for _ in scenes]
    partly = [np.where(hole, np.uint8(IGNORE), scene) for scene, hole in zip(scenes, holes, strict=True)]
    for found in (scenes, partly):
        alive, total = np.zeros(2, int)
        for labels in found:
            foreground, _ = split(labels, TAXONOMY.is_foreground())
            pooled = pool(foreground, block, frequency, fields["foreground_threshold"].default)
            alive, total = np.add((alive, total), survivors(labels, pooled, block))
        assert total >= 40
        assert alive >= 0.95 * total
    foreground, _ = split(scenes[0], TAXONOMY.is_foreground())
    few, all_of_it = survivors(scenes[0], pool(foreground, block, frequency, 0.85), block)
    assert few < 0.95 * all_of_it  # the background's threshold would not do
