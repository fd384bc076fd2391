"""The faults: each gives lines of what was done, and raises if a build that goes on doesn't end as the undisturbed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil

from flows.inspect import verify_dataset
from tests.faults.building import Build, difference, finish, kill_after

TMPFS_BYTES = 160_000  # less than the build needs


class SkippedError(RuntimeError):
    """Can't be tried on this machine."""


def moments(seed: int, count: int, seconds: float) -> list[float]:
    """Seeded moments of a build of so many seconds."""
    return np.random.default_rng(seed).uniform(0, seconds, count).tolist()


def kills(build: Build, folder: Path, at: Sequence[float], in_a_row: int) -> Iterator[str]:
    """SIGKILL the process group at these moments, so many in a row in one folder, which then is brought to its end."""
    for start in range(0, len(at), in_a_row):
        out, chosen = folder / f"killed-{start}", at[start : start + in_a_row]
        struck = [kill_after(build, out, moment) for moment in chosen]
        finish(build, out)
        _compare(build, out)
        named = ", ".join(f"{m:.1f} s{'' if hit else ' (had ended)'}" for m, hit in zip(chosen, struck, strict=True))
        yield f"killed at {named}: goes on to the same bytes"


def lost_dask_worker(build: Build, out: Path) -> Iterator[str]:
    """SIGKILL one worker of the build's own Dask cluster while it is at work; the build itself goes on."""
    with build.start(out) as run:
        victim = _at_work(run)
        victim.kill()
        _, said = run.communicate(timeout=600)
    if run.returncode:
        raise RuntimeError(f"exit status {run.returncode} after a lost worker: {said}")
    _compare(build, out)
    yield "one Dask worker killed: the build ends with the same bytes"


def _at_work(run: subprocess.Popen[str]) -> psutil.Process:
    """A Dask worker that has begun a job: the parent of a job's process. Raises RuntimeError if none comes."""
    while run.poll() is None:
        for child in psutil.Process(run.pid).children(recursive=True):
            try:
                if "job_process" in " ".join(child.cmdline()):
                    return child.parent()
            except psutil.Error:
                continue
        time.sleep(0.02)
    raise RuntimeError(f"the build ended before a worker began: {run.communicate()[1]}")


def flipped_byte(build: Build, out: Path) -> Iterator[str]:
    """Flip one bit of a finished shard: verify finds it, and building again mends it."""
    finish(build, out)
    label = sorted((out / "sequences").rglob("*.label"))[1]
    content = bytearray(label.read_bytes())
    content[len(content) // 2] ^= 1
    label.write_bytes(content)
    faults = dict(verify_dataset(out))
    name = label.relative_to(out).as_posix()
    if list(faults) != [name]:
        raise RuntimeError(f"verify found {faults} instead of {name}")
    finish(build, out)
    _compare(build, out)
    yield "one bit flipped in a finished shard: found, and mended to the same bytes"


def full_disk(build: Build, mount: Path) -> Iterator[str]:
    """Build into a file system that is too small, then make it larger. Raises SkippedError where we may not mount."""
    mount.mkdir(parents=True)
    _mount(mount, f"size={TMPFS_BYTES}")
    try:
        out = mount / "build"
        status, said = build.complete(out)
        if status not in (2, 3) or "No space left" not in said or len(said.strip().splitlines()) != 1:
            raise RuntimeError(f"expected one line on a full disk, found exit status {status}: {said}")
        if (out / "manifest.json").exists():
            raise RuntimeError("a manifest in spite of a full disk")
        _mount(mount, "remount,size=256m")
        finish(build, out)
        _compare(build, out)
    finally:
        subprocess.run(["umount", str(mount)], check=False)
    yield f"a full disk: one line, status {status}; with room again it goes on to the same bytes"


def _mount(mount: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SkippedError(str(error)) from None
    if done.returncode:
        raise SkippedError(f"mounting is not permitted here ({done.stderr.strip()})")


def _compare(build: Build, out: Path) -> None:
    if fault := difference(build, out):
        raise RuntimeError(f"{out}: {fault}")
