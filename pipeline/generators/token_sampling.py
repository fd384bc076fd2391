"""Partly masked token sequences brought to their end, in batches of equal shapes; too long ones in windows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Int64
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from pipeline.diffusion import masked_samplers
from pipeline.diffusion.dit import denoiser
from pipeline.diffusion.masked import MASK, Denoise
from pipeline.diffusion.masked_samplers import Adaptive, Watch
from pipeline.diffusion.sampling import generators
from pipeline.generators.tokens import Tokens, nearest
from pipeline.generators.volumes import threads
from pipeline.learning.fields import unwritten

Count = Annotated[int, Field(ge=1)]


class ScaffoldSampling(BaseModel):
    """How tokens are drawn; see masked_samplers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sampler: Literal["ancestral", "first_hitting", "confidence", "adaptive", "remasking"] = "first_hitting"
    steps: Count | None = None  # None, of first_hitting and confidence: one token a call
    cached: bool = True  # the network runs only after a token has changed; samples are the same
    order: Literal["random", "probability", "margin", "entropy"] = "probability"  # what opens first, where told
    chance: int = unwritten(0, ge=0)  # tokens opened at random before, of confidence and adaptive
    sure: float | None = unwritten(None, gt=0, le=1)  # this and the next three are of adaptive: see Adaptive
    least: float = unwritten(0.0, ge=0, lt=1)
    rounds: int = unwritten(0, ge=0)
    doubt: float = unwritten(0.0, ge=0, le=1)
    eta: Annotated[float, Field(ge=0, le=1)] = 0.1  # remasking: share of what may be hidden again
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # 1: exact; else nucleus truncation
    bucket: Count = 64  # tokens: sequences of a batch are filled up to a multiple of this
    batch: Count = 8  # sequences at once; a short batch is padded
    threads: Count = 2  # CPU threads
    device: Literal["auto", "cpu"] = "auto"  # auto: a GPU if there is one

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.steps is None and self.sampler in ("ancestral", "remasking"):
            raise ValueError(f"sampler {self.sampler!r} needs steps")
        if (self.sampler == "adaptive") != (self.sure is not None):
            raise ValueError("sure belongs to, and is needed by, sampler 'adaptive'")
        if self.sampler == "adaptive" and (self.top_p < 1 or self.steps is not None):
            raise ValueError("sampler 'adaptive' has least in place of top_p, and counts no steps")
        if self.sampler == "confidence" and self.order == "random":
            raise ValueError("sampler 'confidence' in random order is 'first_hitting'")
        return self

    def torch_device(self) -> torch.device:
        """Where the network runs."""
        return torch.device("cuda" if self.device == "auto" and torch.cuda.is_available() else "cpu")

    def draw(
        self, denoise: Denoise, start: Tensor, streams: Sequence[torch.Generator], watch: Watch | None = None
    ) -> Int64[Tensor, "b l"]:
        """Tokens for every MASK of `start`, by the sampler of this config."""
        denoise = masked_samplers.cached(denoise) if self.cached else denoise
        if self.sure is not None:
            how = Adaptive(self.sure, self.order, self.chance, self.least, self.rounds, self.doubt)
            return masked_samplers.adaptive(denoise, start, streams, how, watch=watch)
        rest: dict[str, Any] = {"top_p": self.top_p, "watch": watch}
        if self.sampler == "ancestral":
            return masked_samplers.ancestral(denoise, start, streams, self.steps or 1, **rest)
        if self.sampler == "remasking":
            return masked_samplers.remasking(denoise, start, streams, self.steps or 1, eta=self.eta, **rest)
        if self.sampler == "confidence":
            rest |= {"by": self.order, "chance": self.chance}
            return masked_samplers.confidence_ordered(denoise, start, streams, self.steps, **rest)
        return masked_samplers.first_hitting(denoise, start, streams, self.steps, **rest)


@dataclass(eq=False)
class Draw:
    """A sequence on its way. classes: token ids, MASK while to be generated; allowed: ids that each may become, one row
    for all tokens or a row a token."""

    positions: Int64[np.ndarray, "n 3"]
    classes: Int64[np.ndarray, "n"]
    allowed: Bool[np.ndarray, "_n k"]
    stream: torch.Generator

    @property
    def waits(self) -> bool:
        """Whether there is a token to generate."""
        return bool((self.classes == MASK).any())


