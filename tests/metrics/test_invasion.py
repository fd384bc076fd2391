"""Background invasion: losses by hand, and the score falls as known shares of the foreground are eaten."""

import itertools
import json

import numpy as np
import pytest

from pipeline.metrics.erosion import KINDS, prepare
from pipeline.metrics.invasion import (
    LEVELS,
    fit_invasion,
    invasion_score,
    losses,
    model_from_json,
    scene_sums,
)
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

TAXONOMY = load_taxonomy("semantic_kitti")
THINGS = TAXONOMY.is_foreground()
CAR, POLE, ROAD, VEGETATION = (TAXONOMY.id_of(name) for name in ("car", "pole", "road", "vegetation"))


def street(seed: int) -> np.ndarray:
    """A road, a verge with plants, three cars and four poles of varying size at random places."""
    generator = np.random.default_rng(seed)
    labels = np.zeros((32, 32, 8), np.uint8)
    labels[:, :, 0] = ROAD
    labels[:, 26:, 1:4] = VEGETATION
    for lane in (2, 9, 16):
        x, length = generator.integers(2, 18), generator.integers(8, 12)
        labels[x : x + length, lane : lane + 4, 1:4] = CAR
        labels[x + 1 : x + length - 1, lane + 1 : lane + 3, 1:3] = IGNORE  # not seen from outside
    for x in generator.choice(32, 4, replace=False):
        labels[x, 23, 1 : generator.integers(5, 8)] = POLE
    return labels


REAL = [street(seed) for seed in range(10)]
HELD_OUT = [street(1000 + seed) for seed in range(10)]


@pytest.fixture(scope="module")
def model():
    return fit_invasion(REAL, TAXONOMY, seed=3)


def eaten(scenes: list[np.ndarray], kind: str, p: float) -> list[np.ndarray]:
    return [prepare(s, THINGS, kind, np.random.default_rng(n)).at(s, p) for n, s in enumerate(scenes)]


def test_losses_by_hand() -> None:
    labels = np.zeros((7, 5, 5), np.uint8)
    labels[1, 2, 2] = labels[3, 2, 2] = CAR
    labels[2, 2, 3] = ROAD
    labels[:, 0] = IGNORE
    volume, cohesion, contact, gaps = losses(scene_sums(labels, THINGS)[CAR])
    assert volume == 0  # two instances of one voxel each
    assert cohesion == 1
    assert contact == 2 / (2 * 17)  # each has one of the 17 neighbours that are not below
    assert gaps == 1 / 3  # (2, 2, 2) stands between
    labels[2, 2, 2] = IGNORE
    assert losses(scene_sums(labels, THINGS)[CAR])[3] == 0  # unknown is no gap
    labels[2, 2, 2] = CAR
    volume, cohesion, contact, gaps = losses(scene_sums(labels, THINGS)[CAR])
    assert volume == pytest.approx(-np.log(3))
    assert (cohesion, gaps) == (1 - 4 / 78, 0)
    assert contact == 3 / (3 * 17)


@pytest.mark.parametrize("kind", KINDS)
def test_erosion_takes_foreground_alone_and_more_at_a_higher_strength(kind) -> None:
    labels, before = REAL[0], THINGS[REAL[0]]
    erosion = prepare(labels, THINGS, kind, np.random.default_rng(0))
    weak, strong = erosion.at(labels, 0.2), erosion.at(labels, 0.5)
    assert (erosion.at(labels, 0.0) == labels).all()
    assert (labels[~before] == strong[~before]).all()
    lost_weak, lost_strong = before & (weak != labels), before & (strong != labels)
    assert not (lost_weak & ~lost_strong).any()
    assert 0.1 < lost_weak.sum() / before.sum() < 0.3 < lost_strong.sum() / before.sum() < 0.65
    assert not THINGS[strong[lost_strong]].any()
    assert not (strong[lost_strong] == IGNORE).any()


def test_replace_brings_background() -> None:
    taken = THINGS[REAL[0]] & ~THINGS[eaten(REAL[:1], "replace", 0.5)[0]]
    assert set(np.unique(eaten(REAL[:1], "replace", 0.5)[0][taken])) <= {ROAD, VEGETATION}


@pytest.mark.parametrize("kind", KINDS)
def test_score_falls_with_erosion(model, kind) -> None:
    scores = [invasion_score(model, eaten(HELD_OUT, kind, p)).score for p in (*LEVELS, 0.8)]
    assert scores[0] > 9
    assert all(high > low + 0.2 for high, low in itertools.pairwise(scores[:5]))
    assert scores[5] < scores[3]  # past the last level it saturates
    assert scores[4] < (7.5 if kind == "bites" else 3.5)  # bites were not calibrated on


def test_real_scenes_score_ten(model) -> None:
    assert invasion_score(model, REAL).score == 10
    assert all(np.all(np.diff(curve) >= 0) for row in model.classes for curve in row.losses.values())


def test_a_vanished_class_counts_as_eaten_whole(model) -> None:
    bare = [np.where(labels == POLE, 0, labels).astype(np.uint8) for labels in REAL]
    found = invasion_score(model, bare)
    weights = {row.name: row.weight for row in model.classes}
    assert found.damage["pole"] == LEVELS[-1]
    assert found.score == pytest.approx(10 * weights["car"] / (weights["car"] + weights["pole"]))


def test_model_is_the_same_after_json_and_for_the_same_seed(model) -> None:
    again = model_from_json(json.loads(json.dumps(model.to_json())))
    assert again == model == fit_invasion(REAL, TAXONOMY, seed=3)
    first, second = invasion_score(model, HELD_OUT), invasion_score(again, HELD_OUT)
    assert first == second
    assert 0 <= first.error < 0.5
    assert first.scenes == 10


def test_refusals(model) -> None:
    with pytest.raises(InputError, match="fit it again"):
        model_from_json({"format": "other"})
    with pytest.raises(InputError, match="foreground"):
        fit_invasion([np.zeros((4, 4, 4), np.uint8)], TAXONOMY, seed=0)
    with pytest.raises(InputError, match="0 scenes"):
        invasion_score(model, [])
