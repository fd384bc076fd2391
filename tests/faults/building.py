"""One small build as users run it, with every stage on; how it is killed, gone on with and compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.flows.street_root import write_street_root
from tests.flows.toy_plan import files_of

REPOSITORY = Path(__file__).parents[2]
SHARDS = 4
CHANGES = ("shard_samples=1", "gallery_samples=1", "monoscene_labels=true")
LIMIT_S = 600.0  # of a run that nobody kills


@dataclass(frozen=True)
class Build:
    """A build's command, what it gives undisturbed, and in how many seconds."""

    root: Path
    home: Path
    options: tuple[str, ...] = ("--engine", "none", "--workers", "2")
    expected: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0

    def command(self, out: Path) -> list[str]:
        changes = [part for change in CHANGES for part in ("--set", change)]
        build = ["build", "semantic_kitti", str(self.root), "--out", str(out), "--quiet"]
        return [sys.executable, "-m", "flows", *build, *changes, *self.options]

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


def undisturbed(folder: Path, *options: str) -> Build:
    """The reference: built once to warm up caches, and once for its bytes and its time."""
    root = folder / "root"
    if not root.exists():
        write_street_root(root, train=SHARDS, val=1, photographs=False)
    build = Build(root, folder / "home", options) if options else Build(root, folder / "home")
    name = "-".join(part.strip("-") for part in build.options)
    finish(build, folder / f"warm-{name}")
    started = time.monotonic()
    finish(build, folder / f"reference-{name}")
    seconds = time.monotonic() - started
    return Build(root, build.home, build.options, files_of(folder / f"reference-{name}"), seconds)


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
    found = files_of(out)
    names = sorted(build.expected.keys() | found.keys())
    differing = [name for name in names if build.expected.get(name) != found.get(name)]
    return f"{len(differing)} files differ, first {differing[0]}" if differing else ""
