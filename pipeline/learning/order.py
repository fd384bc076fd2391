"""Which samples a step sees. A function of seed and step alone, so a resumed run jumps there without replaying.

Position p counts samples drawn since the start; epoch p // n is a permutation of the data of its own, and step s takes
positions s * batch ... (s + 1) * batch - 1. They are split into slots: part m on device r of w is slot m * w + r.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from pipeline.learning.config import TrainConfig
from pipeline.scene import seeds
from pipeline.scene.errors import InputError


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


class _Batches:
    """The data set as the loader's processes see it: keyed by a batch's (index, position) pairs."""

    def __init__(self, dataset: Indexed, seed: int, collate: Callable[[list[Any]], Any] | None):
        self.dataset, self.seed, self.collate = dataset, seed, collate or default_collate

    def __getitem__(self, keys: list[tuple[int, int]]) -> Any:
        try:
            return self.collate([self._draw(*key) for key in keys])
        except InputError as fault:
            return fault  # raised by `batches`: torch would bring it over from a worker as another exception

    def _draw(self, index: int, position: int) -> Any:
        draw = getattr(self.dataset, "draw", None)
        return draw(index, seeds.rng(self.seed, "data draw", position)) if draw else self.dataset[index]


def _unchanged(batch: Any) -> Any:
    return batch


def batches(dataset: Indexed, order: Order, collate: Callable[[list[Any]], Any] | None, pin: bool) -> Iterator[Any]:
    """Batches in this order; what `collate` (torch's default one if None) makes of the samples. Raises InputError.

    Workers are spawned, not forked: a fork after numba's or torch's threads may hang.
    """
    workers = order.config.workers
    loader: DataLoader[Any] = DataLoader(
        _Batches(dataset, order.config.seed, collate),  # type: ignore[arg-type]  # the order has the length
        batch_size=None,
        sampler=order,
        collate_fn=_unchanged,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),  # workers' base seeds; otherwise taken from the global stream
    )
    for batch in loader if len(order) else ():
        if isinstance(batch, InputError):
            raise batch
        yield batch
