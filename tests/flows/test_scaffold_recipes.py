"""Scaffold Diffusion's baselines as recipes: equal in size, trained from a root and drawn from into one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from flows.cli import app
from flows.generator_recipes import generator_recipe
from flows.generators import config_of, load_generator, new_generator, sample_recipe, sample_scenes, train_generator
from flows.scaffold_recipes import COMPARED, TINY_STREET_GRID
from flows.scaffold_table import networks, table_weights, trainings
from pipeline.datasets.craft3d import House, open_craft3d, write_house, write_splits
from pipeline.datasets.semantic_kitti import open_root, write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.generators.scaffold import ScaffoldConfig
from pipeline.generators.tokens import occupied
from pipeline.scene.errors import InputError
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE, load_taxonomy


def weights(name: str) -> int:
    """Weights of a recipe's networks, without a learned position table."""
    with torch.device("meta"):
        generator = new_generator(generator_recipe(name))
    return sum(p.numel() for net in networks(generator).values() for p in net.parameters()) - table_weights(generator)


def test_compared_recipes_are_of_one_size() -> None:
    found = {name: weights(name) for name in COMPARED}
    same = [found[name] for name in ("craft_scaffold", "craft_learned", "craft_autoregressive")]
    assert max(same) == min(same)  # one backbone
    assert 1e6 < same[0] < 2e6
    assert max(found.values()) / min(found.values()) < 1.1, found


def test_compared_recipes_train_alike() -> None:
    configs = [generator_recipe(name) for name in COMPARED]
    assert len({training for config in configs for training in trainings(config).values()}) == 1
    assert len({(config.grid.shape, config.taxonomy, config.turn) for config in configs}) == 1
    networks = [config.network for config in configs[:3]]
    assert networks[0] == networks[2] == networks[1].model_copy(update={"positions": "sincos"})


def test_a_change_of_all_stages_reaches_methods_without_stages() -> None:
    for name in COMPARED:
        changed = generator_recipe(name, ("*.training.steps=7", "sampling.batch=3"))
        assert {training.steps for training in trainings(changed).values()} == {7}
        assert changed.sampling.batch == 3
        assert config_of(changed.model_dump(mode="json")) == changed


def house(seed: int) -> House:
    """Walls of one block on a floor of another, with a little glass."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(4, 8, 2)
    blocks = np.zeros((x, y, 3), np.uint8)
    blocks[[0, -1]] = blocks[:, [0, -1]] = rng.choice([1, 4, 5])
    blocks[:, :, 0] = 3
    blocks[0, rng.integers(1, y - 1), 2] = 20
    return House(f"house_{seed}", blocks, np.zeros_like(blocks))


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("houses")
    for seed in range(5):
        write_house(root, house(seed))
    write_splits(root, {"train": ("house_0", "house_1", "house_2"), "val": ("house_3", "house_4")})
    return root


@pytest.mark.parametrize("name", [f"{name}_tiny" for name in COMPARED])
def test_tiny_recipes_are_trained_and_drawn_from(name: str, houses: Path, tmp_path: Path) -> None:
    config = generator_recipe(name, ("*.training.steps=2",))
    folder = train_generator(config, houses, tmp_path / "run")
    again = train_generator(config, houses, tmp_path / "again", start=folder)  # begins with its weights
    assert load_generator(again).config == config  # type: ignore[attr-defined]
    filled = name.startswith(("craft_scaffold", "craft_learned", "craft_autoregressive"))
    recipe = sample_recipe(folder, 5, complete=True, maps=(houses, "val") if filled else None)
    found = open_craft3d(sample_scenes(recipe, tmp_path / "drawn"))
    volumes = [found.scene(*frame).labels for frame in found.frames("train")]
    assert len(volumes) == 5
    assert found.taxonomy.name == "minecraft"
    if filled:
        counts = {open_craft3d(houses).house(f"house_{k}").occupied for k in (3, 4)}
        assert {int((volume != EMPTY).sum()) for volume in volumes} <= counts
        with pytest.raises(InputError, match="an occupancy map"):
            load_generator(folder).sample(1, [0])


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A car on a road, three times; 255 in a corner."""
    taxonomy, root = load_taxonomy("semantic_kitti"), tmp_path_factory.mktemp("streets")
    for k in range(3):
        labels = np.zeros(TINY_STREET_GRID.shape, np.uint8)
        labels[:, :, 0], labels[k : k + 4, 4:8, 1:4] = taxonomy.id_of("road"), taxonomy.id_of("car")
        labels[12:, 12:, 4:] = IGNORE
        write_frame(root, frame_of(Scene(labels, TINY_STREET_GRID, taxonomy), "00", f"{k:06d}"))
    write_layout(root, TINY_STREET_GRID, {"train": ["00"]})
    return root


def test_latent_diffusion_of_streets(streets: Path, tmp_path: Path) -> None:
    folder = train_generator(generator_recipe("street_latent_tiny", ("*.training.steps=2",)), streets, tmp_path / "run")
    found = open_root(sample_scenes(sample_recipe(folder, 2, complete=True), tmp_path / "drawn"))
    assert found.grid == TINY_STREET_GRID


def test_scaffold_of_streets_fills_given_maps(streets: Path, tmp_path: Path) -> None:
    recipe = generator_recipe("street_scaffold_tiny", ("*.training.steps=2",))
    assert isinstance(recipe, ScaffoldConfig)
    folder = train_generator(recipe, streets, tmp_path / "run")
    drawn = sample_scenes(sample_recipe(folder, 2, complete=True, maps=(streets, "train")), tmp_path / "drawn")
    found, real = open_root(drawn), open_root(streets)
    maps = {occupied(real.scene(*frame).labels).tobytes() for frame in real.frames("train")}
    assert {occupied(found.scene(*frame).labels).tobytes() for frame in found.frames("train")} <= maps
    assert occupied(real.scene("00", "000000").labels).sum() > recipe.max_tokens  # so it came in windows


def test_maps_by_command(houses: Path, tmp_path: Path) -> None:
    recipe = ("craft_autoregressive_tiny", ("*.training.steps=1",))
    folder = train_generator(generator_recipe(*recipe), houses, tmp_path / "run")
    options = ["--weights", str(folder), "-n", "2", "--complete", "--quiet"]
    maps = ["--maps", str(houses), "--maps-split"]
    done = CliRunner().invoke(app, ["sample", *options, "--out", str(tmp_path / "a"), *maps, "val"])
    assert done.exit_code == 0, done.output
    assert len(open_craft3d(tmp_path / "a").frames("train")) == 2
    refused = CliRunner().invoke(app, ["sample", *options, "--out", str(tmp_path / "b"), *maps, "night"])
    assert isinstance(refused.exception, InputError)
    assert "a split of train, val" in str(refused.exception)
