"""Houses small enough to train on in a moment."""

import numpy as np

from pipeline.generators.protocol import Known
from pipeline.learning.config import TrainConfig
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE, load_taxonomy

GRID, MINECRAFT = VoxelGrid((8, 8, 4), 1.0, (0.0, 0.0, 0.0)), load_taxonomy("minecraft")
STONE, PLANKS, GLASS = 1, 5, 20


def training(steps: int = 2, rate: float = 3e-3) -> TrainConfig:
    return TrainConfig(
        steps=steps, batch_size=2, learning_rate=rate, ema_decay=0.9, torch_threads=1, device="cpu", log_every=1
    )


def house(seed: int) -> Scene:
    """Walls of stone on a floor of planks, a pane of glass; smaller than the grid."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(4, 8, 2)
    labels = np.zeros((x, y, 3), np.uint8)
    labels[[0, -1]] = STONE
    labels[:, [0, -1]] = STONE
    labels[:, :, 0] = PLANKS
    labels[0, rng.integers(1, y - 1), 2] = GLASS
    return Scene(labels, VoxelGrid((int(x), int(y), 3), 1.0, (0.0, 0.0, 0.0)), MINECRAFT, {"house": seed})


HOUSES = [house(seed) for seed in range(6)]


def hidden(scene: Scene) -> Known:
    """Its map, all classes to be generated, in the middle of the grid's floor."""
    known = np.zeros(GRID.shape, np.uint8)
    x, y, z = scene.labels.shape
    a, b = (GRID.shape[0] - x) // 2, (GRID.shape[1] - y) // 2
    known[a : a + x, b : b + y, :z] = np.where(scene.labels != EMPTY, IGNORE, EMPTY)
    return Known(known)
