"""`occfactory evaluate-scenes`: how real generated scenes are, every measure beside what real scenes score themselves.

Reference is the real root's val split. Rows: each generated folder, and two floors: as many real training scenes, and
one half of the reference against the other. Frechet distances fall with N, so generated rows share one N.

Where held-out towns differ in style from training's, no model of the training scenes can come nearer than the training
floor. `reference="train"` takes that out: half of the training drives are reference, the other half the floor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from flows.evaluate_jobs import (
    VIEWS,
    Counts,
    Encoders,
    Features,
    Job,
    chunks,
    counts_job,
    features_job,
    image_encoder,
    invasion_fit_job,
    invasion_job,
    joined,
    novelty_job,
    run_jobs,
    scene_encoder,
)
from flows.recipes import Config
from flows.scene_sets import SceneSet, check_alike, drawn, folder_set, grid_of, halves, split_set
from pipeline.metrics.composition import Composition, compare
from pipeline.metrics.distances import frechet_distance, inception_score, kernel_distance
from pipeline.metrics.instances import ClassInstances, class_summary
from pipeline.metrics.invasion import InvasionModel, InvasionScore
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import rng
from pipeline.scene.taxonomy import Taxonomy

REFERENCE, FLOOR = "reference", "floor"  # keys of the sets that are no generated folder
FLOOR_TRAIN, FLOOR_HALVES = "real: train", "real: half of the reference"
KERNEL_SUBSETS = 100
NEAR = 0.15  # relative gap up to which a count is as in real scenes


class EvaluateRecipe(Config):
    """What is compared with what, and how."""

    real: Path  # a root with train and val splits
    generated: tuple[Path, ...] = Field(min_length=1)  # roots of generated scenes
    names: tuple[str, ...] = ()  # for people; empty: the folders' own
    scenes: int | None = Field(None, ge=4)  # of each generated folder, its first ones; None: as many as the least has
    encoder: Path | None = None  # folder of the 3D encoder's weights; None: no 3D figures
    inception: Path | None = None  # file of Inception weights; None: the offline random convolutions
    image_features: int = Field(48, ge=1)  # of the offline image encoder
    reference: Literal["val", "train"] = "val"  # what is compared with: held-out scenes, or half of training's drives
    novelty_scenes: int = Field(200, ge=1)  # of each set, compared with all training scenes
    seed: int = Field(0, ge=0)  # of draws, halves, kernel subsets and the erosions that calibrate invasion

    def encoders(self) -> Encoders:
        return Encoders(self.encoder, self.inception, self.image_features)


@dataclass(frozen=True)
class Row:
    """One set against its reference. figures and errors by measure; notes: why a figure is missing."""

    name: str
    floor: bool
    scenes: int
    reference: str
    reference_scenes: int
    figures: Mapping[str, float]
    errors: Mapping[str, float]
    notes: Mapping[str, str]
    composition: Composition
    instances: tuple[ClassInstances, ...]


@dataclass(frozen=True)
class CountRow:
    """A count of real scenes, and in rows' order of each generated set and of the training scenes (the floor)."""

    name: str
    real: float
    values: tuple[float, ...]

    def near(self, k: int) -> bool:
        """Whether a set's value is within 15 % of the real one."""
        return abs(self.values[k] - self.real) <= NEAR * abs(self.real)


@dataclass(frozen=True)
class Evaluation:
    """Everything that tables and plots say. sets: (name, folder, scenes, digest)."""

    recipe: EvaluateRecipe
    taxonomy: Taxonomy
    rows: tuple[Row, ...]
    counts: tuple[CountRow, ...]
    real_shares: tuple[float, ...]
    sets: tuple[tuple[str, str, int, str], ...]
    encoders: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())

    @property
    def generated(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.floor)


@dataclass(frozen=True, eq=False)
class _Measured:
    """What the jobs found, by set."""

    features: Mapping[str, Features]
    counts: Mapping[str, Counts]
    invasion: Mapping[str, InvasionScore]
    distances: Mapping[str, np.ndarray]
    model: InvasionModel


def evaluate(recipe: EvaluateRecipe, workers: int = 1, quiet: bool = True) -> Evaluation:
    """Compute everything. Raises InputError (too few scenes, another grid or taxonomy, no weights), JobError."""
    sets = scene_sets(recipe)
    _check(recipe, sets)
    half = halves(sets[REFERENCE], recipe.seed)
    found = _measure(recipe, sets, half, workers, quiet)
    taxonomy = grid_of(sets[REFERENCE])[1]
    folders = [name for name in sets if name not in (REFERENCE, FLOOR)]
    real = (REFERENCE, found.features[REFERENCE])
    rows = [_row(recipe, found, taxonomy, (name, False), (name, found.features[name]), real) for name in folders]
    rows.append(_row(recipe, found, taxonomy, (FLOOR_TRAIN, True), (FLOOR, found.features[FLOOR]), real))
    parts = [found.features[REFERENCE].part(indices) for indices in half]
    rows.append(_row(recipe, found, taxonomy, (FLOOR_HALVES, True), ("half a", parts[0]), ("half b", parts[1])))
    return Evaluation(
        recipe,
        taxonomy,
        tuple(rows),
        tuple(count_rows(found.counts[REFERENCE], [found.counts[n] for n in (*folders, FLOOR)], taxonomy)),
        compare(found.counts[REFERENCE].voxels, found.counts[REFERENCE].voxels, taxonomy).shares,
        tuple((n, str(s.root), len(s), found.counts[n].digest) for n, s in sets.items()),
        _encoder_facts(recipe),
        tuple(_warnings(recipe, sets)),
    )


