"""How far sets of images lie from photographs: FID and KID of each, beside photographs against photographs; diversity.

Distances of sets compare at equal numbers only: Frechet's is biased upwards by about features / images. So every set
has as many images as there are reference photographs, but for the floor, one half of these against the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from flows.evaluate import KERNEL_SUBSETS
from pipeline.metrics.distances import frechet_distance, kernel_distance
from pipeline.metrics.encoder2d import ImageEncoder
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import rng

FLOOR = "photographs: a half against the other"
Features = Float[np.ndarray, "n d"]


@dataclass(frozen=True)
class Distance:
    """A set against photographs; images, photographs: how many. fid is None where they are too few for one.

    kid_spread: standard deviation over subsets of a half of the images.
    """

    name: str
    images: int
    photographs: int
    fid: float | None
    kid: float
    kid_spread: float


def encoded(encoder: ImageEncoder, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Features:
    """A row an image; they may differ in size. Raises InputError."""
    return np.concatenate([encoder.features(image[None]) for image in images])


def distances(photographs: Features, sets: Mapping[str, Features], seed: int) -> list[Distance]:
    """Each set against the photographs, then the floor where there are four photographs. Raises InputError."""
    if min(len(rows) for rows in (photographs, *sets.values())) < 2:
        raise InputError("FID and KID", "at least 2 images and 2 photographs", "1")
    found = [_distance(name, rows, photographs, seed) for name, rows in sets.items()]
    order, half = rng(seed, "image halves", 0).permutation(len(photographs)), len(photographs) // 2
    if half >= 2:
        found.append(_distance(FLOOR, photographs[order[:half]], photographs[order[half : 2 * half]], seed))
    return found


def _distance(name: str, own: Features, other: Features, seed: int) -> Distance:
    enough = min(len(own), len(other)) > own.shape[1]
    kid, spread = kernel_distance(
        own, other, rng(seed, "image KID", 0), KERNEL_SUBSETS, max(2, min(len(own), len(other)) // 2)
    )
    return Distance(name, len(own), len(other), frechet_distance(own, other) if enough else None, kid, spread)


def too_few(encoder: ImageEncoder, images: int) -> str:
    """What to say of Frechet distances that rest on so many images; "" where they are enough."""
    if images <= encoder.dimension:
        return f"No FID: it needs more images than features, {images} are not more than {encoder.dimension}."
    if images < 8 * encoder.dimension:
        return f"FID rests on {images} images, fewer than 8 a feature: its bias is large."
    return ""


def mean_pairwise(rows: Features) -> float:
    """Mean Euclidean distance of two different rows. Raises InputError on fewer than two."""
    count = len(rows)
    if count < 2:
        raise InputError("pairwise distance", "at least 2 images", str(count))
    total = sum(float(np.linalg.norm(rows[k + 1 :] - rows[k], axis=1).sum()) for k in range(count - 1))
    return total / (count * (count - 1) / 2)
