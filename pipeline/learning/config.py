"""How a network is trained: one frozen record, part of a recipe and of its digest."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.learning.fields import unwritten

Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Schedule(BaseModel):
    """The learning rate over time, as a factor on TrainConfig.learning_rate; formulas in schedules.py."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["constant", "cosine", "multistep"] = "constant"
    warmup_steps: Count = 0  # optimiser steps of linear rise, for every kind
    floor: Fraction = 0.0  # cosine: factor at the end
    milestones: tuple[Count, ...] = ()  # multistep: where the factor drops, in `unit`
    unit: Literal["step", "epoch"] = "step"  # of the milestones; an epoch is a whole pass over the data
    gamma: Fraction = 0.1  # multistep: factor a milestone

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.kind == "multistep") != bool(self.milestones):
            raise ValueError("milestones belong to, and are needed by, kind 'multistep'")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        return self


class TrainConfig(BaseModel):
    """One training run. A step is one update of the weights, over all devices and accumulated parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: Annotated[int, Field(ge=1)] | None = None  # updates in all; this or epochs
    epochs: Annotated[float, Field(gt=0)] | None = None  # passes over the data; the last step is rounded up
    batch_size: Annotated[int, Field(ge=1)]  # samples a step, over all devices and accumulated parts
    accumulation: Annotated[int, Field(ge=1)] = 1  # parts a step's samples are split into, one after the other
    # AdamW, fused into one kernel on a GPU; or its moments in 8 bits (bitsandbytes, on a GPU), a quarter of the memory.
    optimizer: Literal["adamw", "adamw_8bit"] = unwritten("adamw")
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4  # AdamW's, before the schedule's factor
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)  # AdamW's decay of the first and second moment a step
    eps: Annotated[float, Field(gt=0)] = 1e-8  # AdamW's
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # AdamW's, times the learning rate a step
    decay_vectors: bool = True  # whether biases and norm gains (one axis or none) decay as well
    schedule: Schedule = Schedule()
    clip_norm: Annotated[float, Field(gt=0)] | None = None  # bound on the L2 norm of all gradients; None: no bound
    ema_decay: Fraction | None = None  # of the weights' moving average a step; None: keep no average
    ema_warmup: bool = True  # average over at most the steps so far: decay min(ema_decay, n / (9 + n) at update n)
    precision: Literal["no", "bf16", "fp16"] = "no"  # of the forward pass; weights stay as they are
    sync_batch_norm: bool = False  # batch norms see all devices' samples (GPUs)
    seed: Count = 0  # of data order and all randomness
    torch_threads: Annotated[int, Field(ge=1)] = 2  # CPU threads a process; sums depend on it
    deterministic: bool = False  # refuse GPU kernels whose sums depend on timing
    device: Literal["auto", "cpu"] = "auto"  # auto: what accelerate finds
    workers: Count = 0  # processes a device that load data; 0: the training process itself
    log_every: Annotated[int, Field(ge=1)] = 50  # steps; a logged value is the mean since the last
    checkpoint_every: Annotated[int, Field(ge=1)] = 1000  # steps; one more is written at the end
    validate_every: Count = 0  # steps; 0: never
    keep: Annotated[int, Field(ge=1)] = 3  # newest checkpoints kept

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} does not split into {self.accumulation} equal parts")
        return self

    def total_steps(self, samples: int) -> int:
        """Updates in all, for a data set of `samples`."""
        if self.steps is not None:
            return self.steps
        return -int(-(self.epochs or 0) * samples // self.batch_size)

    def changeable(self) -> frozenset[str]:
        """Fields that a resumed run may have otherwise: none of them touches a step that is already done."""
        always = {"device", "workers", "log_every", "checkpoint_every", "validate_every", "keep"}
        return frozenset(always if self.schedule.kind == "cosine" else always | {"steps", "epochs"})
