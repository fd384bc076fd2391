"""Recipes of image training: functions that return one whole config. `tiny` is every recipe's twin for tests.

A recipe says nothing of where data lie: roots and base models are given by whoever trains.
"""

from __future__ import annotations

from collections.abc import Callable

from flows.changes import apply_changes, table_of
from flows.image_pairs import PairsConfig
from flows.recipes import AnyModel, Config, validated
from pipeline.images.autoencoder import VaeTraining
from pipeline.images.base import TINY, BaseConfig
from pipeline.images.config import ControlConfig, SynthesisConfig
from pipeline.images.controlnet import ControlTraining
from pipeline.images.prompts import PromptConfig
from pipeline.learning.config import Schedule, TrainConfig
from pipeline.scene.errors import InputError

COLOURED = ControlConfig(parts=("rgb", "inverse_depth", "edges", "palette"))  # few photographs tell of colours what
# words could not: the light of one of them
CALM = SynthesisConfig(guidance=1.0, temperature=0.7, control_scale=1.5)  # what a network of two hours draws best
PLAIN = PromptConfig(negative=False)  # what a pipeline of few words learns: with no text against it, guidance has ""


class BaseRecipe(Config):
    """A small pipeline from nothing: its VAE, then UNet, text encoder and ControlNet together."""

    pairs: PairsConfig
    networks: BaseConfig
    vae: VaeTraining
    control: ControlTraining
    half: bool = False  # weights on disk in float16, half as large


class ControlRecipe(Config):
    """A ControlNet for a finished pipeline, which stays as it is."""

    pairs: PairsConfig
    control: ControlTraining
    half: bool = False  # weights on disk in float16, half as large


def small() -> BaseRecipe:
    """384x128, 8 M weights, for one core: some two hours. Photographs of a street in hundreds, not thousands."""
    cosine = {"schedule": Schedule(kind="cosine", warmup_steps=20, floor=0.02), "clip_norm": 1.0, "torch_threads": 1}
    saved = {"checkpoint_every": 100, "keep": 1, "log_every": 20, "ema_decay": 0.998}
    vae = TrainConfig(steps=6000, batch_size=8, learning_rate=2e-3, **cosine, **saved)
    control = TrainConfig(steps=4800, batch_size=4, learning_rate=1e-3, validate_every=600, **cosine, **saved)
    return BaseRecipe(
        pairs=PairsConfig(width_px=384, height_px=128, prompt=PLAIN, control=COLOURED),
        networks=BaseConfig(
            vae_blocks=(2, 2, 0),
            latent_channels=8,
            unet_channels=(32, 64, 96, 128),
            unet_attention=(False, False, True, True),
            control_channels=(8, 16, 32, 64),  # the paper's would take half of all time
        ),
        vae=VaeTraining(train=vae, colour_weight=2.0, crop_px=(64, 32)),
        control=ControlTraining(train=control, time_power=2.0, synthesis=CALM),
        half=True,
    )


def small_guided() -> BaseRecipe:
    """`small` taught further (--from) by a critic (--critic): its images then show what they are to. An hour more."""
    base = small()
    schedule = Schedule(kind="cosine", warmup_steps=100, floor=0.02)
    changed = {"steps": 3000, "learning_rate": 7e-4, "seed": 1, "validate_every": 1000, "schedule": schedule}
    train = base.control.train.model_copy(update=changed)
    taught = {"train": train, "rare_power": 0.3, "structure_weight": 0.1, "structure_share": 0.5}
    return base.model_copy(update={"control": base.control.model_copy(update=taught)})


def tiny() -> BaseRecipe:
    """32x16 in seconds, for tests: what it learns is of no use."""
    training = _seconds(steps=20)
    return BaseRecipe(
        pairs=PairsConfig(width_px=32, height_px=16, prompt=PLAIN, control=COLOURED),
        networks=TINY,
        vae=VaeTraining(train=training),
        control=ControlTraining(train=training, pictures=2, synthesis=SynthesisConfig(steps=2, device="cpu")),
    )


def semantic_kitti() -> ControlRecipe:
    """Stable Diffusion 1.5's kind on SemanticKITTI's frames at native size, padded to 1280x384: for GPUs of 24 GB.

    The base stays frozen; AdamW (fused on a GPU) 1e-5, batch 4, bf16, min-SNR weights, ten epochs.
    """
    training = TrainConfig(
        epochs=10,
        batch_size=4,
        learning_rate=1e-5,
        weight_decay=1e-2,
        schedule=Schedule(kind="constant", warmup_steps=500),
        clip_norm=1.0,
        ema_decay=0.9999,
        precision="bf16",
        workers=4,
        validate_every=1000,
    )
    return ControlRecipe(
        pairs=PairsConfig(width_px=1280, height_px=384, fit="pad", prompt=PromptConfig()),
        control=ControlTraining(
            train=training,
            learn="controlnet",
            snr_gamma=5.0,
            keep_latents=False,  # a native image takes a GPU milliseconds and a CPU seconds to encode
            gradient_checkpointing=True,
            synthesis=SynthesisConfig(steps=20, guidance=4.0),
        ),
    )


def small_control() -> ControlRecipe:
    """A ControlNet alone at 384x128, for a pipeline that `small` or its like trained: one core, some two hours."""
    base = small()
    return ControlRecipe(pairs=base.pairs, control=base.control.model_copy(update={"learn": "controlnet"}), half=True)


def tiny_control() -> ControlRecipe:
    """A ControlNet alone at 32x16 in seconds, for tests."""
    base = tiny()
    return ControlRecipe(pairs=base.pairs, control=base.control.model_copy(update={"learn": "controlnet"}))


def _seconds(steps: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=4,
        learning_rate=2e-3,
        ema_decay=0.9,
        torch_threads=1,
        device="cpu",
        log_every=10,
        checkpoint_every=10,
        validate_every=10,
        keep=1,
    )


BASE_RECIPES: dict[str, Callable[[], BaseRecipe]] = {f.__name__: f for f in (small, small_guided, tiny)}
CONTROL_RECIPES: dict[str, Callable[[], ControlRecipe]] = {
    "semantic_kitti": semantic_kitti,
    "small": small_control,
    "tiny": tiny_control,
}


def base_recipe(name: str, changes: tuple[str, ...] = ()) -> BaseRecipe:
    """A recipe of `images train-base` with "path=value" changes, such as vae.train.steps=500. Raises InputError."""
    return _changed(BASE_RECIPES, name, changes)


def control_recipe(name: str, changes: tuple[str, ...] = ()) -> ControlRecipe:
    """A recipe of `images train-controlnet`, changed likewise. Raises InputError."""
    return _changed(CONTROL_RECIPES, name, changes)


def _changed(recipes: dict[str, Callable[[], AnyModel]], name: str, changes: tuple[str, ...]) -> AnyModel:
    if name not in recipes:
        raise InputError("recipe", f"one of {', '.join(recipes)}", repr(name))
    recipe = recipes[name]()
    table = table_of(recipe)
    apply_changes(table, changes)
    return validated(type(recipe), table)
