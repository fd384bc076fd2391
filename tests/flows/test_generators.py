"""Scene generators from files to files: trained on a written root, loaded, drawn from into a root."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.generator_recipes import TINY_GRID, generator_recipe
from flows.generators import (
    load_generator,
    sample_recipe,
    sample_scenes,
    scene_seeds,
    train_generator,
    with_sampling,
)
from pipeline.datasets.semantic_kitti import open_root, read_frame, write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

TAXONOMY = load_taxonomy("semantic_kitti")
NAMES = ("comp_d3pm_tiny", "whole_scene_tiny")


def street(seed: int, grid: VoxelGrid = TINY_GRID) -> Scene:
    """A road, a car somewhere on it, some voxels invalid."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, :, 0] = TAXONOMY.id_of("road")
    x = int(rng.integers(0, grid.shape[0] - 5))
    labels[x : x + 5, 4:8, 1:4] = TAXONOMY.id_of("car")
    labels[rng.random(grid.shape) < 0.2] = IGNORE
    return Scene(labels, grid, TAXONOMY)


def write_root(path: Path, grid: VoxelGrid = TINY_GRID) -> Path:
    for k in range(6):
        write_frame(path, frame_of(street(k, grid), "00" if k < 4 else "08", f"{k:06d}"))
    write_layout(path, grid, {"train": ["00"], "val": ["08"]})
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def weights(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: train_generator(generator_recipe(name), root, folder / name) for name in NAMES}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a root that belongs to the dataset."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".build" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", NAMES)
def test_drawn_scenes_are_a_root(name: str, weights: dict[str, Path], tmp_path: Path) -> None:
    recipe = sample_recipe(weights[name], 5, seed=3)
    assert (recipe.shard_samples, recipe.threads) == (4, 1)
    out = sample_scenes(recipe, tmp_path / "out")
    found = open_root(out)
    assert found.grid == TINY_GRID
    assert found.frames("train") == tuple(("00", f"{k:06d}") for k in range(5))
    complete = sample_scenes(sample_recipe(weights[name], 5, seed=3, complete=True), tmp_path / "complete")
    for (sequence, frame), scene in zip(found.frames("train"), drawn(weights[name], 5, 3), strict=True):
        masked, whole = read_frame(found, sequence, frame), open_root(complete).scene(sequence, frame)
        assert np.array_equal(whole.labels, scene)
        assert not (whole.labels == IGNORE).any()
        assert masked.invalid is not None
        assert masked.occluded is not None
        assert np.array_equal(masked.labels == IGNORE, masked.invalid)
        assert (masked.labels[~masked.invalid] == whole.labels[~masked.invalid]).all()


def drawn(folder: Path, samples: int, seed: int) -> list[np.ndarray]:
    generator = load_generator(folder)
    return [scene.labels for scene in generator.sample(samples, scene_seeds(seed, range(samples)))]


@pytest.mark.parametrize("name", NAMES)
def test_same_bytes_whatever_the_workers_and_after_an_interruption(
    name: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    recipe = sample_recipe(weights[name], 6, seed=1)
    one = contents(sample_scenes(recipe, tmp_path / "one"))
    two = contents(sample_scenes(recipe, tmp_path / "two", workers=2))
    assert one == two
    assert len([path for path in one if path.endswith(".label")]) == 6
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "one", broken)
    (
        broken / ".build/records/scenes/00001.json"
    ).unlink()  # killed before the second shard was done, and one file of the first was damaged since
    (broken / "sequences/00/voxels/000004.label").unlink()
    (broken / "sequences/00/voxels/000001.label").write_bytes(b"damaged")
    sample_scenes(recipe, broken)
    assert contents(broken) == one


def test_scene_i_depends_on_its_seed_alone(weights: dict[str, Path]) -> None:
    for folder in weights.values():
        few, many, others = drawn(folder, 2, 0), drawn(folder, 5, 0), drawn(folder, 2, 1)
        assert all(np.array_equal(a, b) for a, b in zip(few, many, strict=False))
        assert not np.array_equal(many[0], many[1])
        assert not any(np.array_equal(a, b) for a, b in zip(few, others, strict=True))


