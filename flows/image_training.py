"""`occfactory images train-base` and `train-controlnet`: pipelines learned from a root's photographs and renders.

OUT/vae, OUT/control   checkpoints, losses, TensorBoard; OUT/control/pictures has the validation images
OUT/renders            the renders learned from, by digest
OUT/weights            the pipeline in diffusers' form, or OUT/weights/controlnet alone, with card.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.image_critic import Splits
from flows.image_pairs import ImagePairs
from flows.image_recipes import BaseRecipe, ControlRecipe
from flows.image_weights import training_recipe
from flows.recipes import SplitSource
from pipeline.images.autoencoder import train_vae
from pipeline.images.base import new_pipeline, quiet, save_controlnet, save_pipeline
from pipeline.images.condition import show_condition
from pipeline.images.config import conditioning_channels
from pipeline.images.controlnet import train_control
from pipeline.images.critic import Critic, check_classes, feature_maps
from pipeline.images.loading import check_multiple, find_pipeline, load_pipeline, source_digest
from pipeline.images.pairs import Pairs
from pipeline.images.palettes import Palettes
from pipeline.images.prompts import vocabulary
from pipeline.images.synthesis import size_multiple
from pipeline.learning.machine import versions
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of


def train_base(
    root: Path,
    out: Path,
    recipe: BaseRecipe,
    splits: Splits | None = None,
    *,
    critic: Path | None = None,
    start: Path | None = None,
) -> Path:
    """Train a small pipeline of our own, or go on training it; its folder.

    start: a pipeline of this recipe's control images to begin with; its VAE stays as it is.
    critic: weights of one whose maps the VAE's reconstructions shall keep and which finds the classes in what the
    ControlNet predicts, another one than will judge the images; needed where recipe.vae.feature_weight or
    recipe.control.structure_weight is above 0. Raises InputError, where it can before training.
    """
    train, held_out = _pairs(root, out, recipe, splits)
    teacher = _teacher(critic, recipe, train)
    pipeline, origin = _new(train, out, recipe, teacher) if start is None else _begun(start, recipe)
    digest = train.digest()
    learned = digest if start is None else digest_of([digest, origin["base_digest"]])
    train_control(
        pipeline, train, recipe.control, out / "control", held_out=held_out, critic=teacher, data_digest=learned
    )
    _halve(pipeline, recipe)
    folder = Path(out) / "weights"
    save_pipeline(pipeline, folder, _card(recipe, train, digest) | origin | _told_by(teacher), _palettes(train))
    return folder


def _new(train: ImagePairs, out: Path, recipe: BaseRecipe, teacher: Critic | None) -> tuple[Any, dict[str, str]]:
    """A pipeline whose VAE is trained, and where it is from."""
    words = vocabulary(recipe.pairs.prompt, train.taxonomy)
    pipeline = new_pipeline(recipe.networks, words, conditioning_channels(recipe.pairs.control))
    _check_size(pipeline, recipe)
    maps, known = None, ""
    if teacher is not None and recipe.vae.feature_weight:
        maps, known = feature_maps(teacher), digest_of(teacher.card["files"])
    seen = digest_of([train.photographs_digest(), known])
    train_vae(pipeline, train, recipe.vae, out / "vae", features=maps, data_digest=seen)
    show_condition(pipeline.controlnet, Pairs(train, pipeline, mirror=False), recipe.networks.seed)
    return pipeline, {"base": "none: trained from nothing"}


def _begun(start: Path, recipe: BaseRecipe) -> tuple[Any, dict[str, str]]:
    """The pipeline that `train_base` left at `start`, and where it is from."""
    learned, now = training_recipe(start), recipe.model_dump(mode="json")
    pairs = learned.get("pairs", {})
    if learned.get("networks") != now["networks"] or pairs.get("control") != now["pairs"]["control"]:
        what = "a pipeline that `images train-base` made with this recipe's networks and control image"
        raise InputError(start, what, "another or none")
    size = (recipe.pairs.width_px, recipe.pairs.height_px)
    channels = conditioning_channels(recipe.pairs.control)
    pipeline = load_pipeline(start, conditioning_channels=channels, size=size)
    return pipeline, {"base": "an earlier run's", "base_digest": source_digest(find_pipeline(start))}


def train_controlnet(
    base: Path | str,
    root: Path,
    out: Path,
    recipe: ControlRecipe,
    splits: Splits | None = None,
    *,
    critic: Path | None = None,
) -> Path:
    """Train a ControlNet, begun with the UNet of the pipeline `base`, on that frozen base; its folder.

    base: a diffusers Stable Diffusion pipeline, a folder or a hub name downloaded before. critic: as of `train_base`.
    Raises InputError.
    """
    train, held_out = _pairs(root, out, recipe, splits)
    teacher = _teacher(critic, recipe, train)
    size = (recipe.pairs.width_px, recipe.pairs.height_px)
    channels = conditioning_channels(recipe.pairs.control)
    pipeline = load_pipeline(base, conditioning_channels=channels, size=size, fresh_controlnet=True)
    digest = train.digest()
    train_control(
        pipeline, train, recipe.control, out / "control", held_out=held_out, critic=teacher, data_digest=digest
    )
    _halve(pipeline, recipe)
    card = _card(recipe, train, digest) | {"base": Path(base).name, "base_digest": source_digest(find_pipeline(base))}
    card |= _told_by(teacher)
    return save_controlnet(pipeline.controlnet, Path(out) / "weights", card, _palettes(train))


def _palettes(pairs: ImagePairs) -> Palettes | None:
    return pairs.palettes if "palette" in pairs.config.control.parts else None


def _pairs(
    root: Path, out: Path, recipe: BaseRecipe | ControlRecipe, splits: Splits | None
) -> tuple[ImagePairs, ImagePairs]:
    splits = splits or Splits()
    if splits.train == splits.held_out:
        raise InputError("held-out split", "another one than is learned from", repr(splits.held_out))
    sources = (SplitSource(root=root, split=split) for split in (splits.train, splits.held_out))
    train, held_out = (ImagePairs(source, recipe.pairs, Path(out) / "renders", keep=True) for source in sources)
    return train, held_out


def _check_size(pipeline: Any, recipe: BaseRecipe) -> None:
    multiple = size_multiple(pipeline)
    check_multiple("width", recipe.pairs.width_px, multiple)
    check_multiple("height", recipe.pairs.height_px, multiple)


def _teacher(folder: Path | None, recipe: BaseRecipe | ControlRecipe, pairs: ImagePairs) -> Critic | None:
    """The critic that training asks; None where it asks none."""
    weights = {"control.structure_weight": recipe.control.structure_weight}
    if isinstance(recipe, BaseRecipe):
        weights["vae.feature_weight"] = recipe.vae.feature_weight
    asked = [name for name, weight in weights.items() if weight]
    if not asked:
        return None
    if folder is None:
        remedy = f"give --critic FOLDER of a critic's weights, or --set {asked[0]}=0"
        raise InputError(asked[0], "a critic, another one than will judge", "none", remedy)
    critic = Critic.load(folder)
    check_classes(critic, pairs.taxonomy.classes)
    for name, size in (("width", recipe.pairs.width_px), ("height", recipe.pairs.height_px)):
        check_multiple(name, size, critic.multiple)
    return critic


def _told_by(teacher: Critic | None) -> dict[str, Any]:
    return {} if teacher is None else {"critic": teacher.card["files"]}


def _card(recipe: BaseRecipe | ControlRecipe, pairs: ImagePairs, digest: str) -> dict[str, Any]:
    """All that drawing from the weights needs to know (size, control image, prompts), and what they learned from."""
    data = {"pairs": len(pairs), "digest": digest, "taxonomy": pairs.taxonomy.name}
    return {"recipe": recipe.model_dump(mode="json"), "data": data, "versions": versions()}


def _halve(pipeline: Any, recipe: BaseRecipe | ControlRecipe) -> None:
    import torch

    if recipe.half:
        with quiet():  # on casting what stays in float32: nothing here
            pipeline.to(torch.float16)
