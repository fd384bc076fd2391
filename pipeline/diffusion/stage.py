"""One conditional D3PM of label volumes: x_t, perhaps an earlier estimate of x_0, and conditions -> x_0.

Training data may hold 255 (not known): those voxels go in with a filled label and take no part in the loss. Sampling
has a hook before each step, through which known voxels enter at their noise level (Comp-D3PM, eq. 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pipeline.diffusion import d3pm
from pipeline.diffusion.bedit import BEDiT, Volume
from pipeline.diffusion.sampling import categorical, uniform_rows
from pipeline.diffusion.schedules import ScheduleKind, pairs, respaced
from pipeline.learning.config import TrainConfig
from pipeline.learning.loop import Trained, train
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import IGNORE

Shape = tuple[int, int, int]
Count = Annotated[int, Field(ge=1)]


class StageConfig(BaseModel):
    """One network, its process and its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Count = 128  # channels of a token
    depth: Count = 4  # transformer blocks
    channels: Count = 8  # of a voxel's embedding
    patch: Count = 1  # voxels a token along x and y
    self_condition: bool = False  # feed the previous estimate of x_0; trained so half of the time
    process: d3pm.ProcessKind = "uniform"
    schedule: ScheduleKind = "cosine"
    steps: Count = 100  # T
    ce_weight: Annotated[float, Field(ge=0)] = 0.01  # lambda of the hybrid loss KL + lambda CE
    loss_share: Annotated[float, Field(gt=0, le=1)] = (
        1.0  # of the voxels, drawn anew each step, on which the loss is taken
    )
    recompute: bool = False  # gradient checkpointing: less memory, a third more time
    compile: bool = False  # torch.compile the network; needs a C++ compiler
    training: TrainConfig


@dataclass(frozen=True, eq=False)
class StageData:
    """Training volumes, uint8. target: (N, X, Y, Z), 255 = no loss; filled: the same with a label everywhere."""

    target: UInt8[np.ndarray, "n x y z"]
    filled: UInt8[np.ndarray, "n x y z"]
    conditions: tuple[UInt8[np.ndarray, "n _x _y _z"], ...] = ()

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        conditions = [volume[index] for volume in self.conditions]
        return {"target": self.target[index], "filled": self.filled[index], "conditions": conditions}


@dataclass(frozen=True, eq=False)
class Held:
    """What a batch of draws must hold. labels: (B, X, Y, Z), 255 = free; allowed: classes that free voxels may take."""

    labels: Int64[Tensor, "b x y z"]
    allowed: Bool[Tensor, "b k"]


