"""What a build's jobs took, noted as they end: lines of JSON in the work folder, outside of everything that is hashed.

A line is whole or not read; a run that was killed leaves its lines, so a build's cost is that of all its runs.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.shards import WORK, Result

LOG_NAME = "timing.jsonl"


class TimingLog:
    """Call it with every Result, and have other steps timed by `step`. One object is one run."""

    def __init__(self, out: Path, workers: int, threads: int):
        self.path = Path(out) / WORK / LOG_NAME
        self._about = {"run": uuid.uuid4().hex[:12], "workers": workers, "threads": threads, "machine": machine()}
        self._began, self._worked = time.perf_counter(), False

    def __call__(self, result: Result, threads: int | None = None) -> None:
        """Note a job, unless it was found done. threads: None: those of the build's jobs."""
        if not result.skipped:
            self._worked = True
            self._note(result.stage, result.shard, result.seconds, threads or self._about["threads"])

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step of the whole, of one thread; noted by runs alone that have done a job."""
        began = time.perf_counter()
        yield
        if self._worked:
            self._note(name, None, time.perf_counter() - began, 1)

    def _note(self, stage: str, shard: int | None, seconds: float, threads: object) -> None:
        row = {"stage": stage, "shard": shard, "seconds": round(seconds, 3), "threads": threads}
        row |= {"at_s": round(time.perf_counter() - self._began, 3)}
        line = json.dumps({**self._about, **row}, sort_keys=True)
        with open(self.path, "a", encoding="utf-8") as log:
            log.write(f"{line}\n")


@dataclass(frozen=True)
class StageTime:
    """Work of one stage: jobs done, seconds of workers, seconds of cores."""

    name: str
    jobs: int
    seconds: float
    core_s: float


@dataclass(frozen=True)
class Timing:
    """Work of all runs of a build. elapsed_s: of the runs one after another; machines: on which they were."""

    stages: tuple[StageTime, ...]
    elapsed_s: float
    runs: int
    workers: int
    machines: tuple[str, ...]

    @property
    def core_s(self) -> float:
        """Seconds of one core in all."""
        return sum(stage.core_s for stage in self.stages)


def read_timing(path: Path) -> Timing | None:
    """The log's sums, stages in the order they began; None where nothing is noted."""
    try:
        rows = [row for line in Path(path).read_text(encoding="utf-8").splitlines() if (row := _row(line))]
    except (OSError, UnicodeDecodeError):
        return None
    return summed(rows) if rows else None


def _row(line: str) -> dict[str, Any] | None:
    """A line that is whole; the last one of a killed run may not be."""
    try:
        row = json.loads(line)
        float(row["seconds"]), float(row["at_s"]), int(row["threads"]), str(row["stage"]), str(row["run"])
    except (ValueError, KeyError, TypeError):
        return None
    return dict(row)


def summed(rows: list[dict[str, Any]]) -> Timing:
    """Rows of one build or more, added up."""
    stages = []
    for name in dict.fromkeys(row["stage"] for row in rows):
        members = [row for row in rows if row["stage"] == name]
        core = sum(row["seconds"] * row["threads"] for row in members)
        stages.append(StageTime(name, len(members), sum(row["seconds"] for row in members), core))
    last: dict[str, float] = {}
    for row in rows:
        last[row["run"]] = max(last.get(row["run"], 0.0), row["at_s"])
    machines = tuple(dict.fromkeys(str(row.get("machine", "")) for row in rows))
    return Timing(tuple(stages), sum(last.values()), len(last), max(int(r.get("workers", 1)) for r in rows), machines)


def machine() -> str:
    """The processor and its cores that we may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{platform.machine()}, {cores} core{'s' * (cores > 1)}"
