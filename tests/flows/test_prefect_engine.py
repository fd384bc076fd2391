"""The build as a Prefect flow: one task run a stage and shard, the same bytes as the plain loop, calm output."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.engine import run_plan
from flows.jobs import IncompleteError, RunOptions
from pipeline.scene.errors import InputError
from tests.flows.toy_plan import files_of, squares_of, toy_plan

RUN = (
    "import sys, pathlib\nfrom flows.quiet import quiet_environment\nquiet_environment()\n"
    "from flows.engine import run_plan\nfrom tests.flows.toy_plan import toy_plan\n"
    "if __name__ == '__main__':\n"
    "    run_plan(toy_plan(pathlib.Path(sys.argv[1])), 'prefect', 2, lambda r: None)\n"
)

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Prefect's own sockets


def test_one_task_run_a_stage_and_shard_and_the_same_bytes(tmp_path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    run_plan(toy_plan(tmp_path / "flow"), "prefect", 2, lambda r: None)
    run_plan(toy_plan(tmp_path / "loop"), "none", 1, lambda r: None)
    assert files_of(tmp_path / "flow") == files_of(tmp_path / "loop")
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_runs(limit=1, sort=FlowRunSort.START_TIME_DESC)[0]
        only = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
        deadline = time.monotonic() + 30  # task runs reach the database through an event queue
        while len(tasks := client.read_task_runs(flow_run_filter=only)) < 10 and time.monotonic() < deadline:
            time.sleep(0.2)
    assert flow_run.parameters == {"recipe": {"factor": 3, "plus": 0, "title": ""}, "out": str(tmp_path / "flow")}
    expected = sorted(f"{stage}-{shard:05d}" for stage in ("numbers", "squares") for shard in range(5))
    assert sorted(t.name for t in tasks) == expected  # task runs = stages x shards


def test_a_bad_input_reaches_the_caller_as_itself(tmp_path) -> None:
    with pytest.raises(InputError, match="shard 2"):
        run_plan(toy_plan(tmp_path, fault="input"), "prefect", 2, lambda r: None)


def test_a_shard_that_keeps_failing_ends_the_flow_run_as_incomplete(tmp_path, capfd) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with pytest.raises(IncompleteError, match=r"shard 2 \(squares"):
        run_plan(
            toy_plan(tmp_path, fault="killed"), "prefect", 2, lambda r: None, options=RunOptions(retries=1, pause_s=0)
        )
    assert len(files_of(tmp_path)) == 4
    assert capfd.readouterr().err == ""
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_runs(limit=1, sort=FlowRunSort.START_TIME_DESC)[0]
    assert flow_run.state is not None
    assert (flow_run.state.type.value, flow_run.state.name) == ("FAILED", "Incomplete")
    assert "shard 2 (squares" in str(flow_run.state.message)
    run_plan(toy_plan(tmp_path), "prefect", 2, lambda r: None)
    assert files_of(tmp_path) == squares_of()


def test_a_process_of_its_own_prints_nothing(tmp_path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert len(files_of(tmp_path)) == 5
