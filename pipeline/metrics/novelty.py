"""Memorisation: how near each generated scene is to a training scene, against how near held-out real scenes are.

The distance of two scenes is the share of differing voxels among those that are known in both (not 255) and occupied in
at least one: 1 - (voxels of equal class) / (voxels occupied in either), 0 for copies, 1 for scenes with nothing in
common. It is exact, for every pair, and the training scene may be mirrored in Y.

Towns of a held-out split may differ from training's in style, which makes them lie farther off than fresh scenes of the
training towns would; so training scenes against those of *other* sequences are a second yardstick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt64

from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import EMPTY, IGNORE

Labels = UInt8[np.ndarray, "x y z"]
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_BLOCK = 32  # scenes compared at a time, so that their bits stay in the cache


class Nearest(NamedTuple):
    """For each scene: its distance to the nearest training scene, that scene's number, and whether mirrored."""

    distance: Float[np.ndarray, "n"]
    place: Int[np.ndarray, "n"]
    mirrored: Bool[np.ndarray, "n"]


class _Bits(NamedTuple):
    """Scenes packed 64 voxels a word: class id bit by bit (0 where unknown), occupied, known."""

    planes: UInt64[np.ndarray, "n p w"]
    occupied: UInt64[np.ndarray, "n w"]
    known: UInt64[np.ndarray, "n w"]


def distance(a: Labels, b: Labels) -> float:
    """The distance of two scenes, in plain words; 0 where nothing known is occupied in either."""
    either = (a != IGNORE) & (b != IGNORE) & ((a != EMPTY) | (b != EMPTY))
    return float((a != b)[either].mean()) if either.any() else 0.0


def nearest_scenes(
    scenes: Sequence[Labels],
    training: Sequence[Labels],
    groups: Sequence[str] | None = None,
    training_groups: Sequence[str] | None = None,
) -> Nearest:
    """The nearest training scene of each scene, plain or mirrored in Y; the first one of equals.

    groups, training_groups: if given, scenes of an equal group (a sequence) are not compared. Raises InputError unless
    all scenes are of one shape and each has a training scene to compare with.
    """
    shapes = {np.shape(labels) for labels in (*scenes, *training)}
    if len(shapes) != 1 or not len(scenes) or not len(training):
        found = f"{len(scenes)} and {len(training)} of the shapes {sorted(shapes)}"
        raise InputError("novelty", "scenes and training scenes of one shape", found)
    width = max(max(int(np.max(labels, where=labels != IGNORE, initial=0)) for labels in (*scenes, *training)), 1)
    bits = _pack(training, width.bit_length())
    rows = []
    for n, labels in enumerate(scenes):
        skip = np.zeros(len(training), bool)
        if groups is not None and training_groups is not None:
            skip = np.asarray(training_groups) == groups[n]
        if skip.all():
            raise InputError("novelty", "training scenes of another sequence", f"none for scene {n}")
        plain, mirrored = (
            np.where(skip, np.inf, _distances(_pack([view], width.bit_length()), bits))
            for view in (labels, labels[:, ::-1])
        )
        best = np.minimum(plain, mirrored)
        at = int(best.argmin())
        rows.append((best[at], at, mirrored[at] < plain[at]))
    near, index, flipped = zip(*rows, strict=True)
    return Nearest(np.array(near), np.array(index), np.array(flipped))


def _pack(scenes: Sequence[Labels], planes: int) -> _Bits:
    rows = [_pack_one(labels, planes) for labels in scenes]
    return _Bits(*(np.stack(part) for part in zip(*rows, strict=True)))


def _pack_one(labels: Labels, planes: int) -> tuple[UInt64[np.ndarray, "p w"], ...]:
    known = labels != IGNORE
    classes = np.where(known, labels, 0)
    return (
        np.stack([_words(classes >> plane & 1) for plane in range(planes)]),
        _words(classes != EMPTY),
        _words(known),
    )


def _words(bits: np.ndarray) -> UInt64[np.ndarray, "w"]:
    packed = np.packbits(bits.ravel())
    return np.pad(packed, (0, -len(packed) % 8)).view(np.uint64)


def _distances(one: _Bits, many: _Bits) -> Float[np.ndarray, "n"]:
    """From one scene to each of many."""
    found = np.empty(len(many.known))
    for start in range(0, len(found), _BLOCK):
        block = slice(start, start + _BLOCK)
        differ = ~many.occupied[block]
        for plane in range(one.planes.shape[1]):
            differ |= many.planes[block, plane] ^ one.planes[0, plane]
        same = np.bitwise_count(~differ).sum(axis=1, dtype=np.int64)
        either = (many.occupied[block] | one.occupied) & many.known[block] & one.known
        union = np.bitwise_count(either).sum(axis=1, dtype=np.int64)
        found[block] = np.where(union > 0, 1 - same / np.maximum(union, 1), 0.0)
    return found


@dataclass(frozen=True)
class Novelty:
    """Distances to the nearest training scene at QUANTILES: of generated, held-out and (other) training scenes.

    copied_share: share of the generated scenes nearer than the 1st percentile of held-out ones; copied_share_training:
    than that of training scenes to those of other sequences, nan where not asked; nearest: the generated scenes' own.
    """

    generated: tuple[float, ...]
    held_out: tuple[float, ...]
    training: tuple[float, ...]
    copied_share: float
    copied_share_training: float
    scenes: tuple[int, int, int]


def novelty(
    generated: Sequence[Labels],
    held_out: Sequence[Labels],
    training: Sequence[Labels],
    training_groups: Sequence[str] | None = None,
) -> tuple[Novelty, Nearest]:
    """The figures, and each generated scene's nearest training scene, to look at side by side. Raises InputError.

    training_groups: the training scenes' sequences; if given, as many training scenes as there are held-out ones,
    evenly spaced, are compared with those of other sequences.
    """
    ours, real = nearest_scenes(generated, training), nearest_scenes(held_out, training)
    own = np.full(1, np.nan)
    if training_groups is not None:
        chosen = np.unique(np.linspace(0, len(training) - 1, min(len(held_out), len(training))).astype(int))
        groups = [training_groups[n] for n in chosen]
        own = nearest_scenes([training[n] for n in chosen], training, groups, training_groups).distance
    figures = Novelty(
        generated=_quantiles(ours.distance),
        held_out=_quantiles(real.distance),
        training=_quantiles(own),
        copied_share=float((ours.distance < np.quantile(real.distance, 0.01)).mean()),
        copied_share_training=_share_below(ours.distance, own),
        scenes=(len(ours.distance), len(real.distance), 0 if training_groups is None else len(own)),
    )
    return figures, ours


def _quantiles(values: Float[np.ndarray, "n"]) -> tuple[float, ...]:
    return tuple(float(v) for v in np.quantile(values, QUANTILES))


def _share_below(values: Float[np.ndarray, "n"], yardstick: Float[np.ndarray, "m"]) -> float:
    if np.isnan(yardstick).any():
        return float("nan")
    return float((values < np.quantile(yardstick, 0.01)).mean())
