"""The one training loop: AdamW on one or many devices (accelerate), resumed after a kill to the same bits.

Everything a step does is a function of the weights before it, the seed and the step: its samples (order.py), its
learning rate (schedules.py), and its randomness. So a checkpoint needs no random state. On a GPU the same bits also
need `deterministic`, and a resumed run needs as many devices as before; otherwise it continues to rounding.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.learning.checkpoint import save_parts
from pipeline.learning.config import TrainConfig
from pipeline.learning.ema import Ema
from pipeline.learning.journal import Journal, read_losses
from pipeline.learning.machine import (
    device_name,
    end_process_group_at_exit,
    forget_accelerate,
    process_settings,
    start_accelerate,
    versions,
)
from pipeline.learning.optimizer import check_optimizer, new_optimizer
from pipeline.learning.order import Indexed, Order, batches
from pipeline.learning.resume import Learner, check_same_run, folder_of, newest_whole, prune
from pipeline.learning.schedules import rate_factor
from pipeline.scene import seeds
from pipeline.scene.errors import InputError

Loss = Callable[[nn.Module, Any, torch.Generator], tuple[Tensor, Mapping[str, Tensor | float]]]
Validate = Callable[[nn.Module, torch.Generator], Mapping[str, float]]


@dataclass(frozen=True)
class Trained:
    """A finished run. steps: updates in all; checkpoint: the last one's folder; losses: rows as in losses.jsonl."""

    steps: int
    checkpoint: Path
    losses: list[dict[str, Any]]


def train(
    model: nn.Module,
    loss: Loss,
    dataset: Indexed,
    config: TrainConfig,
    out: Path,
    *,
    validate: Validate | None = None,
    data_digest: str = "",
    collate: Callable[[list[Any]], Any] | None = None,
) -> Trained:
    """Train `model` in place to the end of `config`, continuing from the newest sound checkpoint in `out`.

    loss(model, batch, generator): a scalar that is a mean over the batch's samples, and scalars to log (the same names
    every time). It calls the network as model(...), once or more, and takes all its noise from the generator, which
    lies on the batch's device; dropout is seeded with it.
    validate(model, generator): scalars to log, computed with the average if there is one, on the main process, in
    eval mode and without gradients. collate: as in torch's DataLoader.
    Afterwards `model` holds the last weights; the average is in the checkpoint (checkpoint.load_model).
    Raises InputError: a config or data set unlike the run's in `out`, batches that don't split, a loss or gradient
    that isn't finite (the checkpoints before it stay).
    """
    with process_settings(config):
        run = _Run(model, dataset, config, Path(out), data_digest)
        try:
            trained = run.go(loss, validate, collate)
        finally:
            run.close()
    end_process_group_at_exit()
    return trained


