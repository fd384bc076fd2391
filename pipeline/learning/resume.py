"""Where a run's checkpoints lie, which one to continue from, and what has to be in one.

A checkpoint holds weights, their average and AdamW's moments. No random state: all randomness derives from the step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.learning.checkpoint import EMA, MODEL, OPTIMIZER, check_same, check_whole, fill, load_part
from pipeline.learning.config import TrainConfig
from pipeline.learning.ema import Ema
from pipeline.scene.errors import InputError

CHECKPOINTS_NAME = "checkpoints"


@dataclass(frozen=True)
class Learner:
    """What training changes: the network, its optimiser and its average."""

    model: nn.Module
    optimizer: Optimizer
    ema: Ema | None

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """All of it as named tensors, by file."""
        parts = {MODEL: self.model.state_dict(), OPTIMIZER: _moments(self.model, self.optimizer)}
        return parts | ({EMA: self.ema.average} if self.ema else {})

    def restore(self, folder: Path, card: dict[str, Any]) -> None:
        """Take over a checkpoint of the same network. Raises InputError."""
        fill(self.model, load_part(folder, MODEL), folder / f"{MODEL}.safetensors")
        if self.ema:
            average = load_part(folder, EMA)
            check_same(self.ema.average, average, folder / f"{EMA}.safetensors")
            self.ema.load(average, card["ema_updates"])
        _load_moments(self.model, self.optimizer, load_part(folder, OPTIMIZER))


def _learned(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]


def _moments(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    state = optimizer.state
    return {
        f"{key}/{name}": _as_tensor(key, value)
        for name, p in _learned(model)
        for key, value in sorted(state.get(p, {}).items())
    }


def _as_tensor(key: str, value: Tensor | int) -> Tensor:
    """8-bit optimisers count steps in a plain number, and weights share their tables of values, which files can't."""
    if not isinstance(value, Tensor):
        return torch.tensor(value)
    return value.clone() if key.startswith("qmap") else value


def _load_moments(model: nn.Module, optimizer: Optimizer, moments: dict[str, Tensor]) -> None:
    by_name: dict[str, dict[str, Tensor | int]] = {}
    for key_and_name, value in moments.items():
        key, name = key_and_name.split("/", 1)
        number = value.ndim == 0 and not value.is_floating_point()  # torch's own counts of steps are of floats
        by_name.setdefault(name, {})[key] = int(value) if number else value
    numbers = optimizer.state_dict()
    position = {id(p): i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    numbers["state"] = {position[id(p)]: by_name[name] for name, p in _learned(model) if name in by_name}
    optimizer.load_state_dict(numbers)  # moves each moment to its weight's device and dtype


def folder_of(out: Path, step: int) -> Path:
    """The checkpoint after `step` updates."""
    return Path(out) / CHECKPOINTS_NAME / f"step_{step:08d}"


def checkpoints(out: Path) -> list[Path]:
    """All checkpoints of a run, oldest first, sound or not."""
    return sorted((Path(out) / CHECKPOINTS_NAME).glob("step_*"))


def newest_whole(out: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest sound checkpoint and its card; None where there is none at all. Says which ones it passes over.

    Raises InputError if there are some but none is sound.
    """
    found = checkpoints(out)
    for folder in reversed(found):
        try:
            return folder, check_whole(folder)
        except InputError as fault:
            say(f"passing over a damaged checkpoint: {fault}")
    if found:
        raise InputError(found[-1].parent, "a sound checkpoint", f"{len(found)} damaged", "remove it to start again")
    return None


def prune(out: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what a kill left half-written."""
    for folder in [*checkpoints(out)[:-keep], *(Path(out) / CHECKPOINTS_NAME).glob(".step_*.part")]:
        shutil.rmtree(folder, ignore_errors=True)


def check_same_run(out: Path, card: dict[str, Any], config: TrainConfig, data: dict[str, Any]) -> None:
    """The run in `out` must have been started with this config and data. Raises InputError naming the first field."""
    for old, new in ((card["config"], config.model_dump(mode="json")), (card["data"], data)):
        for field in [*new, *(f for f in old if f not in new)]:
            if field not in config.changeable() and old.get(field) != new.get(field):
                raise InputError(
                    out,
                    f"{field} {old.get(field)} as the run there was started with",
                    str(new.get(field)),
                    "use that value or another folder",
                )
