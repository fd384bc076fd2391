"""Where jobs run: threads of this process, each with a process of its own; a Dask cluster; a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from flows.jobs import JobProcesses, RunOptions, do_job
from flows.shards import WORK, Plan, Result
from pipeline.scene.errors import InputError


class Pending(Protocol):
    """A job on its way."""

    def result(self) -> Result: ...


Submit = Callable[[int, int], Pending]  # (stage's index, shard)


@contextlib.contextmanager
def open_runner(plan: Plan, workers: int, options: RunOptions) -> Iterator[Submit]:
    """What takes the plan's jobs while the context lasts. Raises InputError (no such extra, no cluster there)."""
    require_runner(options)
    opened = {"processes": _local, "dask": _dask, "ray": _ray}[options.runner]
    with opened(plan, workers, options) as submit:
        yield submit


def require_runner(options: RunOptions) -> None:
    """Raises InputError unless the options' runner is installed and an address is one that it can use."""
    needed = {"processes": "flows", "dask": "distributed", "ray": "ray"}[options.runner]
    if importlib.util.find_spec(needed) is None:
        remedy = f"pip install 'occfactory[{options.runner}]'"
        raise InputError(f"--runner {options.runner}", f"the package {needed}", "none", remedy)
    if options.runner == "processes" and options.address:
        raise InputError("--address", "a runner with a cluster", "processes", "--runner dask or --runner ray")


@contextlib.contextmanager
def _local(plan: Plan, workers: int, options: RunOptions) -> Iterator[Submit]:
    with contextlib.closing(JobProcesses()) as processes:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="job")
        try:
            yield lambda index, shard: pool.submit(do_job, plan, index, shard, options, processes)
        finally:
            processes.close()  # first: the threads wait for them
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _dask(plan: Plan, workers: int, options: RunOptions) -> Iterator[Submit]:
    calm_dask()
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        address: Any = options.address
        if address is None:
            stack.callback(shutil.rmtree, dask_folder(plan), ignore_errors=True)
            address = stack.enter_context(LocalCluster(**local_dask(plan, workers)))
        try:
            client = stack.enter_context(Client(address, timeout="60s"))
        except OSError as error:
            raise InputError("--address", "a Dask scheduler", f"none at {address} ({error})") from None
        yield lambda index, shard: client.submit(do_job, plan, index, shard, options, pure=False)


def local_dask(plan: Plan, workers: int) -> dict[str, Any]:
    """A local cluster's arguments: a process a worker, no dashboard, nothing written outside the build's folder."""
    return {
        "n_workers": workers,
        "threads_per_worker": 1,
        "dashboard_address": "127.0.0.1:0",  # any free port: without one it insists on 8787
        "memory_limit": 0,
        "local_directory": str(dask_folder(plan)),
        "silence_logs": logging.CRITICAL,
    }


def dask_folder(plan: Plan) -> Path:
    return plan.out / WORK / "dask"


def calm_dask() -> None:
    """A lost worker is our own message's matter."""
    import dask

    os.environ.update(DASK_LOGGING__DISTRIBUTED="critical", PREFECT_LOGGING_LEVEL="CRITICAL")  # of the workers
    dask.config.set({"logging": {"distributed": "critical"}})
    import distributed  # noqa: F401 - reads the line above, and sets levels

    logging.getLogger("distributed").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _ray(plan: Plan, workers: int, options: RunOptions) -> Iterator[Submit]:
    import ray

    try:
        ray.init(
            **local_ray(workers) if options.address is None else {"address": options.address, "log_to_driver": False}
        )
    except (ConnectionError, ValueError) as error:
        raise InputError("--address", "a Ray cluster", str(error)) from None
    try:
        remote = ray.remote(num_cpus=1, max_retries=3)(do_job)
        yield lambda index, shard: remote.remote(plan, index, shard, options).future()
    finally:
        ray.shutdown()


def local_ray(workers: int) -> dict[str, Any]:
    """A local cluster's arguments: so many workers, no dashboard, and a token of its own that no file holds."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray").setLevel(logging.ERROR)
    return {
        "num_cpus": workers,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
