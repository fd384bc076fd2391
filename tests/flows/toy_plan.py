"""A small real plan for the engines' tests: numbers -> squares -> text, on disk."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.shards import Plan, Stage
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of, write_atomic


@dataclass(frozen=True)
class ToyRecipe:
    factor: int = 3
    plus: int = 0  # read by the last stage alone
    title: str = ""  # read by none
    threads: int = 1
    fault: str = ""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in ("threads", "fault")}

    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))


def numbers(recipe: ToyRecipe, out: Path, shard: int) -> list[str]:
    write_atomic(out / f".build/numbers/{shard}.txt", str(shard * recipe.factor))
    return [f".build/numbers/{shard}.txt"]


def squares(recipe: ToyRecipe, out: Path, shard: int) -> list[str]:
    if recipe.fault == "slow":
        time.sleep(0.2)
    if shard == 2:
        _fail(recipe.fault, out)
    number = int((out / f".build/numbers/{shard}.txt").read_text())
    write_atomic(out / f"squares/{shard}.txt", f"{number**2 + recipe.plus}\n")
    return [f"squares/{shard}.txt"]


def _fail(fault: str, out: Path) -> None:
    fault, _, times = fault.partition("-")
    with open(out / ".build" / "attempts", "ab+") as attempts:
        attempts.write(b".")
    if times == "once" and (out / ".build" / "attempts").stat().st_size > 1:
        return
    if fault == "input":
        raise InputError("shard 2", "a number", "a fault")
    if fault == "killed":
        os.kill(os.getpid(), 9)
    if fault == "hangs":
        time.sleep(3600)
    if fault == "disk":
        raise OSError(28, "No space left on device")
    if fault == "bug":
        raise ZeroDivisionError("a bug\nin two lines")


def alone(recipe: ToyRecipe, out: Path, shard: int) -> list[str]:
    """Notes the device it saw; fails if another job is at work on the same one."""
    device = os.environ["CUDA_VISIBLE_DEVICES"]
    busy = out / f".build/busy-{device}"
    busy.touch(exist_ok=False)
    time.sleep(0.3)
    busy.unlink()
    write_atomic(out / f"devices/{shard}.txt", device)
    return [f"devices/{shard}.txt"]


def toy_plan(out: Path, shards: int = 5, **recipe: Any) -> Plan:
    stages = (
        Stage("numbers", 1, numbers, reads=("factor",)),
        Stage("squares", 1, squares, keep=True, reads=("plus",)),
    )
    return Plan("toy", stages, ToyRecipe(**recipe), out, shards)


def device_plan(out: Path, shards: int) -> Plan:
    return Plan("devices", (Stage("alone", 1, alone, keep=True, gpu=True),), ToyRecipe(), out, shards)


def squares_of(shards: int = 5, factor: int = 3, plus: int = 0) -> dict[str, bytes]:
    """What the toy plan's finished files hold."""
    return {f"squares/{k}.txt": f"{(factor * k) ** 2 + plus}\n".encode() for k in range(shards)}


def files_of(out: Path) -> dict[str, bytes]:
    """The finished files, without the work folder and the report, which tells of times."""
    paths = [p for p in sorted(out.rglob("*")) if p.is_file() and not {".build", "report"} & set(p.parts)]
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in paths}
