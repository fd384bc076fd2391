"""The confusion against a plain loop, and the scores against hand-worked cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scene.confusion import class_ious, confusion, scores
from pipeline.scene.errors import InputError


def plain_confusion(target, prediction, classes: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), np.int64)
    for t, p in zip(target.ravel(), prediction.ravel(), strict=True):
        if t != 255:
            matrix[t, p] += 1
    return matrix


@given(st.integers(0, 2**32 - 1), st.integers(2, 20))
@settings(max_examples=50, deadline=None)
def test_equals_a_plain_loop_and_adds_up(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.choice(np.r_[np.arange(classes), 255], size=(7, 5, 3)).astype(np.uint8)
    prediction = rng.integers(0, classes, size=(7, 5, 3)).astype(np.uint8)
    whole = confusion(target, prediction, classes)
    np.testing.assert_array_equal(whole, plain_confusion(target, prediction, classes))
    mask = rng.random(target.shape) < 0.5
    halves = confusion(target, prediction, classes, mask) + confusion(target, prediction, classes, ~mask)
    np.testing.assert_array_equal(whole, halves)


@pytest.mark.parametrize("size", [0, 5, 8, 64, 1003])
def test_runs_of_empty_and_ignored_voxels_count_as_each_voxel_would(size: int) -> None:
    rng = np.random.default_rng(size)
    target, prediction = (np.repeat(rng.choice([0, 0, 2, 255], size), 8)[3 : size + 3].astype(np.uint8) for _ in "tp")
    prediction[prediction == 255] = 1
    np.testing.assert_array_equal(confusion(target, prediction, 3), plain_confusion(target, prediction, 3))


def test_a_prediction_out_of_range_is_found_among_ignored_and_empty_voxels() -> None:
    target, prediction = np.full(64, 255, np.uint8), np.zeros(64, np.uint8)
    target[32], prediction[32] = 0, 7
    with pytest.raises(InputError, match="labels below 3"):
        confusion(target, prediction, 3)


def test_an_ignored_voxel_may_hold_any_prediction() -> None:
    matrix = confusion(np.array([255, 1], np.uint8), np.array([255, 1], np.uint8), 3)
    assert matrix.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_labels_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="labels below 3"):
        confusion(np.array([0], np.uint8), np.array([7], np.uint8), 3)
    with pytest.raises(InputError, match="labels below 3"):
        confusion(np.array([3], np.uint8), np.array([0], np.uint8), 3)


def test_hand_worked_scores() -> None:
    # target:     empty car car road road; prediction: car car road road empty
    target = np.array([0, 1, 1, 2, 2], np.uint8)
    prediction = np.array([1, 1, 2, 2, 0], np.uint8)
    result = scores(confusion(target, prediction, 4))
    assert result.iou == pytest.approx(3 / 5)  # hit 3, missed 1, invented 1
    assert result.precision == pytest.approx(3 / 4)
    assert result.recall == pytest.approx(3 / 4)
    assert result.class_iou == pytest.approx((1 / 3, 1 / 3, 0.0))
    assert result.miou == pytest.approx(2 / 9)  # the absent class counts 0


def test_nothing_at_all_scores_zero() -> None:
    result = scores(np.zeros((20, 20), np.int64))
    assert (result.iou, result.miou, result.precision, result.recall) == (0, 0, 0, 0)
    assert class_ious(np.eye(3, dtype=np.int64)).tolist() == [1, 1, 1]
