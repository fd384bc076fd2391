"""Progress of a plan in the terminal: one live table of stages; plain lines when it is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from flows.shards import Plan, Result


class PlanProgress:
    """Call it with every Result. Shows done, total, rate and time left a stage."""

    def __init__(self, plan: Plan, quiet: bool = False):
        self.plan, self.quiet = plan, quiet
        self.started = time.perf_counter()
        self.done = {stage.name: 0 for stage in plan.stages}
        self.skipped = 0
        self.seconds = {stage.name: 0.0 for stage in plan.stages}
        self._live = None if quiet or not sys.stderr.isatty() else _live_bars(plan)

    def __enter__(self) -> Self:
        if self._live:
            self._live[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live[0].stop()

    def __call__(self, result: Result) -> None:
        self.done[result.stage] += 1
        self.seconds[result.stage] += result.seconds
        self.skipped += result.skipped
        if self._live:
            bars, rows = self._live
            bars.advance(rows[result.stage])
        elif not self.quiet:
            print(self._line(result), file=sys.stderr, flush=True)

    def _line(self, result: Result) -> str:
        total = self.plan.shards
        how = "found done" if result.skipped else f"{result.seconds:.1f} s"
        left = self._seconds_left()
        return f"{result.stage} {self.done[result.stage]}/{total} shards ({how}), about {left:.0f} s left"

    def _seconds_left(self) -> float:
        jobs = len(self.plan.stages) * self.plan.shards
        done = sum(self.done.values())
        worked = max(done - self.skipped, 1)
        return (jobs - done) * self.elapsed_s / worked

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def report(self, what: str) -> None:
        """Say, unless quiet, what came out and the seconds of work a stage."""
        if not self.quiet:
            stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
            print(f"{what} in {self.elapsed_s:.1f} s; work: {stages}; {self.skipped} jobs found done", file=sys.stderr)


def _live_bars(plan: Plan):  # type: ignore[no-untyped-def]  # rich's types, imported late
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("shards"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=Console(stderr=True))
    rows = {stage.name: bars.add_task(stage.name, total=plan.shards) for stage in plan.stages}
    return bars, rows
