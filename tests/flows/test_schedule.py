"""Builds on a schedule: the file's faults, what is deployed, and a deployment served for real."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows.recipes import BuildRecipe, load_recipe
from flows.schedule import parameters_of, read_schedule, recipe_parameters
from flows.versions import versions
from pipeline.scene.errors import InputError

REPOSITORY = Path(__file__).parents[2]
GOOD = """[[build]]
name = "nightly"
recipe = "town_tiny"
out = "versions"
interval_s = 10
keep = 2
set = ["samples=1", "gallery_samples=0", "views.width_px=64", "views.height_px=32", "source.mask_poses=1",
       "source.grid.shape=[32,32,8]", "source.grid.voxel_size_m=1.6"]
"""


def schedule(folder: Path, text: str) -> Path:
    path = folder / "schedule.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[build]", "TOML"),
        ("", "[[build]]"),
        ("[other]\n" + GOOD, "other"),
        (GOOD.replace("town_tiny", "town_huge"), "town_huge"),
        (GOOD.replace("interval_s = 10", ""), "either cron or interval_s"),
        (GOOD.replace("interval_s = 10", 'interval_s = 10\ncron = "0 3 * * *"'), "either cron or interval_s"),
        (GOOD.replace("interval_s = 10", 'cron = "often"'), "five cron fields"),
        (GOOD.replace("interval_s = 10", "interval_s = 1"), "interval_s"),
        (GOOD.replace("keep = 2", 'timezone = "Moon/Sea"'), "time zone"),
        (GOOD.replace("keep = 2", "keep = 0"), "keep"),
        (GOOD.replace("samples=1", "sampels=1"), "sampels"),
        (GOOD + GOOD, "different names"),
    ],
)
def test_a_bad_schedule_is_one_line_before_anything_runs(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_schedule(schedule(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_deployed_is_the_recipe_whole(tmp_path: Path) -> None:
    (build,) = read_schedule(schedule(tmp_path, GOOD))
    found = parameters_of(build)
    recipe = load_recipe("town_tiny", changes=build.set)
    assert BuildRecipe.model_validate(found["recipe"]) == recipe
    split = load_recipe("semantic_kitti", tmp_path)
    again = BuildRecipe.model_validate(recipe_parameters(split))  # through JSON the root stays
    assert again.source == split.source.model_copy(update={"root": tmp_path.resolve()})


def test_the_form_has_the_recipes_fields_and_the_yaml_fits_it() -> None:
    from flows.scheduled import scheduled_build

    schema = scheduled_build.parameters.model_dump()
    assert {"samples", "seed", "source", "views"} <= set(schema["definitions"]["BuildRecipe"]["properties"])
    (deployment,) = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    checked = scheduled_build.validate_parameters(deployment["parameters"])
    assert isinstance(checked["recipe"], BuildRecipe)
    path, name = deployment["entrypoint"].split(":")
    assert name == "scheduled_build"
    assert (REPOSITORY / path).is_file()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_served_deployment_makes_versions_on_its_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"OCCFACTORY_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    port = free_port()
    command = [sys.executable, "-m", "flows", "serve", str(schedule(tmp_path, GOOD)), "--port", str(port)]
    with open(tmp_path / "log", "wb") as log:
        served = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 400
        while len(versions(tmp_path / "versions")) < 2 and time.monotonic() < deadline and served.poll() is None:
            time.sleep(0.5)
        found = versions(tmp_path / "versions")
        served.terminate()  # what systemd and containers send; SIGINT may be ignored where tests run in the background
        served.wait(180)
    finally:
        served.kill()
        served.wait()
    assert len(found) >= 2, (tmp_path / "log").read_text()
    assert (tmp_path / "versions" / "latest" / "manifest.json").is_file()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 5)  # its server went with it