def scene_sets(recipe: EvaluateRecipe) -> dict[str, SceneSet]:
    """Every set by name: the generated ones, as many training scenes as floor, the reference. Raises InputError."""
    if recipe.names and len(recipe.names) != len(recipe.generated):
        raise InputError("--name", f"{len(recipe.generated)}, one a folder", f"{len(recipe.names)}")
    names = recipe.names or tuple(folder.resolve().name for folder in recipe.generated)
    taken = {REFERENCE, FLOOR, FLOOR_TRAIN, FLOOR_HALVES}
    if len(set(names)) != len(names) or set(names) & taken:
        raise InputError("--name", "different names, none of them reference or floor", ", ".join(names), "give --name")
    folders = [folder_set(folder, name) for name, folder in zip(names, recipe.generated, strict=True)]
    count = recipe.scenes or min(len(found) for found in folders)
    for found in folders:
        if len(found) < count:
            raise InputError(found.root, f"at least {count} scenes", str(len(found)), "give fewer --scenes")
    val, train = split_set(recipe.real, "val"), split_set(recipe.real, "train")
    cut = {found.name: found.part(range(count)) for found in folders}
    if recipe.reference == "train":
        first, second = (train.part(indices) for indices in halves(train, recipe.seed))
        return {**cut, FLOOR: drawn(second, count, recipe.seed), REFERENCE: drawn(first, len(val), recipe.seed)}
    return {**cut, FLOOR: drawn(train, count, recipe.seed), REFERENCE: val}


def _check(recipe: EvaluateRecipe, sets: Mapping[str, SceneSet]) -> None:
    """Find what can't work before any work is done."""
    solid = scene_encoder(recipe.encoders())
    width = max(image_encoder(recipe.encoders()).dimension, solid.config.features if solid else 0)
    grid, taxonomy = grid_of(sets[REFERENCE])
    if solid is not None and (solid.config.shape != grid.shape or solid.config.classes != len(taxonomy.classes)):
        expected = f"an encoder of {grid.shape} voxels and {len(taxonomy.classes)} classes"
        found = f"{solid.config.shape} and {solid.config.classes}"
        raise InputError(recipe.encoder or "", expected, found, "train one on this root, or give --encoder none")
    for name, scenes in sets.items():
        check_alike(scenes, sets[REFERENCE])
        if len(scenes) <= width:
            remedy = "give more scenes, or fewer features"
            raise InputError(scenes.root, f"more {name} scenes than features, {width}", str(len(scenes)), remedy)


def _measure(
    recipe: EvaluateRecipe,
    sets: Mapping[str, SceneSet],
    half: tuple[list[int], list[int]],
    workers: int,
    quiet: bool,
) -> _Measured:
    train = split_set(recipe.real, "train")
    whole = {**sets, "half a": sets[REFERENCE].part(half[0]), "half b": sets[REFERENCE].part(half[1])}
    fewer = {name: drawn(scenes, recipe.novelty_scenes, recipe.seed) for name, scenes in sets.items()}
    jobs: dict[tuple[str, str, int], Job] = {("fit", "", 0): (invasion_fit_job, (sets[FLOOR], recipe.seed))}
    for name, scenes in fewer.items():
        known = name == FLOOR or (name == REFERENCE and recipe.reference == "train")
        jobs[("near", name, 0)] = (novelty_job, (scenes, train, known))
    for name, scenes in sets.items():
        jobs |= {("seen", name, k): (features_job, (p, recipe.encoders())) for k, p in enumerate(chunks(scenes))}
    jobs |= {("count", name, 0): (counts_job, (scenes,)) for name, scenes in whole.items()}
    found = run_jobs(jobs, workers, "measuring", quiet)
    model = found[("fit", "", 0)]
    scored = run_jobs({n: (invasion_job, (s, model)) for n, s in whole.items()}, workers, "invasion", quiet)

    def parts(kind: str, name: str) -> list[Any]:
        return [found[key] for key in sorted(k for k in found if k[:2] == (kind, name))]

    return _Measured(
        {name: joined(parts("seen", name)) for name in sets},
        {name: found[("count", name, 0)] for name in whole},
        scored,
        {name: found[("near", name, 0)] for name in sets},
        model,
    )


