"""A folder of predictions scored by several worker processes: integer confusions, so the same figures on any number."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.engine import worker_pool
from flows.jobs import JobError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import Taxonomy
from ssc_eval.metrics import Tally, scores
from ssc_eval.predictions import Truth, check_files, open_truth, score_frames, why_no_view

CHUNK = 16  # frames a job: a second's work


@dataclass(frozen=True, eq=False)
class Scored:
    """A folder's tally and what it was scored against; note: why there are no regions in and out of view, or ""."""

    predictions: Path
    root: Path
    split: str
    grid: VoxelGrid
    taxonomy: Taxonomy
    tally: Tally
    note: str


def score_folder(
    predictions: Path,
    root: Path,
    split: str,
    allow_extra: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:
    """Score every labelled frame of a split; in and out of view too where calibration and images tell.

    allow_extra: files of other frames in the same sequences are left alone. Raises InputError, JobError.
    """
    truth = open_truth(root, split)
    check_files(predictions, truth.keys, allow_extra)
    note = why_no_view(truth)
    if workers == 1 or len(truth.keys) <= CHUNK:
        tally = score_frames(predictions, truth, truth.keys, not note, progress)
    else:
        tally = _by_workers(predictions, truth, not note, workers, progress)
    return Scored(predictions, root, split, truth.grid, truth.taxonomy, tally, note)


def _by_workers(
    predictions: Path, truth: Truth, with_view: bool, workers: int, progress: Callable[[int, int], None]
) -> Tally:
    starts = range(0, len(truth.keys), CHUNK)
    with worker_pool(min(workers, len(starts))) as pool:
        jobs = [pool.submit(_chunk, predictions, truth.path, truth.split, start, with_view) for start in starts]
        total = _result(jobs[0])
        for job in jobs[1:]:
            progress(total.frames, len(truth.keys))
            total = total + _result(job)
    progress(total.frames, len(truth.keys))
    return total


def _result(job: Future[Tally]) -> Tally:
    try:
        return job.result()
    except BrokenProcessPool:
        raise JobError("scoring: a worker process was killed (out of memory?); try fewer --workers") from None


def _chunk(predictions: Path, root: Path, split: str, start: int, with_view: bool) -> Tally:
    truth = _opened(root, split)
    return score_frames(predictions, truth, truth.keys[start : start + CHUNK], with_view)


@functools.lru_cache(maxsize=1)
def _opened(root: Path, split: str) -> Truth:
    """Enumerated once a worker."""
    return open_truth(root, split)


def to_json(scored: Scored, command: str = "") -> dict[str, Any]:
    """Scores, and the confusions they come from by region: rows are targets, columns predictions."""
    grid = scored.grid
    return {
        "command": command,
        "predictions": str(scored.predictions),
        "root": str(scored.root),
        "split": scored.split,
        "grid": {"shape": list(grid.shape), "voxel_size_m": grid.voxel_size_m, "origin_m": list(grid.origin_m)},
        "taxonomy": scored.taxonomy.name,
        "note": scored.note,
        **scores(scored.tally, scored.taxonomy.classes),
        "confusions": {region: scored.tally.of(region).tolist() for region in scored.tally.regions},
    }


@contextmanager
def told(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """progress(done, total): a bar with the time left on a terminal, else a line every tenth; nothing if quiet."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield functools.partial(_line, what, quiet)
        return
    with Progress(console=console, transient=True) as bars:
        row = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(row, completed=done, total=total)


def _line(what: str, quiet: bool, done: int, total: int) -> None:
    if not quiet and (done == total or 10 * done // total > 10 * (done - 1) // total):
        print(f"{what}: {done}/{total} frames", file=sys.stderr, flush=True)
