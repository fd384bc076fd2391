"""A planned sequence of the embedded world: pure data, from which geometry and poses follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.scene.seeds import rng

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Town:
    """A planned sequence. speed_mps: the vehicle's along its trajectory."""

    split: Split
    seed: int
    frames: int
    speed_mps: float


def plan_town(split: Split, seed: int, frames: int = 100) -> Town:
    """Plan a sequence; the same arguments give the same plan."""
    generator = rng(seed, f"town/{split}", 0)
    return Town(split, seed, frames, float(generator.uniform(6, 12)))
