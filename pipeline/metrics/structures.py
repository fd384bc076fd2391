"""Plain figures of a structure of labelled voxels, that real and generated ones are compared by.

    occupied    voxels that aren't empty                classes   how many different ones there are
    entropy     of the class of a random one [nats]     alike     share of face neighbours, both occupied, of one class

Entropy and alike go together: draws that are too sure of themselves have too few nats and too many alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from pipeline.scene.taxonomy import EMPTY, IGNORE


@dataclass(frozen=True)
class Structure:
    """One structure's figures; alike: nan without neighbours."""

    occupied: int
    classes: int
    entropy: float
    alike: float


def structure(labels: UInt8[np.ndarray, "x y z"]) -> Structure:
    """The figures of one; 255 counts as empty. One of air alone has no class, entropy 0 and no neighbours."""
    solid = (labels != EMPTY) & (labels != IGNORE)
    counts = np.bincount(labels[solid], minlength=256)
    share = counts[counts > 0] / max(counts.sum(), 1)
    pairs = same = 0
    for axis in range(3):
        low, high = (np.moveaxis(labels, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        both = np.moveaxis(solid, axis, 0)[:-1] & np.moveaxis(solid, axis, 0)[1:]
        pairs += int(both.sum())
        same += int((both & (low == high)).sum())
    entropy = float(-(share * np.log(share)).sum())
    return Structure(int(solid.sum()), len(share), abs(entropy), same / pairs if pairs else float("nan"))
