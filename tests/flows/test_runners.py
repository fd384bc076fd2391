"""Other places where jobs run: a local Dask or Ray cluster gives the same bytes, also when a worker is lost."""

import os
import signal
from pathlib import Path

import pytest

from flows.engine import run_plan
from flows.jobs import IncompleteError, RunOptions
from flows.shards import Result
from pipeline.scene.errors import InputError
from tests.flows.toy_plan import files_of, squares_of, toy_plan


def run(out: Path, engine: str, fault: str = "", on_result=lambda result: None, **options) -> None:
    run_plan(toy_plan(out, fault=fault), engine, 2, on_result, options=RunOptions(**{"pause_s": 0.0, **options}))


def test_a_dask_worker_killed_amid_a_build_costs_nothing(tmp_path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    killed: list[int] = []

    def kill_one(result: Result) -> None:
        if result.stage == "numbers" and not killed:
            killed.append(next(iter(distributed.default_client().run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    run(tmp_path, "none", fault="slow", on_result=kill_one, runner="dask")
    assert killed
    assert files_of(tmp_path) == squares_of()
    assert not (tmp_path / ".build/dask").exists()


@pytest.mark.parametrize(("runner", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_shard_that_keeps_failing_on_a_cluster_is_named(tmp_path, runner: str, package: str) -> None:
    pytest.importorskip(package, reason=f"the extra `{runner}` is not installed")
    with pytest.raises(IncompleteError, match=r"shard 2 \(squares: its worker process was killed"):
        run(tmp_path, "none", fault="killed", runner=runner, retries=1)
    assert len(files_of(tmp_path)) == 4


def test_the_same_bytes_through_prefect_dask(tmp_path) -> None:
    pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")
    run(tmp_path, "prefect", runner="dask")
    assert files_of(tmp_path) == squares_of()


@pytest.mark.parametrize("engine", ["none", "prefect"])
def test_the_same_bytes_on_ray(tmp_path, engine: str) -> None:
    pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")
    run(tmp_path, engine, runner="ray")
    assert files_of(tmp_path) == squares_of()


def test_bad_input_on_ray_is_its_one_line(tmp_path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with pytest.raises(InputError) as caught:
        run(tmp_path, "none", fault="input", runner="ray")
    assert "\n" not in str(caught.value)


def test_an_address_needs_a_runner_with_a_cluster(tmp_path) -> None:
    with pytest.raises(InputError, match="--runner dask"):
        run(tmp_path, "none", address="tcp://127.0.0.1:8786")
