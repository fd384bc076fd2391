"""One integer confusion matrix, and the scores that follow from it. Adding two matrices is exact in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import IGNORE


def confusion(
    target: UInt8[np.ndarray, "*n"],
    prediction: UInt8[np.ndarray, "*n"],
    classes: int,
    mask: Bool[np.ndarray, "*n"] | None = None,
) -> Int64[np.ndarray, "k k"]:
    """Counts by (target, prediction) over voxels whose target isn't 255 and, if given, whose mask is True.

    Raises InputError when a scored label or prediction is not below `classes`.
    """
    target, prediction = np.ravel(target), np.ravel(prediction)
    counts = (
        _pair_counts(target, prediction)
        if mask is None
        else _pair_counts(target[mask.ravel()], prediction[mask.ravel()])
    )
    counts[IGNORE] = 0
    if counts[classes:].any() or counts[:, classes:].any():
        raise InputError("confusion", f"labels below {classes}", "a larger one")
    return counts[:classes, :classes].copy()


def _pair_counts(target: UInt8[np.ndarray, "n"], prediction: UInt8[np.ndarray, "n"]) -> Int64[np.ndarray, "256 256"]:
    """Counts of every pair, of ignored targets only some.

    Most voxels are empty in both or ignored: eight such in a row are counted, or left out, without looking at each.
    """
    words = target.size // 8
    t, p = (np.ascontiguousarray(labels[: 8 * words]).view(np.uint64) for labels in (target, prediction))
    empty, ignored = (t | p) == 0, t == np.uint64(2**64 - 1)
    busy = np.flatnonzero(~(empty | ignored))
    counts = _each_pair(t[busy].view(np.uint8), p[busy].view(np.uint8))
    counts += _each_pair(target[8 * words :], prediction[8 * words :])
    counts[0, 0] += 8 * np.count_nonzero(empty)
    return counts


def _each_pair(target: UInt8[np.ndarray, "n"], prediction: UInt8[np.ndarray, "n"]) -> Int64[np.ndarray, "256 256"]:
    pairs = (target.astype(np.uint16) << 8) | prediction
    return np.bincount(pairs, minlength=1 << 16).reshape(256, 256).astype(np.int64)


@dataclass(frozen=True)
class Scores:
    """SemanticKITTI SSC's scores in 0..1; class_iou by class id 1.., an absent class counts 0."""

    iou: float
    precision: float
    recall: float
    miou: float
    class_iou: tuple[float, ...]


def class_ious(matrix: Int64[np.ndarray, "k k"]) -> Float[np.ndarray, "k"]:
    """Intersection over union a class; 0 where a class is in neither."""
    hit = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - hit
    return hit / np.maximum(union, 1)


def scores(matrix: Int64[np.ndarray, "k k"]) -> Scores:
    """Completion (labels > 0 are occupied) and semantic scores from a confusion matrix."""
    hit = int(matrix[1:, 1:].sum())
    missed, invented = int(matrix[1:, 0].sum()), int(matrix[0, 1:].sum())
    ious = class_ious(matrix)[1:]
    return Scores(
        iou=hit / max(hit + missed + invented, 1),
        precision=hit / max(hit + invented, 1),
        recall=hit / max(hit + missed, 1),
        miou=float(ious.mean()),
        class_iou=tuple(float(v) for v in ious),
    )
