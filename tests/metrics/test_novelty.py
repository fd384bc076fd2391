"""Memorisation: bits against the plain distance, copies found, groups kept apart."""

import numpy as np
import pytest

from pipeline.metrics.novelty import distance, nearest_scenes, novelty
from pipeline.scene.errors import InputError

GENERATOR = np.random.default_rng(0)


def scenes(count: int, shape: tuple[int, int, int] = (6, 5, 3)) -> np.ndarray:
    return GENERATOR.choice([0, 0, 0, 1, 7, 19, 255], (count, *shape)).astype(np.uint8)


def test_distance_by_hand() -> None:
    a = np.array([0, 1, 1, 2, 255, 3, 0], np.uint8).reshape(7, 1, 1)
    b = np.array([0, 1, 2, 0, 3, 255, 4], np.uint8).reshape(7, 1, 1)
    assert distance(a, b) == 3 / 4  # known and occupied in either: places 1, 2, 3, 6; one agrees
    assert distance(a, a) == 0
    assert distance(np.zeros_like(a), np.zeros_like(a)) == 0


def test_nearest_is_exact() -> None:
    ours, training = scenes(7), scenes(70)
    found = nearest_scenes(list(ours), list(training))
    for n, labels in enumerate(ours):
        plain = [distance(labels, t) for t in training]
        mirrored = [distance(labels[:, ::-1], t) for t in training]
        assert found.distance[n] == pytest.approx(min(plain + mirrored), abs=1e-12)
        assert (mirrored if found.mirrored[n] else plain)[found.place[n]] == pytest.approx(found.distance[n])


def test_copies_are_found_mirrored_too() -> None:
    training = scenes(40)
    found = nearest_scenes([training[11], training[23][:, ::-1]], list(training))
    assert found.distance.tolist() == [0, 0]
    assert found.place.tolist() == [11, 23]
    assert found.mirrored.tolist() == [False, True]


def test_groups_are_not_compared() -> None:
    training = scenes(4)
    found = nearest_scenes([training[0]], list(training), ["a"], ["a", "a", "b", "b"])
    assert found.place[0] >= 2
    assert found.distance[0] > 0
    with pytest.raises(InputError, match="another sequence"):
        nearest_scenes([training[0]], list(training), ["a"], ["a"] * 4)
    with pytest.raises(InputError, match="one shape"):
        nearest_scenes([training[0]], [training[0][:-1]])


def test_share_of_copies() -> None:
    training, held_out, fresh = scenes(30), scenes(20), scenes(5)
    figures, nearest = novelty([*training[:5], *fresh], list(held_out), list(training), ["a", "b", "c"] * 10)
    assert figures.scenes == (10, 20, 20)
    assert figures.generated[0] == 0
    assert figures.held_out[0] > 0
    assert 0.5 <= figures.copied_share < 1
    assert 0.5 <= figures.copied_share_training < 1
    assert nearest.place[:5].tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(novelty([fresh[0]], list(held_out), list(training))[0].copied_share_training)
