"""Both methods at a size that trains in a moment, and structured random scenes for them."""

from typing import Any

import numpy as np
import torch

from pipeline.diffusion.stage import StageConfig
from pipeline.generators.comp_d3pm import CompConfig, CompD3PM
from pipeline.generators.volumes import SamplingConfig
from pipeline.generators.whole_scene import WholeConfig, WholeScene
from pipeline.learning.config import TrainConfig
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

GRID = VoxelGrid((16, 16, 8), 0.4, (0.0, -3.2, -2.0))
TAXONOMY = load_taxonomy("semantic_kitti")
CAR, ROAD, BUILDING, POLE = 1, 9, 13, 18


def stage(steps: int = 2, **fields: Any) -> StageConfig:
    training = TrainConfig(
        steps=steps, batch_size=2, learning_rate=1e-3, ema_decay=0.9, torch_threads=1, device="cpu", log_every=1
    )
    return StageConfig(**{"width": 32, "depth": 1, "channels": 4, "steps": 6, "training": training} | fields)


def comp(steps: int = 2, **fields: Any) -> CompConfig:
    return CompConfig(
        **{
            "grid": GRID,
            "background": stage(steps, self_condition=True),
            "foreground": stage(steps),
            "fusion": stage(steps, patch=4, loss_share=0.5, own_evidence=True),
            "sampling": SamplingConfig(steps=3, fine_steps=2, batch=2, threads=1, device="cpu"),
        }
        | fields
    )


def whole(steps: int = 2, two_stage: bool = False, **fields: Any) -> WholeConfig:
    coarse = stage(steps) if two_stage else None
    return WholeConfig(
        **{
            "grid": GRID,
            "coarse": coarse,
            "fine": stage(steps, patch=4),
            "sampling": SamplingConfig(steps=3, fine_steps=2, batch=2, threads=1, device="cpu"),
        }
        | fields
    )


def scene(seed: int) -> Scene:
    """A road, a house at a random depth, a car and a pole on the road, and some voxels not known."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, :2] = ROAD
    labels[:, rng.integers(10, 14) :, 2:6] = BUILDING
    x = rng.integers(0, 11)
    labels[x : x + 5, 4:7, 2:5] = CAR
    labels[rng.integers(0, 16), 1, 2:8] = POLE
    labels[rng.random(labels.shape) < 0.1] = IGNORE
    return Scene(labels, GRID, TAXONOMY, {"frame": seed})


def enliven(generator: CompD3PM | WholeScene) -> None:
    """Weights far from the zero start, so that conditions and neighbours matter before anything is learned."""
    for part in generator.stages.values():
        with torch.no_grad():
            for weights in part.network.parameters():
                weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())) * 0.2)
