"""Pairs that a tiny network can learn at once: a coloured box on a ground, and as its control the box's mask."""

import numpy as np

from pipeline.images.base import TINY, new_pipeline

WORDS = ("a traffic scene with:", "car", "building", "Other-Vehicle")
HEIGHT, WIDTH, CHANNELS = 16, 32, 5


class Boxes:
    """Sample i is a function of i."""

    def __init__(self, count: int = 6):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng(index)
        x, car = int(rng.integers(4, 20)), bool(rng.integers(2))
        mask = np.zeros((HEIGHT, WIDTH), np.float32)
        mask[6:14, x : x + 10] = 1
        colour = (200, 30, 30) if car else (90, 90, 160)
        image = np.where(mask[..., None] > 0, colour, (70, 120, 70)).astype(np.uint8)
        control = np.stack([mask, 1 - mask, 0.5 * mask, mask * car, np.full_like(mask, 0.2)])
        return {"image": image, "control": control, "prompt": f"a traffic scene with: {'car' if car else 'building'}"}


def tiny(**fields):
    """A new tiny pipeline."""
    return new_pipeline(TINY.model_copy(update=fields), WORDS, CHANNELS)
