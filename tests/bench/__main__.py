"""Run benchmarks: every module of this folder, or those named; each has a `main()` that prints its figures.

python -m tests.bench               all of them
python -m tests.bench rendering     tests/bench/rendering.py
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from pathlib import Path


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def main() -> int:
    """Run the named benchmarks, or all."""
    chosen, sys.argv[1:] = sys.argv[1:] or names(), []  # the modules' own arguments keep their defaults
    unknown = [name for name in chosen if name not in names()]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{cores} cores, {platform.machine()}, Python {platform.python_version()}")
    for name in chosen:
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
