"""The build as a Prefect flow: one task a stage and shard, each a thin wrapper over a job.

Importing this module imports Prefect; flows.quiet must have set the environment before.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.task_runners import ThreadPoolTaskRunner

from flows.engine import JobError, OnResult, result_of, submit, waves
from flows.shards import Plan, Result, drop_intermediate


@task(name="stage-shard", task_run_name="{stage}-{shard:05d}", cache_policy=NO_CACHE, persist_result=False)
def stage_shard(stage: str, shard: int, plan: Plan, pool: ProcessPoolExecutor, index: int) -> Result:
    """One job, done in a worker process; Prefect keeps its state, the record on disk keeps the truth."""
    return result_of(plan, index, shard, submit(pool, plan, index, shard))


def run_with_prefect(plan: Plan, pool: ProcessPoolExecutor, workers: int, on_result: OnResult) -> None:
    """Run the plan's jobs as tasks of one flow run, on the ephemeral API or the one that PREFECT_API_URL names."""

    @flow(name=f"occfactory-{plan.name}", validate_parameters=False, persist_result=False)
    def occfactory(recipe: dict[str, Any], out: str) -> None:
        for wave in waves(plan, workers):
            for index, stage in enumerate(plan.stages):
                tasks = [stage_shard.submit(stage.name, shard, plan, pool, index) for shard in wave]
                for future in tasks:
                    on_result(future.result())
            for shard in wave:
                drop_intermediate(plan, shard)

    runner: Any = ThreadPoolTaskRunner(max_workers=workers)
    run = occfactory.with_options(task_runner=runner)
    try:
        get_client(sync_client=True)  # starts the ephemeral API, if it's that
    except RuntimeError as error:
        raise JobError(f"Prefect's API did not start ({error}); --engine none builds without it") from error
    run(recipe=plan.recipe.model_dump(mode="json"), out=str(plan.out))
