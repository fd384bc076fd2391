"""The seed tree: (build seed, stage, sample, attempt) -> an independent generator.

Sample i depends on its own place in the tree alone, so batch size, worker count and order cannot change it.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stage_key(stage: str) -> int:
    """A stage's name as a fixed 32-bit integer (the first bytes of its SHA-256, little endian)."""
    return int.from_bytes(hashlib.sha256(stage.encode()).digest()[:4], "little")


def seed_sequence(build_seed: int, stage: str, sample: int, attempt: int = 0) -> np.random.SeedSequence:
    """The tree's node; build_seed, sample and attempt are non-negative integers."""
    return np.random.SeedSequence([build_seed, stage_key(stage), sample, attempt])


def rng(build_seed: int, stage: str, sample: int, attempt: int = 0) -> np.random.Generator:
    """The node's numpy generator (PCG64)."""
    return np.random.default_rng(seed_sequence(build_seed, stage, sample, attempt))


def integer_seed(build_seed: int, stage: str, sample: int, attempt: int = 0) -> int:
    """The node as a 63-bit integer, for `torch.Generator.manual_seed` and the like."""
    return int(seed_sequence(build_seed, stage, sample, attempt).generate_state(1, np.uint64)[0] >> np.uint64(1))
