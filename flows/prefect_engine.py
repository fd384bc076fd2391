"""The build as a Prefect flow: one task a stage and shard, each a thin wrapper over a job.

Importing this module imports Prefect; flows.quiet must have set the environment before.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.engine import OnResult, chosen_shards, go_through
from flows.jobs import IncompleteError, JobError, JobProcesses, RunOptions, do_job
from flows.prefect_artifacts import BuildProgress
from flows.runners import calm_dask, dask_folder, local_dask, local_ray
from flows.shards import Plan, Result
from pipeline.scene.errors import InputError


@task(name="stage-shard", task_run_name="{stage}-{shard:05d}", cache_policy=NO_CACHE, persist_result=False)
def stage_shard(
    stage: str, shard: int, plan: Plan, index: int, options: RunOptions, processes: JobProcesses | None
) -> Result:
    """One job; Prefect keeps its state, the record on disk keeps the truth."""
    return do_job(plan, index, shard, options, processes)


def run_with_prefect(plan: Plan, workers: int, on_result: OnResult, options: RunOptions) -> tuple[list[Result], int]:
    """Run the plan's jobs as tasks of one flow run, on the ephemeral API or the one that PREFECT_API_URL names.

    What go_through gives; with failed jobs the flow run ends in the state Incomplete. Raises InputError, JobError.
    """
    outcome: list[tuple[list[Result], int]] = []

    @flow(name=f"occfactory-{plan.name}", validate_parameters=False, persist_result=False)
    def occfactory(recipe: dict[str, Any], out: str) -> Any:
        moved = BuildProgress(plan, len(chosen_shards(plan, options)))

        def noted(result: Result) -> None:
            on_result(result)
            moved(result)

        with _processes(options) as processes:
            outcome.append(
                go_through(
                    plan,
                    workers,
                    lambda index, shard: stage_shard.submit(
                        plan.stages[index].name, shard, plan, index, options, processes
                    ),
                    noted,
                    options,
                )
            )
        failed, begun = outcome[0]
        return Failed(name="Incomplete", message=str(IncompleteError(plan, failed, begun))) if failed else None

    with _api(options), _calm(), _task_runner(plan, workers, options) as runner:
        try:
            occfactory.with_options(task_runner=runner)(plan.recipe.model_dump(mode="json"), str(plan.out))
        except Exception:
            if not outcome:  # else it's the state Incomplete
                raise
    return outcome[0]


@contextlib.contextmanager
def _processes(options: RunOptions) -> Iterator[JobProcesses | None]:
    """Those of this process's threads; ended before the task runner waits for its threads."""
    if options.runner != "processes":
        yield None
        return
    with contextlib.closing(JobProcesses()) as processes:
        yield processes


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """A failed shard is our own message's matter, told once and in one line."""
    loggers = [logging.getLogger(f"prefect.{name}") for name in ("task_runs", "flow_runs")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _api(options: RunOptions) -> Iterator[None]:
    """Start the ephemeral API, if it's that; workers of a cluster share it."""
    remote = options.address is not None and not any(name in options.address for name in ("127.0.0.1", "localhost"))
    if remote and not PREFECT_API_URL.value():
        remedy = "or take --engine none"
        raise InputError("--address", "PREFECT_API_URL set to a server that the cluster reaches", "none", remedy)
    try:
        client = get_client(sync_client=True)
    except RuntimeError as error:
        raise JobError(f"Prefect's API did not start ({error}); --engine none builds without it") from error
    with temporary_settings({PREFECT_API_URL: str(client.api_url).rstrip("/")}):
        yield


@contextlib.contextmanager
def _task_runner(plan: Plan, workers: int, options: RunOptions) -> Iterator[Any]:
    if options.runner == "processes":
        yield ThreadPoolTaskRunner(max_workers=workers)
    elif options.runner == "dask":
        calm_dask()
        from prefect_dask import DaskTaskRunner

        cluster: dict[str, Any] = {"address": options.address} if options.address else {}
        try:
            yield DaskTaskRunner(**cluster or {"cluster_kwargs": local_dask(plan, workers)})
        finally:
            shutil.rmtree(dask_folder(plan), ignore_errors=True)
    else:
        from prefect_ray import RayTaskRunner

        cluster = {"address": options.address} if options.address else {}
        yield RayTaskRunner(**cluster or {"init_kwargs": local_ray(workers)})
