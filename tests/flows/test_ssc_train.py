"""`ssc train` and `ssc predict` as commands, and their recipes."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flows import ssc_train_cli
from flows.ssc_recipes import SSC_RECIPES, ssc_recipe
from flows.ssc_train_cli import source_of
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, SEMANTIC_KITTI_GRID
from ssc_eval.samples import Source
from ssc_eval.weights import load_ssc
from tests.ssc_eval.toy_root import write_toy_root

app = typer.Typer()
ssc_train_cli.register(app)
SOURCES = (Source(root=Path("real")), Source(root=Path("synthetic"), weight=3.0))


def test_a_network_is_trained_on_a_mixture_and_predicts(tmp_path: Path) -> None:
    splits = {"train": ["00"], "val": ["08"]}
    real, other = (
        write_toy_root(tmp_path / name, {"00": 3, "08": 2}, splits, seed=seed)
        for seed, name in enumerate(("real", "synthetic"))
    )
    run, out = str(tmp_path / "run"), tmp_path / "predicted"
    words = ["train", "tiny", "--source", f"{real},fraction=0.5", "--source", f"{other},weight=3,balanced=true"]
    more = ["--val", f"{real},frames=1", "--adapt", str(real), "--seed", "2", "--set", "training.validate_every=2"]
    found = CliRunner().invoke(app, [*words, *more, "--out", run], catch_exceptions=False)
    assert found.exit_code == 0
    assert found.output.splitlines()[-1] == f"{run}/weights"
    assert "validate/miou" in found.output
    _, card = load_ssc(Path(run) / "weights")
    assert [(s["name"], s["weight"], s["fraction"]) for s in card["sources"]] == [
        ("real", 1.0, 0.5),
        ("synthetic", 3.0, 1.0),
    ]
    assert (card["seed"], card["adapted"], card["steps"]) == (2, True, 4)
    told = CliRunner().invoke(
        app, ["predict", f"{run}/weights", str(real), "--out", str(out), "--batch", "2"], catch_exceptions=False
    )
    assert told.exit_code == 0
    assert sorted(path.name for path in (out / "sequences/08/predictions").iterdir()) == [
        "000000.label",
        "000001.label",
    ]


@pytest.mark.parametrize("name", SSC_RECIPES)
def test_recipes_are_whole_and_keep_their_sources(name: str) -> None:
    recipe = ssc_recipe(name, SOURCES)
    assert recipe.sources == SOURCES
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe


def test_recipes_fit_their_grids() -> None:
    for name, grid in (("published", SEMANTIC_KITTI_GRID), ("small", COMPARISON_GRID)):
        assert all(n % ssc_recipe(name, SOURCES).network.divisor == 0 for n in grid.shape)


def test_the_published_recipe_is_the_papers() -> None:
    recipe = ssc_recipe("published", SOURCES)
    training, samples = recipe.training, recipe.samples
    assert (recipe.network.encoder, recipe.network.feature, recipe.network.relation_prior) == ("b7", 64, True)
    assert (samples.width_px, samples.height_px, samples.fit) == (1220, 370, "crop")
    assert (samples.jitter, samples.mirror) == (0.4, 0.5)
    assert (training.learning_rate, training.weight_decay, training.batch_size, training.epochs) == (1e-4, 1e-4, 4, 30)
    assert (training.schedule.kind, training.schedule.milestones, training.schedule.gamma) == ("multistep", (20,), 0.1)
    assert training.sync_batch_norm


def test_fields_are_changed_by_words() -> None:
    recipe = ssc_recipe("small", SOURCES, ("training.steps=7", "network.relation_prior=false", "samples.fit=crop"))
    assert (recipe.training.steps, recipe.network.relation_prior, recipe.samples.fit) == (7, False, "crop")
    with pytest.raises(InputError, match=r"recipe: expected one of published, small, surfaces, tiny, found 'large'"):
        ssc_recipe("large", SOURCES)
    with pytest.raises(InputError, match=r"--set: expected a field of the recipe, found 'network.size'"):
        ssc_recipe("small", SOURCES, ("network.size=3",))


def test_a_source_is_read_from_one_word() -> None:
    found = source_of("data/town,fraction=0.05,weight=2,image=render,balanced=true", split="val")
    expected = Source(root=Path("data/town"), fraction=0.05, weight=2, image="render", balanced=True, split="val")
    assert found == expected
    with pytest.raises(InputError, match="fraction"):
        source_of("data/town,fraction=2")
    with pytest.raises(InputError, match="'size'"):
        source_of("data/town,size=2")
