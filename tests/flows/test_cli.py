"""The command line: help with examples, faults in one line without a traceback, statuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import app

REPOSITORY = Path(__file__).parents[2]
COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)


def occfactory(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    run = occfactory(command, "--help")
    assert run.returncode == 0
    assert f"occfactory {command}" in run.stdout.split("Example", 1)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "nonsense", "--out", "OUT"], "expected one of town_demo"),
        (["build", "town_tiny", "--out", "OUT", "--set", "samples=-3"], "greater than or equal to 1"),
        (["build", "semantic_kitti", "OUT", "--out", "OUT/x", "--engine", "none"], "root, which holds sequences/"),
        (["town", "--out", "OUT", "--frames", "3", "--size", "big"], "expected WIDTHxHEIGHT"),
        (["town", "--out", "OUT", "--frames", "3", "--voxel", "0.3"], "divides 51.2 m"),
        (["voxelize", "OUT", "--out", "OUT/x"], "sequences with velodyne/ and labels/"),
        (["render", "OUT", "--out", "OUT/x"], "root, which holds sequences/"),
        (["sheet", "OUT", "--out", "OUT/x.png"], "root, which holds sequences/"),
        (["info", "OUT"], "a dataset's root"),
        (["convert", "OUT", "--to", "occ3d", "--out", "OUT/x"], "a dataset's root"),
        (["verify", "OUT"], "expected the manifest of a finished build"),
        (["recipes", "nonsense"], "expected one of town_demo"),
        (["build", "town_tiny", "--out", "/proc/nowhere", "--engine", "none"], "a folder that can be written"),
    ],
)
def test_faults_are_one_line(tmp_path, arguments: list[str], message: str) -> None:
    run = occfactory(*[argument.replace("OUT", str(tmp_path / "out")) for argument in arguments])
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("occfactory: ")
    assert message in run.stderr


def test_recipes_are_listed_and_shown() -> None:
    assert "town_demo" in occfactory("recipes").stdout
    assert '"samples": 48' in occfactory("recipes", "town_demo").stdout
