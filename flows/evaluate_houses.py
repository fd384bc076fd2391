"""`occfactory evaluate-houses`: do generated houses have the structure of held-out ones, are they new, do they differ?

Structure by pipeline.houses.check, a rate a check. Memorisation: the share of blocks, of those in either house, that a
house has in common with the nearest training house, beside the same of held-out houses. Diversity of a set: how much
two of its houses differ; of one map: how much two samples of the classes on a held-out house's map do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from flows.generators import load_generator
from flows.recipes import Config, weights_digest
from flows.scene_sets import SceneSet, folder_set, split_set
from pipeline.generators.protocol import Known
from pipeline.generators.scaffold import Scaffold
from pipeline.generators.tokens import placed
from pipeline.houses.check import CHECKS, check_house, rates
from pipeline.metrics.novelty import QUANTILES, Novelty, distance, novelty
from pipeline.scene.errors import InputError
from pipeline.scene.files import write_atomic, write_json
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.seeds import integer_seed, rng
from pipeline.scene.taxonomy import EMPTY, IGNORE

NEAR = 0.1  # relative gap up to which a rate is as in real houses
PAIRS = 500  # of houses, to tell how much a set differs within itself
Labels = UInt8[np.ndarray, "x y z"]


class HousesRecipe(Config):
    """What is compared with what."""

    real: Path  # a root with train and the held-out split
    generated: Path  # a root of generated houses
    split: str = "val"  # the held-out one
    houses: int | None = Field(None, ge=2)  # of each set, the first ones; None: all
    weights: Path | None = None  # of scaffold, to draw several samples on one map; None: not told
    maps: int = Field(4, ge=1)  # held-out maps that are drawn on
    draws: int = Field(4, ge=2)  # samples a map
    seed: int = Field(0, ge=0)  # of draws


@dataclass(frozen=True)
class OneMap:
    """Samples of classes on held-out maps. differing: share of blocks in which two samples of a map differ; as_built:
    share that is as in the house whose map it is."""

    maps: int
    draws: int
    differing: float
    as_built: float


@dataclass(frozen=True)
class HouseEvaluation:
    """What the table says. structure: {check: (real, generated)}; blocks: mean of a house; differing: mean distance of
    two houses of a set; (real, generated) each."""

    recipe: HousesRecipe
    sets: Mapping[str, tuple[int, str]]
    structure: Mapping[str, tuple[float, float]]
    blocks: tuple[float, float]
    differing: tuple[float, float]
    memorisation: Novelty
    one_map: OneMap | None
    weights: str = ""

    def near(self, check: str) -> bool:
        """Whether a rate is within a tenth of the real one."""
        real, generated = self.structure[check]
        return abs(generated - real) <= NEAR * real

    @property
    def near_share(self) -> float:
        """Share of the checks that real houses have anything to count in, that are within a tenth."""
        told = [name for name, (real, _) in self.structure.items() if not math.isnan(real)]
        return sum(self.near(name) for name in told) / max(len(told), 1)


def evaluate_houses(recipe: HousesRecipe) -> HouseEvaluation:
    """Compute everything. Raises InputError."""
    generator = None if recipe.weights is None else _scaffold(recipe.weights)
    sets = {
        "train": split_set(recipe.real, "train"),
        "real": split_set(recipe.real, recipe.split),
        "generated": folder_set(recipe.generated),
    }
    if recipe.houses is not None:
        sets |= {name: sets[name].part(range(min(recipe.houses, len(sets[name])))) for name in ("real", "generated")}
    labels = _on_one_grid(sets)
    counts = {name: rates(check_house(house) for house in labels[name]) for name in ("real", "generated")}
    memorisation, _ = novelty(labels["generated"], labels["real"], labels["train"])
    return HouseEvaluation(
        recipe,
        {name: (len(found), found.digest()) for name, found in sets.items()},
        {check: (counts["real"][check], counts["generated"][check]) for check in CHECKS},
        _both(labels, _blocks),
        _both(labels, lambda houses: _differing(houses, recipe.seed)),
        memorisation,
        None if generator is None else on_one_map(generator, labels["real"], recipe),
        "" if recipe.weights is None else weights_digest(recipe.weights),
    )


def _scaffold(weights: Path) -> Scaffold:
    generator = load_generator(weights)
    if not isinstance(generator, Scaffold):
        raise InputError(weights, "weights of scaffold", type(generator).__name__)
    return generator


def _on_one_grid(sets: Mapping[str, SceneSet]) -> dict[str, list[Labels]]:
    """All houses in one cube, in the middle of its floor as in training. Raises InputError on other scenes."""
    scenes = {name: [found.scene(k) for k in range(len(found))] for name, found in sets.items()}
    for name, found in scenes.items():
        if found[0].taxonomy.name != "minecraft":
            raise InputError(sets[name].root, "houses of Minecraft's blocks", found[0].taxonomy.name)
    edge = max(max(scene.labels.shape) for scene in itertools.chain(*scenes.values()))
    grid = VoxelGrid((edge, edge, edge), 1.0, (0.0, 0.0, 0.0))
    return {name: [placed(scene, grid) for scene in found] for name, found in scenes.items()}


def _both(labels: Mapping[str, list[Labels]], figure: Any) -> tuple[float, float]:
    return figure(labels["real"]), figure(labels["generated"])


def _blocks(houses: Sequence[Labels]) -> float:
    return float(np.mean([np.count_nonzero(house) for house in houses]))


def _differing(houses: Sequence[Labels], seed: int) -> float:
    """Mean distance of two houses, over all pairs or a seeded draw of them."""
    pairs = list(itertools.combinations(range(len(houses)), 2))
    order = rng(seed, "pairs", 0).permutation(len(pairs))[:PAIRS]
    return float(np.mean([distance(houses[pairs[k][0]], houses[pairs[k][1]]) for k in order])) if pairs else math.nan


def on_one_map(generator: Scaffold, real: Sequence[Labels], recipe: HousesRecipe) -> OneMap:
    """Draw classes again and again on the maps of held-out houses, the first that fit."""
    generator.source = None  # the maps are given
    shape = generator.grid.shape
    fit = [house for house in real if house.shape == shape or _small(house, shape)][: recipe.maps]
    if not fit:
        raise InputError("evaluate-houses", f"a held-out house that fits {shape}", "none")
    differ, equal = [], []
    for place, house in enumerate(fit):
        own = _moved(house, shape)
        known = Known(np.where(own != EMPTY, np.uint8(IGNORE), own))
        seeds = [integer_seed(recipe.seed, "one map", place, k) for k in range(recipe.draws)]
        samples = [s.labels[own != EMPTY] for s in generator.sample(recipe.draws, seeds, [known] * recipe.draws)]
        differ += [float((a != b).mean()) for a, b in itertools.combinations(samples, 2)]
        equal += [float((a == own[own != EMPTY]).mean()) for a in samples]
    return OneMap(len(fit), recipe.draws, float(np.mean(differ)), float(np.mean(equal)))


def _small(house: Labels, shape: tuple[int, int, int]) -> bool:
    places = np.argwhere(house)
    return bool((places.max(0) - places.min(0) < shape).all())


def _moved(house: Labels, shape: tuple[int, int, int]) -> Labels:
    """A house in the middle of another grid's floor."""
    from pipeline.houses.build import crop

    (body,) = crop(house)
    low = ((shape[0] - body.shape[0]) // 2, (shape[1] - body.shape[1]) // 2, 0)
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(a, a + n) for a, n in zip(low, body.shape, strict=True))] = body
    return labels


