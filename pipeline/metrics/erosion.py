"""Real scenes whose foreground is eaten by known amounts, to calibrate and to try measures of it.

A scene's foreground voxel is lost at strength p if its draw is below p, so a stronger
erosion loses what a weaker one did.

    grow      neighbours grow in: a voxel with a background or empty face neighbour takes such a neighbour's label
    replace   any voxel, inside or at the surface, takes the label of the nearest background voxel
    bites     whole pieces: where smooth noise is in its lowest share p, the nearest label not of foreground
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pipeline.scene.taxonomy import EMPTY, IGNORE

Labels = UInt8[np.ndarray, "x y z"]
Kind = Literal["grow", "replace", "bites"]
KINDS: tuple[Kind, ...] = ("grow", "replace", "bites")
BITE_SIGMA = 1.5  # voxels; half the width of a piece
_NEVER = 2.0
_FACES = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])


@dataclass(frozen=True, eq=False)
class Erosion:
    """A scene's foreground voxels: where they lie in `labels.ravel()`, at which strength they are lost, and to what."""

    voxel: Int[np.ndarray, "v"]
    draw: Float[np.ndarray, "v"]
    label: UInt8[np.ndarray, "v"]

    def at(self, labels: Labels, p: float) -> Labels:
        """The scene at strength p in 0..1."""
        taken = self.draw < p
        eroded = labels.copy()
        eroded.flat[self.voxel[taken]] = self.label[taken]
        return eroded


def prepare(labels: Labels, foreground: Bool[np.ndarray, "256"], kind: Kind, rng: np.random.Generator) -> Erosion:
    """Draw a scene's erosion. foreground: look-up table by label."""
    voxel = np.flatnonzero(foreground[labels])
    if kind == "grow":
        return Erosion(voxel, *_grow(labels, foreground, voxel, rng))
    if kind == "replace":
        background = ~foreground[labels] & (labels != EMPTY) & (labels != IGNORE)
        return Erosion(voxel, rng.random(len(voxel)), _nearest(labels, background, voxel))
    open_ = ~foreground[labels] & (labels != IGNORE)
    return Erosion(voxel, _smooth_draw(labels.shape, voxel, rng), _nearest(labels, open_, voxel))


def _grow(
    labels: Labels, foreground: Bool[np.ndarray, "256"], voxel: Int[np.ndarray, "v"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "v"], UInt8[np.ndarray, "v"]]:
    padded = np.pad(labels, 1, constant_values=IGNORE)
    near = np.stack(np.unravel_index(voxel, labels.shape), axis=1)[:, None] + 1 + _FACES
    beside = padded[near[..., 0], near[..., 1], near[..., 2]]  # (v, 6)
    open_ = ~foreground[beside] & (beside != IGNORE)
    choice = np.where(open_, rng.random(beside.shape), -1.0).argmax(axis=1)
    draw = np.where(open_.any(axis=1), rng.random(len(voxel)), _NEVER)
    return draw, beside[np.arange(len(voxel)), choice]


def _nearest(labels: Labels, source: Bool[np.ndarray, "x y z"], voxel: Int[np.ndarray, "v"]) -> UInt8[np.ndarray, "v"]:
    """The label of the source voxel nearest to each voxel; empty where there is no source."""
    from scipy import ndimage

    if not source.any():
        return np.full(len(voxel), EMPTY, np.uint8)
    at = ndimage.distance_transform_edt(~source, return_distances=False, return_indices=True)
    x, y, z = at.reshape(3, -1)[:, voxel]
    return labels[x, y, z]


def _smooth_draw(
    shape: tuple[int, ...], voxel: Int[np.ndarray, "v"], rng: np.random.Generator
) -> Float[np.ndarray, "v"]:
    """Ranks of smooth noise among the voxels, in 0..1: so exactly a share p lies below p."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(rng.standard_normal(shape), BITE_SIGMA).ravel()[voxel]
    draw = np.empty(len(voxel))
    draw[noise.argsort(kind="stable")] = np.arange(len(voxel)) / max(len(voxel), 1)
    return draw
