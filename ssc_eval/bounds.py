"""How much of a scene can be told from one image at all: the constant prior, and the prior where nothing is seen.

Between them lies what sight is worth: a network must guess the rest, which is hidden behind surfaces or out of view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from torch import Tensor

from pipeline.scene.taxonomy import EMPTY, IGNORE
from ssc_eval.metrics import Tally, empty_tally, tally_frame
from ssc_eval.samples import SscDataset
from ssc_eval.surface import CELL


class Bounds(NamedTuple):
    """Tallies of four predictions, and of the occupied voxels the shares that are seen, hidden, and out of view."""

    prior: Tally  # the training frames' most frequent class, everywhere
    sight: Tally  # the truth up to the first surface on each line of sight, the prior elsewhere
    sight_and_one: Tally  # and one depth bin behind it
    view: Tally  # the truth wherever the camera points, seen or hidden
    seen: float
    hidden: float
    out_of_view: float


def bounds(
    prior: UInt8[np.ndarray, "x y z"],
    dataset: SscDataset,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Bounds:
    """Of a dataset's frames, for a network with `depth_bins`. Raises InputError."""
    classes = len(dataset.taxonomy.classes)
    tallies = [empty_tally(dataset.grid, classes, with_view=True) for _ in range(4)]
    occupied = np.zeros(3, np.int64)
    for number in range(len(dataset.keys)):
        sample, in_view = dataset[number], dataset.in_view(number)
        labels = sample["labels"].numpy()
        known = [np.zeros_like(in_view), seen(sample, 0), seen(sample, 1), in_view]
        found = [np.where(where & (labels != IGNORE), labels, prior) for where in known]
        frames = [tally_frame(labels, each, dataset.grid, classes, in_view) for each in found]
        tallies = [tally + frame for tally, frame in zip(tallies, frames, strict=True)]
        full = (labels != EMPTY) & (labels != IGNORE)
        occupied += [(full & part).sum() for part in (known[1], in_view & ~known[1], ~in_view)]
        progress(number + 1, len(dataset.keys))
    prior_alone, sight, sight_and_one, view = tallies
    shares = occupied / max(occupied.sum(), 1)
    return Bounds(prior_alone, sight, sight_and_one, view, float(shares[0]), float(shares[1]), float(shares[2]))


def seen(sample: dict[str, Tensor], behind: int) -> Bool[np.ndarray, "x y z"]:
    """The voxels in view that lie before the first surface on their cell's line of sight, or at most `behind` bins on.

    A line whose first surface is not labelled shows nothing.
    """
    u, v, at = np.moveaxis(sample["sight"].numpy(), -1, 0)
    depth = sample["depth"].numpy()
    surface = depth[np.maximum(v, 0) // CELL, np.maximum(u, 0) // CELL]
    return (u >= 0) & (surface >= 0) & (at <= surface + behind)
