"""Two small builds as users run them: how they are killed, gone on with and compared.

`street` renders a data set, in seconds; `whole_road` has every stage on: scenes of a generator, ControlNet's images
under a critic, an SSC network at the end, whose weights are compared as well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from flows.generator_recipes import comp_d3pm_tiny
from flows.report import SSC_FOLDER
from pipeline.generators.comp_d3pm import CompD3PM
from tests.flows.street_root import write_street_root
from tests.flows.toy_images import toy_images
from tests.flows.toy_plan import files_of

REPOSITORY = Path(__file__).parents[2]
SHARDS = 4
PLAIN = ("--engine", "none", "--workers", "2")
LIMIT_S = 600.0  # of a run that nobody kills


@dataclass(frozen=True)
class Build:
    """A build's recipe as the command takes it, how it is run, what it gives undisturbed, and in how many seconds."""

    recipe: tuple[str, ...]
    home: Path
    options: tuple[str, ...] = PLAIN
    expected: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0

    def command(self, out: Path) -> list[str]:
        return [sys.executable, "-m", "flows", "build", *self.recipe, "--out", str(out), "--quiet", *self.options]

    def start(self, out: Path) -> subprocess.Popen[str]:
        """Begin, or go on, in a process group of its own."""
        environment = {**os.environ, "OCCFACTORY_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY)}
        environment.pop("PREFECT_HOME", None)  # tests have one of their own
        return subprocess.Popen(
            self.command(out),
            cwd=REPOSITORY,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def complete(self, out: Path) -> tuple[int, str]:
        """Run until its end; exit status and what it said."""
        with self.start(out) as run:
            _, said = run.communicate(timeout=LIMIT_S)
        return run.returncode, said


def street(folder: Path) -> tuple[str, ...]:
    """A recipe of renders, four shards of one sample."""
    root = folder / "root"
    if not root.exists():
        write_street_root(root, train=SHARDS, val=1, photographs=False)
    changes = ("shard_samples=1", "gallery_samples=1", "monoscene_labels=true")
    return ("semantic_kitti", str(root), *_set(changes))


def whole_road(folder: Path) -> tuple[str, ...]:
    """A recipe with every stage on, four shards of one sample, networks of a few steps."""
    weights, toy = folder / "weights", toy_images()
    if not weights.exists():
        generator = CompD3PM(comp_d3pm_tiny())
        generator.frequency = np.full(len(generator.taxonomy.classes), 0.05)
        generator.save(weights)
    changes = (
        f"samples={SHARDS}",
        "shard_samples=1",
        "gallery_samples=1",
        "threads=1",
        "sequences=2",
        "val_share=0.25",
        "source.grid.shape=[16,16,8]",
        "source.grid.origin_m=[0,-3.2,-2]",
        "views.width_px=40",
        "views.height_px=20",
        "images.kind=controlnet",
        f"images.weights={toy.weights}",
        f"images.critic={toy.critic}",
        "images.synthesis.steps=2",
        "images.redraws=1",
        "images.rejected=keep",
        "ssc.recipe=tiny",
        "ssc.pictures=1",
    )
    return ("generated", str(weights), *_set(changes))


def _set(changes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for change in changes for part in ("--set", change))


def undisturbed(folder: Path, recipe: tuple[str, ...], *options: str) -> Build:
    """The reference: built once to warm up caches, and once for its bytes and its time."""
    build = Build(recipe, folder / "home", options or PLAIN)
    name = "-".join(part.strip("-") for part in (recipe[0], *build.options))
    finish(build, folder / f"warm-{name}")
    started = time.monotonic()
    finish(build, folder / f"reference-{name}")
    seconds = time.monotonic() - started
    return replace(build, expected=_bytes_of(folder / f"reference-{name}"), seconds=seconds)


def _bytes_of(out: Path) -> dict[str, bytes]:
    """The dataset's files, and the SSC network's weights where the recipe trains one."""
    weights = sorted((out / SSC_FOLDER).glob("weights/*.safetensors"))
    return {**files_of(out), **{path.name: path.read_bytes() for path in weights}}


def finish(build: Build, out: Path) -> None:
    """Build, or go on, to the end. Raises RuntimeError unless it says that it got there."""
    status, said = build.complete(out)
    if status or not (out / "manifest.json").is_file():
        raise RuntimeError(f"exit status {status}: {said}")


def kill_after(build: Build, out: Path, seconds: float) -> bool:
    """Begin, or go on, and SIGKILL the whole process group after so long; whether it was still at work."""
    with build.start(out) as run:
        try:
            run.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    return run.returncode == -signal.SIGKILL


def difference(build: Build, out: Path) -> str:
    """What a finished build has otherwise than the undisturbed one; empty if nothing."""
    found = _bytes_of(out)
    names = sorted(build.expected.keys() | found.keys())
    differing = [name for name in names if build.expected.get(name) != found.get(name)]
    return f"{len(differing)} files differ, first {differing[0]}" if differing else ""
