"""Shards that fail: tried again, left out when they keep failing, named, and finished by the next run."""

from pathlib import Path

import pytest

from flows.engine import run_plan
from flows.jobs import IncompleteError, RunOptions
from flows.shards import Result
from pipeline.datasets.manifest import MANIFEST_NAME
from pipeline.scene.errors import InputError
from tests.flows.toy_plan import device_plan, files_of, squares_of, toy_plan


def run(out: Path, fault: str = "", workers: int = 1, **options) -> list[Result]:
    results: list[Result] = []
    plan = toy_plan(out, fault=fault)
    run_plan(plan, "none", workers, results.append, options=RunOptions(**{"pause_s": 0.0, **options}))
    return results


def attempts(out: Path) -> int:
    return (out / ".build/attempts").stat().st_size


def test_a_shard_that_keeps_failing_is_left_out_and_named_and_the_next_run_finishes(tmp_path) -> None:
    tmp_path.joinpath(".build").mkdir()
    with pytest.raises(IncompleteError) as caught:
        run(tmp_path, "killed")
    text = str(caught.value)
    assert "incomplete, 1 of 5 shards failed: shard 2 (squares: its worker process was killed" in text
    assert "\n" not in text
    assert [(r.stage, r.shard) for r in caught.value.failed] == [("squares", 2)]
    assert attempts(tmp_path) == 3  # two retries
    expected = squares_of()
    del expected["squares/2.txt"]
    assert files_of(tmp_path) == expected  # the others went on
    again = run(tmp_path)
    assert sorted((r.stage, r.shard) for r in again if not r.skipped) == [("squares", 2)]  # its first stage was done
    assert files_of(tmp_path) == squares_of()


@pytest.mark.parametrize("fault", ["killed-once", "bug-once", "hangs-once"])
def test_a_passing_fault_is_mended_by_another_attempt(tmp_path, fault: str) -> None:
    results = run(tmp_path, fault, time_limit_s=3.0)
    assert attempts(tmp_path) == 2
    assert not any(result.cause for result in results)
    assert files_of(tmp_path) == squares_of()


def test_a_job_over_its_time_is_ended(tmp_path) -> None:
    with pytest.raises(IncompleteError, match=r"shard 2 \(squares: took longer than 3.0 s\)"):
        run(tmp_path, "hangs", time_limit_s=3.0, retries=0)
    assert len(files_of(tmp_path)) == 4


def test_a_bug_is_one_line_and_its_traceback_lies_in_the_folder(tmp_path) -> None:
    with pytest.raises(IncompleteError, match="ZeroDivisionError: a bug in two lines") as caught:
        run(tmp_path, "bug", retries=1)
    assert "\n" not in str(caught.value)
    assert "in _fail" in (tmp_path / ".build/failed/squares-00002.txt").read_text()


def test_a_full_disk_is_not_tried_again(tmp_path) -> None:
    with pytest.raises(IncompleteError, match="No space left"):
        run(tmp_path, "disk")
    assert attempts(tmp_path) == 1


def test_an_input_error_ends_the_run_at_once(tmp_path) -> None:
    with pytest.raises(InputError, match="shard 2"):
        run(tmp_path, "input")
    assert attempts(tmp_path) == 1


def test_an_incomplete_build_has_no_manifest_even_where_one_stood(tmp_path) -> None:
    run(tmp_path)
    (tmp_path / MANIFEST_NAME).write_text("{}")
    (tmp_path / "squares/2.txt").write_text("damaged")
    with pytest.raises(IncompleteError):
        run(tmp_path, "bug", retries=0)
    assert not (tmp_path / MANIFEST_NAME).exists()


def test_a_run_whose_shards_all_fail_ends_early(tmp_path) -> None:
    with pytest.raises(IncompleteError, match=r"8 of 20 shards failed, 12 not begun: shard 0 .*; shard 7"):
        run_plan(
            device_plan(tmp_path, 20),
            "none",
            1,
            lambda result: None,
            options=RunOptions(retries=0, devices=()),  # the stage misses its device
        )


@pytest.mark.parametrize("devices", [("7",), ("3", "5")])
def test_a_device_has_one_job_at_a_time(tmp_path, devices: tuple[str, ...]) -> None:
    options = RunOptions(retries=0, devices=devices)
    run_plan(device_plan(tmp_path, 6), "none", 3, lambda result: None, options=options)
    seen = [content.decode() for content in files_of(tmp_path).values()]
    assert len(seen) == 6
    assert set(seen) == set(devices)
