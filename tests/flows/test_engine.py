"""Engines: the same bytes whatever the way, records that are trusted only when the bytes agree, kills and faults."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.engine import run_plan
from flows.jobs import RunOptions
from flows.shards import Result
from pipeline.scene.errors import InputError
from tests.flows.toy_plan import files_of, squares_of, toy_plan

EXPECTED = squares_of()
RUN = (
    "import sys, pathlib\nfrom flows.engine import run_plan\nfrom tests.flows.toy_plan import toy_plan\n"
    "if __name__ == '__main__':\n"
    "    run_plan(toy_plan(pathlib.Path(sys.argv[1]), fault='slow'), 'none', 1, lambda r: print('done', flush=True))\n"
)


def run(out: Path, workers: int = 1, engine: str = "none", **recipe) -> list[Result]:
    results: list[Result] = []
    run_plan(toy_plan(out, **recipe), engine, workers, results.append, options=RunOptions(pause_s=0))
    return results


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_runs_once_and_intermediates_go(tmp_path, workers: int) -> None:
    results = run(tmp_path, workers)
    assert sorted((r.stage, r.shard) for r in results) == sorted(
        (s, k) for s in ("numbers", "squares") for k in range(5)
    )
    assert files_of(tmp_path) == EXPECTED
    assert not list((tmp_path / ".build" / "numbers").iterdir())


def test_finished_jobs_are_skipped_and_damaged_ones_made_again(tmp_path) -> None:
    run(tmp_path)
    assert all(r.skipped for r in run(tmp_path))
    (tmp_path / "squares/1.txt").write_text("8\n")
    (tmp_path / "squares/3.txt").unlink()
    again = run(tmp_path)
    assert sorted({r.shard for r in again if not r.skipped}) == [1, 3]
    assert files_of(tmp_path) == EXPECTED


def test_a_record_that_points_out_of_the_folder_is_not_trusted(tmp_path) -> None:
    run(tmp_path / "a")
    record = tmp_path / "a/.build/records/squares/00000.json"
    content = json.loads(record.read_text())
    (tmp_path / "secret").write_bytes((tmp_path / "a/squares/0.txt").read_bytes())
    content["files"][0]["path"] = "../secret"
    record.write_text(json.dumps(content))
    assert [r.shard for r in run(tmp_path / "a") if not r.skipped] == [0, 0]


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="new or empty"):
        run(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_killed_build_goes_on_to_the_same_bytes(tmp_path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    build = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE)
    assert build.stdout is not None
    for _ in range(7):  # five of the first stage, two of the second
        build.stdout.readline()
    os.killpg(build.pid, signal.SIGKILL)
    build.wait()
    build.stdout.close()
    assert 0 < len(files_of(tmp_path)) < 5
    (tmp_path / "squares/.9.txt.abc.part").write_text("half")  # what a kill inside a write leaves
    results = run(tmp_path)
    assert any(r.skipped for r in results)
    assert any(not r.skipped for r in results)
    assert files_of(tmp_path) == EXPECTED


def test_a_second_build_into_a_folder_at_work_is_refused(tmp_path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    first = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], env=environment, stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()
    with pytest.raises(InputError, match="one at work"):
        run(tmp_path)
    first.stdout.read()
    assert first.wait() == 0
    first.stdout.close()
    assert files_of(tmp_path) == EXPECTED


def test_workers_end_when_their_builder_is_killed(tmp_path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    build = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], env=environment, stdout=subprocess.PIPE)
    assert build.stdout is not None
    build.stdout.readline()
    lists = Path(f"/proc/{build.pid}/task").glob("*/children")  # a list a thread
    children = [child for path in lists for child in path.read_text().split()]
    assert children
    build.kill()
    build.wait()
    build.stdout.close()
    deadline = time.monotonic() + 20
    while any(_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_alive(child) for child in children)


def _alive(pid: str) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
