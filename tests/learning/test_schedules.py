"""Learning-rate factors against values worked by hand."""

import pytest
from pydantic import ValidationError

from pipeline.learning.config import Schedule, TrainConfig
from pipeline.learning.schedules import rate_factor


def factors(schedule, steps, samples=10, **fields):
    config = TrainConfig(**{"steps": 10, "batch_size": 4, "schedule": schedule, **fields})
    return [rate_factor(config, step, samples) for step in steps]


def test_constant_with_warm_up() -> None:
    assert factors(Schedule(warmup_steps=4), range(6)) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_falls_from_the_warm_up_to_the_floor() -> None:
    # total 10, warm-up 2: p = (s - 2) / 8; cos(0) = 1, cos(pi / 4) = 0.70710678, cos(pi / 2) = 0, cos(pi) = -1
    got = factors(Schedule(kind="cosine", warmup_steps=2, floor=0.2), [0, 1, 2, 4, 6, 10])
    assert got == pytest.approx([0.5, 1.0, 1.0, 0.2 + 0.8 * 0.85355339, 0.6, 0.2])


def test_multistep_by_step() -> None:
    schedule = Schedule(kind="multistep", milestones=(2, 4), gamma=0.5)
    assert factors(schedule, range(6)) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_multistep_by_epoch_counts_whole_passes() -> None:
    # 10 samples in batches of 4: step 2 has seen 8, step 3 has seen 12, step 5 has seen 20
    schedule = Schedule(kind="multistep", milestones=(1, 2), unit="epoch", gamma=0.1)
    assert factors(schedule, range(6)) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (2, 5), (0.4, 1), (3.2, 8)])
def test_epochs_round_up_to_steps(epochs, steps) -> None:
    assert TrainConfig(epochs=epochs, batch_size=4).total_steps(10) == steps


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"steps": 1, "epochs": 1},
        {"steps": 1, "batch_size": 4, "accumulation": 3},
        {"steps": 1, "schedule": {"kind": "multistep"}},
        {"steps": 1, "schedule": {"kind": "multistep", "milestones": [5, 3]}},
        {"steps": 1, "schedule": {"milestones": [5]}},
        {"steps": 1, "typo": 1},
    ],
)
def test_senseless_configs_are_refused(fields) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(**{"batch_size": 4, **fields})
