"""Which samples a step sees. A function of seed and step alone, so a resumed run jumps there without replaying.

Position p counts samples drawn since the start; epoch p // n is a permutation of the data of its own, and step s takes
positions s * batch ... (s + 1) * batch - 1. They are split into slots: part m on device r of w is slot m * w + r.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader

from pipeline.learning.config import TrainConfig
from pipeline.scene import seeds


class Indexed(Protocol):
    """A data set: a length, and sample i the same whenever it is asked for.

    One that augments has `draw(index, rng)` as well, which is called instead, with the numpy generator of this draw.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Order:
    """Yields lists of (index, position), one a micro-batch of this device, from `start` to before `stop` [steps]."""

    def __init__(self, samples: int, config: TrainConfig, span: tuple[int, int], device: tuple[int, int] = (0, 1)):
        self.samples, self.config, self.span = samples, config, span
        self.rank, self.world = device

    def __len__(self) -> int:
        return (self.span[1] - self.span[0]) * self.config.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        parts = self.config.accumulation
        size = self.config.batch_size // (parts * self.world)
        epoch, permutation = -1, np.empty(0, np.int64)
        for step in range(*self.span):
            for part in range(parts):
                first = step * self.config.batch_size + (part * self.world + self.rank) * size
                batch = []
                for position in range(first, first + size):
                    if position // self.samples != epoch:
                        epoch = position // self.samples
                        permutation = seeds.rng(self.config.seed, "data order", epoch).permutation(self.samples)
                    batch.append((int(permutation[position % self.samples]), position))
                yield batch


class _Draws:
    """The data set as the loader's processes see it: keyed by (index, position)."""

    def __init__(self, dataset: Indexed, seed: int):
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, position = key
        draw = getattr(self.dataset, "draw", None)
        return draw(index, seeds.rng(self.seed, "data draw", position)) if draw else self.dataset[index]


def loader(dataset: Indexed, order: Order, collate: Callable[[list[Any]], Any] | None, pin: bool) -> DataLoader[Any]:
    """Batches in this order. Workers are spawned, not forked: a fork after numba's or torch's threads may hang."""
    config = order.config
    return DataLoader(
        _Draws(dataset, config.seed),  # type: ignore[arg-type]  # map-style without a length: the order has it
        batch_sampler=order,  # keys are pairs
        collate_fn=collate,
        num_workers=config.workers,
        multiprocessing_context="spawn" if config.workers else None,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),  # workers' base seeds; otherwise taken from the global stream
    )
