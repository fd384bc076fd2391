"""How much of a scene can be told from one image at all: the constant prior, and the prior where nothing is seen.

Between them lies what sight is worth: a network must guess the rest, which is hidden behind surfaces or out of view. A
voxel is seen if the line of sight through some pixel's centre passes it, or ends in it, before it is stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from pipeline.scene.camera import Camera
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY, IGNORE
from ssc_eval.lifting import projection
from ssc_eval.metrics import Tally, empty_tally, tally_frame
from ssc_eval.samples import SscDataset
from ssc_eval.surface import sight_lines

STEPS_A_VOXEL = 2  # of sight_lines


class Bounds(NamedTuple):
    """Tallies of four predictions, and of the occupied voxels the shares that are seen, hidden, and out of view."""

    prior: Tally  # the training frames' most frequent class, everywhere
    sight: Tally  # the truth where it is seen, the prior elsewhere
    sight_and_one: Tally  # and a voxel's depth behind what stops the eye
    view: Tally  # the truth wherever the camera points, seen or hidden
    seen: float
    hidden: float
    out_of_view: float


def bounds(
    prior: UInt8[np.ndarray, "x y z"],
    dataset: SscDataset,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Bounds:
    """Of a dataset's frames, with lines of sight a pixel of its images apart. Raises InputError."""
    classes, views = len(dataset.taxonomy.classes), _Views(dataset.grid)
    tallies = [empty_tally(dataset.grid, classes, with_view=True) for _ in range(4)]
    occupied = np.zeros(3, np.int64)
    for number in range(len(dataset.keys)):
        labels = dataset.labels(number)
        in_view, lines = views(dataset.camera(number))
        sight = seen(labels, lines, 0)
        known = [np.zeros_like(in_view), sight, seen(labels, lines, STEPS_A_VOXEL), in_view | sight]
        told = [np.where(where & (labels != IGNORE), labels, prior) for where in known]
        frames = [tally_frame(labels, each, dataset.grid, classes, in_view) for each in told]
        tallies = [tally + frame for tally, frame in zip(tallies, frames, strict=True)]
        full = (labels != EMPTY) & (labels != IGNORE)
        occupied += [(full & part).sum() for part in (sight, in_view & ~sight, ~in_view & ~sight)]
        progress(number + 1, len(dataset.keys))
    prior_alone, with_sight, with_one, view = tallies
    shares = occupied / max(occupied.sum(), 1)
    return Bounds(prior_alone, with_sight, with_one, view, float(shares[0]), float(shares[1]), float(shares[2]))


def seen(
    labels: UInt8[np.ndarray, "x y z"], lines: Int32[np.ndarray, "s h w"], behind: int
) -> Bool[np.ndarray, "x y z"]:
    """The voxels on some line up to the first that is not empty, and `behind` steps on; 255 stops the eye too."""
    inside = lines >= 0
    stops = inside & (labels.ravel()[lines] != EMPTY)
    stopped = np.logical_or.accumulate(stops, axis=0)  # from the first on
    blind = np.zeros_like(stopped)
    blind[behind + 1 :] = stopped[: len(stopped) - behind - 1]
    found = np.zeros(labels.size, bool)
    found[lines[inside & ~blind]] = True
    return found.reshape(labels.shape)


class _Views:
    """Which voxels' centres a camera sees, and its lines of sight; the latest calibration's are kept."""

    def __init__(self, grid: VoxelGrid):
        self.grid, self.key = grid, b""

    def __call__(self, camera: Camera) -> tuple[Bool[np.ndarray, "x y z"], Int32[np.ndarray, "s h w"]]:
        key = camera.K.tobytes() + camera.camera_from_world.tobytes()
        if key != self.key:
            self.in_view = projection(camera, self.grid).in_view
            self.key, self.lines = key, sight_lines(camera, self.grid, False, 1)
        return self.in_view, self.lines
