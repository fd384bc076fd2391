"""Schedules fall from 1, follow their formulas, and respaced times run from T to 0."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.diffusion.schedules import ScheduleKind, alpha_bars, clock, pairs, respaced
from pipeline.scene.errors import InputError

KINDS: list[ScheduleKind] = ["cosine", "cosine_squared", "linear"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [2, 3, 10, 100, 1000])
def test_falls_from_one_to_nearly_nothing(kind: ScheduleKind, steps: int) -> None:
    bars = alpha_bars(kind, steps)
    assert bars.dtype == np.float64
    assert bars.shape == (steps + 1,)
    assert bars[0] == 1
    assert (np.diff(bars) < 0).all()
    assert 0 < bars[-1] < 2e-3
    assert (bars[1:] / bars[:-1] >= 0.001 - 1e-12).all()  # beta_t <= 0.999


def test_cosine_by_hand_and_its_square() -> None:
    T = 100
    u = (np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2
    cosine, squared = alpha_bars("cosine", T), alpha_bars("cosine_squared", T)
    assert np.allclose(cosine[:-1], (np.cos(u) / np.cos(u[0]))[:-1], atol=1e-12)
    assert np.allclose(squared[:-1], cosine[:-1] ** 2, atol=1e-12)
    assert cosine[50] == pytest.approx(np.cos(0.508 / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2))
    assert cosine[50] == pytest.approx(0.7027, abs=1e-4)
    assert squared[50] == pytest.approx(0.4938, abs=1e-4)  # quite another schedule
    assert cosine[-1] == pytest.approx(cosine[-2] * 0.001)  # cos(pi/2) = 0 meets the bound on beta


def test_linear_by_hand() -> None:
    bars = alpha_bars("linear", 1000)
    betas = 1 - bars[1:] / bars[:-1]
    assert betas[0] == pytest.approx(1e-4)
    assert betas[-1] == pytest.approx(0.02)
    assert np.allclose(np.diff(betas), (0.02 - 1e-4) / 999)
    short = alpha_bars("linear", 100)  # rescaled: about as much is left at the same share of the way
    assert np.allclose(short, bars[::10], atol=0.02)


@pytest.mark.parametrize("steps", [2, 20, 100, 1000])
def test_a_clock_tells_when_cosine_leaves_as_much(steps: int) -> None:
    own = clock(alpha_bars("cosine", steps))
    assert np.allclose(own, np.arange(steps + 1), atol=2e-3)  # the last, where the bound on beta holds, a little less
    assert np.abs(own[:-1] - np.arange(steps)).max() < 1e-6
    for kind in ("cosine_squared", "linear"):
        bars = alpha_bars(kind, steps)
        told = clock(bars)
        assert told[0] == pytest.approx(0, abs=1e-9)
        assert (np.diff(told) > 0).all()
        assert told[-1] <= steps
        u = (told / steps + 0.008) / 1.008 * np.pi / 2
        assert np.allclose(np.cos(u) / np.cos(0.008 / 1.008 * np.pi / 2), bars, atol=1e-12)
    assert clock(alpha_bars("linear", 100))[26] == pytest.approx(66.34, abs=0.01)  # half is left


@given(st.integers(1, 300).flatmap(lambda T: st.tuples(st.just(T), st.integers(1, T))))
def test_respaced_runs_evenly_down_to_zero(case: tuple[int, int]) -> None:
    steps, samples = case
    times = respaced(steps, samples)
    assert len(times) == samples + 1
    assert (times[0], times[-1]) == (steps, 0)
    gaps = -np.diff(times)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 2
    assert pairs(times) == [(times[k], times[k + 1]) for k in range(samples)]


def test_all_steps_are_every_time() -> None:
    assert respaced(7, 7) == [7, 6, 5, 4, 3, 2, 1, 0]
    assert respaced(100, 1) == [100, 0]
    assert pairs([10, 4, 0]) == [(10, 4), (4, 0)]


@pytest.mark.parametrize("samples", [0, -1, 101])
def test_wrong_number_of_steps(samples: int) -> None:
    with pytest.raises(InputError, match=r"1 to 100 .*found " + str(samples)):
        respaced(100, samples)
