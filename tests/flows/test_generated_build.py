"""A build whose scenes come from a generator: tiled, masked, the same in any way, known by its weights' digest."""

from pathlib import Path

import numpy as np
import pytest

from flows.build import build_dataset
from flows.generator_recipes import comp_d3pm_tiny
from flows.inspect import verify_dataset
from flows.recipes import BuildRecipe, GeneratorSource, GridConfig, load_recipe, weights_digest
from flows.view_recipe import ViewConfig
from pipeline.datasets.semantic_kitti import open_root, read_frame
from pipeline.generators.comp_d3pm import CompD3PM
from pipeline.scene.errors import InputError
from tests.flows.toy_plan import files_of


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    generator = CompD3PM(comp_d3pm_tiny())
    generator.frequency = np.full(len(generator.taxonomy.classes), 0.05)
    folder = tmp_path_factory.mktemp("weights")
    generator.save(folder / "tiny")
    return folder / "tiny"


def recipe_of(weights: Path, shape: tuple[int, int, int]) -> BuildRecipe:
    grid = GridConfig(shape=shape, voxel_size_m=0.4, origin_m=(0.0, -0.2 * shape[1], -2.0))
    source = GeneratorSource(weights=weights, weights_digest=weights_digest(weights), grid=grid, overlap_m=1.6)
    views = ViewConfig(width_px=96, height_px=32)
    return BuildRecipe(name="generated", samples=3, shard_samples=2, source=source, views=views, gallery_samples=2)


@pytest.mark.parametrize("shape", [(16, 16, 8), (28, 16, 8)])
def test_the_same_bytes_however_it_is_built(weights, tmp_path, shape) -> None:
    recipe = recipe_of(weights, shape)
    for name, workers in (("one", 1), ("two", 2)):
        build_dataset(recipe, tmp_path / name, "none", workers)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert verify_dataset(tmp_path / "one", quiet=True) == []
    root = open_root(tmp_path / "one")
    frames = [read_frame(root, *key) for key in root.frames("train")]
    assert len(frames) == 3
    assert all(frame.grid.shape == shape and frame.invalid is not None for frame in frames)
    assert not np.array_equal(frames[0].labels, frames[1].labels)


def test_weights_are_part_of_the_digest_and_their_place_is_not(weights, tmp_path) -> None:
    recipe = load_recipe("generated", weights)
    assert str(weights) not in recipe.model_dump_json()
    other = recipe.source.model_copy(update={"weights": tmp_path})
    assert recipe.model_copy(update={"source": other}).digest() == recipe.digest()
    changed = recipe.source.model_copy(update={"weights_digest": "0" * 64})
    assert recipe.model_copy(update={"source": changed}).digest() != recipe.digest()
    assert load_recipe("generated", weights, ("samples=2", "source.overlap_m=3.2")).source.weights == weights


def test_a_folder_without_weights_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"card\.json"):
        load_recipe("generated", tmp_path)
