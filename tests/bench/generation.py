"""How long a scene takes to draw, and where the time goes: `python -m tests.bench generation`.

Alone: `python -m tests.bench.generation [--recipe NAME | --weights DIR] [--device cpu] [--scenes N] [--threads N]`.
For S = 10, 25 and 100 steps at every resolution: the networks, the sampling mathematics around them (draws of x_0 and
x_s, uniforms, folding) and everything else, in seconds a scene on the recipe's batch and threads, and the share
outside the networks (at most 0.30). Untrained networks take as long as trained ones. Every generator runs in a process
of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import functools
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flows.generator_recipes import generator_recipe
from flows.generators import load_generator, new_generator, scene_seeds
from pipeline.diffusion.stage import Stage
from pipeline.generators.comp_d3pm import CompD3PM
from pipeline.generators.whole_scene import WholeScene

RECIPES = ("comp_d3pm", "whole_scene", "two_stage")
STEPS = (10, 25, 100)
LIMIT = 0.30  # of the time, outside the networks


class Clock:
    """Seconds spent inside calls, waiting for a GPU's work."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time added up."""

        @functools.wraps(call)
        def inside(*args: Any, **words: Any) -> Any:
            started = now()
            try:
                return call(*args, **words)
            finally:
                self.seconds += now() - started

        return inside


def now() -> float:
    """Wall time [s], after the GPU's work so far."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def untrained(recipe: str) -> CompD3PM | WholeScene:
    """A recipe's generator with fresh weights and even class frequencies."""
    generator = new_generator(generator_recipe(recipe))
    classes = len(generator.taxonomy.classes)
    generator.frequency = np.full(classes, 1 / classes)
    return generator


def with_sampling(generator: CompD3PM | WholeScene, **changes: Any) -> None:
    """Change how the generator draws."""
    sampling = generator.config.sampling.model_copy(update=changes)
    generator.config = generator.config.model_copy(update={"sampling": sampling})  # type: ignore[assignment]


def measured(generator: CompD3PM | WholeScene, steps: int, scenes: int, repeats: int) -> dict[str, float]:
    """Seconds a scene of the quickest of several runs: network, sampling, rest, total."""
    with_sampling(generator, steps=steps, fine_steps=steps)
    runs = []
    for _ in range(repeats):
        network, stages = Clock(), Clock()
        for stage in generator.stages.values():
            _watch(stage, network, stages)
        started = now()
        generator.sample(scenes, scene_seeds(0, range(scenes)))
        total = now() - started
        parts = {
            "network": network.seconds,
            "sampling": stages.seconds - network.seconds,
            "rest": total - stages.seconds,
        }
        runs.append({name: value / scenes for name, value in (parts | {"total": total}).items()})
    return min(runs, key=lambda run: run["total"])


def _watch(stage: Stage, network: Clock, stages: Clock) -> None:
    for name, clock in (("_logits", network), ("sample", stages)):
        setattr(stage, name, clock.timed(getattr(type(stage), name).__get__(stage)))


def peak_mib() -> tuple[float, float]:
    """(memory of this process, GPU memory) at their highest [MiB]."""
    scale = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, else in KiB
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale, gpu


def one(options: argparse.Namespace) -> None:
    """Print one generator's figures."""
    generator = load_generator(options.weights) if options.weights else untrained(options.recipe)
    assert isinstance(generator, CompD3PM | WholeScene)
    sampling = generator.config.sampling
    with_sampling(generator, device=options.device, threads=options.threads or sampling.threads)
    sampling, scenes = generator.config.sampling, options.scenes or generator.config.sampling.batch
    with_sampling(generator, batch=min(sampling.batch, scenes))
    device = sampling.torch_device()
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{sampling.threads} CPU threads"
    print(
        f"{options.weights or options.recipe}: batch {min(sampling.batch, scenes)}, {where}, seconds a scene",
        flush=True,
    )
    before = peak_mib()[0]
    measured(generator, 1, scenes, 1)  # warm
    for steps in options.steps:
        found = measured(generator, steps, scenes, options.repeats)
        outside = 1 - found["network"] / found["total"]
        parts = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        print(f"  {steps:3d} steps: {parts}; outside the networks {outside:.2f} (at most {LIMIT:.2f})", flush=True)
    memory, gpu = peak_mib()
    print(f"  peak memory {memory:.0f} MiB ({before:.0f} before the first draw), GPU {gpu:.0f} MiB", flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time a scene's draw.")
    parser.add_argument("--recipe", default=None, help="a generator recipe; default: the three that are compared")
    parser.add_argument("--weights", type=Path, default=None, help="a folder of trained weights, in place of a recipe")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--scenes", type=int, default=None, help="scenes a run; default: the recipe's batch")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; default: the recipe's")
    parser.add_argument("--repeats", type=int, default=2, help="runs, of which the quickest counts")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    return parser.parse_args()


def main() -> None:
    """Each generator in a process of its own."""
    options = parsed()
    if options.weights or options.recipe:
        one(options)
        return
    for recipe in RECIPES:
        command = [sys.executable, "-m", "tests.bench.generation", "--recipe", recipe, *sys.argv[1:]]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
