"""The wheel: the four packages and their data, no top-level data or tests; data is found as in a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {"pipeline", "flows", "renderers", "ssc_eval"} == {name for name in top if not name.endswith(".dist-info")}
    for folder in ("taxonomies", "conversions"):
        shipped = {path.name for path in (REPOSITORY / "data" / folder).iterdir()}
        assert shipped == {Path(name).name for name in names if name.startswith(f"pipeline/_data/{folder}/")}
    assert "pipeline/report/report.html" in names


def test_data_is_found_in_an_installed_wheel(wheel: Path, tmp_path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "from pipeline.scene.files import data_path; from pipeline.scene.taxonomy import load_taxonomy; "
        "print(data_path('taxonomies/occ3d.toml')); print(load_taxonomy('semantic_kitti').classes[19])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    path, name = run.stdout.split("\n")[:2]
    assert Path(path).is_relative_to(tmp_path)
    assert name == "traffic-sign"
