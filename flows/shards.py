"""Units of work: a job is one stage of one shard; its record on disk says that it is done and with what bytes.

The truth is on disk. A job writes its files atomically and then its record: identity digest and every file's SHA-256.
A later run verifies the record and skips the job, or does it again; a kill loses at most the jobs in work. A job's
identity holds what shapes its bytes and no more, so a change of the recipe leaves the stages before it as they are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.datasets.manifest import FileRecord, record_files
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of, safe_join, sha256_file, write_json

WORK = ".build"  # records and intermediate files, inside the output folder


class Recipe(Protocol):
    """What the machinery needs of a recipe; it must pickle."""

    @property
    def threads(self) -> int: ...

    def digest(self) -> str: ...

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Stage:
    """A named step. run(recipe, out, shard) writes files under `out` and returns their relative paths.

    version changes whenever the same recipe would give other bytes; keep: the files belong to the dataset, else they
    are intermediate and go once the last stage of their shard is done. reads: the recipe's fields that shape this
    stage's bytes beside those of the stages before it; None: the whole recipe. inputs: digest of files outside `out`
    that a shard reads; None: none. gpu: one at a time a device.
    """

    name: str
    version: int
    run: Callable[[Any, Path, int], list[str]]
    keep: bool = False
    reads: tuple[str, ...] | None = None
    inputs: Callable[[Any, int], str] | None = None
    gpu: bool = False


@dataclass(frozen=True)
class Plan:
    """What is built where: stages in order, for shards 0..shards-1."""

    name: str
    stages: tuple[Stage, ...]
    recipe: Recipe
    out: Path
    shards: int


@dataclass(frozen=True)
class Result:
    """What became of a job: seconds of work (0 if it was found done).

    whole: its shard was found done with all stages; cause: why it failed for good, else empty.
    """

    stage: str
    shard: int
    seconds: float
    skipped: bool
    whole: bool = False
    cause: str = ""


def record_path(plan: Plan, stage: str, shard: int) -> Path:
    return plan.out / WORK / "records" / stage / f"{shard:05d}.json"


def identity(plan: Plan, stage_index: int, shard: int) -> str:
    """Digest of what shapes a job's bytes: what it and all stages before it read of the recipe and of files, their
    versions, shard. Seeds and weights' digests are fields of the recipe.
    """
    stages = plan.stages[: stage_index + 1]
    versions = [[stage.name, stage.version] for stage in stages]
    inputs = [stage.inputs(plan.recipe, shard) for stage in stages if stage.inputs is not None]
    recipe = _read_fields(plan.recipe, stages)
    return digest_of({"recipe": recipe, "stages": versions, "shard": shard, "inputs": inputs})


def _read_fields(recipe: Recipe, stages: tuple[Stage, ...]) -> Any:
    if any(stage.reads is None for stage in stages):
        return recipe.digest()
    table = recipe.model_dump(mode="json")
    return {field: table[field] for stage in stages for field in stage.reads or () if field in table}


def read_record(plan: Plan, stage_index: int, shard: int) -> tuple[FileRecord, ...] | None:
    """The files of a finished job, or None if it isn't done under this identity."""
    try:
        record = json.loads(record_path(plan, plan.stages[stage_index].name, shard).read_text())
        if record["identity"] != identity(plan, stage_index, shard):
            return None
        return tuple(FileRecord.model_validate(row) for row in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_done(plan: Plan, stage_index: int, shard: int) -> bool:
    """Whether a job's record stands and every file still has the recorded bytes."""
    files = read_record(plan, stage_index, shard)
    return files is not None and all(_intact(plan.out, file) for file in files)


def _intact(out: Path, record: FileRecord) -> bool:
    try:
        path = safe_join(out, record.path)
        return path.stat().st_size == record.bytes and sha256_file(path) == record.sha256
    except (OSError, InputError):
        return False


def run_job(plan: Plan, stage_index: int, shard: int) -> Result:
    """Do one job unless it, or its shard's last stage, is done already."""
    stage, last = plan.stages[stage_index], len(plan.stages) - 1
    started = time.perf_counter()
    if is_done(plan, last, shard):
        return Result(stage.name, shard, 0.0, skipped=True, whole=True)
    if stage_index != last and is_done(plan, stage_index, shard):
        return Result(stage.name, shard, 0.0, skipped=True)
    limit_threads(plan.recipe.threads)
    files = record_files(plan.out, stage.run(plan.recipe, plan.out, shard))
    record = {"identity": identity(plan, stage_index, shard), "files": [file.model_dump() for file in files]}
    write_json(record_path(plan, stage.name, shard), record)
    return Result(stage.name, shard, time.perf_counter() - started, skipped=False)


def drop_intermediate(plan: Plan, shard: int) -> None:
    """Remove the intermediate files and records of a shard whose last stage is done."""
    for index, stage in enumerate(plan.stages):
        if stage.keep:
            continue
        for file in read_record(plan, index, shard) or ():
            safe_join(plan.out, file.path).unlink(missing_ok=True)
        record_path(plan, stage.name, shard).unlink(missing_ok=True)


def limit_threads(threads: int) -> None:
    """Hold the libraries that stages use to so many threads, as the bytes may depend on it."""
    import cv2
    import numba

    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    cv2.setNumThreads(threads)
