"""What every scene generator offers. `edit` and `refine` and the build know only this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from pipeline.scene.records import Scene


@runtime_checkable
class Generator(Protocol):
    """A model of scenes.

    sample(n, seeds)[i] depends on seeds[i] alone: batch size and threads are fields of the generator's own recipe, and
    a short batch is padded.
    """

    def fit(self, dataset: Iterable[Scene], out: Path) -> None:
        """Train on scenes through pipeline.learning; checkpoints and logs go to `out`, a run found there is resumed."""
        ...

    def sample(self, n: int, seeds: Sequence[int]) -> list[Scene]:
        """n scenes from n seeds (63-bit integers of the seed tree). Raises InputError unless len(seeds) == n."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights as safetensors and a JSON card."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises InputError."""
        ...
