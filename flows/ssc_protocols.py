"""The matrix of protocols run: every run once, by worker processes, found again after a stop, and its table.

OUT/matrix.json holds recipe, datasets and command; OUT/runs/<digest>/ one run: its training, weights/, log.txt and,
when it is scored, cell.json. A run that was stopped goes on from its newest checkpoint; a matrix of more cells may go
into the same folder and finds what it shares with the earlier one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.engine import worker_pool
from flows.folder import locked
from flows.jobs import JobError
from flows.ssc_protocol_data import Variant, datasets
from pipeline.datasets.checked_files import read_json
from pipeline.learning.config import TrainConfig
from pipeline.scene.errors import InputError
from pipeline.scene.files import write_json
from ssc_eval.metrics import ALL, Tally, scores
from ssc_eval.monoscene import MonoScene
from ssc_eval.prior import prior_of, tally_prior
from ssc_eval.protocols import Cell, Datasets, Frozen, Planned, ProtocolRecipe, Run, cells, planned
from ssc_eval.samples import Source, SscDataset
from ssc_eval.training import load_ssc, train_ssc

MATRIX, CELL, FAULT, LOG = "matrix.json", "cell.json", "fault.json", "log.txt"


class Matrix(Frozen):
    """What is run, and by which command."""

    recipe: ProtocolRecipe
    data: Datasets
    command: str = ""

    def cells(self) -> tuple[Cell, ...]:
        return cells(self.recipe, self.data)


def run_protocols(
    recipe: ProtocolRecipe,
    real: Path,
    synthetic: Sequence[Path | Variant],
    out: Path,
    *,
    only: str = "*",
    workers: int = 1,
    quiet: bool = True,
    command: str = "",
) -> list[str]:
    """Run the cells whose name matches `only` (as in a shell) and what they begin with; faults, one line a failed run.

    synthetic: datasets, and variants of them, each compared with the plain ones in protocol `switches`.
    A run that fails doesn't stop the others. The scores don't depend on `workers`. Raises InputError, JobError.
    """
    with locked(out):
        data = datasets(real, synthetic, out, recipe.split)
        matrix = Matrix(recipe=recipe, data=data, command=command)
        chosen = chosen_cells(recipe, matrix.data, only)
        write_json(Path(out) / MATRIX, matrix.model_dump(mode="json"))
        return _run_all(matrix, Path(out), chosen, workers, quiet)


def chosen_cells(recipe: ProtocolRecipe, data: Datasets, only: str) -> list[Cell]:
    """Cells whose name matches, as in a shell. Raises InputError where there is none."""
    found = cells(recipe, data)
    chosen = [cell for cell in found if fnmatch.fnmatchcase(cell.name, only)]
    if not chosen:
        raise InputError("--only", f"a pattern of cells, such as {found[0].name}", repr(only), "see --list")
    return chosen


def read_matrix(out: Path) -> Matrix:
    """The matrix of a folder. Raises InputError."""
    path = Path(out) / MATRIX
    try:
        return Matrix.model_validate(read_json(path, "a matrix of protocols"))
    except ValidationError as error:
        raise InputError(path, "a matrix of protocols", str(error).splitlines()[0]) from None


def _run_all(matrix: Matrix, out: Path, chosen: Sequence[Cell], workers: int, quiet: bool) -> list[str]:
    """Bring all runs to their end, those that others begin with first."""
    every = waves(matrix, [cell.run for cell in chosen if not cell.obstacle])
    todo = [[run for run in wave if not _is_done(out, _planned(matrix, run))] for wave in every]
    say = _progress(matrix, out, sum(map(len, todo)), quiet)
    faults: list[str] = []
    with worker_pool(workers) if workers > 1 else contextlib.nullcontext() as pool:
        for wave in todo:
            if pool is None:
                results: Iterable[tuple[Run, str]] = ((run, run_one(matrix, out, run)) for run in wave)
            else:
                results = _results({pool.submit(run_one, matrix, out, run): run for run in wave})
            for run, fault in results:
                faults += [f"{run.arm}, seed {run.seed}: {fault}"] if fault else []
                say(run, fault)
    return faults


def _results(jobs: Mapping[Future[str], Run]) -> Iterator[tuple[Run, str]]:
    for job in as_completed(jobs):
        try:
            yield jobs[job], job.result()
        except BrokenProcessPool:
            name = f"{jobs[job].arm}, seed {jobs[job].seed}"
            raise JobError(f"{name}: a worker process was killed (out of memory?); run it again to go on") from None
        except OSError as error:
            raise JobError(f"{jobs[job].arm}, seed {jobs[job].seed}: {error}") from error


def waves(matrix: Matrix, runs: Iterable[Run]) -> list[list[Run]]:
    """What is to be trained, with what it begins with: each digest once; a wave needs the earlier ones alone."""
    depths: dict[str, int] = {}
    first: dict[str, Run] = {}

    def depth(run: Run) -> int:
        digest = _planned(matrix, run).digest
        if digest not in depths:
            depths[digest] = 0 if run.parent is None else 1 + depth(run.parent)
            first[digest] = run
        return depths[digest]

    for run in runs:
        depth(run)
    levels = range(max(depths.values(), default=-1) + 1)
    return [[first[digest] for digest, found in depths.items() if found == level] for level in levels]


def _planned(matrix: Matrix, run: Run) -> Planned:
    return planned(matrix.recipe, matrix.data, run)


def _progress(matrix: Matrix, out: Path, total: int, quiet: bool) -> Callable[[Run, str], None]:
    """A line on stderr a finished run, with its scores and the time left."""
    began, done = time.perf_counter(), 0

    def say(run: Run, fault: str) -> None:
        nonlocal done
        done += 1
        if quiet:
            return
        cell = read_cell(out, _planned(matrix, run).digest)
        whole = cell["scores"]["regions"][ALL] if cell else {}
        told = f"IoU {100 * whole['iou']:.2f}, mIoU {100 * whole['miou']:.2f}" if whole else f"failed: {fault}"
        left = (time.perf_counter() - began) / done * (total - done) / 60
        line = f"{done}/{total} {run.arm}, seed {run.seed}: {told}; about {left:.0f} min left"
        print(line, file=sys.stderr, flush=True)

    return say


def folder_of(out: Path, digest: str) -> Path:
    """Where a run lies."""
    return Path(out) / "runs" / digest[:16]


def read_cell(out: Path, digest: str) -> dict[str, Any] | None:
    """A run's result, None if it isn't finished. Raises InputError on one that is damaged."""
    path = folder_of(out, digest) / CELL
    if not path.exists():
        return None
    table = read_json(path, "a run's result", limit=1 << 24)
    if not isinstance(table, dict) or table.get("digest") != digest:
        raise InputError(path, f"the result of run {digest[:16]}", "something else", "remove it to run it again")
    return table


def run_one(matrix: Matrix, out: Path, run: Run) -> str:
    """Train and score one run, unless that is done; its fault in one line, or "". What it begins with must be done."""
    plan = _planned(matrix, run)
    folder = folder_of(out, plan.digest)
    if _is_done(out, plan):
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAULT).unlink(missing_ok=True)
    try:
        with open(folder / LOG, "a") as log, contextlib.redirect_stdout(log), _threads(plan.config.training):
            write_json(folder / CELL, _result(matrix, out, plan))
    except InputError as fault:
        write_json(folder / FAULT, {"digest": plan.digest, "fault": str(fault)})
        return str(fault)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the weights remain
    return ""


def _is_done(out: Path, plan: Planned) -> bool:
    """Whether there are scores, and the weights that other runs may begin with."""
    whole = plan.run.how == "prior" or (folder_of(out, plan.digest) / "weights").exists()
    return whole and read_cell(out, plan.digest) is not None


@contextlib.contextmanager
def _threads(training: TrainConfig) -> Iterator[None]:
    """Torch's threads as in training."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(training.torch_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _result(matrix: Matrix, out: Path, plan: Planned) -> dict[str, Any]:
    """cell.json. seconds: of this process; a run that was resumed has spent more."""
    began = time.perf_counter()
    source = Source(root=matrix.data.real.root, split=matrix.recipe.split, frames=matrix.recipe.frames)
    held_out = SscDataset((source,), plan.config.samples, 0, plan.config.network)
    drawn = SscDataset(plan.config.sources, plan.config.samples, plan.config.seed, plan.config.network)
    weights = None if plan.run.how == "prior" else _trained(out, plan)
    trained = time.perf_counter()
    tally = tally_prior(prior_of(drawn), held_out) if weights is None else _scored(weights, held_out, plan)
    return {
        "digest": plan.digest,
        "run": plan.run.model_dump(mode="json"),
        "updates": _updates(matrix, plan),
        "frames": [len(frames) for frames in drawn.chosen],
        "seconds": {"training": round(trained - began, 1), "scoring": round(time.perf_counter() - trained, 1)},
        "hardware": _hardware(plan.config.training),
        "scores": scores(tally, held_out.taxonomy.classes),
        "confusions": {region: tally.of(region).tolist() for region in tally.regions},
    }


