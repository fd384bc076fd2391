"""Two slow twins of the scores: the definitions of the official evaluation, and the class loop that trainers use."""

from __future__ import annotations

import numpy as np


def official_confusion(target: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Counts by (prediction, target), one by one, over voxels whose target isn't 255."""
    scored = target != 255
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (prediction[scored].astype(int), target[scored].astype(int)), 1)
    return counts


def official_scores(counts: np.ndarray) -> list[float]:
    """IoU, precision, recall, mIoU, then every class from 1 on; counts by (prediction, target)."""
    hit = counts[1:, 1:].sum()
    ious = [counts[k, k] / max(counts[k].sum() + counts[:, k].sum() - counts[k, k], 1) for k in range(1, len(counts))]
    iou = hit / max(counts.sum() - counts[0, 0], 1)
    return [iou, hit / max(counts[1:].sum(), 1), hit / max(counts[:, 1:].sum(), 1), sum(ious) / len(ious), *ious]


def loop_counts(target: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """(K, 3) true positives, false positives, false negatives; row 0 of occupied. A pass over the grid a count."""
    t, p = (np.where(target == 255, 0, labels).ravel() for labels in (target, prediction))
    found = [[_count(t > 0, p > 0), _count(t == 0, p > 0), _count(t > 0, p == 0)]]
    for k in range(1, classes):
        found.append([_count(t == k, p == k), _count(t != k, p == k), _count(t == k, p != k)])
    return np.array(found)


def _count(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.array(np.where(np.logical_and(a, b))).size)  # finds the indices to count them, as trainers do


def loop_scores(counts: np.ndarray) -> list[float]:
    """The same list as `official_scores` from `loop_counts`."""
    hit, invented, missed = counts[0]
    ious = [row[0] / max(row.sum(), 1) for row in counts[1:]]
    first = [hit / max(counts[0].sum(), 1), hit / max(hit + invented, 1), hit / max(hit + missed, 1)]
    return [*first, sum(ious) / len(ious), *ious]