def table(found: HouseEvaluation) -> str:
    """The figures as Markdown."""
    counts = {name: count for name, (count, _) in found.sets.items()}
    head = f"{counts['generated']} generated houses beside {counts['real']} of {found.recipe.split}, {counts['train']}"
    lines = [f"{head} in training.", "", "| of | held out | generated | within 10 % |", "|---|---:|---:|---|"]
    for name, told in CHECKS.items():
        real, generated = found.structure[name]
        lines.append(f"| {name}: {told} | {real:.3f} | {generated:.3f} | {'yes' if found.near(name) else 'no'} |")
    lines += ["", "| | held out | generated |", "|---|---:|---:|"]
    lines.append(f"| blocks of a house | {found.blocks[0]:.0f} | {found.blocks[1]:.0f} |")
    lines.append(f"| two houses of the set differ in | {found.differing[0]:.3f} | {found.differing[1]:.3f} |")
    own = found.memorisation
    for k, share in enumerate(QUANTILES):
        if share in (0.0, 0.05, 0.5, 0.95):
            nearest = f"{1 - own.held_out[k]:.3f} | {1 - own.generated[k]:.3f}"
            lines.append(f"| equal to the nearest training house, quantile {1 - share:g} | {nearest} |")
    lines.append(f"| nearer to training than 99 % of held-out houses | 0.01 | {own.copied_share:.3f} |")
    if found.one_map is not None:
        one = found.one_map
        lines += ["", f"On {one.maps} held-out maps, {one.draws} samples each: two samples of a map differ in"]
        lines[-1] += f" {one.differing:.3f} of its blocks; {one.as_built:.3f} are as in the house it is of."
    return "\n".join(lines) + "\n"


def write_house_evaluation(found: HouseEvaluation, out: Path, command: str) -> None:
    """Write OUT/table.md and OUT/table.json."""
    figures = asdict(found) | {"recipe": found.recipe.model_dump(mode="json"), "quantiles": QUANTILES}
    figures |= {"near_share": found.near_share, "command": command}
    write_json(Path(out) / "table.json", _plain(figures))
    write_atomic(Path(out) / "table.md", f"`{command}`\n\n{table(found)}")


def _plain(value: Any) -> Any:
    """JSON has no nan: a figure that there isn't is null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
