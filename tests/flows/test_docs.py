"""The pages of docs/: the commands of their `sh` blocks are run as they stand, on tiny data and made small.

A block's second word says what a test can't have: `settings` (what a reader sets to their own), `cluster` and `server`
(a cluster's or Prefect's own commands, not run). A page's shell is a real one, in which `occfactory` tells its words.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.inspect import verify_dataset
from flows.recipes import load_recipe
from flows.schedule import parameters_of, read_schedule
from pipeline.datasets.kitti_calibration import write_poses
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.semantic_kitti import open_root, read_frame
from pipeline.scene.taxonomy import load_taxonomy
from tests.flows.street_root import GRID, write_street_root
from tests.flows.toy_images import toy_images

pytestmark = pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated")  # mlcroissant's way with rdflib
DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.M | re.S)
NOT_RUN = ("settings", "cluster", "server")
NAMED = re.compile(r"# (\S+\.toml)\n")
GENERATOR_GRID = ["--set", "grid.shape=[32,32,8]", "--set", "grid.origin_m=[0,-6.4,-2]"]
TINY_TOWN = [
    *("--set", "samples=3", "--set", "shard_samples=1", "--set", "gallery_samples=1", "--set", "source.mask_poses=1"),
    *("--set", "views.width_px=64", "--set", "views.height_px=32"),
    *("--set", "source.grid.shape=[32,32,8]", "--set", "source.grid.voxel_size_m=1.6"),
]
Smaller = Mapping[str, tuple[Mapping[str, str], Sequence[str]]]  # command -> (other words, words after)


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(language, second word, text) of a page's fenced blocks."""
    return BLOCK.findall((DOCS / page).read_text())


