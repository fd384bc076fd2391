"""What a build draws its images with: a recipe's fields from folders, checked before any work; loaded once a process.

A folder may be given by the name of weights that ship with the project, such as images_small.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.image_critic import THRESHOLDS_NAME
from flows.image_judge import judge_digest, load_judge
from flows.recipes import ControlNetImages, validated
from pipeline.images.base import CONTROLNET_NAME, read_card
from pipeline.images.config import ControlConfig, conditioning_channels
from pipeline.images.critic import Judge, check_classes
from pipeline.images.fidelity import Thresholds, loosened, read_thresholds
from pipeline.images.loading import Source, check_control, find_pipeline, load_pipeline, source_digest
from pipeline.images.palettes import Palettes
from pipeline.images.prompts import load_words
from pipeline.images.synthesis import Synthesizer
from pipeline.learning.checkpoint import CARD_NAME
from pipeline.learning.checkpoint import read_card as critic_card
from pipeline.scene.errors import InputError
from pipeline.scene.files import data_path
from pipeline.scene.taxonomy import Taxonomy

NAMES = {"weights": "pipeline", "critic": "critic"}  # of folders inside data/weights/NAME


def image_fields(now: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """A recipe's `images`: `now` with the chosen kind, weights, controlnet and critic. Raises InputError.

    What the control image shows and how prompts are worded is as the weights learned it, where their card tells, and
    drawing goes as whoever trained them drew the pictures of validation.
    """
    kind = chosen.get("kind", now["kind"])
    if kind == "render":
        if len(chosen) > ("kind" in chosen):
            raise InputError("images", "images.kind=controlnet for a pipeline's folders", "images.kind=render")
        return {"kind": kind}
    folders = {name: now.get(name) for name in ("weights", "controlnet", "critic")}
    folders |= {name: folder_of(name, value) for name, value in chosen.items() if name != "kind"}
    if kind != "controlnet" or folders["weights"] is None:
        what = "images.kind render, or controlnet with images.weights=FOLDER"
        raise InputError("recipe", what, f"{kind}, {folders['weights'] or 'no weights'}")
    found = {
        **now,
        **folders,
        "kind": kind,
        "weights_digest": pipeline_digest(folders["weights"], folders["controlnet"]),
    }
    if {"weights", "controlnet"} & chosen.keys():
        found |= _learned_with(folders["controlnet"] and folders["controlnet"].parent, folders["weights"])
    found["critic_digest"] = None if folders["critic"] is None else judge_digest(folders["critic"])
    return validated(ControlNetImages, found).model_dump() | folders


def folder_of(name: str, value: str) -> Path | None:
    """A folder given to a recipe: a path, the name of shipped weights, or none for ""."""
    shipped = Path("weights") / value / NAMES.get(name, CONTROLNET_NAME)
    if not value or value in ("null", "none"):
        return None
    if "/" not in value and not Path(value).exists():
        return data_path(shipped.as_posix())
    return Path(value)


def _learned_with(*folders: Path | None) -> dict[str, Any]:
    """Control image, prompts and synthesis of the first card that tells of its recipe."""
    recipe = training_recipe(*folders)
    return {name: recipe["pairs"][name] for name in ("control", "prompt")} | synthesis_of(recipe) if recipe else {}


def training_recipe(*folders: Path | None) -> dict[str, Any]:
    """What the first card says that tells of its recipe, as a table; empty where none does."""
    recipes = (((read_card(folder) if folder else None) or {}).get("recipe") for folder in folders)
    return next(
        (recipe for recipe in recipes if isinstance(recipe, dict) and isinstance(recipe.get("pairs"), dict)), {}
    )


def synthesis_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A training recipe's settings of drawing, as the field `synthesis`."""
    found = recipe.get("control", {}).get("synthesis")
    return {"synthesis": found} if found else {}


def pipeline_digest(weights: Path, controlnet: Path | None = None) -> str:
    """SHA-256 of the contents of a pipeline and, if one is given, another ControlNet. Raises InputError."""
    return source_digest(find_pipeline(weights, controlnet))


@dataclass(frozen=True, eq=False)
class Studio:
    """What draws and judges: a pipeline, a critic with its bounds (None: nothing is judged), and the multiple that
    both ask of image sizes [px]."""

    synthesizer: Synthesizer
    critic: Judge | None
    bounds: Thresholds | None
    multiple: int
    palettes: Palettes | None  # where the control image has one


def check_weights(images: ControlNetImages, taxonomy: Taxonomy) -> None:
    """Find what would fail in the images stage after hours of other stages. Raises InputError."""
    source = find_pipeline(images.weights, images.controlnet)
    if "controlnet" not in source.configs:
        raise InputError(images.weights, "a pipeline with a ControlNet", "none", "give images.controlnet=FOLDER")
    check_control(source, conditioning_channels(images.control))
    load_words(images.prompt.words)
    if images.critic is not None:
        check_independent("images.critic", images.critic, teachers(images.weights, images.controlnet))
    studio(images, taxonomy)


def teachers(weights: Path, controlnet: Path | None) -> list[dict[str, str]]:
    """Files and their SHA-256 of each critic that had a part in training a pipeline or its ControlNet."""
    folders = [folder for folder in (controlnet and controlnet.parent, weights) if folder]
    return [card["critic"] for folder in folders if (card := read_card(folder) or {}).get("critic")]


def check_independent(subject: str, critic: Path, taught: Sequence[Mapping[str, str]]) -> None:
    """A judge that had a part in the training of what it judges finds what it was shown. Raises InputError."""
    own = critic / "weights"
    if taught and (own / CARD_NAME).is_file() and critic_card(own)["files"] in taught:
        remedy = "train one with another train.seed"
        raise InputError(subject, "another critic than images were learned with", str(critic), remedy)


@functools.lru_cache(maxsize=1)
def studio(images: ControlNetImages, taxonomy: Taxonomy) -> Studio:
    """Loaded once a process; weights must be those that the recipe was made with. Raises InputError."""
    source = find_pipeline(images.weights, images.controlnet)
    _same(images.weights, source_digest(source), images.weights_digest)
    critic, bounds, multiple = None, None, source.multiple
    if images.critic is not None:
        _same(images.critic, judge_digest(images.critic), images.critic_digest)
        critic = load_judge(images.critic, taxonomy)
        check_classes(critic, taxonomy.classes)
        bounds = loosened(read_thresholds(images.critic / THRESHOLDS_NAME), images.slack)
        multiple = math.lcm(multiple, critic.multiple)
    pipeline = load_pipeline(
        images.weights,
        images.controlnet,
        conditioning_channels=conditioning_channels(images.control),
        size=(multiple, multiple),
    )
    palettes = control_palettes(images.control, source, taxonomy)
    return Studio(Synthesizer(pipeline, images.synthesis), critic, bounds, multiple, palettes)


def control_palettes(control: ControlConfig, source: Source, taxonomy: Taxonomy) -> Palettes | None:
    """Those in the ControlNet's folder, where the control image has one. Raises InputError."""
    if "palette" not in control.parts:
        return None
    return Palettes.read(source.folders["controlnet"], taxonomy.classes)


def _same(folder: Path, found: str, expected: str | None) -> None:
    if found != expected:
        raise InputError(folder, f"the recipe's weights, {str(expected)[:12]}...", f"{found[:12]}...")
