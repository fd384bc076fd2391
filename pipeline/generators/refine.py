"""SSC refinement (an application of Comp-D3PM): a network's prediction is coarsened, split, and rebuilt in shape.

The rebuilding is the generator's own (protocol.Refiner); here are the voxels that one trusts in the prediction, and the
scores before and after. The ground truth is read for the scores alone, never as a condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from pipeline.generators.protocol import Refiner
from pipeline.scene.confusion import Scores, confusion, scores
from pipeline.scene.errors import InputError
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE


class Gain(NamedTuple):
    """Scores of predictions and of what became of them, over the same voxels; frames: how many scenes."""

    before: Scores
    after: Scores
    frames: int

    def lines(self) -> list[str]:
        """The scores in words, in per cent."""
        return [
            f"{name:9} {100 * getattr(self.before, field):6.2f} % -> {100 * getattr(self.after, field):6.2f} %"
            for name, field in (("IoU", "iou"), ("mIoU", "miou"), ("precision", "precision"), ("recall", "recall"))
        ]


def trusted_voxels(
    prediction: Scene, confidence: Float[np.ndarray, "x y z"], at_least: float
) -> Bool[np.ndarray, "x y z"]:
    """Voxels whose predicted class has a confidence of `at_least` (0..1) or more; 255 is never trusted.

    Raises InputError.
    """
    if confidence.shape != prediction.labels.shape or not 0 <= at_least <= 1:
        expected = f"confidence of shape {prediction.labels.shape} and a threshold in 0..1"
        raise InputError("trusted voxels", expected, f"{confidence.shape}, {at_least}")
    return (confidence >= at_least) & prediction.valid


def refine(
    refiner: Refiner,
    predictions: Sequence[Scene],
    seeds: Sequence[int],
    trusted: Sequence[Bool[np.ndarray, "x y z"]] | None = None,
) -> list[Scene]:
    """Every prediction rebuilt with its own seed; voxels that are trusted keep the prediction's label exactly.

    predictions: dense class ids, 255 where nothing was predicted. Raises InputError.
    """
    if len(seeds) != len(predictions) or (trusted is not None and len(trusted) != len(predictions)):
        raise InputError("refine", f"{len(predictions)} seeds, and as many masks if any", f"{len(seeds)} seeds")
    rebuilt = refiner.refine(predictions, seeds)
    masks = trusted or [np.zeros(p.labels.shape, bool) for p in predictions]
    return [
        Scene(_kept(p, new, mask), p.grid, p.taxonomy, {**p.provenance, "refined": {"seed": seed}})
        for p, new, mask, seed in zip(predictions, rebuilt, masks, seeds, strict=True)
    ]


def _kept(prediction: Scene, rebuilt: Scene, trusted: Bool[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
    if trusted.shape != prediction.labels.shape or rebuilt.labels.shape != prediction.labels.shape:
        raise InputError("refine", f"shape {prediction.labels.shape}", f"{trusted.shape}, {rebuilt.labels.shape}")
    return np.where(trusted & prediction.valid, prediction.labels, rebuilt.labels)


def gain(predictions: Sequence[Scene], refined: Sequence[Scene], truth: Sequence[Scene]) -> Gain:
    """Scores before and after against the ground truth, over its valid voxels. Raises InputError."""
    if not len(predictions) == len(refined) == len(truth) > 0:
        raise InputError(
            "gain", "as many predictions as refined and true scenes", f"{len(predictions)}, {len(refined)}"
        )
    before, after = (
        np.sum([prediction_confusion(*pair) for pair in zip(scenes, truth, strict=True)], axis=0)
        for scenes in (predictions, refined)
    )
    return Gain(scores(before), scores(after), len(truth))


def prediction_confusion(prediction: Scene, truth: Scene) -> Int64[np.ndarray, "k k"]:
    """Counts by (truth, prediction) over the truth's valid voxels; 255 counts as predicted empty. Raises InputError."""
    if prediction.labels.shape != truth.labels.shape or prediction.taxonomy.classes != truth.taxonomy.classes:
        raise InputError("prediction", f"{truth.labels.shape} of {truth.taxonomy.name}", f"{prediction.labels.shape}")
    filled = np.where(prediction.labels == IGNORE, np.uint8(EMPTY), prediction.labels)
    return confusion(truth.labels, filled, len(truth.taxonomy.classes))
