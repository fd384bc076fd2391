"""A short run of the fuzzer over every reader, and bad readers that it must catch. `python -m tests.fuzz` is long."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.scene.errors import InputError
from tests.fuzz.mutations import KNOWING, mutated
from tests.fuzz.targets import Target, targets
from tests.fuzz.workers import attempt, fuzz

CASES = 100  # a file; a format has two to twenty files


def test_damaged_files_are_accepted_or_refused_in_one_line(tmp_path) -> None:
    found = targets(tmp_path)
    cases = [attempt(found[number % len(found)], number, seed=1) for number in range(CASES * len(found))]
    assert [case for case in cases if case.outcome not in ("accepted", "refused")] == []
    refused = {case.target for case in cases if case.outcome == "refused"}
    assert refused == {target.name for target in found}  # every kind was damaged enough to be refused


def test_healthy_files_are_read_and_put_back(tmp_path) -> None:
    for target in targets(tmp_path):
        before = target.path.read_bytes()
        attempt(target, 0, seed=2)
        assert target.path.read_bytes() == before
        target.read()


def test_damage_depends_on_the_seed_alone(tmp_path) -> None:
    for target in targets(tmp_path):
        healthy, suffix = target.path.read_bytes(), target.path.suffix
        assert suffix in KNOWING or suffix in (".invalid", ".occluded")  # these are bits: nothing to know
        first, again = ([mutated(healthy, suffix, np.random.default_rng([3, n])) for n in range(4)] for _ in range(2))
        assert first == again
        assert len(set(first)) > 1


def _refuse() -> None:
    raise InputError("x", "nothing", "something")


def _warn() -> None:
    warnings.warn("odd", stacklevel=1)


def _hang() -> None:
    time.sleep(60)


def _hoard() -> None:
    bytearray(2 << 30)


READERS: dict[str, Callable[[], object]] = {
    "good": lambda: None,
    "refusing": _refuse,
    "lines": lambda: exec("raise KeyError('a\\nb')"),
    "warning": _warn,
    "hanging": _hang,
    "hoarding": _hoard,
    "large": lambda: np.ones(82 << 20),  # 656 MB, below the system's limit
}


def bad_readers(root: Path) -> list[Target]:
    for name in READERS:
        (root / f"{name}.bin").write_bytes(b"x" * 64)
    return [Target(name, root / f"{name}.bin", read) for name, read in READERS.items()]


def test_bad_readers_are_caught() -> None:
    findings = fuzz(len(READERS), seed=0, workers=1, build=bad_readers, patience_s=15.0)
    assert dict(findings.outcomes) == {
        ("good", "accepted"): 1,
        ("refusing", "refused"): 1,
        ("lines", "traceback"): 1,
        ("warning", "traceback"): 1,
        ("hanging", "hang"): 1,
        ("hoarding", "over memory"): 1,
        ("large", "over memory"): 1,
    }
    assert [case.number for case in findings.faults] == [2, 3, 4, 5, 6]
