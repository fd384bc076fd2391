"""The constant prior: every voxel's most frequent class in the training frames, whatever the image shows.

The floor of every table: street scenes look alike, so this alone scores well on road, sidewalk and the like.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8
from scipy.ndimage import gaussian_filter

from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import IGNORE
from ssc_eval.metrics import Tally, empty_tally, tally_frame
from ssc_eval.samples import SscDataset

SPREAD = 0.7  # voxels
Counts = Int32[np.ndarray, "k x y z"] | Float64[np.ndarray, "k x y z"]


def constant_prior(labels: Iterable[UInt8[np.ndarray, "x y z"]], classes: int) -> UInt8[np.ndarray, "x y z"]:
    """Every voxel's most frequent class over the frames that score it; of equals the lowest, empty where none does.

    Raises InputError without frames, on frames of different shapes, and on labels not below `classes`.
    """
    return location_counts(labels, classes).argmax(0).astype(np.uint8)


def location_counts(
    labels: Iterable[UInt8[np.ndarray, "x y z"]], classes: int, weights: Iterable[float] | None = None
) -> Counts:
    """How many frames have each class at each voxel; a frame counts `weights` times, where they are given.

    Raises InputError as `constant_prior` does.
    """
    counts = None
    for frame, weight in zip(labels, itertools.repeat(1) if weights is None else weights, strict=False):
        if counts is None:
            shape = frame.shape
            counts = np.zeros((classes, frame.size), np.int32 if weights is None else np.float64)
            voxels = np.arange(frame.size)
        if frame.shape != shape:
            raise InputError("constant prior", f"frames of shape {shape}", str(frame.shape))
        flat = frame.ravel()
        scored = flat != IGNORE
        if flat[scored].max(initial=0) >= classes:
            raise InputError("constant prior", f"labels below {classes}, or 255", str(flat[scored].max()))
        counts[flat[scored], voxels[scored]] += weight  # each voxel once
    if counts is None:
        raise InputError("constant prior", "one frame or more", "none")
    return counts.reshape(classes, *shape)


def prior_of(dataset: SscDataset) -> UInt8[np.ndarray, "x y z"]:
    """The prior of a dataset's chosen frames. Raises InputError."""
    labels = (dataset.labels(number) for number in range(len(dataset.keys)))
    return constant_prior(labels, len(dataset.taxonomy.classes))


def drawn_location_logits(dataset: SscDataset) -> Float32[np.ndarray, "k x y z"]:
    """`location_logits` of a dataset's chosen frames, each counted as often as it is drawn. Raises InputError."""
    labels = (dataset.labels(number) for number in range(len(dataset.keys)))
    return location_logits(location_counts(labels, len(dataset.taxonomy.classes), dataset.draw_weights()))


def location_logits(counts: Counts) -> Float32[np.ndarray, "k x y z"]:
    """log p(class at voxel): counts blurred over neighbours, with the whole volume's shares as one more frame.

    The blur (a Gaussian of SPREAD voxels) makes what few frames say hold for their surroundings; the added frame keeps
    every class possible that occurs at all, and one frame for all classes together those that don't.
    """
    blurred = np.stack([gaussian_filter(of_class.astype(np.float64), SPREAD) for of_class in counts])
    shares = counts.sum((1, 2, 3)) + 1.0
    blurred += (shares / shares.sum())[:, None, None, None]
    return np.log(blurred / blurred.sum(0)).astype(np.float32)


def tally_prior(prior: UInt8[np.ndarray, "x y z"], dataset: SscDataset) -> Tally:
    """Scores of the same prediction on all frames, in and out of view too, as inference.tally_network's.

    Raises InputError.
    """
    classes = len(dataset.taxonomy.classes)
    total = empty_tally(dataset.grid, classes, with_view=True)
    for number in range(len(dataset.keys)):
        total += tally_frame(dataset.labels(number), prior, dataset.grid, classes, dataset.in_view(number))
    return total
