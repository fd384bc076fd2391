"""One case, judged; and many of them in processes under limits of memory and time."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from pipeline.scene.errors import InputError
from tests.fuzz.mutations import clear, mutated, place
from tests.fuzz.targets import Target, targets

SLOWEST_S = 5.0  # a read may take, on a busy machine
LARGEST_GROWTH_MB = 600  # what a reader may need beyond what a process has after its imports
OUTCOMES = ("accepted", "refused", "traceback", "hang", "over memory")
Build = Callable[[Path], list[Target]]


@dataclass(frozen=True)
class Case:
    """What became of one mutated file."""

    target: str
    outcome: str
    number: int
    detail: str = ""
    seconds: float = 0.0
    growth_mb: float = 0.0


@dataclass
class Findings:
    """What became of all; faults: cases that should not have been."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[Case] = field(default_factory=list)
    slowest_s: float = 0.0
    growth_mb: float = 0.0

    def add(self, case: Case) -> None:
        self.outcomes[case.target, case.outcome] += 1
        self.slowest_s = max(self.slowest_s, case.seconds)
        self.growth_mb = max(self.growth_mb, case.growth_mb)
        if case.outcome not in ("accepted", "refused"):
            self.faults.append(case)


def attempt(target: Target, number: int, seed: int) -> Case:
    """Damage a target's file by (seed, number), read it, and put the healthy file back."""
    healthy, rng = target.path.read_bytes(), np.random.default_rng([seed, number])
    content = mutated(healthy, target.path.suffix, rng)
    target.path.unlink()
    place(target.path, content, rng)
    before, start = _forget_peak(), time.perf_counter()
    try:
        outcome, detail = _read(target)
    finally:
        seconds, growth = time.perf_counter() - start, _peak_mb() - before
        clear(target.path)
        target.path.write_bytes(healthy)
    if growth > LARGEST_GROWTH_MB:  # first: a machine short of memory is slow
        outcome, detail = "over memory", f"{growth:.0f} MB"
    elif outcome in ("accepted", "refused") and seconds > SLOWEST_S:
        outcome, detail = "hang", f"{seconds:.1f} s"
    return Case(target.name, outcome, number, detail, seconds, growth)


def _read(target: Target) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            target.read()
        return "accepted", ""
    except InputError as error:
        return ("refused", "") if "\n" not in str(error) else ("traceback", f"several lines: {error}")
    except MemoryError as error:
        return "over memory", str(error)
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"[:500]


def _forget_peak() -> float:
    """Start a new peak of resident memory; what is resident now [MB]."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_mb("VmRSS")


def _peak_mb() -> float:
    return _status_mb("VmHWM")


def _status_mb(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def serve(pipe: Connection, folder: str, seed: int, build: Build) -> None:
    """Answer case numbers with cases until None comes. Memory is limited by the system too, to twice the bound."""
    found = build(Path(folder))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGESIZE") + 2 * (LARGEST_GROWTH_MB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    pipe.send([target.name for target in found])
    while (number := pipe.recv()) is not None:
        pipe.send(attempt(found[number % len(found)], number, seed))


class Worker:
    """A process that serves cases, and is replaced when it hangs or dies."""

    def __init__(self, seed: int, build: Build = targets, patience_s: float = 2 * SLOWEST_S):
        self.seed, self.build, self.patience_s = seed, build, patience_s
        self._start()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, self.folder.name, self.seed, self.build), daemon=True)
        self.process.start()
        theirs.close()
        self.names: list[str] = self.pipe.recv()

    def case(self, number: int) -> Case:
        """Have one case judged; a process that doesn't answer in time hangs, one that is gone ran out of memory."""
        name, start = self.names[number % len(self.names)], time.perf_counter()
        self.pipe.send(number)
        try:
            if self.pipe.poll(self.patience_s):
                found: Case = self.pipe.recv()
                return found
            outcome, detail = "hang", f"no answer in {self.patience_s:g} s"
        except EOFError:
            self.process.join()
            outcome, detail = "over memory", f"the process ended with {self.process.exitcode}"
        self.close()
        self._start()
        return Case(name, outcome, number, detail, time.perf_counter() - start)

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.folder.cleanup()


def fuzz(
    mutations: int, seed: int, workers: int, build: Build = targets, patience_s: float = 2 * SLOWEST_S
) -> Findings:
    """Judge cases 0..mutations-1, in turn over all targets; the cases don't depend on the number of workers."""
    findings, lock = Findings(), threading.Lock()

    def drive(first: int) -> None:
        worker = Worker(seed, build, patience_s)
        for number in range(first, mutations, workers):
            case = worker.case(number)
            with lock:
                findings.add(case)
        worker.close()

    threads = [threading.Thread(target=drive, args=(k,)) for k in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    findings.faults.sort(key=lambda case: case.number)
    return findings