def _row(
    recipe: EvaluateRecipe,
    found: _Measured,
    taxonomy: Taxonomy,
    title: tuple[str, bool],
    own: tuple[str, Features],
    other: tuple[str, Features],
) -> Row:
    figures, errors, notes = feature_figures(own[1], other[1], recipe.seed)
    counts, reference = found.counts[own[0]], found.counts[other[0]]
    composition = compare(counts.voxels, reference.voxels, taxonomy)
    invasion = found.invasion[own[0]]
    figures |= {"class KL": composition.kl, "foreground share": composition.foreground_share}
    figures |= {"invasion": invasion.score}
    errors |= {"invasion": invasion.error}
    if own[0] in found.distances:
        figures |= novelty_figures(found.distances[own[0]], found.distances[REFERENCE], found.distances[FLOOR])
    size, reference_size = len(own[1].images[VIEWS[0]]), len(other[1].images[VIEWS[0]])
    instances = class_summary(counts.instances, taxonomy)
    return Row(title[0], title[1], size, other[0], reference_size, figures, errors, notes, composition, instances)


def feature_figures(
    own: Features, other: Features, seed: int
) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Distances of features: figures, their standard deviations, and why figures are missing."""
    figures: dict[str, float] = {}
    errors: dict[str, float] = {}
    notes: dict[str, str] = {}
    pairs = {f"{view}": (own.image_rows(view), other.image_rows(view)) for view in (*VIEWS, "both")}
    if own.solid is not None and other.solid is not None:
        pairs["3D"] = (own.solid, other.solid)
    else:
        notes |= {"F3D": "no 3D encoder was given", "K3D": "no 3D encoder was given"}
    for what, (a, b) in pairs.items():
        frechet, kernel = ("F3D", "K3D") if what == "3D" else (f"FID {what}", f"KID {what}")
        try:
            figures[frechet] = frechet_distance(a, b)
        except InputError as error:
            notes[frechet] = f"{error.expected}, not {error.found}"
        size = max(2, min(len(a), len(b)) // 2)
        figures[kernel], errors[kernel] = kernel_distance(a, b, rng(seed, what, 0), KERNEL_SUBSETS, size)
    if own.probabilities is None:
        notes["IS"] = "the image encoder has no trained class head"
    else:
        rows = np.concatenate([own.probabilities[view] for view in VIEWS])
        figures["IS"], errors["IS"] = inception_score(rows[rng(seed, "IS", 0).permutation(len(rows))])
    return figures, errors, notes


def novelty_figures(own: np.ndarray, val: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """Median distance to the nearest training scene; shares nearer than the nearest 1 % of real ones."""
    return {
        "nearest": float(np.median(own)),
        "copied": float((own < np.quantile(val, 0.01)).mean()),
        "copied (train)": float((own < np.quantile(train, 0.01)).mean()),
    }


def count_rows(real: Counts, ours: Sequence[Counts], taxonomy: Taxonomy) -> list[CountRow]:
    """Counts of real and other scenes side by side; classes without real instances are left out."""
    tables = [_count_table(counts, taxonomy) for counts in (real, *ours)]
    return [
        CountRow(name, value, tuple(table[name] for table in tables[1:]))
        for name, value in tables[0].items()
        if not math.isnan(value)
    ]


def _count_table(counts: Counts, taxonomy: Taxonomy) -> dict[str, float]:
    composition = compare(counts.voxels, counts.voxels, taxonomy)
    shape = counts.topology
    table = {
        "foreground share of occupied voxels": composition.foreground_share,
        "occupied share of known voxels": composition.occupied_share,
        "road connectivity": shape.road_connectivity,
        "road components a scene": shape.road_components,
        "floating share": shape.floating_share,
        **shape.relations,
    }
    for row in class_summary(counts.instances, taxonomy):
        known = row.instances > 0
        table[f"{row.name}: instances a scene"] = row.per_scene if known else float("nan")
        table[f"{row.name}: mean size [voxels]"] = row.mean_voxels
    return table


def _encoder_facts(recipe: EvaluateRecipe) -> dict[str, Any]:
    flat, solid = image_encoder(recipe.encoders()), scene_encoder(recipe.encoders())
    facts: dict[str, Any] = {"2D": {"name": flat.name, "digest": flat.digest, "features": flat.dimension}}
    if solid is not None:
        facts["3D"] = {"name": solid.name, "digest": solid.digest, "features": solid.config.features}
    return facts


def _warnings(recipe: EvaluateRecipe, sets: Mapping[str, SceneSet]) -> list[str]:
    solid = scene_encoder(recipe.encoders())
    width = max(image_encoder(recipe.encoders()).dimension, solid.config.features if solid else 0)
    sizes = {**{name: len(scenes) for name, scenes in sets.items()}, FLOOR_HALVES: len(sets[REFERENCE]) // 2}
    few = [f"{name} ({n})" for name, n in sizes.items() if n < 8 * width]
    return [f"Frechet distances rest on fewer than 8 scenes a feature ({width}): {', '.join(few)}"] if few else []