def commands(script: str, folder: Path, **settings: object) -> list[list[str]]:
    """The words of each call of occfactory in a script, as a shell hands them over."""
    told = "occfactory() { printf '%s\\037' \"$@\"; printf '\\n'; }\nset -eu\n"
    environment = {"PATH": "/usr/bin:/bin", **{name: str(value) for name, value in settings.items()}}
    run = subprocess.run(
        ["bash", "-c", told + script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return [line.split("\037")[:-1] for line in run.stdout.splitlines()]


def run_page(page: str, folder: Path, smaller: Smaller, **settings: object) -> None:
    """Run every command of a page in order, in `folder`, where its TOML files are written first."""
    for _, _, text in blocks(page):
        if match := NAMED.match(text):
            (folder / match[1]).write_text(text)
    scripts = [text for language, kind, text in blocks(page) if language == "sh" and kind not in NOT_RUN]
    assert scripts
    for script in scripts:
        for words in commands(script, folder, **settings):
            run(words, smaller)


def run(words: Sequence[str], smaller: Smaller) -> None:
    """Run one command, made smaller where the table says how."""
    name = next((name for name in smaller if " ".join(words).startswith(name)), "")
    others, more = smaller.get(name, ({}, ()))
    made = [others.get(word, word) for word in words]
    result = CliRunner().invoke(app, [*(word for word in made if word), *more])
    assert result.exit_code == 0, f"{shlex.join(made)}: {result.output} {result.exception!r}"


def write_scans(root: Path, raw: Sequence[int], scans: int = 3) -> None:
    """Labelled scans of a plain on which the vehicle stands: points of these raw ids in turn."""
    folder = root / "sequences" / "00"
    for name in ("velodyne", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for scan in range(scans):
        rng = np.random.default_rng(scan)
        points = np.stack([rng.uniform(4, 30, 3000), rng.uniform(-15, 15, 3000), np.full(3000, -1.6)], -1)
        np.c_[points, np.zeros(3000)].astype("<f4").tofile(folder / "velodyne" / f"{scan:06d}.bin")
        np.resize(raw, 3000).astype("<u4").tofile(folder / "labels" / f"{scan:06d}.label")
    write_poses(folder / "poses.txt", np.tile(np.eye(4), (scans, 1, 1)))


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_my_own_semantickitti(inside: Path) -> None:
    root = write_street_root(inside / "root", train=4, val=2)
    write_scans(root, (40, 10))
    smaller: Smaller = {
        "voxelize": ({}, ("--voxel", "0.8", "--scans-ahead", "1", "--workers", "1")),
        "ssc check": ({}, ("--no-overfit", "--frames", "2")),
        "train-generator": ({"semantic_kitti": "comp_d3pm_tiny"}, (*GENERATOR_GRID, "--set", "*.training.steps=2")),
        "sample": ({"64": "2"}, ()),
        "build": ({}, ("--engine", "none", "--workers", "1", "--set", "samples=2")),
        "export": ({}, ("--workers", "1")),
    }
    run_page("own_semantickitti.md", inside, smaller, ROOT=root, OUT=inside / "runs")
    assert read_frame(open_root(inside / "runs/voxels"), "00", "000000").labels is not None
    assert open_root(inside / "runs/scenes").grid == GRID
    assert len(read_manifest(inside / "runs/dataset").samples) == 2
    assert list((inside / "runs/hub/data").glob("*.parquet"))


def test_my_own_classes(inside: Path) -> None:
    root = inside / "root"
    write_street_root(root, train=1, val=1, photographs=False)
    write_scans(root, (40, 44, 10, 255))
    grid = {"shape": [64, 64, 8], "voxel_size_m": 0.8, "origin_m": [0, -25.6, -2]}
    fields = [part for name, value in grid.items() for part in ("--set", f"grid.{name}={value}")]
    drawn = [part.replace("grid.", "source.grid.") for part in fields]
    views = ["--set", "views.width_px=64", "--set", "views.height_px=32", "--set", "samples=2"]
    smaller: Smaller = {
        "voxelize": ({"0.4": "0.8"}, ("--scans-ahead", "1", "--workers", "1")),
        "train-generator": ({"comp_default": "whole_scene_tiny"}, (*fields, "--set", "*.training.steps=2")),
        "sample": ({"16": "2"}, ()),
        "build": ({}, ("--engine", "none", "--workers", "1", *drawn, *views)),
        "export": ({}, ("--workers", "1")),
    }
    run_page("own_taxonomy.md", inside, smaller, ROOT=root, OUT=inside / "runs")
    own = load_taxonomy(str(inside / "my_classes.toml"))
    assert own.classes == ("empty", "road", "car")
    for made in ("voxels", "scenes", "dataset"):
        assert open_root(inside / "runs" / made).taxonomy == own
    labels = read_frame(open_root(inside / "runs/voxels"), "00", "000000").labels
    assert labels is not None
    assert {1, 2} <= set(np.unique(labels)) <= {0, 1, 2, 255}
    assert verify_dataset(inside / "runs/dataset") == []


def test_my_own_controlnet(inside: Path) -> None:
    toy = toy_images()
    size = ("--width", "40", "--height", "20")
    tiny = ("--recipe", "tiny", "--set", "control.train.steps=2", "--set", "control.train.validate_every=2")
    fields = ("samples=2", "images.synthesis.steps=2", "images.redraws=1", "images.rejected=keep", "gallery_samples=1")
    smaller: Smaller = {
        "images train-critic": ({}, (*size, "--tiny", "--set", "train.steps=5")),
        "images train-controlnet": ({}, tiny),
        "images sample": ({}, ("--frames", "2", "--size", "80x40", "--set", "synthesis.steps=2")),
        "build": ({}, ("--engine", "none", "--workers", "1", *(part for f in fields for part in ("--set", f)))),
    }
    run_page("own_controlnet.md", inside, smaller, ROOT=toy.root, BASE=toy.weights, OUT=inside / "runs")
    samples = read_manifest(inside / "runs/dataset").samples
    assert len(samples) == 2
    assert all(sample.provenance["image"]["prompt"] for sample in samples)


def test_a_cluster(inside: Path) -> None:
    """A task of SLURM's array makes shard 0, one of Kubernetes' Job shard 1, the last run shard 2 and the rest."""
    out = inside / "runs"
    build = ({"town_demo": "town_tiny"}, ("--workers", "1", *TINY_TOWN))
    page = blocks("cluster.md")
    (slurm,) = (text for _, kind, text in page if kind == "slurm")
    (job,) = (yaml.safe_load(text) for language, _, text in page if language == "yaml")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-c"]
    for script, number in ((slurm, {"SLURM_ARRAY_TASK_ID": 0}), (container["args"][0], {"JOB_COMPLETION_INDEX": 1})):
        (words,) = commands(script, inside, OUT=out, **number)
        run(words, {"build": build})
        assert not (out / "demo/manifest.json").exists()
    (last,) = (text for _, kind, text in page if "verify" in text and kind == "")
    for words in commands(last, inside, OUT=out):
        run(words, {"build": build})
    assert len(read_manifest(out / "demo").samples) == 3


def test_a_cluster_by_dask(inside: Path) -> None:
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("needs the extra dask")
    ((words,),) = (commands(text, inside, OUT=inside) for _, kind, text in blocks("cluster.md") if kind == "dask")
    at = words.index("--address")
    small = ("--engine", "none", "--workers", "1", *TINY_TOWN)  # Prefect's own start is tested elsewhere
    run([*words[:at], *words[at + 2 :]], {"build": ({"town_demo": "town_tiny"}, small)})
    assert len(read_manifest(inside / "by_dask").samples) == 3


def test_a_schedule(inside: Path) -> None:
    """The file is read as `occfactory serve` reads it; that one is served for real in test_schedule.py."""
    (text,) = (text for language, _, text in blocks("schedule.md") if language == "toml")
    (inside / "schedule.toml").write_text(text)
    (serve,) = (text for _, kind, text in blocks("schedule.md") if kind == "server")
    ((command, path),) = commands(serve, inside)
    assert command == "serve"
    (build,) = read_schedule(inside / path)
    assert (build.cron, build.keep) == ("0 3 * * *", 3)
    assert parameters_of(build)["recipe"]["samples"] == 200
    assert load_recipe(build.recipe).samples == 48


def test_every_page_is_covered_and_its_links_and_words_exist() -> None:
    pages = sorted(path.name for path in DOCS.glob("*.md"))
    tested = set(re.findall(r'"(\w+\.md)"', Path(__file__).read_text()))
    assert set(pages) == tested
    for page in pages:
        text = (DOCS / page).read_text()
        assert text.count("\n") < 80  # a page is about a screen
        assert "**What you get.**" in text
        for link in re.findall(r"\]\(([\w/.-]+)\)", text):
            assert (DOCS / link).exists()
