"""One conditional D3PM of label volumes: x_t, perhaps an earlier estimate of x_0, and conditions -> x_0.

Training data may hold 255 (not known): those voxels go in with a filled label and take no part in the loss, unless
`learn_filled` says so. Sampling has a hook before each step, through which known voxels enter at their noise level
(Comp-D3PM, eq. 9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from pipeline.diffusion import d3pm
from pipeline.diffusion.bedit import BEDiT, Volume, fold, unfold
from pipeline.diffusion.sampling import categorical, uniform_rows
from pipeline.diffusion.schedules import ScheduleKind, pairs, respaced
from pipeline.learning.config import TrainConfig
from pipeline.learning.fields import unwritten
from pipeline.learning.loop import Trained, train
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import IGNORE

Shape = tuple[int, int, int]
Count = Annotated[int, Field(ge=1)]
Watch = Callable[[Tensor, Tensor, tuple[int, int]], None]  # sees (x_t, logits of x_0, (t, s)) of each step of a draw


class StageConfig(BaseModel):
    """One network, its process and its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Count = 128  # channels of a token
    depth: Count = 4  # transformer blocks
    channels: Count = 8  # of a voxel's embedding
    patch: Count = 1  # voxels a token along x and y
    reach: int = unwritten(0, ge=0, le=3)  # how far along x and y a token is told its neighbours [tokens]; ours
    self_condition: bool = False  # feed the previous estimate of x_0; trained so half of the time
    process: d3pm.ProcessKind = "uniform"
    schedule: ScheduleKind = "cosine"
    steps: Count = 100  # T
    ce_weight: Annotated[float, Field(ge=0)] = 0.01  # lambda of the hybrid loss KL + lambda CE
    loss_share: Annotated[float, Field(gt=0, le=1)] = (
        1.0  # of the voxels, drawn anew each step, on which the loss is taken
    )
    learn_filled: bool = unwritten(False)  # the loss counts filled voxels too; ours, see `Stage.loss`
    own_evidence: bool = False  # add log q(x_t | x_0) of each voxel to its logits, for tokens too narrow to carry it
    recompute: bool = False  # gradient checkpointing: less memory, a third more time
    compile: bool = False  # torch.compile network and loss in training, a fifth faster on a CPU; needs a C++ compiler
    training: TrainConfig

    @field_validator("width")
    @classmethod
    def _splits_into_heads(cls, width: int) -> int:
        if width % (32 if width > 32 else 4):
            raise ValueError("width must be a multiple of 32, or of 4 up to 32")
        return width


@dataclass(frozen=True, eq=False)
class StageData:
    """Training volumes, uint8. target: (N, X, Y, Z), 255 = not known; filled: the same with a label everywhere."""

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


@dataclass(frozen=True)
class Draws:
    """How a sampler draws; the defaults are exact.

    min_p: see `categorical`. evidence: the share of a voxel's own evidence that counts: below 1, noise that the network
    failed to take away is not taken for a part of the scene later on (exposure bias). held_at: held voxels enter with
    the noise of this share of t; at 1 (eq. 9) there is little to be seen of them while a layout is settled, and what is
    new doesn't continue them. self_condition: the last estimate of x_0 is fed to a stage that is trained for it; an
    estimate names the likeliest class everywhere, so what is never likeliest in strong noise stays away.
    """

    min_p: float = 0.0
    evidence: float = 1.0
    held_at: float = 1.0
    self_condition: bool = True


EXACT = Draws()


