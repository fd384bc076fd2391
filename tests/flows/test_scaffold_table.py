"""The tables as one run: figures are those of the weights that lie there, and a second run takes them up."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.scaffold_recipes import COMPARED
from flows.scaffold_table import TableRecipe, configs_of, drawn_at, houses_for, houses_of, trainings
from pipeline.datasets.craft3d import House, write_house, write_schematic, write_splits
from pipeline.generators.autoregressive import Autoregressive
from pipeline.generators.scaffold import Scaffold
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY

GRID = VoxelGrid((16, 16, 16), 1.0, (0.0, 0.0, 0.0))
OPTIONS = ["--tiny", "--steps", "3", "-n", "2", "--draws", "2", "--sampler-steps", "2,all"]


def house(seed: int, edge: int = 6) -> House:
    rng = np.random.default_rng(seed)
    blocks = np.zeros((edge, int(rng.integers(4, 7)), 3), np.uint8)
    blocks[[0, -1]] = rng.choice([1, 4, 5])
    blocks[:, :, 0] = 3
    return House(f"house_{seed}", blocks, np.zeros_like(blocks))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bare")
    for seed in range(8):
        write_schematic(root / f"house_{seed}.npy", house(seed, 20 if seed == 7 else 6))
    return root


def run(root: Path, out: Path, *more: str) -> str:
    done = CliRunner().invoke(app, ["scaffold-table", str(root), "--out", str(out), *OPTIONS, *more])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.fixture(scope="module")
def out(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    run(bare, folder, "--method", "craft_dit3d")  # a process of its own
    assert json.loads((folder / "table.json").read_text())["samplers"] == {}
    run(bare, folder, "--quiet")
    return folder


def test_figures_are_those_of_the_weights(bare: Path, out: Path) -> None:
    table = json.loads((out / "table.json").read_text())
    recipe = TableRecipe(root=bare, steps=3, samples=2, draws=2, sampler_steps=(2, None), tiny=True)
    held_out = houses_for(recipe).held_out
    for name, method in (("craft_scaffold", Scaffold), ("craft_autoregressive", Autoregressive)):
        found = method.load(out / name / "weights").likelihood(held_out, 0, 2)
        said = table["methods"][name]["likelihood"]
        assert (said["nll"], said["low"], said["high"]) == pytest.approx((found.nll, found.low, found.high))
        assert said["perplexity"][0] == pytest.approx(np.exp(found.nll))
    kinds = {name: (value["likelihood"] or {}).get("kind") for name, value in table["methods"].items()}
    assert kinds == dict(zip(COMPARED, ["bound", "bound", "exact", None, None], strict=True))
    assert table["methods"]["craft_learned"]["positions"] == 16**3 * 24
    learned = np.concatenate([s.labels.ravel() for s in houses_for(recipe).train])
    blocks = np.concatenate([s.labels[s.labels > 0] for s in held_out])
    assert table["houses"]["unseen"] == pytest.approx(sum(b not in set(learned) for b in blocks) / len(blocks))
    judge = Autoregressive.load(out / "craft_autoregressive" / "weights")
    judged = judge.likelihood([s for s in held_out]).nll
    assert table["real"]["figures"]["judged"][0] == pytest.approx(judged, rel=0.1)  # a mean over houses, not blocks


def test_draws_fill_the_maps_of_held_out_houses(bare: Path, out: Path) -> None:
    held_out = houses_for(TableRecipe(root=bare, tiny=True)).held_out
    counts = [int((scene.labels != EMPTY).sum()) for scene in held_out[:2]]
    folders = [out / name / "drawn.npz" for name in COMPARED[:3]] + sorted((out / "samplers").glob("*.npz"))
    assert len(folders) == 3 + 7
    for path in folders:
        assert [int((volume != EMPTY).sum()) for volume in drawn_at(path)] == counts, path
    cached, plain = (drawn_at(out / "samplers" / f"ancestral_2{end}.npz") for end in ("", "_uncached"))
    assert np.array_equal(cached, plain)


def test_a_second_run_measures_nothing_anew(bare: Path, out: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in [*out.glob("*/measured.json"), *out.glob("samplers/*")]}
    assert len(times) == 5 + 14
    before = json.loads((out / "table.json").read_text())
    run(bare, out)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    after = json.loads((out / "table.json").read_text())
    assert before | {"command": ""} == after | {"command": ""}


def test_the_page_and_the_picture(out: Path) -> None:
    page = (out / "table.md").read_text()
    for words in (
        "95 %",
        "craft_learned",
        "none: it draws map and classes together",
        "one a block",
        "uncached",
        "| 252 | exact",
    ):
        assert words in page
    for table in page.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert (out / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_workers_measure_the_same(bare: Path, out: Path, tmp_path: Path) -> None:
    run(bare, tmp_path, "--workers", "2", "--method", "craft_autoregressive", "--method", "craft_learned")
    for name in ("craft_autoregressive", "craft_learned"):
        one, two = (json.loads((folder / name / "measured.json").read_text()) for folder in (out, tmp_path))
        assert one["likelihood"] == two["likelihood"]


def test_houses_are_held_out_once_and_the_large_are_left_out(bare: Path, tmp_path: Path) -> None:
    found = houses_of(bare, GRID, 1024, 0)
    names = [[scene.provenance["house"] for scene in part] for part in (found.train, found.held_out)]
    assert found.left_out == 1
    assert "house_7" not in names[0] + names[1]
    assert sorted(names[0] + names[1]) == [f"house_{k}" for k in range(7)]
    others = [houses_of(bare, GRID, 1024, seed).held_out for seed in range(6)]
    assert len({tuple(scene.provenance["house"] for scene in held) for held in others}) > 1
    for seed in range(5):
        write_house(tmp_path, house(seed))
    write_splits(tmp_path, {"train": ("house_0", "house_1"), "val": ("house_2",), "test": ("house_3", "house_4")})
    own = houses_of(tmp_path, GRID, 1024, 0)
    assert [scene.provenance["house"] for scene in own.held_out] == ["house_3", "house_4"]


def test_changes_of_one_method_and_of_all(bare: Path) -> None:
    changes = ("*.training.batch_size=2", "craft_latent.prior.depth=3", "craft_learned.network.width=48")
    found = configs_of(TableRecipe(root=bare, steps=9, tiny=True, changes=changes))
    stages = [training for config in found.values() for training in trainings(config).values()]
    assert {(training.batch_size, training.steps) for training in stages} == {(2, 9)}
    assert found["craft_latent"].prior.depth == 3
    assert (found["craft_learned"].network.width, found["craft_scaffold"].network.width) == (48, 24)


def test_faults_are_found_first(bare: Path, tmp_path: Path) -> None:
    cases = {
        "--method": (["--method", "nothing"], "some of craft_scaffold"),
        "--sampler-steps": (["--sampler-steps", "0"], "whole numbers"),
        "recipe": (["--set", "nothing=1"], "a field of the recipe"),
    }
    for words, message in cases.values():
        failed = CliRunner().invoke(app, ["scaffold-table", str(bare), "--out", str(tmp_path / "x"), "--tiny", *words])
        assert isinstance(failed.exception, InputError)
        assert message in str(failed.exception)
    with pytest.raises(InputError, match="3D-Craft root"):
        houses_of(tmp_path, GRID, 1024, 0)
    with pytest.raises(InputError, match="two held out"):
        houses_of(bare, GRID, 10, 0)
    assert not (tmp_path / "x").exists()


def test_real_houses() -> None:
    shared = Path(os.environ.get("OCCFACTORY_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    root = shared / "data/craftassist/house"
    if not root.is_dir():
        pytest.skip("needs the shared real houses")
    found = houses_of(root, VoxelGrid((32, 32, 32), 1.0, (0.0, 0.0, 0.0)), 1024, 0)
    assert (len(found.train) + len(found.held_out), found.left_out) == (27, 9)
