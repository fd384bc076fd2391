"""`ssc protocols` and `ssc table` on toy datasets: what is trained once, resumed after a kill, missing, or at fault."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flows import ssc_protocol_cli
from flows.ssc_protocol_data import datasets
from flows.ssc_protocol_recipes import ANY, PROTOCOL_RECIPES, PUBLISHED_STEPS, protocol_recipe
from flows.ssc_protocols import Matrix, folder_of, read_cell, read_matrix, run_protocols, waves
from flows.ssc_recipes import small
from pipeline.learning.checkpoint import load_part
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from ssc_eval.metrics import ALL
from ssc_eval.protocols import Cell, ProtocolRecipe, planned
from ssc_eval.training import evaluate_network
from tests.ssc_eval.toy_root import write_toy_root

ONE_SEED = ("seeds=[0]", "fractions=[1.0]")
RUNS = 11  # real, zero-shot, mixed, finetuned, of 2 synthetic frames, 2 priors, renders, balanced, both adapted
KILLED = """
import os, signal, sys
from pathlib import Path
from flows.ssc_protocol_recipes import protocol_recipe
from flows.ssc_protocols import run_protocols
from ssc_eval.samples import SscDataset
draw, drawn = SscDataset.draw, []

def killing(self, slot, rng):
    drawn.append(slot)
    if len(drawn) == 6:  # in the third step; the checkpoint is of the second
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(self, slot, rng)

SscDataset.draw = killing
real, made, out, *changes = sys.argv[1:]
run_protocols(protocol_recipe("tiny", tuple(changes)), Path(real), [Path(made)], Path(out), only="real/*")
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training frames and two held-out ones."""
    splits = {"train": ["00"], "val": ["08"]}
    return write_toy_root(tmp_path_factory.mktemp("real"), {"00": 6, "08": 2}, splits)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames, with renders beside the images."""
    root = tmp_path_factory.mktemp("made")
    for folder, seed in (("render_2", 2), ("image_2", 1)):
        write_toy_root(root, {"00": 5}, {"train": ["00"]}, seed, folder=folder)
    return root


@pytest.fixture(scope="module")
def done(real: Path, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tiny matrix for one seed, by the command."""
    out = tmp_path_factory.mktemp("done") / "out"
    code, _, err = run(*command(real, made, out))
    assert (code, err) == (0, "")
    return out


def command(real: Path, made: Path, out: Path, *more: object) -> list[object]:
    changes = [word for change in ONE_SEED for word in ("--set", change)]
    return ["protocols", "tiny", "--real", real, "--synthetic", made, "--out", out, "--quiet", *changes, *more]


def run(*words: object) -> tuple[int, str, str]:
    app = typer.Typer()
    ssc_protocol_cli.register(app)
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def rows(out: Path) -> dict[str, dict[str, Any]]:
    table = json.loads((out / "table.json").read_text())
    return {f"{row['protocol']}/{row['arm']}": row for row in table["rows"]}


def result(out: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """A cell's folder and result by its name."""
    matrix = read_matrix(out)
    (cell,) = (cell for cell in matrix.cells() if cell.name == name)
    digest = planned(matrix.recipe, matrix.data, cell.run).digest
    found = read_cell(out, digest)
    assert found is not None
    return folder_of(out, digest), found


def test_every_cell_that_can_run_has_its_row_and_shared_ones_were_trained_once(done: Path) -> None:
    found = rows(done)
    assert len(list((done / "runs").iterdir())) == RUNS
    without = [name for name, row in found.items() if not row["done"]]
    assert without == ["switches/synthetic, accepted"]
    assert found[without[0]]["missing"] == ["not run: no frame is marked by the structure check"]
    assert found["real/real 100 %"]["values"] == found["fractions/real 100 %"]["values"]
    text = (done / "table.md").read_text()
    assert "not run: no frame is marked by the structure check" in text
    assert "6 training frames; scored: 2 frames of split val" in text
    assert f"{RUNS} of {RUNS} runs done" in text


def test_all_arms_had_equal_iterations(done: Path) -> None:
    for name, row in rows(done).items():
        expected = 0 if "prior" in name or not row["done"] else 8 if name.startswith("finetune") else 4
        assert row["updates"] == expected


def test_scores_are_those_of_the_weights_on_held_out_frames(done: Path, real: Path) -> None:
    folder, cell = result(done, "fractions/real_100+synthetic/0")
    again = evaluate_network(folder / "weights", real, "val")
    assert again.frames == 2
    np.testing.assert_array_equal(cell["confusions"][ALL], again.of(ALL))
    assert rows(done)["fractions/real 100 % + synthetic"]["values"]["IoU"] == [cell["scores"]["regions"][ALL]["iou"]]


def test_adaptation_takes_new_statistics_and_no_new_weights(done: Path) -> None:
    plain, adapted = (
        load_part(result(done, name)[0] / "weights", "model")
        for name in ("zero-shot/synthetic/0", "switches/synthetic+adapt/0")
    )
    changed = {name for name, value in plain.items() if not value.equal(adapted[name])}
    assert changed
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed)


