"""Scenes as sequences."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.craft3d import open_craft3d
from pipeline.generators.protocol import Known
from pipeline.generators.scaffold import CRAFT_GRID
from pipeline.generators.tokens import TokenData, Tokens, collate, map_of, nearest, placed, tokens_of, turned, worn
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy

SHAPE = (6, 6, 4)


def sequence(seed: int = 0) -> Tokens:
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:4, :2] = rng.integers(1, 200, (3, 2, 2))
    return tokens_of(labels)


def test_tokens_by_hand() -> None:
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[0, 1, 0], labels[1, 0, 1], labels[1, 1, 1] = 7, 255, 1
    found = tokens_of(labels)
    assert found.classes.tolist() == [6, 0]
    assert found.positions.tolist() == [[0, 1, 0], [1, 1, 1]]
    with pytest.raises(InputError, match="an occupied voxel"):
        tokens_of(np.full((2, 2, 2), 255, np.uint8))


def test_a_smaller_scene_stands_in_the_middle_of_the_floor() -> None:
    scene = Scene(
        np.full((2, 3, 1), 5, np.uint8), VoxelGrid((2, 3, 1), 1.0, (0.0, 0.0, 0.0)), load_taxonomy("minecraft")
    )
    found = placed(scene, VoxelGrid(SHAPE, 1.0, (0.0, 0.0, 0.0)))
    assert np.array_equal(np.argwhere(found), [[x, y, 0] for x in (2, 3) for y in (1, 2, 3)])
    with pytest.raises(InputError, match=r"1\.0 m"):
        placed(scene, VoxelGrid(SHAPE, 0.5, (0.0, 0.0, 0.0)))


def test_nearest_by_hand() -> None:
    positions = np.array([[0, 0, 0], [5, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 1]])
    assert nearest(positions, 0, 4).tolist() == [0, 2, 4, 3]


def test_turns_are_the_arrays() -> None:
    volume = np.random.default_rng(0).integers(0, 2, (5, 5, 3))
    positions = np.argwhere(volume)
    for quarters in range(4):
        for mirror in (False, True):
            expected = np.rot90(volume, quarters)
            expected = expected[::-1] if mirror else expected
            found = np.zeros_like(volume)
            found[tuple(turned(positions, 5, quarters, mirror).T)] = 1
            assert np.array_equal(found, expected)


def test_draws_stay_in_the_grid_and_reach_all_of_it() -> None:
    tokens, rng = sequence(), np.random.default_rng(0)
    data = TokenData([tokens], SHAPE, 100, turn=True, shift=True)
    found = [data.draw(0, rng).positions for _ in range(300)]
    assert min(p.min() for p in found) == 0
    assert max(p[:, :2].max() for p in found) == 5
    assert all(np.array_equal(p[:, 2], tokens.positions[:, 2]) for p in found)
    assert len({p[:, :2].tobytes() for p in found}) > 100
    plain = TokenData([tokens], SHAPE, 100).draw(0, rng)
    assert np.array_equal(plain.positions, tokens.positions)
    with pytest.raises(InputError, match="as long as wide"):
        TokenData([tokens], (6, 5, 4), 100, turn=True)


def test_long_sequences_are_cut_to_neighbourhoods() -> None:
    labels = np.ones(SHAPE, np.uint8)
    data, rng = TokenData([tokens_of(labels)], SHAPE, 8), np.random.default_rng(0)
    cuts = [data.draw(0, rng).positions for _ in range(200)]
    assert all(len(np.unique(p, axis=0)) == 8 for p in cuts)
    assert max(np.ptp(p, axis=0).max() for p in cuts) <= 3
    assert len(np.unique(np.concatenate(cuts), axis=0)) == labels.size  # every voxel is learned from


def test_worn_scenes_miss_what_few_hold() -> None:
    """A block of 27 with a spike on top: of the spike's two voxels the upper one has one neighbour, the lower two."""
    cube = np.argwhere(np.ones((3, 3, 3), bool))
    positions = np.concatenate([cube, [[1, 1, 3], [1, 1, 4]]])
    tokens, random = Tokens(np.arange(29), positions), np.random.default_rng(0)
    counts = np.zeros(29)
    for _ in range(1000):
        left = worn(tokens, 0.5, random)
        assert np.array_equal(left.positions, positions[left.classes])
        counts[left.classes] += 1
    shares = counts / 1000
    assert shares[28] == pytest.approx(0.5, abs=0.06)
    assert shares[27] == pytest.approx(0.75, abs=0.06)
    assert shares[0] == pytest.approx(1 - 0.5**3, abs=0.05)  # a corner
    assert shares[13] == pytest.approx(1 - 0.5**6, abs=0.03)  # the middle
    lone = Tokens(np.array([7]), np.array([[2, 2, 2]]))
    assert worn(lone, 0.5, random).classes.tolist() == [7]
    data = TokenData([tokens], (8, 8, 8), 1024, wear=0.5)
    sizes = [len(data.draw(0, random).classes) for _ in range(200)]
    assert 60 < sizes.count(29) < 140
    assert len(data[0].classes) == 29


def test_packing() -> None:
    a, b = sequence(0), sequence(1).at(np.arange(5))
    found = collate([a, b])
    assert found["lengths"] == [12, 5]
    assert found["classes"].tolist() == [*a.classes, *b.classes]
    assert found["positions"][12:].tolist() == b.positions.tolist()


def test_known_labels_prevail_over_a_map() -> None:
    known = np.array([[[0, 255, 255, 3]]], np.uint8)
    assert map_of(Known(known), None).ravel().tolist() == [False, True, True, True]
    assert map_of(Known(known), np.array([[[True, False, True, False]]])).ravel().tolist() == [False, False, True, True]


def test_real_houses_are_sequences(shared_data: Path) -> None:
    root = open_craft3d(shared_data / "craftassist" / "house")
    houses = [root.house(name).cropped() for name, _ in root.frames("all")]
    fitting = [house for house in houses if house.fits()]
    assert len(fitting) > len(houses) / 2
    for house in fitting:
        labels = placed(house.scene(), CRAFT_GRID)
        found = tokens_of(labels)
        assert len(found.classes) == house.occupied
        assert np.array_equal(labels[tuple(found.positions.T)] - 1, found.classes)
        assert np.array_equal(np.sort(found.classes + 1), np.sort(house.blocks[house.blocks > 0]))
