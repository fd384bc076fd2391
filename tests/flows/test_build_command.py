"""`occfactory build` as a user runs it: a range, an incomplete build, the run that ends it, in words and in JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.factory_cli import build as build_command
from flows.inspect import verify_dataset
from pipeline.scene.errors import InputError
from tests.flows.street_root import write_street_root

REPOSITORY = Path(__file__).parents[2]


def occfactory(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500, check=False)


def test_a_range_then_an_incomplete_build_then_the_rest(tmp_path) -> None:
    root, out = write_street_root(tmp_path / "root", train=3, val=1, photographs=False), tmp_path / "out"
    build = ("build", "semantic_kitti", root, "--out", out, "--set", "shard_samples=1", "--engine", "none")
    ranged = occfactory(*build, "--shard-range", "0:1")
    assert ranged.returncode == 0
    assert "files 1/1 shards" in ranged.stderr
    assert "shards 0:1" in ranged.stderr
    assert not (out / "manifest.json").exists()

    blocked = out / "sequences/00/voxels/000002.label"
    blocked.mkdir()  # no file can take its place
    incomplete = occfactory(*build, "--retries", 0, "--quiet", "--json")
    assert incomplete.returncode == 3
    (said,) = incomplete.stderr.splitlines()
    assert "incomplete, 1 of 3 shards failed: shard 2 (files: " in said
    assert f"to go on: occfactory build semantic_kitti {root}" in said
    events = [json.loads(line) for line in incomplete.stdout.splitlines()]
    assert (events[0]["event"], events[-1]["event"], events[-1]["state"]) == ("start", "end", "incomplete")
    assert [row["shard"] for row in events[-1]["failed"]] == [2]
    found = [event for event in events if event["event"] == "job" and event["state"] == "found"]
    assert {event["shard"] for event in found} == {0}
    assert not (out / "manifest.json").exists()

    blocked.rmdir()
    rest = occfactory(*build, "--json")
    assert rest.returncode == 0, rest.stderr
    assert json.loads(rest.stdout.splitlines()[-1])["state"] == "finished"
    assert verify_dataset(out) == []


@pytest.mark.parametrize("text", ["3", "3:3", "4:2", "-1:2", "a:b", ":"])
def test_a_bad_range_is_refused(tmp_path, text: str) -> None:
    with pytest.raises(InputError, match="--shard-range"):
        build_command("town_tiny", out=tmp_path, shard_range=text)