def test_renders_are_fed_instead_of_images(done: Path) -> None:
    images, renders = (
        load_part(result(done, name)[0] / "weights", "model") for name in ("zero-shot/synthetic/0", "floors/renders/0")
    )
    assert any(not value.equal(renders[name]) for name, value in images.items())


def test_a_finished_matrix_is_found_again(done: Path, real: Path, made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.glob("runs/*/cell.json")}
    table = (done / "table.json").read_bytes()
    assert run(*command(real, made, done))[0] == 0
    assert {path: path.stat().st_mtime_ns for path in done.glob("runs/*/cell.json")} == before
    assert (done / "table.json").read_bytes() == table


def test_plots_are_pictures(done: Path) -> None:
    for name in ("fractions.png", "counts.png"):
        assert (done / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in (done / "table.md").read_text()


def test_a_run_killed_in_its_midst_goes_on_to_the_same_table(
    done: Path, real: Path, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-c", KILLED, *map(str, (real, made, out)), *ONE_SEED]
    assert subprocess.run(words, capture_output=True, cwd=Path(__file__).parents[2]).returncode == -9
    (folder,) = (out / "runs").iterdir()
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_00000002"]
    assert run("table", out)[0] == 0
    assert not any(row["done"] for row in rows(out).values())
    assert run(*command(real, made, out, "--only", "real/*"))[0] == 0
    assert "continuing after step 2" in (folder / "log.txt").read_text()
    for field in ("values", "mean", "updates", "done"):
        assert rows(out)["real/real 100 %"][field] == rows(done)["real/real 100 %"][field]
    assert result(out, "real/real_100/0")[1]["confusions"] == result(done, "real/real_100/0")[1]["confusions"]
    assert {name for name, row in rows(out).items() if row["done"]} == {"real/real 100 %", "fractions/real 100 %"}
    assert rows(out)["zero-shot/synthetic"]["missing"] == ["not run"]
    assert "| synthetic |  | 5 |  | not run |" in (out / "table.md").read_text()


def test_worker_processes_find_the_same(done: Path, real: Path, made: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "floors/constant_prior_of_synthetic/0"
    assert run(*command(real, made, out, "--only", name, "--workers", "2"))[0] == 0
    assert result(out, name)[1]["confusions"] == result(done, name)[1]["confusions"]
    assert (result(out, name)[0] / "log.txt").exists()


def test_a_run_that_fails_is_marked_and_the_others_go_on(done: Path, real: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    wild = protocol_recipe("tiny", ONE_SEED).training.model_copy(update={"learning_rate": 1e30})
    code, _, err = run(*command(real, made, out, "--set", f"finetune={wild.model_dump_json()}"))
    assert code == 1
    assert err.startswith("failed: synthetic then real 100 %, seed 0: training step 2: expected a finite")
    found = rows(out)
    assert found["finetune/synthetic then real 100 %"]["missing"][0].startswith("failed: training step 2")
    assert found["zero-shot/synthetic"]["values"] == rows(done)["zero-shot/synthetic"]["values"]


def test_faults_are_one_line_before_any_work(real: Path, made: Path, tmp_path: Path) -> None:
    other = write_toy_root(
        tmp_path / "other", {"00": 1}, {"train": ["00"]}, grid=VoxelGrid((8, 16, 8), 0.4, (0.0, -3.2, -2.0))
    )
    with pytest.raises(InputError, match="a pattern of cells, such as real/real_100/0"):
        run(*command(real, made, tmp_path / "out", "--only", "nothing"))
    with pytest.raises(InputError, match="the grid and classes of"):
        run(*command(real, other, tmp_path / "out"))
    with pytest.raises(InputError, match="each dataset once"):
        run(*command(real, made, tmp_path / "out", "--synthetic", made))
    with pytest.raises(InputError, match="held-out sequences"):
        run(*command(real, made, tmp_path / "out", "--set", "split=train"))
    with pytest.raises(InputError, match="must be in steps"):
        run(*command(real, made, tmp_path / "out", "--set", "training.steps=null", "--set", "training.epochs=2"))
    with pytest.raises(InputError, match="published, full, small, surfaces, tiny"):
        protocol_recipe("large")
    assert not (tmp_path / "out" / "runs").exists()


def test_cells_are_listed(real: Path, made: Path, tmp_path: Path) -> None:
    code, out, _ = run(*command(real, made, tmp_path / "out", "--list", "--only", "switches/*"))
    assert code == 0
    assert out.splitlines() == [
        "switches/synthetic+balanced/0",
        "switches/synthetic+accepted/0  (no frame is marked by the structure check)",
        "switches/synthetic+adapt/0",
        "switches/real_100+adapt/0",
    ]


def test_variants_are_listed_and_bad_ones_refused(real: Path, made: Path, tmp_path: Path) -> None:
    other = write_toy_root(tmp_path / "other", {"00": 3}, {"train": ["00"]}, seed=5)
    words = command(real, made, tmp_path / "out", "--variant", f"far={other}")
    code, out, _ = run(*words, "--list", "--only", "switches/*far*")
    assert (code, out.splitlines()) == (0, ["switches/synthetic_far/0"])
    for bad, message in ((other, "NAME=DIR"), (f"fa r={other}", "NAME=DIR"), (f"near={other}", "each dataset once")):
        with pytest.raises(InputError, match=message):
            run(*words, "--variant", str(bad))


def test_recipes_are_whole() -> None:
    for name in PROTOCOL_RECIPES:
        recipe = protocol_recipe(name)
        assert ProtocolRecipe.model_validate_json(recipe.model_dump_json()) == recipe
    published = protocol_recipe("published")
    assert (published.training.steps, PUBLISHED_STEPS) == (28_755, 28_755)
    assert published.training.schedule.milestones == (19_170,)
    assert protocol_recipe("small", ("seeds=[4]",)).seeds == (4,)
    assert protocol_recipe("small").norm_frames == small(ANY).norm_frames == 64


def test_a_datasets_digest_is_of_its_files_not_its_place(real: Path, made: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(real, tmp_path / "elsewhere")
    before = datasets(real, [made], tmp_path, "val")
    after = datasets(moved, [made], tmp_path, "val")
    assert before.real.digest == after.real.digest
    assert (before.synthetic[0].renders, before.synthetic[0].accepted) == ("beside", None)
    image = moved / "sequences" / "00" / "image_2" / "000000.png"
    image.write_bytes(image.read_bytes() + b" ")
    assert datasets(moved, [made], tmp_path, "val").real.digest != after.real.digest


def test_what_others_begin_with_comes_first_and_no_digest_twice(done: Path) -> None:
    matrix = read_matrix(done)
    runs = [cell.run for cell in matrix.cells() if not cell.obstacle]
    found = waves(matrix, runs)
    assert sum(map(len, found)) == RUNS
    assert [run.arm for run in found[1]] == ["synthetic then real 100 %", "synthetic, adapt", "real 100 %, adapt"]
    (finetuned,) = (run for run in runs if run.how == "finetuned")
    assert waves(matrix, [finetuned]) == [[finetuned.parent], [finetuned]]
    made = tuple(data.model_copy(update={"renders": "images"}) for data in matrix.data.synthetic)
    renders = Matrix(recipe=matrix.recipe, data=matrix.data.model_copy(update={"synthetic": made}))
    assert sum(map(len, waves(renders, runs))) == RUNS - 1  # the images are renders: one run


def test_cells_of_a_library_call_equal_the_commands(done: Path, real: Path, made: Path) -> None:
    recipe = protocol_recipe("tiny", ONE_SEED)
    cells: tuple[Cell, ...] = read_matrix(done).cells()
    assert read_matrix(done).recipe == recipe
    assert run_protocols(recipe, real, [made], done, only=cells[0].name) == []
