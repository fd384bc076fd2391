"""Background invasion: how much of the foreground's own volume and outline is eaten, 0..10, 10 = as in real scenes.

The paper (Comp-D3PM) lets people score it; this is an automatic stand-in, higher is better as there. Four losses a
foreground class, each over all its voxels or instances of a set of scenes:

    volume     minus the mean logarithm of an instance's voxels: eroded and broken instances are small
    cohesion   share of the known voxels among a voxel's 26 neighbours not of its class: eaten shapes are ragged
    contact    share of the known neighbours that are background, those below left out, on which things stand
    gaps       background or empty voxels between two voxels of the class at most three apart along an axis, against
               these and the class's own: eaten shapes have holes

Real scenes eroded by known amounts (`erosion`: grow and replace, averaged) turn each loss into an equivalent
strength p, that at which real scenes lose as much. No credit is given for less loss than real scenes have. A class's
damage is the mean over its losses, the set's the mean over classes, weighted by the square root of their share of real
foreground voxels; a class with less than a twentieth of its real voxels a scene counts as eaten whole.

    score = 10 (1 - damage / 0.5)

so 0 is as bad as real scenes with half of their surface gone; past that it saturates and needn't fall any more. A loss
takes part in a class only where its whole range is at least four times the standard error of the real value. Sizes
differ between towns, so the score of held-out real scenes, below 10, has to stand beside every figure. What is *larger*
than real is counted by `instances`, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pipeline.metrics.erosion import Kind, prepare
from pipeline.metrics.instances import OFFSETS_26, Components, components
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import rng
from pipeline.scene.taxonomy import EMPTY, IGNORE, Taxonomy

Labels = UInt8[np.ndarray, "x y z"]
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.5)
PARTS = ("volume", "cohesion", "contact", "gaps")
CALIBRATION: tuple[Kind, ...] = ("grow", "replace")
FORMAT = "occfactory-invasion-1"
VANISHED = 0.05  # share of the real voxels a scene below which a class counts as eaten whole
_CLEAR = 4.0  # standard errors that a loss's range must have
_BLOCKS = 10  # consecutive parts of a set, left out in turn for its standard error
_REACH = 3  # voxels; how far apart two voxels with a gap between them may be
_AXES = np.eye(3, dtype=int)


@dataclass(frozen=True)
class ClassCurves:
    """A class in real scenes: its weight, voxels a scene, and each loss at the model's levels, never falling."""

    class_id: int
    name: str
    weight: float
    voxels_per_scene: float
    losses: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class InvasionModel:
    """What real scenes lose at known strengths. scenes: how many; foreground: class ids that are foreground."""

    scenes: int
    levels: tuple[float, ...]
    foreground: tuple[int, ...]
    classes: tuple[ClassCurves, ...]

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


