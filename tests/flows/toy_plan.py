"""A small real plan for the engines' tests: numbers -> squares -> text, on disk."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.shards import Plan, Stage
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of, write_atomic


@dataclass(frozen=True)
class ToyRecipe:
    factor: int = 3
    threads: int = 1
    fault: str = ""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        return {"factor": self.factor}

    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))


def numbers(recipe: ToyRecipe, out: Path, shard: int) -> list[str]:
    write_atomic(out / f".build/numbers/{shard}.txt", str(shard * recipe.factor))
    return [f".build/numbers/{shard}.txt"]


def squares(recipe: ToyRecipe, out: Path, shard: int) -> list[str]:
    if recipe.fault == "slow":
        time.sleep(0.2)
    if shard == 2 and recipe.fault == "input":
        raise InputError("shard 2", "a number", "a fault")
    if shard == 2 and recipe.fault == "killed":
        os.kill(os.getpid(), 9)
    if shard == 2 and recipe.fault == "disk":
        raise OSError(28, "No space left on device")
    number = int((out / f".build/numbers/{shard}.txt").read_text())
    write_atomic(out / f"squares/{shard}.txt", f"{number**2}\n")
    return [f"squares/{shard}.txt"]


def toy_plan(out: Path, shards: int = 5, **recipe: Any) -> Plan:
    stages = (Stage("numbers", 1, numbers), Stage("squares", 1, squares, keep=True))
    return Plan("toy", stages, ToyRecipe(**recipe), out, shards)


def files_of(out: Path) -> dict[str, bytes]:
    """The finished files, without the work folder and the report, which tells of times."""
    paths = [p for p in sorted(out.rglob("*")) if p.is_file() and not {".build", "report"} & set(p.parts)]
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in paths}
