"""What Prefect costs a build: the same jobs as a plain loop and as a flow, in one run; a plain loop is the peer."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
BUILD = ["build", "town_tiny", "--set", "samples=16", "--workers", "2", "--quiet"]


def main() -> None:
    """Print seconds of whole processes, and their ratio, for a build of 16 samples in 8 shards (40 tasks)."""
    seconds: dict[str, list[float]] = {"none": [], "prefect": []}
    with tempfile.TemporaryDirectory() as folder:
        _timed(Path(folder) / "warm", "prefect")  # compiles, and makes Prefect's home
        for number in range(ROUNDS):
            for engine, found in seconds.items():
                found.append(_timed(Path(folder) / f"{engine}{number}", engine))
    plain, flow = (statistics.median(found) for found in seconds.values())
    print(f"build of 16 samples, 2 workers, whole process, median of {ROUNDS}:")
    print(f"  plain loop {plain:.1f} s, Prefect flow {flow:.1f} s: {flow / plain:.2f} times, {flow - plain:.1f} s more")


def _timed(out: Path, engine: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "flows", *BUILD, "--engine", engine, "--out", str(out)]
    subprocess.run(command, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
