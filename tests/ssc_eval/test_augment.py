"""Photometric jitter and the mirror."""

import numpy as np
import pytest

from ssc_eval.augment import as_floats, flipped, jittered


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((6, 8, 3), np.float32)


def test_bytes_become_floats_in_0_to_1() -> None:
    assert as_floats(np.array([[[0, 51, 255]]], np.uint8)).tolist() == [[[0, pytest.approx(0.2), 1]]]


def test_no_strength_changes_nothing() -> None:
    assert np.allclose(jittered(image(), 0.0, np.random.default_rng(0)), image(), atol=1e-6)


def test_jitter_stays_in_0_to_1_and_is_the_same_for_the_same_generator() -> None:
    draws = [jittered(image(), 0.4, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert all(draw.dtype == np.float32 and draw.min() >= 0 and draw.max() <= 1 for draw in draws)
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_jitter_of_a_uniform_grey_is_brightness_alone() -> None:
    grey = np.full((4, 4, 3), 0.5, np.float32)
    found = [jittered(grey, 0.4, np.random.default_rng(seed))[0, 0, 0] for seed in range(200)]
    assert 0.3 - 1e-6 <= min(found) < 0.33
    assert 0.67 < max(found) <= 0.7 + 1e-6
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)


def test_saturation_keeps_grey_and_contrast_keeps_the_mean() -> None:
    class Fixed:
        """A generator whose draws are given."""

        def __init__(self, factors: list[float]):
            self.factors = factors

        def uniform(self, low: float, high: float, size: int) -> np.ndarray:
            return np.array(self.factors[:size])

        def permutation(self, n: int) -> np.ndarray:
            return np.arange(n)

    luma = np.array([0.299, 0.587, 0.114], np.float32)
    middle = 0.25 + 0.5 * image()  # nothing is clipped
    dull = jittered(middle, 0.4, Fixed([1.0, 1.0, 0.6]))  # type: ignore[arg-type]
    flat = jittered(middle, 0.4, Fixed([1.0, 0.6, 1.0]))  # type: ignore[arg-type]
    assert np.allclose(dull @ luma, middle @ luma, atol=1e-6)
    assert dull.std(-1).mean() < middle.std(-1).mean()
    assert (flat @ luma).mean() == pytest.approx((middle @ luma).mean(), abs=1e-6)
    assert np.allclose(flat - flat.mean((0, 1)), 0.6 * (middle - middle.mean((0, 1))), atol=1e-6)


def test_a_flip_twice_is_none() -> None:
    assert np.array_equal(flipped(flipped(image())), image())
    assert np.array_equal(flipped(image())[:, 0], image()[:, -1])