def test_another_seed_is_refused_in_a_folder_of_the_first(weights: dict[str, Path], tmp_path: Path) -> None:
    sample_scenes(sample_recipe(weights[NAMES[1]], 1, seed=0), tmp_path)
    with pytest.raises(InputError) as caught:
        sample_scenes(sample_recipe(weights[NAMES[1]], 1, seed=1), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_steps_from_the_same_weights(name: str, weights: dict[str, Path], tmp_path: Path) -> None:
    quick, whole = sample_recipe(weights[name], 2, complete=True, steps=2), sample_recipe(weights[name], 2)
    assert "steps" not in whole.model_dump()  # folders drawn before the field came go on
    found = open_root(sample_scenes(quick, tmp_path))
    sampling = {"steps": 2, "fine_steps": 2}
    generator = with_sampling(load_generator(weights[name]), sampling)
    expected = generator.sample(2, scene_seeds(0, range(2)))
    own = drawn(weights[name], 2, 0)
    for k in range(2):
        assert np.array_equal(found.scene("00", f"{k:06d}").labels, expected[k].labels)
        assert not np.array_equal(expected[k].labels, own[k])


def test_more_steps_than_trained_for_are_refused_before_anything_is_drawn(weights: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="sampling steps: expected 1 to 20") as caught:
        sample_recipe(weights[NAMES[0]], 2, steps=21)
    one_line(caught)


def test_methods_that_count_no_steps_say_so() -> None:
    with pytest.raises(InputError, match="counts no steps") as caught:
        sample_recipe(Path(__file__).parents[2] / "data/weights/houses", 1, steps=3)
    one_line(caught)


def test_stages_trained_one_by_one_are_those_trained_together(
    root: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    config = generator_recipe("comp_d3pm_tiny")
    for stage in ("fusion", "background", "foreground"):
        train_generator(config, root, tmp_path, (stage,))
        assert not (tmp_path / "weights").exists()
    folder = train_generator(config, root, tmp_path)  # takes up what the others finished
    assert all(np.array_equal(a, b) for a, b in zip(drawn(folder, 2, 0), drawn(weights[NAMES[0]], 2, 0), strict=True))


def test_card_says_what_was_learned(weights: dict[str, Path]) -> None:
    card = json.loads((weights[NAMES[0]] / "card.json").read_text())
    assert card["scenes"] == 4  # the training split alone
    assert card["config"]["method"] == "comp_d3pm"
    assert len(card["frequency"]) == len(TAXONOMY.classes)
    assert card["frequency"][0] > card["frequency"][TAXONOMY.id_of("car")] > 0


def test_unknown_stage(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--stage: expected one of background, foreground, fusion, found roof"):
        train_generator(generator_recipe("comp_d3pm_tiny"), root, tmp_path, ("roof",))


def one_line(caught: pytest.ExceptionInfo[InputError], *words: str) -> None:
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_damaged_weights(weights: dict[str, Path], tmp_path: Path) -> None:
    for name, damage in (("fusion.safetensors", b"nothing"), ("card.json", b"{}"), ("card.json", b"\xff")):
        folder = tmp_path / f"{name}{len(damage)}"
        shutil.copytree(weights[NAMES[0]], folder)
        (folder / name).write_bytes(damage)
        with pytest.raises(InputError) as caught:
            load_generator(folder)
        one_line(caught)


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        sample_recipe(tmp_path / "nothing", 3)
    one_line(caught)


def test_another_grid_or_taxonomy_or_no_scene(root: Path, tmp_path: Path) -> None:
    other = write_root(tmp_path / "other", VoxelGrid((16, 16, 4), 0.4, TINY_GRID.origin_m))
    for changes in ((), ("taxonomy=carla_sc",)):
        with pytest.raises(InputError) as caught:
            train_generator(generator_recipe("comp_d3pm_tiny", changes), root if changes else other, tmp_path / "out")
        one_line(caught, "training scene", "semantic_kitti")
    write_layout(tmp_path / "other", VoxelGrid((16, 16, 4), 0.4, TINY_GRID.origin_m), {"train": [], "val": ["08"]})
    with pytest.raises(InputError) as caught:
        train_generator(generator_recipe("comp_d3pm_tiny"), other, tmp_path / "out")
    one_line(caught)
