"""An exponential moving average of a network's weights.

    a_0 = w_0,    a_n = d_n a_(n-1) + (1 - d_n) w_n,    d_n = decay, or min(decay, n / (9 + n)) while warming up

with w_n the weights after n updates. Buffers (the running statistics of batch norms) are copied, not averaged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Ema:
    """Holds the average; `update` after each optimiser step. Averages are at least float32, on the weights' device."""

    def __init__(self, model: nn.Module, decay: float, warmup: bool = True):
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self._learned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self.average = {name: self._copy(name, value) for name, value in model.state_dict().items()}

    def _copy(self, name: str, value: Tensor) -> Tensor:
        wide = name in self._learned and value.is_floating_point()
        dtype = torch.promote_types(value.dtype, torch.float32) if wide else value.dtype
        return value.detach().to(dtype, copy=True)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after one more update."""
        n = self.updates = self.updates + 1
        decay = min(self.decay, n / (9 + n)) if self.warmup else self.decay
        for name, value in model.state_dict().items():
            if name in self._learned and value.is_floating_point():
                self.average[name].lerp_(value.to(self.average[name].dtype), 1 - decay)
            else:
                self.average[name].copy_(value)

    def load(self, average: dict[str, Tensor], updates: int) -> None:
        """Continue from a stored average of the same network (names and shapes are the caller's to check)."""
        for name, value in average.items():
            self.average[name].copy_(value)
        self.updates = updates

    @contextlib.contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` computes with the average; its own weights come back afterwards, bit for bit."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(own)
