"""What Prefect costs a build beside the plain loop, which is the peer: measured in one run, then modelled.

Measured: the seconds that a whole process takes longer (importing Prefect, starting its API, one flow run), and the
seconds that each further task takes longer, from plans of 10 and 60 shards whose jobs do next to nothing. Modelled: a
build of shards of 20 s of work, of 5 stages each; its overhead is the one and, for each of its tasks, the other, as if
no worker ever had something to do in the meantime, which is the worst case.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flows.engine import Engine, run_plan
from flows.quiet import quiet_environment
from tests.flows.toy_plan import toy_plan

ROUNDS = 3
SHARDS = (10, 60)
SHARD_S, STAGES, WORKERS = 20.0, 5, 2
BUILD = ["build", "town_tiny", "--set", "samples=2", "--set", "shard_samples=1", "--workers", "2", "--quiet"]


def main() -> None:
    """Print seconds of both engines, and what follows for builds of 10, 100 and 1000 shards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("OCCFACTORY_HOME", str(folder / "home"))
        quiet_environment()
        process_s = {engine: _least(lambda engine=engine: _process(folder, engine)) for engine in ("none", "prefect")}
        run_plan(toy_plan(folder / "warm", 1), "prefect", WORKERS, lambda result: None)
        plan_s = {
            (engine, shards): _least(lambda engine=engine, shards=shards: _plan(folder, engine, shards))
            for engine in ("none", "prefect")
            for shards in SHARDS
        }
    once_s = process_s["prefect"] - process_s["none"]
    few, many = SHARDS
    slope = {engine: (plan_s[engine, many] - plan_s[engine, few]) / (2 * (many - few)) for engine in process_s}
    task_s = max(slope["prefect"] - slope["none"], 0.0)
    print(f"whole process, build of 2 shards, least of {ROUNDS}: plain loop {process_s['none']:.1f} s,", end=" ")
    print(f"Prefect {process_s['prefect']:.1f} s: {once_s:.1f} s once a build")
    print(f"a task: plain loop {1000 * slope['none']:.1f} ms, Prefect {1000 * slope['prefect']:.1f} ms", end=" ")
    print(f"({WORKERS} workers): {1000 * task_s:.1f} ms more")
    for shards in (10, 100, 1000):
        plain = shards * SHARD_S / WORKERS
        share = (once_s + shards * STAGES * task_s) / plain
        print(f"{shards} shards of {SHARD_S:.0f} s, {WORKERS} workers: {plain:.0f} s of work, overhead {share:.1%}")


def _least(timed) -> float:  # type: ignore[no-untyped-def]
    return min(timed() for _ in range(ROUNDS))


def _process(folder: Path, engine: str) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "flows", *BUILD, "--engine", engine, "--out", out], check=True)
        return time.perf_counter() - started


def _plan(folder: Path, engine: Engine, shards: int) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        started = time.perf_counter()
        run_plan(toy_plan(Path(out), shards), engine, WORKERS, lambda result: None)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
