"""Photographs that a tiny critic can read: grey ground, blue sky, and a red car or a yellow building whose size tells
its depth.
"""

import numpy as np

from pipeline.scene.taxonomy import load_taxonomy

KITTI = load_taxonomy("semantic_kitti")
CAR, ROAD, BUILDING = 1, 9, 13
HEIGHT, WIDTH = 16, 32


class ToyPhotographs:
    """Pair i is a function of i: road below, sky above, one object of size 60 / depth [px]."""

    def __init__(self, count: int = 24, first: int = 0):
        self.count, self.first = count, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng(self.first + index)
        labels, depth = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.float32)
        labels[10:], depth[10:] = ROAD, 40 / np.arange(1, HEIGHT - 9)[:, None]
        size = int(rng.integers(6, 12))
        u, v, kind = int(rng.integers(0, WIDTH - size)), HEIGHT - 1 - size, int(rng.choice([CAR, BUILDING]))
        labels[v : v + size, u : u + size], depth[v : v + size, u : u + size] = kind, 60 / size
        colours = np.zeros((20, 3))
        colours[[0, CAR, ROAD, BUILDING]] = [(120, 160, 220), (200, 30, 30), (100, 100, 100), (220, 200, 60)]
        image = np.clip(colours[labels] + rng.normal(0, 4, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
        return {"image": image, "labels": labels, "depth": depth, "prompt": "a traffic scene with: road"}