def _trained(out: Path, plan: Planned) -> Path:
    """The run's weights, trained or found. Raises InputError."""
    folder = folder_of(out, plan.digest)
    weights, start = folder / "weights", None
    if weights.exists():  # they are written last, and whole
        return weights
    if plan.parent is not None:
        start = folder_of(out, plan.parent) / "weights"
        if not start.exists():
            raise InputError(start, "the weights this run begins with", "none", "see that run's own fault")
    if plan.adapt is not None and start is not None:
        return _adapted(start, plan, weights)
    return train_ssc(plan.config.model_copy(update={"start": start}), folder)


def _adapted(start: Path, plan: Planned, out: Path) -> Path:
    """Weights with batch norms' statistics of other images. Raises InputError."""
    from pipeline.learning.checkpoint import save_model
    from ssc_eval.inference import settle_norms

    assert plan.adapt is not None
    model, card = _opened(start, plan)
    dataset = SscDataset((plan.adapt,), plan.config.samples, plan.config.seed, model.config, labelled=False)
    settle_norms(model, dataset, range(len(dataset.keys)), plan.config.training.batch_size)
    save_model(out, model, {**card, "adapted": True})
    return out


def _scored(weights: Path, held_out: SscDataset, plan: Planned) -> Tally:
    from ssc_eval.inference import tally_network

    return tally_network(_opened(weights, plan)[0], held_out, 1)


def _opened(weights: Path, plan: Planned) -> tuple[MonoScene, dict[str, Any]]:
    """A network on the device it was trained on, and its card. Raises InputError."""
    model, card = load_ssc(weights)
    return model.to("cuda" if _on_gpu(plan.config.training) else "cpu"), card


def _on_gpu(training: TrainConfig) -> bool:
    import torch

    return training.device == "auto" and torch.cuda.is_available()


def _updates(matrix: Matrix, plan: Planned) -> int:
    """Steps of training, those of the run it begins with included."""
    if plan.run.how == "prior":
        return 0
    before = 0 if plan.run.parent is None else _updates(matrix, _planned(matrix, plan.run.parent))
    return before + (0 if plan.adapt is not None else plan.config.training.total_steps(1))


def _hardware(training: TrainConfig) -> str:
    import torch

    from pipeline.learning.machine import device_name

    if _on_gpu(training):
        return device_name(torch.device("cuda"))
    return f"{device_name(torch.device('cpu'))} CPU, {os.cpu_count()} cores, {training.torch_threads} threads a run"
