"""Run a plan's jobs: as a plain loop, or as a Prefect flow; the same jobs, the same bytes.

Shards go through in waves, stage by stage, so that intermediate files on disk are bounded whatever the build's size.
A shard whose job keeps failing is left out of the run; the others go on, and the next run takes it up again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Literal

from flows.folder import finishing, locked, pin_recipe, sweep
from flows.job_process import FailedJobError, end_with_parent
from flows.jobs import IncompleteError, RunOptions, visible_devices
from flows.quiet import make_prefect_home
from flows.runners import Pending, Submit, open_runner, require_runner
from flows.shards import WORK, Plan, Result, drop_intermediate
from pipeline.datasets.manifest import MANIFEST_NAME
from pipeline.scene.errors import InputError

Engine = Literal["prefect", "none"]
OnResult = Callable[[Result], None]
WAVE_SHARDS = 8  # shards in flight a worker: bounds intermediate files
DEFAULTS = RunOptions()


def run_plan(
    plan: Plan,
    engine: Engine,
    workers: int,
    on_result: OnResult,
    finish: Callable[[], None] = lambda: None,
    options: RunOptions = DEFAULTS,
) -> None:
    """Bring every job of the plan to its end, then `finish` the whole; finished jobs are verified and skipped.

    With options.shards, those alone and no finish. Raises InputError (another build in the folder, another recipe) or
    IncompleteError (shards that kept failing).
    """
    require_runner(options)
    if options.changed and options.shards is not None:
        raise InputError("--changed", "a build of all shards", "--shard-range beside it", "leave one out")
    if options.devices is None and any(stage.gpu for stage in plan.stages):
        options = replace(options, devices=visible_devices())
    chosen = chosen_shards(plan, options)
    part = "" if options.shards is None else f"{chosen.start}-{chosen.stop}"
    with locked(plan.out, part):
        pin_recipe(plan, options.changed)
        shutil.rmtree(plan.out / WORK / "failed", ignore_errors=True)
        if not part:
            sweep(plan.out)
        failed, begun = _run(plan, engine, workers, on_result, options)
        if failed:
            (plan.out / MANIFEST_NAME).unlink(missing_ok=True)  # of a build that was whole before
            raise IncompleteError(plan, failed, begun)
        if not part:
            sweep(plan.out)  # what lost workers left
            with finishing(plan.out):
                finish()


def _run(
    plan: Plan, engine: Engine, workers: int, on_result: OnResult, options: RunOptions
) -> tuple[list[Result], int]:
    if engine == "prefect":
        make_prefect_home()
        from flows.prefect_engine import run_with_prefect

        return run_with_prefect(plan, workers, on_result, options)
    with open_runner(plan, workers, options) as submit:
        return go_through(plan, workers, submit, on_result, options)


def go_through(
    plan: Plan, workers: int, submit: Submit, on_result: OnResult, options: RunOptions
) -> tuple[list[Result], int]:
    """Every chosen shard through all stages; the jobs that failed, and how many shards were begun.

    Ends early when a whole wave failed or a fault is fatal: it isn't the shards' then. Raises InputError.
    """
    failed: list[Result] = []
    begun = 0
    for wave in waves(chosen_shards(plan, options), workers):
        begun += len(wave)
        lost = _wave(plan, wave, submit, on_result)
        failed += lost
        for shard in set(wave) - {result.shard for result in lost}:
            drop_intermediate(plan, shard)
        if len(lost) == len(wave):
            break
    return failed, begun


def _wave(plan: Plan, wave: range, submit: Submit, on_result: OnResult) -> list[Result]:
    live, found = dict.fromkeys(wave), set()  # shards that go on, those that were found whole
    failed: list[Result] = []
    for index, stage in enumerate(plan.stages):
        jobs = {shard: submit(index, shard) for shard in live if shard not in found}
        for shard in list(live):
            result = _awaited(stage.name, shard, jobs[shard]) if shard in jobs else _found(stage.name, shard)
            on_result(result)
            if result.whole:
                found.add(shard)
            if result.cause:
                failed.append(result)
                del live[shard]
    return failed


def _found(stage: str, shard: int) -> Result:
    return Result(stage, shard, 0.0, skipped=True, whole=True)


def _awaited(stage: str, shard: int, job: Pending) -> Result:
    try:
        return job.result()
    except InputError as error:
        raise getattr(error, "cause", error) from None  # Ray's own kind of it has a traceback in its text
    except FailedJobError as error:
        return Result(stage, shard, 0.0, skipped=False, cause=str(error.cause))
    except Exception as error:  # a cluster's own, such as a worker lost again and again
        return Result(stage, shard, 0.0, skipped=False, cause=f"{type(error).__name__}: {error}"[:200])


def chosen_shards(plan: Plan, options: RunOptions) -> range:
    """The shards of this run. Raises InputError if the plan hasn't got them."""
    if options.shards is None:
        return range(plan.shards)
    first, end = options.shards.start, options.shards.stop
    if not 0 <= first < end <= plan.shards:
        raise InputError("--shard-range", f"FIRST:END within 0:{plan.shards}", f"{first}:{end}")
    return options.shards


def waves(shards: range, workers: int) -> Iterator[range]:
    """Ranges of shards that go through all stages together."""
    size = WAVE_SHARDS * workers
    for start in range(0, len(shards), size):
        yield shards[start : start + size]


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that end with this one, also when it fails or is killed; for work that isn't a plan's."""
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent, initargs=(os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
