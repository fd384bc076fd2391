"""What scenes are made of: shares of the classes, how far they lie from real ones, and the share of foreground.

Only valid voxels count (not 255), and of those the occupied ones: empty space would drown the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import EMPTY, Taxonomy

SMOOTHING = 1e-5  # share mixed in evenly over all classes; a class that has vanished then costs 8.5 nats of its share


def class_counts(scenes: Iterable[UInt8[np.ndarray, "x y z"]], taxonomy: Taxonomy) -> Int[np.ndarray, "k"]:
    """Valid voxels by class id, empty included."""
    total = np.zeros(256, np.int64)
    for labels in scenes:
        total += np.bincount(labels.ravel(), minlength=256)
    return total[: len(taxonomy.classes)]


def occupied_shares(counts: Int[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    """Each class's share of the occupied voxels, 0 for empty. Raises InputError where nothing is occupied."""
    solid = np.array(counts, np.float64)
    solid[EMPTY] = 0
    if not solid.sum() > 0:
        raise InputError("class histogram", "occupied voxels", "none")
    return solid / solid.sum()


def divergence(p: Float[np.ndarray, "k"], q: Float[np.ndarray, "k"], smoothing: float = SMOOTHING) -> float:
    """KL(p || q) in nats; both are first mixed with `smoothing` of the even distribution, so it is finite."""
    p, q = ((1 - smoothing) * np.asarray(v, np.float64) + smoothing / len(v) for v in (p, q))
    return float((p * np.log(p / q)).sum())


@dataclass(frozen=True)
class Composition:
    """Shares by class id of the occupied voxels; foreground_share of them; occupied_share of the valid voxels.

    kl: KL(real || ours), the nats a voxel lost by coding real classes with our shares, which punishes vanished classes;
    kl_reverse: KL(ours || real), which punishes invented ones.
    """

    shares: tuple[float, ...]
    foreground_share: float
    occupied_share: float
    kl: float
    kl_reverse: float


def compare(ours: Int[np.ndarray, "k"], real: Int[np.ndarray, "k"], taxonomy: Taxonomy) -> Composition:
    """Counts of scenes (see `class_counts`) against those of real ones. Raises InputError where either is empty."""
    shares, target = occupied_shares(ours)[1:], occupied_shares(real)[1:]
    return Composition(
        shares=(0.0, *(float(v) for v in shares)),
        foreground_share=float(sum(shares[k - 1] for k in sorted(taxonomy.foreground))),
        occupied_share=float(ours[1:].sum() / ours.sum()),
        kl=divergence(target, shares),
        kl_reverse=divergence(shares, target),
    )
