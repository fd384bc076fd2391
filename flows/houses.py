"""`occfactory houses`: a 3D-Craft root of procedural houses, which all else reads as if people had built them.

House i depends on its seed alone, the seed on the recipe's, the split and the house's place in it. val has other seeds
than train; test has other seeds, and styles with roofs that the other two never show together (materials.roof_kinds).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, model_validator

from flows.engine import Engine, run_plan
from flows.progress import PlanProgress
from flows.recipes import Config
from flows.shards import Plan, Stage
from pipeline.datasets.craft3d import House, write_house, write_splits
from pipeline.houses.build import build_house
from pipeline.houses.plan import Limits
from pipeline.scene.seeds import integer_seed

SPLITS = ("train", "val", "test")


class HouseRecipe(Config):
    """A root of houses."""

    houses: int = Field(ge=3)  # in all splits
    seed: int = Field(0, ge=0)  # the seed tree's root
    val_share: float = Field(0.1, gt=0, lt=0.5)  # of the houses
    test_share: float = Field(0.1, gt=0, lt=0.5)  # of the houses
    edge: int = Field(32, ge=24, le=128)  # of the cube that a house fits [blocks]
    blocks: int = Field(1024, ge=300, le=32768)  # at most in a house
    shard_houses: int = Field(100, ge=1)  # houses a shard, the unit of work
    threads: int = Field(1, ge=1)  # threads a worker

    @model_validator(mode="after")
    def _leaves_some(self) -> HouseRecipe:
        if self.sizes()["train"] < 1:
            raise ValueError("shares of val and test must leave houses to train on")
        return self

    def sizes(self) -> dict[str, int]:
        """Houses a split; each has one at least."""
        val, test = (max(1, round(self.houses * share)) for share in (self.val_share, self.test_share))
        return {"train": self.houses - val - test, "val": val, "test": test}


def make_houses(recipe: HouseRecipe, out: Path, engine: Engine = "none", workers: int = 1, quiet: bool = True) -> Path:
    """Write, or go on writing, a root of houses; its path. The bytes depend on the recipe alone. Raises InputError."""
    shards = -(-recipe.houses // recipe.shard_houses)
    plan = Plan("houses", (Stage("houses", 1, houses_stage, keep=True),), recipe, Path(out), shards)
    names: dict[str, tuple[str, ...]] = {
        split: tuple(name for own, name, _ in listed(recipe) if own == split) for split in SPLITS
    }

    def finish() -> None:
        write_splits(plan.out, names)

    with PlanProgress(plan, quiet) as progress:
        run_plan(plan, engine, workers, progress, finish=finish)
    rate = recipe.houses / max(progress.elapsed_s, 1e-9)
    progress.report(f"{plan.out}: {recipe.houses} houses, {rate:.1f} houses/s")
    return plan.out


def listed(recipe: HouseRecipe) -> Iterator[tuple[str, str, int]]:
    """(split, name, seed) of every house, training first."""
    for split, size in recipe.sizes().items():
        for place in range(size):
            yield split, f"{split}_{place:05d}", integer_seed(recipe.seed, f"houses {split}", place)


def houses_stage(recipe: HouseRecipe, out: Path, shard: int) -> list[str]:
    """Write one run of houses."""
    limits, written = Limits(recipe.edge, recipe.blocks), list[str]()
    first = shard * recipe.shard_houses
    for split, name, seed in list(listed(recipe))[first : first + recipe.shard_houses]:
        _, canvas = build_house(seed, limits, reserved=split == "test")
        written += write_house(out, House(name, canvas.ids, canvas.data).cropped())
    return written