class Stage:
    """The network and everything that is done with it.

    backbone: BEDiT, or what is made and called as it is; ignore: the label that means not known, which a volume of more
    than 255 classes must have elsewhere.
    """

    def __init__(
        self,
        config: StageConfig,
        shape: Shape,
        classes: int,
        conditions: Sequence[Shape] = (),
        seed: int = 0,
        *,
        backbone: Callable[..., nn.Module] = BEDiT,
        ignore: int = IGNORE,
    ):
        self.config, self.shape, self.classes, self.ignore = config, shape, classes, ignore
        self.watch: Watch | None = None
        self._hybrid_loss = d3pm.hybrid_loss
        self.process = d3pm.process_of(config.process, config.schedule, classes, config.steps)
        self.patch = _patch(config.patch, shape, shape)
        self.patches = [_patch(config.patch, shape, other) for other in conditions]
        volumes = [Volume(self.process.states, shape[2], self.patch)]
        if config.self_condition:
            volumes.append(Volume(classes + 1, shape[2], self.patch))  # its last state: no estimate yet
        volumes += [Volume(classes, s[2], p) for s, p in zip(conditions, self.patches, strict=True)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer_seed(seed, "weights", 0))
            self.network: nn.Module = backbone(
                tuple(volumes),
                classes,
                width=config.width,
                depth=config.depth,
                channels=config.channels,
                reach=config.reach,
                recompute=config.recompute,
            )

    def train(self, data: StageData, out: Path, data_digest: str) -> Trained:
        """Train to the config's end, going on where `out` stopped; the network then holds the last weights."""
        if self.config.compile:
            self.network.compile()  # in place: torch.compile's wrapper would rename the weights
            self._hybrid_loss = torch.compile(d3pm.hybrid_loss)
        return train(self.network, self.loss, data, self.config.training, out, data_digest=data_digest)

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """T (KL + lambda CE), t stratified over the batch; scalars kl and ce.

        A network draws what nobody saw as well, and sees it in its next step, as does the next stage: if nothing is
        learnt there, that is unlike all they were trained on. Hence `learn_filled`.
        """
        valid = (fold(batch["target"], self.patch) != self.ignore) | self.config.learn_filled
        x_0 = fold(batch["filled"], self.patch).long()  # b i j v
        conditions = self._folded(batch["conditions"])
        t = self._times(len(x_0), generator)
        uniforms = torch.rand(x_0.shape, generator=generator, dtype=torch.float64, device=x_0.device)
        x_t = d3pm.corrupt(self.process, x_0.flatten(1), t, uniforms.flatten(1)).view(x_0.shape)
        volumes = [x_t]
        if self.config.self_condition:
            volumes.append(self._estimate(model, t, x_t, conditions, generator))
        chosen = None
        if self.config.loss_share < 1:  # a K-wide loss at every voxel takes longer than the network
            chosen = self._chosen(x_0.shape[-1], generator)
            x_0, x_t, valid = (a.index_select(-1, chosen) for a in (x_0, x_t, valid))
        logits = model(self.process.told(t), *volumes, *conditions, chosen=chosen).flatten(1, 3).float()
        logits = self._with_evidence(logits, x_t.flatten(1), t)
        kl, ce = self._hybrid_loss(self.process, logits, x_0.flatten(1), x_t.flatten(1), t, valid.flatten(1))
        return kl + self.process.steps * self.config.ce_weight * ce, {"kl": kl.detach(), "ce": ce.detach()}

    def _folded(self, conditions: Sequence[Tensor]) -> list[Tensor]:
        return [fold(labels, patch).long() for labels, patch in zip(conditions, self.patches, strict=True)]

    def _times(self, rows: int, generator: torch.Generator) -> Int64[Tensor, "b"]:
        """One of 1..T a row, spread evenly over the batch."""
        device, T = generator.device, self.process.steps
        place = torch.rand(1, generator=generator, device=device) + torch.arange(rows, device=device)
        return (place / rows * T).long().clamp_(max=T - 1) + 1

    def _chosen(self, voxels: int, generator: torch.Generator) -> Int64[Tensor, "c"]:
        count = max(1, round(voxels * self.config.loss_share))
        return torch.randperm(voxels, generator=generator, device=generator.device)[:count].sort().values

    def _estimate(
        self, model: nn.Module, t: Tensor, x_t: Tensor, conditions: list[Tensor], generator: torch.Generator
    ) -> Tensor:
        nothing = torch.full_like(x_t, self.classes)
        if torch.rand(1, generator=generator, device=x_t.device) < 0.5:
            return nothing
        with torch.no_grad():
            logits = model(self.process.told(t), x_t, nothing, *conditions).flatten(1, 3).float()
        return self._with_evidence(logits, x_t.flatten(1), t).argmax(-1).view(x_t.shape)

    def _with_evidence(
        self, logits: Tensor, x_t: Int64[Tensor, "b n"], t: Int64[Tensor, "b"], share: float = 1.0
    ) -> Tensor:
        """Logits (B, N, K) with (a share of) each voxel's own evidence on its class x_t, in place."""
        if not self.config.own_evidence or self.config.process == "absorbing":
            return logits
        amount = (share * d3pm.own_evidence(self.process, t)).to(logits).expand(x_t.shape)
        return logits.scatter_add_(-1, x_t[..., None], amount[..., None])

    @torch.no_grad()
    def sample(
        self,
        streams: Sequence[torch.Generator],
        conditions: Sequence[Int64[Tensor, "b _x _y _z"]] = (),
        held: Held | None = None,
        steps: int | None = None,
        draws: Draws = EXACT,
    ) -> Int64[Tensor, "b x y z"]:
        """A volume a stream, in `steps` <= T steps (default T): the loop of the method."""
        if held is not None and not (held.labels == self.ignore).any():
            return held.labels
        rows, voxels, T = len(streams), int(np.prod(self.shape)), self.process.steps
        folded = self._folded(conditions)
        known = None if held is None else fold(held.labels, self.patch).flatten(1)
        x = d3pm.prior(self.process, uniform_rows(streams, voxels))
        estimate = torch.full_like(x, self.classes)  # none
        if draws.self_condition:
            estimate = self._known_or(estimate, known)
        for t, s in pairs(respaced(T, steps or T)):
            x = self._hold(x, known, round(draws.held_at * t), streams)
            logits = self._logits(x, t, folded, estimate, draws.evidence)
            if held is not None:
                logits = logits.masked_fill_(~held.allowed[:, None], -torch.inf)
            if self.watch is not None:
                self.watch(x, logits, (t, s))
            if self.config.self_condition and draws.self_condition:
                estimate = self._known_or(logits.argmax(-1), known)
            uniforms = uniform_rows(streams, voxels).flatten()
            x_0 = categorical(logits.flatten(0, 1), uniforms, draws.min_p).view(rows, voxels)
            x = d3pm.draw_previous(self.process, x, x_0, (t, s), uniform_rows(streams, voxels))
        return unfold(self._hold(x, known, 0, streams).view(rows, *self._tokens, -1), self.patch)

    @property
    def _tokens(self) -> tuple[int, int]:
        return self.shape[0] // self.patch[0], self.shape[1] // self.patch[1]

    def _known_or(self, labels: Int64[Tensor, "b n"], known: Int64[Tensor, "b n"] | None) -> Int64[Tensor, "b n"]:
        return labels if known is None else torch.where(known != self.ignore, known, labels)

    def _logits(
        self,
        x_t: Int64[Tensor, "b n"],
        t: int,
        conditions: list[Tensor],
        estimate: Tensor | None,
        evidence: float = 1.0,
    ) -> Tensor:
        """(B, N, K) logits of x_0 at one time, voxels in token order."""
        shape = (len(x_t), *self._tokens, -1)
        volumes = [x_t.view(shape)]
        if self.config.self_condition:
            volumes.append(torch.full_like(volumes[0], self.classes) if estimate is None else estimate.view(shape))
        times = torch.full((len(x_t),), t, device=x_t.device)
        logits = self.network(self.process.told(times), *volumes, *conditions).flatten(1, 3).float()
        return self._with_evidence(logits, x_t, times, evidence)

    def _hold(
        self, x: Int64[Tensor, "b n"], known: Int64[Tensor, "b n"] | None, t: int, streams: Sequence[torch.Generator]
    ) -> Int64[Tensor, "b n"]:
        """x~_t = m x_t + (1 - m) x_t^known (eq. 9), the known voxels corrupted to t; exact at t = 0."""
        if known is None:
            return x
        is_known = known != self.ignore
        x_0 = torch.where(is_known, known, 0)
        if t:
            times = torch.full((len(x),), t, device=x.device)
            x_0 = d3pm.corrupt(self.process, x_0, times, uniform_rows(streams, x.shape[1]))
        return torch.where(is_known, x_0, x)


def _patch(patch: int, shape: Shape, other: Shape) -> tuple[int, int]:
    """Voxels of a volume `other` over one token of a volume `shape`, along x and y. Raises InputError."""
    tokens = [shape[axis] // patch for axis in (0, 1)]
    sizes = [other[axis] // tokens[axis] for axis in (0, 1)]
    if any(t * patch != n for t, n in zip(tokens, shape, strict=False)) or any(
        t * p != n or p < 1 for t, p, n in zip(tokens, sizes, other, strict=False)
    ):
        raise InputError("BEDiT", f"volumes that divide into tokens of {patch}x{patch} voxels", f"{shape} and {other}")
    return sizes[0], sizes[1]
