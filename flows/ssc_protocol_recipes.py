"""Recipes of the protocols' matrix: functions that return one whole config. `tiny` is their twin for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flows import ssc_recipes
from flows.changes import apply_changes, table_of
from flows.recipes import validated
from pipeline.learning.config import Schedule
from pipeline.scene.errors import InputError
from ssc_eval.protocols import ProtocolRecipe
from ssc_eval.samples import Source
from ssc_eval.training import SscConfig

ANY = (Source(root=Path()),)  # a recipe of training wants sources; the matrix has its own
FEWER = {"fractions": (0.05, 0.25, 1.0), "counts": (30, 100)}  # what two cores can do
PUBLISHED_STEPS = 30 * 3834 // 4  # 30 epochs over SemanticKITTI's training split in batches of 4


def published() -> ProtocolRecipe:
    """All protocols at MonoScene's published setting, in steps instead of epochs: for GPUs."""
    base = ssc_recipes.published(ANY)
    schedule = Schedule(kind="multistep", milestones=(PUBLISHED_STEPS * 2 // 3,))
    changes = {"epochs": None, "steps": PUBLISHED_STEPS, "schedule": schedule, "validate_every": 0}
    return _of(base.model_copy(update={"training": base.training.model_copy(update=changes)}))


def full() -> ProtocolRecipe:
    """All protocols at the small setting: 72 trainings, for 200 synthetic frames with renders beside their images."""
    return _of(ssc_recipes.small(ANY))


def small() -> ProtocolRecipe:
    """What two cores can do: the small setting, fractions of 5, 25 and 100 %; 42 trainings where `full` has 72."""
    return full().model_copy(update=FEWER)


def surfaces() -> ProtocolRecipe:
    """`small` with networks that predict surfaces, trained longer: some fourteen times as long a run."""
    return _of(ssc_recipes.surfaces(ANY)).model_copy(update=FEWER)


def tiny() -> ProtocolRecipe:
    """Every protocol in seconds, for tests: what it learns is of no use."""
    base = _of(ssc_recipes.tiny(ANY))
    return base.model_copy(update={"fractions": (0.5, 1.0), "counts": (2,), "seeds": (0, 1), "adapt_frames": 3})


def _of(base: SscConfig) -> ProtocolRecipe:
    parts = {"network": base.network, "samples": base.samples, "losses": base.losses, "training": base.training}
    return ProtocolRecipe(**parts, norm_frames=base.norm_frames, surfaces=base.surfaces)


PROTOCOL_RECIPES: dict[str, Callable[[], ProtocolRecipe]] = {
    f.__name__: f for f in (published, full, small, surfaces, tiny)
}


def protocol_recipe(name: str, changes: tuple[str, ...] = ()) -> ProtocolRecipe:
    """A recipe by name with "path=value" changes, such as training.steps=300 or seeds=[0]. Raises InputError."""
    if name not in PROTOCOL_RECIPES:
        raise InputError("recipe", f"one of {', '.join(PROTOCOL_RECIPES)}", repr(name))
    table = table_of(PROTOCOL_RECIPES[name]())
    apply_changes(table, changes)
    return validated(ProtocolRecipe, table)
