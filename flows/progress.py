"""Progress of a plan: one live table of stages; plain lines when it is no terminal; JSON for programs; or nothing."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import Any, Self

from flows.jobs import IncompleteError
from flows.shards import Plan, Result


class PlanProgress:
    """Call it with every Result. Shows done, left, rate and time left a stage.

    as_json: one JSON object a line on stdout (start, job, end) in place of all else. shards: of this run; None: all.
    """

    def __init__(self, plan: Plan, quiet: bool = False, as_json: bool = False, shards: int | None = None):
        self.plan, self.quiet, self.as_json = plan, quiet or as_json, as_json
        self.shards = plan.shards if shards is None else shards
        self.started = time.perf_counter()
        self.done = {stage.name: 0 for stage in plan.stages}
        self.failed = {stage.name: 0 for stage in plan.stages}
        self.skipped = {stage.name: 0 for stage in plan.stages}
        self.seconds = {stage.name: 0.0 for stage in plan.stages}
        self.begun: dict[str, float] = {}  # seconds from the start to a stage's first result
        self._live = None if self.quiet or not sys.stderr.isatty() else _live_table()

    def __enter__(self) -> Self:
        stages = [stage.name for stage in self.plan.stages]
        self._emit("start", plan=self.plan.name, out=str(self.plan.out), stages=stages, shards=self.shards)
        if self._live:
            self._live.start()
            self._live.update(self._table(), refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
            self._live.stop()
        state = {type(None): "finished", IncompleteError: "incomplete"}.get(type(value), "failed")
        if state == "finished" and self.shards < self.plan.shards:
            state = "shards done"
        message: dict[str, Any] = (
            {} if value is None else {"message": " ".join((str(value) or type(value).__name__).split())}
        )
        if isinstance(value, IncompleteError):
            message["failed"] = [{"stage": r.stage, "shard": r.shard, "cause": r.cause} for r in value.failed]
        self._emit("end", state=state, seconds=round(self.elapsed_s, 3), **message)

    def __call__(self, result: Result) -> None:
        self.begun.setdefault(result.stage, self.elapsed_s)
        counts = self.failed if result.cause else self.done
        counts[result.stage] += 1
        self.seconds[result.stage] += result.seconds
        self.skipped[result.stage] += result.skipped
        if self._live:
            self._live.update(self._table())
        elif self.as_json:
            self._emit_job(result)
        elif not self.quiet:
            print(self._line(result), file=sys.stderr, flush=True)

    def _emit(self, event: str, **fields: Any) -> None:
        if self.as_json:
            print(json.dumps({"event": event, **fields}), flush=True)

    def _emit_job(self, result: Result) -> None:
        state = "failed" if result.cause else "found" if result.skipped else "done"
        fields: dict[str, Any] = {"stage": result.stage, "shard": result.shard, "state": state}
        fields |= {"cause": result.cause} if result.cause else {"seconds": round(result.seconds, 3)}
        left_s = self.seconds_left()
        self._emit("job", **fields, done=self.done[result.stage], left_s=None if left_s is None else round(left_s, 1))

    def _line(self, result: Result) -> str:
        how = "found done" if result.skipped else f"{result.seconds:.1f} s"
        if result.cause:
            return f"{result.stage} shard {result.shard} failed: {result.cause}"
        left = _duration(self.seconds_left())
        return f"{result.stage} {self.done[result.stage]}/{self.shards} shards ({how}), about {left} left"

    def seconds_left(self, stage: str | None = None) -> float | None:
        """Seconds until this stage's last shard, or the plan's, at the pace so far; None as long as nobody can know."""
        stages = [stage] if stage else list(self.done)
        worked = sum(self.done[name] - self.skipped[name] for name in stages)
        left = sum(self.shards - self.done[name] - self.failed[name] for name in stages)
        since = min((self.begun[name] for name in stages if name in self.begun), default=None)
        if not left:
            return 0.0
        if not worked or since is None:
            return None
        return left * (self.elapsed_s - (since if stage and worked > 1 else 0.0)) / worked

    def _table(self) -> Any:
        from rich.table import Table

        table = Table("stage", "", "done", "left", "failed", "shards/min", "time left", box=None, header_style="dim")
        for column in table.columns[2:]:
            column.justify = "right"
        for name in self.done:
            table.add_row(*self._row(name))
        return table

    def _row(self, name: str) -> tuple[Any, ...]:
        from rich.progress_bar import ProgressBar

        done, failed = self.done[name], self.failed[name]
        left, seconds = self.shards - done - failed, self.seconds_left(name)
        rate = f"{60 * left / seconds:.1f}" if seconds else ""
        bar = ProgressBar(total=self.shards, completed=done, width=24)
        return name, bar, str(done), str(left), str(failed or ""), rate, _duration(seconds) if left else ""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def report(self, what: str) -> None:
        """Say, unless quiet, what came out and the seconds of work a stage."""
        if not self.quiet:
            stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
            found = sum(self.skipped.values())
            print(f"{what} in {self.elapsed_s:.1f} s; work: {stages}; {found} jobs found done", file=sys.stderr)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _live_table() -> Any:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(stderr=True), refresh_per_second=4)
