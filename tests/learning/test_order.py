"""Data order: every sample once an epoch, the same from any start, shared out to devices without overlap."""

from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.learning.config import TrainConfig
from pipeline.learning.order import Order


def order(samples, batch_size, span, *, seed=3, accumulation=1, device=(0, 1)):
    config = TrainConfig(steps=1, batch_size=batch_size, accumulation=accumulation, seed=seed)
    return list(Order(samples, config, span, device))


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 9), start=st.integers(0, 8))
def test_epochs_are_permutations_and_a_start_is_a_jump(samples, batch_size, seed, start) -> None:
    whole = order(samples, batch_size, (0, 10), seed=seed)
    assert order(samples, batch_size, (start, 10), seed=seed) == whole[start:]
    drawn = list(chain.from_iterable(whole))
    assert [position for _, position in drawn] == list(range(10 * batch_size))
    for first in range(0, len(drawn) - samples + 1, samples):
        assert sorted(index for index, _ in drawn[first : first + samples]) == list(range(samples))


def test_epochs_and_seeds_differ() -> None:
    first, second = order(50, 50, (0, 2))
    assert [i for i, _ in first] != [i for i, _ in second]
    assert order(50, 50, (0, 1), seed=4) != order(50, 50, (0, 1), seed=5)


def test_devices_and_parts_share_the_batch_out() -> None:
    whole = order(30, 12, (0, 4))
    first, second = (order(30, 12, (0, 4), accumulation=2, device=(rank, 2)) for rank in (0, 1))
    for step in range(4):
        # slots of three: part 0 on device 0, part 0 on device 1, part 1 on device 0, part 1 on device 1
        shared = [*first[2 * step], *second[2 * step], *first[2 * step + 1], *second[2 * step + 1]]
        assert shared == whole[step]
