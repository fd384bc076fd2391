"""The released generator of houses: it loads, it is small, and what it draws from nothing has the parts of a house."""

from pathlib import Path

import pytest

from flows.generator_recipes import generator_recipe
from pipeline.generators.scaffold import Scaffold
from pipeline.generators.token_sampling import ScaffoldSampling
from pipeline.houses.check import check_house, rates

WEIGHTS = Path(__file__).resolve().parents[2] / "data" / "weights" / "houses"


def test_files_are_small_enough_to_ship() -> None:
    sizes = [path.stat().st_size for path in WEIGHTS.glob("*.safetensors")]
    assert len(sizes) == 3
    assert sum(sizes) <= 9e6


def test_it_is_the_recipe_and_says_where_it_comes_from() -> None:
    found, recipe = Scaffold.load(WEIGHTS), generator_recipe("houses")
    assert isinstance(recipe, type(found.config))
    assert found.config.network == recipe.network
    assert found.config.sampling == recipe.sampling
    assert found.occupancy is not None
    assert recipe.occupancy is not None
    assert found.occupancy.config.network == recipe.occupancy.network
    assert found.occupancy.config.coarse is not None
    assert recipe.occupancy.coarse is not None
    assert found.occupancy.config.coarse.network == recipe.occupancy.coarse.network
    assert found.occupancy.config.sampling == recipe.occupancy.sampling
    for field in ("data_digest", "training", "hardware"):
        assert found.provenance[field]


@pytest.mark.parametrize("seed", [0])
def test_few_steps_draw_walls_under_a_roof(seed: int) -> None:
    generator = Scaffold.load(WEIGHTS)
    few = ScaffoldSampling(sampler="confidence", chance=8, steps=8, batch=1, threads=1)
    generator.config = generator.config.model_copy(update={"sampling": few})
    (scene,) = generator.sample(1, [seed])
    assert 150 < (scene.labels > 0).sum() < 1100
    found = rates([check_house(scene.labels)])
    assert found["connected"] > 0.9
    assert found["wall_blocks"] > 0.8
    assert found["roofed"] > 0.8
