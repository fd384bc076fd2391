"""What every scene generator offers. `edit` and `refine` and the build know only this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False)
class Known:
    """What a scene to be generated must hold.

    labels: class ids that are kept exactly, 255 = to be generated; classes: what the generated voxels may become
    beside empty, None = anything.
    """

    labels: UInt8[np.ndarray, "x y z"]
    classes: tuple[int, ...] | None = None


@runtime_checkable
class Generator(Protocol):
    """A model of scenes.

    sample(n, seeds)[i] depends on seeds[i] (and known[i]) alone: batch size and threads are fields of the generator's
    own recipe, and a short batch is padded.
    """

    @property
    def grid(self) -> VoxelGrid:
        """The grid that its scenes lie on."""
        ...

    @property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy of its labels."""
        ...

    def fit(self, dataset: Iterable[Scene], out: Path) -> None:
        """Train on scenes through pipeline.learning; checkpoints and logs go to `out`, a run found there is resumed."""
        ...

    def sample(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None = None) -> list[Scene]:
        """n scenes from n seeds (63-bit integers of the seed tree), each holding its known voxels exactly.

        Raises InputError unless there are n seeds, and n of `known` on the generator's grid if any.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write weights as safetensors and a JSON card."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises InputError."""
        ...


@runtime_checkable
class Refiner(Protocol):
    """A generator that can also rebuild the shapes of a scene that another network predicted."""

    def refine(self, scenes: Sequence[Scene], seeds: Sequence[int]) -> list[Scene]:
        """The scenes, each made again from what its coarse form says; 255 is taken as not known. Raises InputError."""
        ...
