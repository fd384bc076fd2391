"""A trained SSC network on disk: weights and a card that says what it was trained on and how to feed it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.datasets.kitti_root import KittiRoot
from pipeline.learning.checkpoint import load_model, read_card, save_model
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from ssc_eval.monoscene import MonoScene, MonoSceneConfig
from ssc_eval.samples import SampleConfig, SscDataset

KIND = "ssc"
AnyModel = TypeVar("AnyModel", bound=BaseModel)


def save_ssc(
    folder: Path, model: MonoScene, samples: SampleConfig, dataset: SscDataset, more: Mapping[str, Any]
) -> None:
    """Write weights and card; `more` is added to the card. Raises InputError."""
    grid = dataset.grid
    card = {
        "kind": KIND,
        "network": model.config.model_dump(mode="json", exclude={"weights", "download"}),
        "samples": samples.model_dump(mode="json"),
        "taxonomy": dataset.taxonomy.name,
        "classes": list(dataset.taxonomy.classes),
        "grid": {"shape": list(grid.shape), "voxel_size_m": grid.voxel_size_m, "origin_m": list(grid.origin_m)},
        **more,
    }
    save_model(folder, model, card)


def load_ssc(weights: Path) -> tuple[MonoScene, dict[str, Any]]:
    """The network in eval mode and its card (network, samples, taxonomy, classes, grid, ...). Raises InputError."""
    card = read_card(weights)
    if card.get("kind") != KIND:
        raise InputError(weights, "weights of an SSC network", f"kind {card.get('kind')}", "`ssc train` makes them")
    network = _part(MonoSceneConfig, card, "network", weights)
    model = MonoScene(network, card_grid(weights, card), len(card["classes"]))
    load_model(weights, model)
    return model.eval(), card


def samples_config(weights: Path, card: Mapping[str, Any]) -> SampleConfig:
    """How the network is fed. Raises InputError."""
    return _part(SampleConfig, card, "samples", weights)


def card_grid(weights: Path, card: Mapping[str, Any]) -> VoxelGrid:
    """The grid that the network predicts. Raises InputError."""
    try:
        table = card["grid"]
        x, y, z = table["shape"]
        ox, oy, oz = table["origin_m"]
        return VoxelGrid((x, y, z), table["voxel_size_m"], (ox, oy, oz))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(weights, "a card with a grid", repr(error)) from None


def check_fits(weights: Path, card: Mapping[str, Any], root: KittiRoot) -> None:
    """The dataset must have the network's grid and classes. Raises InputError."""
    grid = card_grid(weights, card)
    if grid != root.grid:
        raise InputError(root.path, f"the grid of {weights}, {grid}", str(root.grid), "`occfactory convert` resamples")
    if tuple(card["classes"]) != root.taxonomy.classes:
        raise InputError(root.path, f"the classes of {weights}, {card['taxonomy']}", root.taxonomy.name)


def _part(kind: type[AnyModel], card: Mapping[str, Any], name: str, weights: Path) -> AnyModel:
    try:
        return kind.model_validate(card.get(name))
    except ValidationError as error:
        raise InputError(weights, f"a card with {name}", str(error).splitlines()[0]) from None
