"""Houses from files to files: a root made, trained on, drawn from, edited, measured, viewed and exported."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from flows.cli import app
from flows.edit_houses import Chosen, HouseEdit, edit_houses
from flows.evaluate_houses import HousesRecipe, evaluate_houses, table
from flows.generator_recipes import generator_recipe
from flows.generators import load_generator, sample_recipe, sample_scenes, train_generator
from flows.houses import HouseRecipe, listed, make_houses
from flows.recipes import validated
from flows.scene_sets import folder_set
from pipeline.datasets.craft3d import House, open_craft3d, write_house, write_schematic
from pipeline.generators.scaffold import Scaffold, ScaffoldConfig
from pipeline.generators.tokens import placed
from pipeline.houses.check import CHECKS
from pipeline.scene.errors import InputError

RECIPE = HouseRecipe(houses=8, seed=5, val_share=0.25, test_share=0.1, shard_houses=3)
SMALL = ("network.width=12", "occupancy.network.width=12", "max_tokens=256", "sampling.steps=1", "sampling.batch=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_houses(RECIPE, tmp_path_factory.mktemp("houses") / "root")


@pytest.fixture(scope="module")
def weights(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_generator(generator_recipe("craft3d_tiny", SMALL), root, tmp_path_factory.mktemp("run"))


def scaffold(weights: Path) -> Scaffold:
    found = load_generator(weights)
    assert isinstance(found, Scaffold)
    return found


def test_training_goes_on_with_an_addition_that_begins_at_nothing(root: Path, weights: Path, tmp_path: Path) -> None:
    changes = (*SMALL, "network.census=true", "wear=0.3", "training.learning_rate=1e-9", "occupancy.training.steps=1")
    found = scaffold(train_generator(generator_recipe("craft3d_tiny", changes), root, tmp_path, start=weights))
    before, after = scaffold(weights).network.state_dict(), found.network.state_dict()
    assert set(after) - set(before) == {"census.weight", "census.bias"}
    assert all(np.allclose(after[name], before[name], atol=1e-6) for name in before)
    assert 0 < float(after["census.weight"].abs().max()) < 1e-6
    other = generator_recipe("craft3d_tiny", (*SMALL, "network.reach=1"))  # an addition that begins otherwise
    with pytest.raises(InputError, match="weights named"):
        train_generator(other, root, tmp_path / "other", start=weights)


def test_a_deeper_network_begins_as_the_one_it_grew_from(root: Path, weights: Path, tmp_path: Path) -> None:
    old = scaffold(weights)
    deeper = (*SMALL, "network.depth=3", "*.training.learning_rate=1e-9", "*.training.steps=1")
    grown = scaffold(train_generator(generator_recipe("craft3d_tiny", deeper), root, tmp_path, start=weights))
    assert grown.config.network.depth == 3 > old.config.network.depth
    classes = torch.arange(12) - 1  # the first is hidden
    rows = classes, torch.stack([torch.arange(12)] * 3, dim=1), [5, 7]
    with torch.no_grad():
        before, after = (each.network.eval()(*rows) for each in (old, grown))
    assert torch.allclose(before, after, atol=1e-6)
    assert before.std() > 1e-4  # they say something


def test_maps_of_one_network_begin_both(root: Path, weights: Path, tmp_path: Path) -> None:
    own = '{"network":{"width":12,"depth":1,"heads":2},"training":{"steps":1,"batch_size":2,"learning_rate":1e-9}}'
    settings = generator_recipe("craft3d_tiny", (*SMALL, "*.training.learning_rate=1e-9", f"occupancy.coarse={own}"))
    found = scaffold(train_generator(settings, root, tmp_path, start=weights))
    before = scaffold(weights).stages["occupancy"].network.state_dict()
    for name in ("coarse", "occupancy"):
        after = found.stages[name].network.state_dict()
        assert all(np.allclose(after[part], before[part], atol=1e-6) for part in before)
    changed = generator_recipe("houses", ("*.training.steps=7",))
    assert isinstance(changed, ScaffoldConfig)
    assert changed.occupancy is not None
    assert changed.occupancy.coarse is not None
    stages = (changed.training, changed.occupancy.training, changed.occupancy.coarse.training)
    assert [training.steps for training in stages] == [7, 7, 7]
    single = generator_recipe("houses", ("occupancy.coarse=null", "*.training.steps=7"))
    assert isinstance(single, ScaffoldConfig)
    assert single.occupancy is not None
    assert single.occupancy.coarse is None


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".build" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_root_is_read_as_3d_craft(root: Path) -> None:
    found = open_craft3d(root)
    assert {split: len(names) for split, names in found.splits.items()} == {"train": 5, "val": 2, "test": 1}
    houses = [found.house(name) for names in found.splits.values() for name in names]
    assert all(house.fits(32, 1024) and house.occupied > 150 for house in houses)
    assert len({house.blocks.tobytes() for house in houses}) == 8
    assert (houses[0].meta > 0).any()
    assert houses[0].cropped().blocks.shape == houses[0].blocks.shape


def test_an_interrupted_root_is_finished_to_the_same_bytes(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    (broken / ".build/records/houses/00001.json").unlink()  # killed before it was done, and one file damaged since
    (broken / "houses/val_00000/schematic.npy").write_bytes(b"damaged")
    assert contents(make_houses(RECIPE, broken)) == contents(root)
    with pytest.raises(InputError, match="of this recipe"):
        make_houses(RECIPE.model_copy(update={"seed": 6}), broken)


def test_a_house_is_of_its_own_seed() -> None:
    """Whatever the shards, and however many houses there are."""
    more = RECIPE.model_copy(update={"houses": 30, "shard_houses": 30})
    seeds = {name: seed for _, name, seed in listed(more)}
    assert all(seeds[name] == seed for _, name, seed in listed(RECIPE))
    assert len(set(seeds.values())) == 30
    with pytest.raises(InputError, match="leave houses to train on"):
        validated(HouseRecipe, {"houses": 4, "val_share": 0.49, "test_share": 0.49})


def test_drawn_houses_are_a_root(weights: Path, tmp_path: Path) -> None:
    out = sample_scenes(sample_recipe(weights, 3, seed=2), tmp_path / "drawn")
    found = folder_set(out)
    assert len(found) == 3
    drawn = scaffold(weights).sample(3, _seeds(3))
    for k, scene in enumerate(drawn):
        assert np.array_equal(found.scene(k).labels, scene.labels)


def _seeds(count: int) -> list[int]:
    from flows.generators import scene_seeds

    return scene_seeds(2, range(count))


EDITS: list[dict[str, Any]] = [
    {"keep": "lower"},
    {"keep": "front", "own_map": True},
    {"recolour": True, "only": ("brick_block", "glass")},
    {"box": (0, 0, 1, 4, 4, 4), "own_map": True},
]


@pytest.mark.parametrize("fields", EDITS)
def test_what_an_edit_keeps_survives(root: Path, weights: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    generator, edit = scaffold(weights), HouseEdit(**fields)
    found = edit_houses(generator, Chosen(root, split="val", count=2), edit, 1, tmp_path / "out")
    assert found["houses"] == 2
    assert json.loads((tmp_path / "out/edit.json").read_text())["houses"] == 2
    for name in ("val_00000", "val_00001"):
        before = placed(open_craft3d(root).house(name).scene(), generator.grid)
        region = edit.region(before)
        after = _laid(open_craft3d(tmp_path / "out").house(name), before)
        if edit.fixed_map:
            assert np.array_equal(after != 0, before != 0)
        if edit.only:
            assert set(np.unique(after[before != 0])) == {45, 20}
        assert np.array_equal(after[~region], before[~region])
        assert not np.array_equal(after, before)


def _laid(house: House, like: np.ndarray) -> np.ndarray:
    """A cropped house where its blocks fit a grid best: edits keep most of it in place."""
    size, best = house.blocks.shape, (-1, like)
    for x in range(33 - size[0]):
        for y in range(33 - size[1]):
            labels = np.zeros_like(like)
            labels[x : x + size[0], y : y + size[1], : size[2]] = house.blocks
            best = max(best, (int((labels == like).sum()), labels), key=lambda found: found[0])
    return best[1]


def test_variants_of_one_house_differ(root: Path, weights: Path, tmp_path: Path) -> None:
    chosen = Chosen(root, house="val_00001", count=2)
    edit_houses(scaffold(weights), chosen, HouseEdit(recolour=True), 1, tmp_path / "out")
    one, two = (open_craft3d(tmp_path / "out").house(f"val_00001_{k:02d}").blocks for k in (0, 1))
    assert np.array_equal(one != 0, two != 0)
    assert not np.array_equal(one, two)


def test_edits_that_say_too_little_or_too_much(root: Path, weights: Path, tmp_path: Path) -> None:
    generator, chosen = scaffold(weights), Chosen(root, split="val", count=1)
    with pytest.raises(InputError, match="one of --keep, --recolour and --box"):
        HouseEdit(keep="lower", recolour=True)
    with pytest.raises(InputError, match="one of lower, upper"):
        HouseEdit(keep="north")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--box: expected x0,y0,z0"):
        edit_houses(generator, chosen, HouseEdit(box=(0, 0, 0, 40, 4, 4)), 0, tmp_path / "a")
    generator.source = None
    with pytest.raises(InputError, match="--own-map"):
        edit_houses(generator, chosen, HouseEdit(keep="lower"), 0, tmp_path / "b")
    assert not (tmp_path / "a").exists()


def test_real_houses_beside_themselves(root: Path, weights: Path) -> None:
    """Held-out houses as if generated: every rate the same, nothing nearer to training than they are."""
    recipe = HousesRecipe(real=root, generated=root, weights=weights, maps=1, draws=2)
    found = evaluate_houses(recipe)
    assert set(found.structure) == set(CHECKS)
    assert found.near_share > 0.9
    assert found.sets["generated"][0] == 8
    assert found.memorisation.generated[0] == 0.0  # training's own houses are among them
    assert found.one_map is not None
    assert 0.5 < found.one_map.differing <= 1  # an untrained network
    text = table(found)
    assert all(f"| {name}:" in text for name in CHECKS)
    worse = replace(found, structure={"roofed": (1.0, 0.8), "one_roof_slope": (float("nan"), 1.0)})
    assert worse.near_share == 0


def test_houses_that_fit_are_trained_on_without_splits(root: Path, tmp_path: Path) -> None:
    """A folder of bare schematics, one of them too large."""
    for name in ("train_00000", "train_00001"):
        write_schematic(tmp_path / f"bare/{name}.npy", open_craft3d(root).house(name))
    large = np.ones((40, 4, 4), np.uint8)
    write_schematic(tmp_path / "bare/large.npy", House("large", large, large))
    config = generator_recipe("craft3d_tiny", (*SMALL, "*.training.steps=1"))
    assert scaffold(train_generator(config, tmp_path / "bare", tmp_path / "run")).provenance["scenes"] == 2


def test_commands(root: Path, weights: Path, tmp_path: Path) -> None:
    def run(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    run("houses", "--out", tmp_path / "few", "--houses", 3, "--workers", 1, "--quiet")
    assert len(list((tmp_path / "few/houses").iterdir())) == 3
    run("sample", "--weights", weights, "--out", tmp_path / "drawn", "-n", 2, "--quiet")
    assert "2 scenes" in run("view", tmp_path / "drawn", "--out", tmp_path / "page.html")
    assert "1 scene" in run("view", "--weights", weights, "-n", 1, "--steps", 3, "--out", tmp_path / "steps.html")
    house = tmp_path / "drawn/houses/000001"
    assert "blocks" in run("blocks", house, "--out", tmp_path / "house.npy")
    out = tmp_path / "kept"
    run("edit-houses", root, "--weights", weights, "--keep", "lower", "--own-map", "-n", 1, "--out", out, "--quiet")
    figures = tmp_path / "figures"
    text = run("evaluate-houses", "--real", root, "--generated", tmp_path / "drawn", "--out", figures)
    assert "within 10 %" in text
    assert json.loads((figures / "table.json").read_text())["structure"]["roofed"][0] == 1.0
    with pytest.raises(InputError, match="six whole numbers"):
        run("edit-houses", root, "--weights", weights, "--box", "1,2", "--out", tmp_path / "x")


def test_meshes_and_structures_of_drawn_houses(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    pytest.importorskip("nbtlib")
    (scene,) = scaffold(weights).sample(1, [3])
    write_house(tmp_path, House("drawn", scene.labels, np.zeros_like(scene.labels)))
    for name in ("mesh --out house.ply", "mesh --out house.glb", "blocks --out house.nbt"):
        command, option, file = name.split()
        words = [command, str(tmp_path / "houses/drawn"), option, str(tmp_path / file)]
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
        assert (tmp_path / file).stat().st_size > 1000
