"""What a run tells: losses.jsonl (one line a logged step), TensorBoard's file, and a bar or plain lines on stdout."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pipeline.scene.files import write_atomic

LOSSES_NAME = "losses.jsonl"
TENSORBOARD_NAME = "tensorboard"


def read_losses(out: Path) -> list[dict[str, Any]]:
    """The logged steps of a run, oldest first: {"step": ..., name: mean since the last one}. Unfinished lines drop."""
    path = Path(out) / LOSSES_NAME
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # a kill may cut the last line
    return rows


class Journal:
    """One a process; only the main one (`speaks`) writes and prints. Entries after `start` [step] are dropped."""

    def __init__(self, out: Path, start: int, total: int, speaks: bool):
        self.out, self.start, self.total, self.speaks = Path(out), start, total, speaks
        self.last = ""
        self._bar: Any = None

    def __enter__(self) -> Self:
        if not self.speaks:
            return self
        from torch.utils.tensorboard import SummaryWriter

        self._began = time.perf_counter()
        kept = [row for row in read_losses(self.out) if row["step"] <= self.start]
        write_atomic(self.out / LOSSES_NAME, "".join(json.dumps(row) + "\n" for row in kept))
        self._losses = open(self.out / LOSSES_NAME, "a", buffering=1)  # closed in __exit__
        self._board = SummaryWriter(str(self.out / TENSORBOARD_NAME), purge_step=self.start + 1)
        if sys.stdout.isatty():
            self._bar = _live_bar()
            self._bar.start()
            self._task = self._bar.add_task("training", total=self.total, completed=self.start, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.speaks:
            self._losses.close()
            self._board.close()
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """One line."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self.speaks:
            print(text, flush=True)

    def tick(self, step: int) -> None:
        """`step` updates are done."""
        if self._bar:
            self._bar.update(self._task, completed=step, note=self.last)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values after `step` updates; not-a-number becomes null in JSON."""
        if not self.speaks:
            return
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._losses.write(json.dumps({"step": step, **row}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()
        self.last = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        if not self._bar:
            self.say(f"step {step}/{self.total}: {self.last}; {self._pace(step)}")

    def _pace(self, step: int) -> str:
        rate = (step - self.start) / max(time.perf_counter() - self._began, 1e-9)
        return f"{rate:.3g} steps/s, about {(self.total - step) / max(rate, 1e-9):.0f} s left"


def _live_bar() -> Any:  # a rich Progress; rich is imported late
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _rate_column(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))


def _rate_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g} steps/s" if task.speed else "- steps/s")

    return Rate()
