"""Seconds and peak memory of an SSC training step in parts: the small recipe, or one step of the published one.

python -m tests.bench ssc_step                        small, on toy frames of its own
python -m tests.bench.ssc_step published [FIELD=VALUE ...]      one step on whatever fits: a GPU, else the CPU
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from flows.ssc_recipes import ssc_recipe
from pipeline.scene.grid import COMPARISON_GRID, SEMANTIC_KITTI_GRID
from ssc_eval.lifting import lift
from ssc_eval.losses import monoscene_losses, relation_targets
from ssc_eval.monoscene import build, recomputed
from ssc_eval.samples import Source, SscDataset
from ssc_eval.training import SscConfig, lay_out
from ssc_eval.unet3d import call
from tests.ssc_eval.toy_root import write_toy_root

T = TypeVar("T")
PARTS = ("sample", "2D network", "lifting", "3D network", "losses", "backward", "optimiser")


class Clock:
    """Seconds a part: CPU time where the CPU works (others may be working too), the wall's on a GPU."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, dict.fromkeys(PARTS, 0.0)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[name] += self.now() - start


def step(config: SscConfig, dataset: SscDataset, device: torch.device, repeats: int) -> dict[str, float]:
    """The quickest of some steps after a first one, in parts [s]."""
    classes = len(dataset.taxonomy.classes)
    model = build(config.network, dataset.grid, classes, 0).to(device).train()
    lay_out(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.training.learning_rate)
    weights, run = torch.ones(classes, device=device), recomputed if config.network.recompute else call
    found = []
    for repeat in range(repeats + (device.type == "cuda")):  # a GPU's first step chooses kernels
        clock = Clock(device)
        with clock.part("sample"):
            drawn = [dataset.draw(0, np.random.default_rng(repeat)) for _ in range(config.training.batch_size)]
            batch = {name: torch.stack([sample[name] for sample in drawn]).to(device) for name in drawn[0]}
        with torch.autocast(device.type, torch.bfloat16, enabled=config.training.precision == "bf16"):
            with clock.part("2D network"):
                features = model.image(batch["image"], run)
            with clock.part("lifting"):
                volume = lift(features, batch["pixels"])
            with clock.part("3D network"):
                logits, relations = model.volume(volume, run)
        with clock.part("losses"):
            total = _loss(logits, relations, batch, weights)
        with clock.part("backward"):
            total.backward()
        with clock.part("optimiser"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        found.append(clock.seconds)
    print(f"  {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, loss {total.item():.2f}")
    return min(found, key=lambda parts: sum(parts.values()))


def _loss(logits: Tensor, relations: Tensor | None, batch: dict[str, Tensor], weights: Tensor) -> Tensor:
    targets = None if relations is None else relation_targets(batch["coarse"])
    return torch.stack(
        list(monoscene_losses(logits, batch["labels"], weights, batch["tiles"], relations, targets).values())
    ).sum()


def measured(name: str, changes: tuple[str, ...], repeats: int) -> None:
    """One recipe's table, on toy frames of its grid and image size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    grid = SEMANTIC_KITTI_GRID if name == "published" else COMPARISON_GRID
    with tempfile.TemporaryDirectory() as folder:
        config = ssc_recipe(name, (Source(root=Path(folder)),), changes)
        samples, training = config.samples, config.training
        size = (samples.width_px, samples.height_px)
        write_toy_root(Path(folder), {"00": 1}, {"train": ["00"]}, size=size, grid=grid)
        dataset = SscDataset(config.sources, samples, 0, config.network)
        dataset[0]  # projections are computed once a calibration
        print(f"{name} {' '.join(changes)}: batch {training.batch_size}, {size[0]}x{size[1]}, {grid.shape}, {device}")
        parts = step(config, dataset, device, repeats)
    whole = sum(parts.values())
    for part, seconds in parts.items():
        print(f"  {part:12s} {seconds:8.3f} s  {seconds / whole:6.1%}")
    print(f"  {'a step':12s} {whole:8.3f} s, {_peak(device)}")


def _peak(device: torch.device) -> str:
    if device.type == "cuda":
        return f"peak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    return f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def main() -> None:
    torch.set_num_threads(1)
    name, *changes = sys.argv[1:] or ["small"]
    measured(name, tuple(changes), 1 if name == "published" else 5)


if __name__ == "__main__":
    main()