def model_from_json(table: Mapping[str, Any]) -> InvasionModel:
    """The model that `to_json` wrote. Raises InputError."""
    try:
        if table["format"] != FORMAT:
            raise ValueError(f"format {table['format']!r}")
        classes = tuple(
            ClassCurves(
                int(row["class_id"]),
                str(row["name"]),
                float(row["weight"]),
                float(row["voxels_per_scene"]),
                {str(part): tuple(float(v) for v in curve) for part, curve in row["losses"].items()},
            )
            for row in table["classes"]
        )
        levels = tuple(float(p) for p in table["levels"])
        return InvasionModel(int(table["scenes"]), levels, tuple(int(k) for k in table["foreground"]), classes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError("invasion model", f"a table of {FORMAT}", f"{error!r}", "fit it again") from None


@dataclass(frozen=True)
class InvasionScore:
    """score: 0..10; error: its standard error (leaving out a tenth of the scenes in turn); scenes: how many.

    damage: equivalent strength 0..0.5 by class name; parts: the same by class name and loss, empty where a class
    counts as eaten whole.
    """

    score: float
    error: float
    scenes: int
    damage: Mapping[str, float]
    parts: Mapping[str, Mapping[str, float]]


def fit_invasion(scenes: Sequence[Labels], taxonomy: Taxonomy, seed: int) -> InvasionModel:
    """Learn real scenes' losses, whole and eroded. seed: of the erosions. Raises InputError without any foreground."""
    foreground = taxonomy.is_foreground()
    blocks = _block_sums(scenes, foreground)
    real = blocks.sum(axis=0)
    voxels = real[:, 2]
    if not voxels.any():
        raise InputError("background invasion", "real scenes with foreground", f"none in {len(scenes)} scenes")
    curves = np.stack([losses(real), *(_eroded(scenes, foreground, p, seed) for p in LEVELS[1:])], axis=-1)
    curves = np.maximum.accumulate(curves, axis=-1)  # (256, parts, levels)
    error = _standard_error(losses(blocks))
    clear = (curves[..., -1] - curves[..., 0] >= _CLEAR * error) & (curves[..., -1] > curves[..., 0])
    classes = tuple(
        ClassCurves(
            class_id=k,
            name=taxonomy.classes[k],
            weight=float(np.sqrt(voxels[k] / voxels.sum())),
            voxels_per_scene=float(voxels[k] / len(scenes)),
            losses={part: tuple(curves[k, n].tolist()) for n, part in enumerate(PARTS) if clear[k, n]},
        )
        for k in sorted(taxonomy.foreground)
        if voxels[k] and clear[k].any()
    )
    return InvasionModel(len(scenes), LEVELS, tuple(sorted(taxonomy.foreground)), classes)


def _eroded(
    scenes: Sequence[Labels], foreground: Bool[np.ndarray, "256"], p: float, seed: int
) -> Float[np.ndarray, "256 parts"]:
    """The losses at strength p, the mean over the kinds of erosion; a class that is gone keeps nan."""
    found = []
    for kind in CALIBRATION:
        total = np.zeros((256, _SUMS))
        for n, labels in enumerate(scenes):
            erosion = prepare(labels, foreground, kind, rng(seed, f"erosion/{kind}", n))
            total += scene_sums(erosion.at(labels, p), foreground)
        found.append(losses(total))
    return np.mean(found, axis=0)


def invasion_score(model: InvasionModel, scenes: Iterable[Labels]) -> InvasionScore:
    """Score scenes against the model's real ones. Raises InputError on no scenes or a model without classes."""
    foreground = np.zeros(256, bool)
    foreground[list(model.foreground)] = True
    scenes = list(scenes)
    if not scenes or not model.classes:
        raise InputError("background invasion", "scenes, and a model with classes", f"{len(scenes)} scenes")
    blocks = _block_sums(scenes, foreground)
    sizes = np.array([len(part) for part in np.array_split(np.arange(len(scenes)), len(blocks))])
    total = blocks.sum(axis=0)
    score, parts = _score(model, total, len(scenes))
    left_out = [
        _score(model, total - b, len(scenes) - n)[0] for b, n in zip(blocks, sizes, strict=True) if len(blocks) > 1
    ]
    error = np.sqrt((len(left_out) - 1) * np.var(left_out)) if left_out else np.nan
    damage = {name: _damage(model, row) for name, row in parts.items()}
    return InvasionScore(score, float(error), len(scenes), damage, parts)


def _score(
    model: InvasionModel, total: Float[np.ndarray, "256 sums"], scenes: int
) -> tuple[float, dict[str, dict[str, float]]]:
    values = losses(total)
    parts: dict[str, dict[str, float]] = {}
    for row in model.classes:
        gone = total[row.class_id, 2] / scenes < VANISHED * row.voxels_per_scene
        parts[row.name] = {} if gone else _strengths(model.levels, row, values[row.class_id])
    damage = np.array([_damage(model, parts[row.name]) for row in model.classes])
    weight = np.array([row.weight for row in model.classes])
    return float(10 * (1 - (weight @ damage) / weight.sum() / model.levels[-1])), parts


def _strengths(levels: tuple[float, ...], row: ClassCurves, values: Float[np.ndarray, "parts"]) -> dict[str, float]:
    """Each loss as the strength at which real scenes lose as much."""
    return {
        part: 0.0 if value <= row.losses[part][0] else float(np.interp(value, row.losses[part], levels))
        for part, value in zip(PARTS, values.tolist(), strict=True)
        if part in row.losses
    }


def _damage(model: InvasionModel, parts: Mapping[str, float]) -> float:
    return float(np.mean(list(parts.values()))) if parts else model.levels[-1]


_SUMS = 8  # instances, sum of log voxels, voxels, neighbours: unlike, known; beside: background, known; gaps


def _block_sums(scenes: Iterable[Labels], foreground: Bool[np.ndarray, "256"]) -> Float[np.ndarray, "blocks 256 sums"]:
    """Sums over each of ten consecutive parts of the scenes (fewer where there are fewer scenes)."""
    scenes = list(scenes)
    parts = np.array_split(np.arange(len(scenes)), min(_BLOCKS, max(len(scenes), 1)))
    return np.stack([sum((scene_sums(scenes[n], foreground) for n in part), np.zeros((256, _SUMS))) for part in parts])


def _standard_error(blocks: Float[np.ndarray, "b 256 parts"]) -> Float[np.ndarray, "256 parts"]:
    """Of the mean over blocks, those without the class left out; 0 where fewer than two have it."""
    known = np.isfinite(blocks)
    count = known.sum(axis=0)
    mean = np.where(known, blocks, 0).sum(axis=0) / np.maximum(count, 1)
    square = np.where(known, (blocks - mean) ** 2, 0).sum(axis=0)
    return np.where(count > 1, np.sqrt(square / np.maximum(count - 1, 1) / np.maximum(count, 1)), 0.0)


def losses(sums: Float[np.ndarray, "*n sums"]) -> Float[np.ndarray, "*n parts"]:
    """The four losses from sums (see `scene_sums`); nan where there is nothing to divide by."""
    instances, log_voxels, voxels, unlike, known, background, beside, gaps = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = (-log_voxels / instances, unlike / known, background / beside, gaps / (gaps + voxels))
    return np.stack(parts, axis=-1)


def scene_sums(labels: Labels, foreground: Bool[np.ndarray, "256"]) -> Float[np.ndarray, "256 sums"]:
    """What the losses are made of, summed over a scene, a row a label."""
    found = components(labels, foreground)
    padded = np.pad(labels, _REACH, constant_values=IGNORE)
    unlike, known, background, beside = _neighbours(found, padded, foreground)
    size = np.bincount(found.component, minlength=found.number)
    class_id = np.zeros(found.number, np.uint8)
    class_id[found.component] = found.label

    def by_class(label: UInt8[np.ndarray, "n"], weight: Float[np.ndarray, "n"] | None = None) -> np.ndarray:
        return np.bincount(label, weight, minlength=256).astype(np.float64)

    neighbours = [by_class(found.label, value) for value in (unlike, known, background, beside)]
    instances = [by_class(class_id), by_class(class_id, np.log(size)), by_class(found.label)]
    return np.stack([*instances, *neighbours, by_class(_gaps(found, padded, foreground))], axis=1)


def _neighbours(
    found: Components, padded: UInt8[np.ndarray, "x2 y2 z2"], foreground: Bool[np.ndarray, "256"]
) -> tuple[Int[np.ndarray, "v"], ...]:
    """Of each voxel's 26 neighbours: (unlike it, known) and, of those not below it, (background, known)."""
    near = found.position[:, None] + _REACH + OFFSETS_26
    cells = padded[near[..., 0], near[..., 1], near[..., 2]]  # (v, 26)
    known = cells != IGNORE
    above = known & (OFFSETS_26[:, 2] >= 0)
    background = above & (cells != EMPTY) & ~foreground[cells]
    unlike = known & (cells != found.label[:, None])
    return unlike.sum(axis=1), known.sum(axis=1), background.sum(axis=1), above.sum(axis=1)


def _gaps(
    found: Components, padded: UInt8[np.ndarray, "x2 y2 z2"], foreground: Bool[np.ndarray, "256"]
) -> UInt8[np.ndarray, "g"]:
    """The class of each gap: a voxel, no foreground, on a line between two voxels of that class; each counts once."""
    keys = [np.zeros(0, np.int64)]
    for axis in _AXES:
        steps = found.position[:, None] + _REACH + np.arange(1, _REACH + 1)[:, None] * axis  # (v, 3, 3)
        cells = padded[steps[..., 0], steps[..., 1], steps[..., 2]]
        flat = np.ravel_multi_index(tuple(np.moveaxis(steps, -1, 0)), padded.shape)
        free = (cells != IGNORE) & ~foreground[cells]
        for reach in range(2, _REACH + 1):
            closed = free[:, : reach - 1].all(axis=1) & (cells[:, reach - 1] == found.label)
            keys.append((flat[closed, : reach - 1] * 256 + found.label[closed, None].astype(np.int64)).ravel())
    return (np.unique(np.concatenate(keys)) % 256).astype(np.uint8)
