"""Run a plan's jobs: as a plain loop over worker processes, or handed to Prefect; the same jobs, the same bytes.

Shards go through in waves, stage by stage, so that intermediate files on disk are bounded whatever the build's size.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from flows.quiet import make_prefect_home
from flows.shards import WORK, Plan, Recipe, Result, drop_intermediate, run_job
from pipeline.datasets.checked_files import read_json
from pipeline.scene.errors import InputError
from pipeline.scene.files import write_json

Engine = Literal["prefect", "none"]
OnResult = Callable[[Result], None]
PLAN_NAME = "plan.json"  # in a folder's WORK: what it is for
WAVE_SHARDS = 8  # shards in flight a worker: bounds intermediate files


class JobError(RuntimeError):
    """A job failed; the message names it and its cause in one line."""


def run_plan(
    plan: Plan, engine: Engine, workers: int, on_result: OnResult, finish: Callable[[], None] = lambda: None
) -> None:
    """Bring every job of the plan to its end, then `finish` the whole; finished jobs are verified and skipped.

    Raises InputError (another build in the folder, another recipe) or JobError.
    """
    with locked(plan.out):
        _pin_recipe(plan)
        _sweep(plan.out)
        with worker_pool(workers) as pool:
            if engine == "prefect":
                make_prefect_home()
                from flows.prefect_engine import run_with_prefect

                run_with_prefect(plan, pool, workers, on_result)
            else:
                run_plain(plan, pool, workers, on_result)
        finish()


def waves(plan: Plan, workers: int) -> Iterator[range]:
    """Ranges of shards that go through all stages together."""
    size = WAVE_SHARDS * workers
    for start in range(0, plan.shards, size):
        yield range(start, min(start + size, plan.shards))


def run_plain(plan: Plan, pool: ProcessPoolExecutor, workers: int, on_result: OnResult) -> None:
    """The loop without Prefect."""
    for wave in waves(plan, workers):
        for index in range(len(plan.stages)):
            jobs = {shard: submit(pool, plan, index, shard) for shard in wave}
            for shard, job in jobs.items():
                on_result(result_of(plan, index, shard, job))
        for shard in wave:
            drop_intermediate(plan, shard)


def submit(pool: ProcessPoolExecutor, plan: Plan, stage_index: int, shard: int) -> Future[Result]:
    try:
        return pool.submit(run_job, plan, stage_index, shard)
    except BrokenProcessPool as error:
        raise _lost_worker(plan, stage_index, shard) from error


def result_of(plan: Plan, stage_index: int, shard: int, job: Future[Result]) -> Result:
    """A job's result, its failure turned into one line."""
    try:
        return job.result()
    except InputError:
        raise
    except BrokenProcessPool as error:
        raise _lost_worker(plan, stage_index, shard) from error
    except OSError as error:
        raise JobError(f"stage {plan.stages[stage_index].name}, shard {shard}: {error}") from error


def _lost_worker(plan: Plan, stage_index: int, shard: int) -> JobError:
    name = plan.stages[stage_index].name
    return JobError(f"stage {name}, shard {shard}: a worker process was killed (out of memory?); run it again to go on")


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that end with this one, also when it fails or is killed."""
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent, initargs=(os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent(parent: int) -> None:
    """A worker whose builder was killed -9 must not write on: poll for it."""
    import signal
    import threading
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the builder's to handle

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the output folder; a second build into it is refused."""
    with locked_file(Path(out) / WORK / "lock", out):
        yield


@contextlib.contextmanager
def locked_file(path: Path, out: Path | None = None) -> Iterator[None]:
    """Hold a lock file of the folder `out` (default: the file's own). Raises InputError if another process holds it."""
    out = out or path.parent
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a")  # noqa: SIM115 - held open: the lock ends with the process
    except OSError as error:
        raise InputError(out, "a folder that can be written", str(error)) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(out, "a folder no other run is writing to", "one at work", "wait for it") from None
        yield


def is_of_recipe(out: Path, recipe: Recipe) -> bool:
    """Whether a folder's run, finished or not, is of this recipe."""
    try:
        return bool(json.loads((Path(out) / WORK / PLAN_NAME).read_text())["recipe_digest"] == recipe.digest())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _pin_recipe(plan: Plan) -> None:
    """A folder belongs to one recipe: a new one is pinned, a different one refused."""
    path = plan.out / WORK / PLAN_NAME
    pinned = {"plan": plan.name, "recipe_digest": plan.recipe.digest()}
    if path.exists():
        found = read_json(path, "what this folder is for")
        if found != pinned:
            expected = f"a {plan.name} of this recipe ({pinned['recipe_digest'][:12]})"
            raise InputError(plan.out, expected, str(found), "choose another --out")
        return
    others = [entry.name for entry in plan.out.iterdir() if entry.name != WORK]
    if others:
        raise InputError(plan.out, "a new or empty folder", f"{others[0]} there", "choose another --out")
    write_json(path, pinned)


def _sweep(out: Path) -> None:
    """Remove what a killed run left unfinished: temporary files that were never renamed."""
    for path in out.rglob(".*.part"):
        path.unlink(missing_ok=True)
