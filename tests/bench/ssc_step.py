"""Seconds and peak memory of an SSC training step in parts: the small recipe, or one step of the published one.

python -m tests.bench ssc_step                        small, on toy frames of its own
python -m tests.bench.ssc_step published [FIELD=VALUE ...]      one step on whatever fits: a GPU, else the CPU

On a CPU the published one wants much memory and many minutes: training.batch_size=1 and network.recompute=true are the
first FIELD=VALUE to give; it isn't begun with less than 16 GiB free.
"""

from __future__ import annotations

import contextlib
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
from ssc_eval.surface import CELL, evidence, surface_losses
from ssc_eval.training import SscConfig, lay_out
from ssc_eval.unet3d import call
from tests.ssc_eval.toy_root import write_toy_root

T = TypeVar("T")
PARTS = ("sample", "2D network", "lifting", "3D network", "losses", "backward", "optimiser")
GIB = 2.0**30
FREE_GIB = 16  # that the published step wants on a CPU


class Clock:
    """Seconds and peak memory a part: CPU time and the process's memory where the CPU works (others may be working
    too), the wall's and allocated memory on a GPU. peaks: the most that was held during each part [GiB]."""

    def __init__(self, device: torch.device):
        self.device, self.seconds, self.peaks = device, dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0.0)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.forget()
        start = self.now()
        yield
        self.seconds[name] += self.now() - start
        self.peaks[name] = self.peak()

    def forget(self) -> None:
        """Begin a new peak; where the system can't (not Linux), peaks only rise from part to part."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / GIB
        with contextlib.suppress(OSError):
            return _proc_gib("/proc/self/status", "VmHWM")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def _proc_gib(path: str, name: str) -> float:
    """A figure of the system's, which are in KiB."""
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / GIB


def step(config: SscConfig, dataset: SscDataset, device: torch.device, repeats: int) -> Clock:
    """The quickest of some steps, in parts."""
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
                decoded = model.image.decoded(batch["image"], run)
                features = model.image.lifted(decoded)
                surfaces = model.surface(decoded[CELL]) if config.network.depth_bins else None
            with clock.part("lifting"):
                volume = lift(features, batch["pixels"])
                told = None if surfaces is None else evidence(surfaces, batch["sight"], classes)
            with clock.part("3D network"):
                logits, relations = model.volume(volume, run, told)
        with clock.part("losses"):
            total = _loss(logits, relations, batch, weights)
            if surfaces is not None:
                total = total + sum(surface_losses(surfaces, batch["depth"], batch["surface"], weights).values())
        with clock.part("backward"):
            total.backward()
        with clock.part("optimiser"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        found.append(clock)
    print(f"  {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, loss {total.item():.2f}")
    return min(found, key=lambda clock: sum(clock.seconds.values()))


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
        found = step(config, dataset, device, repeats)
    whole = sum(found.seconds.values())
    for part, seconds in found.seconds.items():
        print(f"  {part:12s} {seconds:8.3f} s  {seconds / whole:6.1%}  {found.peaks[part]:7.2f} GiB")
    print(f"  {'a step':12s} {whole:8.3f} s          {max(found.peaks.values()):7.2f} GiB")


def _require_room(name: str) -> None:
    """Raises SystemExit where the published step would push this machine into its swap."""
    if name != "published" or torch.cuda.is_available() or not Path("/proc/meminfo").exists():
        return
    free = _proc_gib("/proc/meminfo", "MemAvailable")
    if free < FREE_GIB:
        raise SystemExit(
            f"published: expected {FREE_GIB} GiB of free memory, found {free:.1f}; free some, or use a GPU"
        )


def main() -> None:
    torch.set_num_threads(1)
    name, *changes = sys.argv[1:] or ["small"]
    _require_room(name)
    measured(name, tuple(changes), 1 if name == "published" else 5)


if __name__ == "__main__":
    main()