@dataclass(frozen=True, eq=False)
class Window:
    """Which tokens of a draw the network sees at once, and which of those are then final."""

    draw: Draw
    index: Int64[np.ndarray, "w"]
    final: Bool[np.ndarray, "w"]

    def take(self, classes: Int64[np.ndarray, "w"]) -> None:
        """Put drawn classes into the draw."""
        self.draw.classes[self.index[self.final]] = classes[self.final]

    def allowed(self, width: int) -> Bool[np.ndarray, "l k"]:
        """A row a token of the window; what fills it up may be anything."""
        rows = self.draw.allowed
        rows = rows[self.index] if len(rows) == len(self.draw.classes) else rows.repeat(len(self.index), 0)
        return np.pad(rows, ((0, width - len(rows)), (0, 0)), constant_values=True)


@dataclass(frozen=True, eq=False)
class TokenSampler:
    """A network of tokens and how it is drawn from. limit: tokens of one sequence; longer ones are drawn in windows."""

    network: nn.Module
    settings: ScaffoldSampling
    limit: int

    def fill(self, draws: Sequence[Draw]) -> None:
        """Generate all that waits, in place. Each draw depends on its own stream and start alone."""
        with threads(self.settings.threads):
            while waiting := [draw for draw in draws if draw.waits]:
                for windows in self._batches([self.window(draw) for draw in waiting]):
                    self.run(windows)

    def window(self, draw: Draw) -> Window:
        """All tokens, or the `limit` nearest to the first hidden one, of which the nearest half become final."""
        size, limit = len(draw.classes), self.limit
        if size <= limit:
            return Window(draw, np.arange(size), np.ones(size, bool))
        index = nearest(draw.positions, int(np.argmax(draw.classes == MASK)), limit)
        outside = np.ones(size, bool)
        outside[index] = False
        more = bool((draw.classes[outside] == MASK).any())
        return Window(draw, index, np.arange(limit) < (-(-limit // 2) if more else limit))

    def _batches(self, windows: Sequence[Window]) -> list[list[Window]]:
        """Windows of the same width together: what else is in a batch then changes no shape."""
        size, buckets = self.settings.batch, defaultdict[int, list[Window]](list)
        for window in windows:
            buckets[self._width(len(window.index))].append(window)
        return [group[i : i + size] for group in buckets.values() for i in range(0, len(group), size)]

    def _width(self, length: int) -> int:
        bucket = self.settings.bucket
        return -(-length // bucket) * bucket

    @torch.no_grad()
    def run(self, windows: Sequence[Window], watch: Watch | None = None) -> None:
        """Draw one batch, filled up with copies of its last window, and take what is final."""
        settings, device = self.settings, self.settings.torch_device()
        rows = [*windows, *[windows[-1]] * (settings.batch - len(windows))]
        streams = [w.draw.stream for w in windows] + generators([0] * (len(rows) - len(windows)), device)
        start, denoise = self.rows([Tokens(w.draw.classes[w.index], w.draw.positions[w.index]) for w in rows])
        allowed = torch.from_numpy(np.stack([w.allowed(start.shape[1]) for w in rows])).to(device)

        def allowing(z: Int64[Tensor, "b l"]) -> Tensor:
            return denoise(z).masked_fill_(~allowed, -torch.inf)

        drawn = settings.draw(allowing, start, streams, watch).cpu().numpy()
        for window, classes in zip(windows, drawn, strict=False):
            window.take(classes[: len(window.index)])

    def rows(self, sequences: Sequence[Tokens]) -> tuple[Int64[Tensor, "b l"], Denoise]:
        """Sequences as rows, filled up with tokens of class 0, and the network for them."""
        device, lengths = self.settings.torch_device(), [len(tokens.classes) for tokens in sequences]
        width = self._width(max(lengths))
        classes, positions = np.zeros((len(lengths), width), np.int64), np.zeros((len(lengths), width, 3), np.int64)
        for row, tokens in enumerate(sequences):
            classes[row, : lengths[row]], positions[row, : lengths[row]] = tokens.classes, tokens.positions
        network = self.network.to(device).eval()
        return torch.from_numpy(classes).to(device), denoiser(network, torch.from_numpy(positions).to(device), lengths)
