"""A generator without a network that keeps the protocol's word: seeded draws, known voxels held, calls recorded."""

import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from pipeline.generators.protocol import Known
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE, load_taxonomy

GRID = VoxelGrid((8, 6, 4), 0.5, (0.0, -1.5, -1.0))


class ToyGenerator:
    """Each level draws from its own frequencies, half of them those of its known voxels.

    The draws' seed also hashes the known labels, so that whatever a window saw changes all that it makes.
    """

    def __init__(self, grid: VoxelGrid = GRID, spread: float = 0.5):
        self.grid, self.taxonomy, self.spread = grid, load_taxonomy("semantic_kitti"), spread
        self.calls: list[int] = []  # scenes a call of sample

    def fit(self, dataset: Iterable[Scene], out: Path) -> None:
        raise NotImplementedError

    def sample(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None = None) -> list[Scene]:
        if len(seeds) != n or (known is not None and len(known) != n):
            raise InputError("sample", f"{n} seeds", f"{len(seeds)}")
        self.calls.append(n)
        nothing = Known(np.full(self.grid.shape, IGNORE, np.uint8))
        return [self._scene(seed, held) for seed, held in zip(seeds, known or [nothing] * n, strict=True)]

    def _scene(self, seed: int, known: Known) -> Scene:
        assert known.labels.shape == self.grid.shape
        rng = np.random.default_rng([seed, zlib.crc32(known.labels.tobytes())])
        labels = known.labels.copy()
        for level in range(self.grid.shape[2]):
            layer = labels[:, :, level]
            free = layer == IGNORE
            layer[free] = rng.choice(20, free.sum(), p=self._frequencies(layer[~free], level, known))
        return Scene(labels, self.grid, self.taxonomy, {"source": "toy", "seed": seed})

    def _frequencies(self, held: np.ndarray, level: int, known: Known) -> np.ndarray:
        own = np.full(20, self.spread / 20)
        own[9 if level == 0 else EMPTY] += 1 - self.spread
        mixed = own + np.bincount(held, minlength=20) / held.size if held.size else own
        if known.classes is not None:
            mixed = np.where(np.isin(np.arange(20), [EMPTY, *known.classes]), mixed, 0)
        return mixed / mixed.sum()

    def refine(self, scenes: Sequence[Scene], seeds: Sequence[int]) -> list[Scene]:
        """Cars and what wasn't predicted become empty: wrong enough to be seen in a score."""
        assert len(scenes) == len(seeds)
        kept = [np.where(np.isin(scene.labels, [1, IGNORE]), np.uint8(EMPTY), scene.labels) for scene in scenes]
        return [Scene(labels, s.grid, s.taxonomy) for labels, s in zip(kept, scenes, strict=True)]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "toy.json").write_text(json.dumps({"shape": self.grid.shape, "spread": self.spread}))

    @classmethod
    def load(cls, folder: Path) -> Self:
        if not (folder / "toy.json").exists():
            raise InputError(folder, "a generator's weights", "none")
        return cls(spread=json.loads((folder / "toy.json").read_text())["spread"])
