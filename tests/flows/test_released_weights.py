"""The released generator: it loads, it is as small as promised, and what it draws in few steps is already a street."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.generators.comp_d3pm import CompD3PM

WEIGHTS = Path(__file__).resolve().parents[2] / "data" / "weights" / "comp_d3pm"


def test_files_are_small_enough_to_ship() -> None:
    sizes = [path.stat().st_size for path in WEIGHTS.glob("*.safetensors")]
    assert len(sizes) == 3
    assert max(sizes) <= 16e6
    assert sum(sizes) <= 24e6


def test_ten_steps_draw_a_road_ahead_with_green_beside() -> None:
    generator = CompD3PM.load(WEIGHTS)
    generator.config = generator.config.model_copy(
        update={"sampling": generator.config.sampling.model_copy(update={"steps": 10, "fine_steps": 10, "batch": 4})}
    )
    labels = np.stack([scene.labels for scene in generator.sample(4, [0, 1, 2, 3])])
    names = generator.taxonomy.classes
    occupied = labels != 0
    assert 0.02 < occupied.mean() < 0.3
    share = {name: float((labels == names.index(name)).sum() / occupied.sum()) for name in names}
    assert share["road"] > 0.1
    assert share["vegetation"] > 0.05
    ahead = labels[:, 8:40, 30:34]  # where the vehicle drives: 3.2 to 16 m ahead, 1.6 m wide
    assert (ahead == names.index("road")).any(-1).mean() > 0.7


@pytest.mark.parametrize("field", ["data_digest", "training", "hardware"])
def test_the_card_tells_where_they_come_from(field: str) -> None:
    assert CompD3PM.load(WEIGHTS).provenance[field]