class _Run:
    """The state of one call of `train`."""

    def __init__(self, model: nn.Module, dataset: Indexed, config: TrainConfig, out: Path, data_digest: str):
        self.config, self.out, self.dataset = config, out, dataset
        self.accelerator = start_accelerate(config)
        self.data = {"data_digest": data_digest, "samples": len(dataset)}
        self._check(out)
        self.total = config.total_steps(len(dataset))
        if config.sync_batch_norm and self.accelerator.num_processes > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        optimizer = new_optimizer(model, config, self._device)
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        ema = Ema(model, config.ema_decay, config.ema_warmup) if config.ema_decay is not None else None
        self.learner = Learner(model, self.optimizer.optimizer, ema)
        self.sums: dict[str, float] = {}  # of logged values since the last log
        self.summed = 0  # steps in sums
        self.validated: Mapping[str, float | None] = {}

    def _check(self, out: Path) -> None:
        parts = self.config.accumulation * self.accelerator.num_processes
        if self.config.batch_size % parts:
            what = f"batch_size divisible by accumulation x devices = {parts}"
            raise InputError("training", what, str(self.config.batch_size))
        if not len(self.dataset):
            raise InputError("training", "at least one sample", "an empty data set")
        if self.config.sync_batch_norm and self.accelerator.num_processes > 1 and self._device.type == "cpu":
            raise InputError("training", "GPUs for sync_batch_norm on many devices", "CPUs")
        check_optimizer(self.config, self._device)
        if out.exists() and not out.is_dir():
            raise InputError(out, "a folder for checkpoints and logs", "a file")

    @property
    def _device(self) -> torch.device:
        return self.accelerator.device

    def go(self, loss: Loss, validate: Validate | None, collate: Callable[[list[Any]], Any] | None) -> Trained:
        start = self._resume()
        self.wrapped.train()
        order = Order(len(self.dataset), self.config, (start, self.total), self._place)
        stream = batches(self.dataset, order, collate, pin=self._device.type == "cuda")
        with Journal(self.out, start, self.total, self.accelerator.is_main_process) as self.journal:
            for step in range(start, self.total):
                values = self._step(step, stream, loss)
                self._note(step + 1, values, validate)
        return Trained(max(start, self.total), folder_of(self.out, max(start, self.total)), read_losses(self.out))

    @property
    def _place(self) -> tuple[int, int]:
        return self.accelerator.process_index, self.accelerator.num_processes

    def _resume(self) -> int:
        say = print if self.accelerator.is_main_process else lambda text: None
        found = newest_whole(self.out, say)
        if found is None:
            self.accelerator.wait_for_everyone()
            return 0
        folder, card = found
        check_same_run(self.out, card, self.config, self.data)
        self.learner.restore(folder, card)
        if self.accelerator.scaler is not None and card["scaler"]:
            self.accelerator.scaler.load_state_dict(card["scaler"])
        self.sums = {name: math.nan if total is None else total for name, total in card["sums"].items()}
        self.summed, self.validated = card["summed"], card["validated"]
        say(f"continuing after step {card['step']}, from {folder}")
        self.accelerator.wait_for_everyone()
        return int(card["step"])

    def _step(self, step: int, stream: Iterator[Any], loss: Loss) -> dict[str, float]:
        """One update; its loss and logged scalars, as means over parts and devices."""
        from accelerate.utils import send_to_device

        parts = []
        for part in range(self.config.accumulation):
            batch = send_to_device(next(stream), self._device, non_blocking=True)
            last = part == self.config.accumulation - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                value, logged = loss(self.wrapped, batch, self._seeded(step, part))
                self.accelerator.backward(value / self.config.accumulation)
            parts.append({"loss": value.detach(), **logged})
        values = self._mean(parts)
        _require_finite("loss", values["loss"], step, self.out)
        values["gradient_norm"] = self._update(step)
        return values

    def _seeded(self, step: int, part: int) -> torch.Generator:
        """The generator of this part; also seeds torch's global streams, which dropout draws from."""
        slot = part * self.accelerator.num_processes + self.accelerator.process_index
        torch.manual_seed(seeds.integer_seed(self.config.seed, "dropout", step, slot))
        generator = torch.Generator(self._device)
        return generator.manual_seed(seeds.integer_seed(self.config.seed, "loss", step, slot))

    def _mean(self, parts: list[dict[str, Any]]) -> dict[str, float]:
        rows = [
            torch.stack([torch.as_tensor(v, device=self._device).detach().double() for v in p.values()]) for p in parts
        ]
        mean = self.accelerator.reduce(torch.stack(rows).mean(0), "mean")
        return dict(zip(parts[0], mean.tolist(), strict=True))

    def _update(self, step: int) -> float:
        rate = self.config.learning_rate * rate_factor(self.config, step, len(self.dataset))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = float(self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.clip_norm or math.inf))
        if self.config.precision != "fp16":  # there the scaler skips a step that overflows, and lowers its scale
            _require_finite("gradient norm", norm, step, self.out)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.learner.ema and not self.optimizer.step_was_skipped:
            self.learner.ema.update(self.learner.model)
        return norm

    def _note(self, step: int, values: dict[str, float], validate: Validate | None) -> None:
        """Log, validate and save, where `step` updates done call for it."""
        config, end = self.config, step == self.total
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in values.items()}
        self.summed += 1
        row = {}
        if step % config.log_every == 0 or end:
            row = {name: total / self.summed for name, total in self.sums.items()}
            row["learning_rate"] = self.optimizer.param_groups[0]["lr"]
            self.sums, self.summed = {}, 0
        if validate and config.validate_every and (step % config.validate_every == 0 or end):
            row |= (found := self._validate(step, validate))
            self.validated = dict(found)
        if row:
            self.journal.log(step, row)
        self.journal.tick(step)
        if step % config.checkpoint_every == 0 or end:
            self._save(step, values["loss"])

    def _validate(self, step: int, validate: Validate) -> dict[str, float]:
        values: Mapping[str, float] = {}
        model, ema = self.learner.model, self.learner.ema
        if self.accelerator.is_main_process:
            generator = torch.Generator(self._device)
            generator.manual_seed(seeds.integer_seed(self.config.seed, "validate", step))
            model.eval()
            with torch.no_grad(), ema.swapped_in(model) if ema else contextlib.nullcontext():
                values = validate(model, generator)
        self.accelerator.wait_for_everyone()
        self.wrapped.train()
        return {f"validate/{name}": float(value) for name, value in values.items()}

    def _save(self, step: int, loss: float) -> None:
        if self.accelerator.is_main_process:
            save_parts(folder_of(self.out, step), self.learner.parts(), self._card(step, loss))
            prune(self.out, self.config.keep)
        self.accelerator.wait_for_everyone()

    def _card(self, step: int, loss: float) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "step": step,
            "loss": loss,
            "validated": _for_json(self.validated),
            "sums": _for_json(self.sums),
            "summed": self.summed,
            "ema_updates": self.learner.ema.updates if self.learner.ema else 0,
            "scaler": scaler.state_dict() if scaler is not None else {},
            "config": self.config.model_dump(mode="json"),
            "data": self.data,
            "versions": versions(),
            "hardware": {"device": device_name(self._device), "devices": self.accelerator.num_processes},
        }

    def close(self) -> None:
        """Give the caller's model back without accelerate's wrappings."""
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        forget_accelerate()


def _require_finite(what: str, value: float, step: int, out: Path) -> None:
    if not math.isfinite(value):
        remedy = f"the checkpoints up to here are in {out}; try a lower learning rate or a clip norm"
        raise InputError(f"training step {step + 1}", f"a finite {what}", str(value), remedy)


def _for_json(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