class Stage:
    """The network and everything that is done with it."""

    def __init__(
        self, config: StageConfig, shape: Shape, classes: int, conditions: Sequence[Shape] = (), seed: int = 0
    ):
        self.config, self.shape, self.classes = config, shape, classes
        self.process = d3pm.process_of(config.process, config.schedule, classes, config.steps)
        patches = [_patch(config.patch, shape, other) for other in (shape, *conditions)]
        volumes = [Volume(self.process.states, shape[2], patches[0])]
        if config.self_condition:
            volumes.append(Volume(classes + 1, shape[2], patches[0]))  # its last state: no estimate yet
        volumes += [Volume(classes, s[2], p) for s, p in zip(conditions, patches[1:], strict=True)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer_seed(seed, "weights", 0))
            self.network: nn.Module = BEDiT(
                tuple(volumes),
                classes,
                width=config.width,
                depth=config.depth,
                channels=config.channels,
                recompute=config.recompute,
            )

    def train(self, data: StageData, out: Path, data_digest: str) -> Trained:
        """Train to the config's end, going on where `out` stopped; the network then holds the averaged weights."""
        model = torch.compile(self.network) if self.config.compile else self.network
        return train(model, self.loss, data, self.config.training, out, data_digest=data_digest)  # type: ignore[arg-type]

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """T (KL + lambda CE), t stratified over the batch; scalars kl and ce."""
        valid = batch["target"].flatten(1) != IGNORE
        x_0 = batch["filled"].flatten(1).long()
        rows, device = len(x_0), x_0.device
        place = torch.rand(1, generator=generator, device=device) + torch.arange(rows, device=device)
        t = (place / rows * self.process.steps).long().clamp_(max=self.process.steps - 1) + 1
        uniforms = torch.rand(x_0.shape, generator=generator, dtype=torch.float64, device=device)
        x_t = d3pm.corrupt(self.process, x_0, t, uniforms)
        volumes = [x_t.view(rows, *self.shape)]
        conditions = [volume.long() for volume in batch["conditions"]]
        if self.config.self_condition:
            volumes.append(self._estimate(model, t, volumes[0], conditions, generator))
        logits = model(t, *volumes, *conditions).flatten(1, 3)
        if self.config.loss_share < 1:  # a K-wide loss at every voxel takes longer than the network
            chosen = self._chosen(x_0.shape[1], generator)
            logits, x_0, x_t, valid = (a.index_select(1, chosen) for a in (logits, x_0, x_t, valid))
        kl, ce = d3pm.hybrid_loss(self.process, logits.float(), x_0, x_t, t, valid)
        return kl + self.process.steps * self.config.ce_weight * ce, {"kl": kl.detach(), "ce": ce.detach()}

    def _chosen(self, voxels: int, generator: torch.Generator) -> Tensor:
        count = max(1, round(voxels * self.config.loss_share))
        return torch.randperm(voxels, generator=generator, device=generator.device)[:count].sort().values

    def _estimate(
        self, model: nn.Module, t: Tensor, x_t: Tensor, conditions: list[Tensor], generator: torch.Generator
    ) -> Tensor:
        nothing = torch.full_like(x_t, self.classes)
        if torch.rand(1, generator=generator, device=x_t.device) < 0.5:
            return nothing
        with torch.no_grad():
            return model(t, x_t, nothing, *conditions).argmax(-1)

    @torch.no_grad()
    def sample(
        self,
        streams: Sequence[torch.Generator],
        conditions: Sequence[Int64[Tensor, "b _x _y _z"]] = (),
        held: Held | None = None,
        steps: int | None = None,
    ) -> Int64[Tensor, "b x y z"]:
        """A volume a stream, in `steps` <= T steps (default T): the loop of the method."""
        rows, voxels, T = len(streams), int(np.prod(self.shape)), self.process.steps
        x, estimate = d3pm.prior(self.process, uniform_rows(streams, voxels)), None
        for t, s in pairs(respaced(T, steps or T)):
            x = self._hold(x, held, t, streams)
            logits = self.logits(x, t, conditions, estimate)
            if held is not None:
                logits = logits.masked_fill(~held.allowed[:, None], -torch.inf)
            if self.config.self_condition:
                estimate = logits.argmax(-1)
            x_0 = categorical(logits.flatten(0, 1), uniform_rows(streams, voxels).flatten()).view(rows, voxels)
            x = x_0 if s == 0 else d3pm.draw_previous(self.process, x, x_0, (t, s), uniform_rows(streams, voxels))
        return self._hold(x, held, 0, streams).view(rows, *self.shape)

    def logits(
        self, x_t: Int64[Tensor, "b n"], t: int, conditions: Sequence[Tensor], estimate: Int64[Tensor, "b n"] | None
    ) -> Tensor:
        """(B, N, K) logits of x_0 at one time."""
        rows = len(x_t)
        volumes = [x_t.view(rows, *self.shape)]
        if self.config.self_condition:
            nothing = torch.full_like(volumes[0], self.classes)
            volumes.append(nothing if estimate is None else estimate.view(rows, *self.shape))
        times = torch.full((rows,), t, device=x_t.device)
        return self.network(times, *volumes, *conditions).flatten(1, 3).float()

    def _hold(self, x: Tensor, held: Held | None, t: int, streams: Sequence[torch.Generator]) -> Tensor:
        """x~_t = m x_t + (1 - m) x_t^known (eq. 9), the known voxels corrupted to t; exact at t = 0."""
        if held is None:
            return x
        labels = held.labels.flatten(1)
        known = labels != IGNORE
        x_0 = torch.where(known, labels, 0)
        if t:
            times = torch.full((len(x),), t, device=x.device)
            x_0 = d3pm.corrupt(self.process, x_0, times, uniform_rows(streams, x.shape[1]))
        return torch.where(known, x_0, x)


def _patch(patch: int, shape: Shape, other: Shape) -> tuple[int, int]:
    """Voxels of a volume `other` over one token of a volume `shape`, along x and y. Raises InputError."""
    tokens = [shape[axis] // patch for axis in (0, 1)]
    sizes = [other[axis] // tokens[axis] for axis in (0, 1)]
    if any(t * patch != n for t, n in zip(tokens, shape, strict=False)) or any(
        t * p != n or p < 1 for t, p, n in zip(tokens, sizes, other, strict=False)
    ):
        raise InputError("BEDiT", f"volumes that divide into tokens of {patch}x{patch} voxels", f"{shape} and {other}")
    return sizes[0], sizes[1]
