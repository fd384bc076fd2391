"""Scenes drawn for the viewer step by step: what a generator's last stage holds at each time of its way from T to 0."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flows.generators import load_generator, scene_seeds, with_batch
from pipeline.diffusion.bedit import unfold
from pipeline.diffusion.stage import Stage
from pipeline.generators.comp_d3pm import CompD3PM
from pipeline.generators.scaffold import Scaffold
from pipeline.generators.whole_scene import WholeScene
from pipeline.report.viewer import ViewedScene
from pipeline.scene.errors import InputError
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE


@dataclass
class Steps:
    """What a stage's `watch` has seen: volumes (B, X, Y, Z) and their times. estimates: of x_0 in place of x_t."""

    stage: Stage
    estimates: bool = False
    times: list[int] = field(default_factory=list)
    volumes: list[np.ndarray] = field(default_factory=list)

    def see(self, x: Tensor, logits: Tensor, times: tuple[int, int]) -> None:
        """Note x_t, or the most likely x_0 by the network; a token that isn't a class is not known."""
        labels = logits.argmax(-1) if self.estimates else x
        labels = torch.where(labels < self.stage.classes, labels, IGNORE)
        (p, q), (width, depth, _) = self.stage.patch, self.stage.shape
        volume = unfold(labels.view(len(labels), width // p, depth // q, -1), self.stage.patch)
        self.volumes.append(volume.cpu().numpy().astype(np.uint8))
        self.times.append(times[0])


def drawn_scenes(weights: Path, count: int, seed: int, shown: int, estimates: bool = False) -> list[ViewedScene]:
    """Scenes 0..count-1 of a seed, as `occfactory sample` draws them, each with at most `shown` steps.

    Raises InputError on weights of a method whose steps can't be watched.
    """
    generator = load_generator(weights)
    if isinstance(generator, Scaffold):
        with_batch(generator, 1)  # they are drawn one by one
        return [_opened(generator, index, seed, shown) for index, seed in enumerate(scene_seeds(seed, range(count)))]
    if not isinstance(generator, CompD3PM | WholeScene):
        raise InputError(weights, "a generator of comp_d3pm, whole_scene or scaffold", type(generator).__name__)
    with_batch(generator, count)
    stage = list(generator.stages.values())[-1]
    steps = Steps(stage, estimates)
    stage.watch = steps.see
    scenes = generator.sample(count, scene_seeds(seed, range(count)))
    stage.watch = None
    return [_viewed(scene, index, steps, shown) for index, scene in enumerate(scenes)]


def _opened(generator: Scaffold, index: int, seed: int, shown: int) -> ViewedScene:
    """A draw of classes: tokens open one after another; the map is there from the start."""
    frames = np.stack(generator.trajectory(seed, frames=shown))
    whole = int((frames[-1] != EMPTY).sum())
    captions = tuple(f"{whole - int((frame == IGNORE).sum())} of {whole} blocks drawn" for frame in frames)
    return ViewedScene(f"scene {index}", frames, generator.grid, generator.taxonomy, captions=captions)


def _viewed(scene: Scene, index: int, steps: Steps, shown: int) -> ViewedScene:
    volumes = [volume[index] for volume in steps.volumes] + [scene.labels]
    times = [*steps.times, 0]
    kept = np.unique(np.linspace(0, len(volumes) - 1, min(shown, len(volumes))).round().astype(int))
    kept = kept if shown > 1 else np.array([len(volumes) - 1])
    captions = tuple(f"t = {times[k]} of {steps.stage.process.steps}" for k in kept)
    frames = np.stack([volumes[k] for k in kept])
    return ViewedScene(f"scene {index}", frames, scene.grid, scene.taxonomy, captions=captions)
