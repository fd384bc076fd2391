"""Recipes of SSC training: functions from sources to one whole config. `tiny` is their twin for tests.

A recipe says nothing of where data lie: sources are given, with weights, by whoever trains.
"""

from __future__ import annotations

from collections.abc import Callable

from flows.changes import apply_changes, table_of
from flows.recipes import validated
from pipeline.learning.config import Schedule, TrainConfig
from pipeline.scene.errors import InputError
from ssc_eval.monoscene import MonoSceneConfig
from ssc_eval.samples import SampleConfig, Source
from ssc_eval.training import SscConfig

Sources = tuple[Source, ...]


def published(sources: Sources) -> SscConfig:
    """MonoScene's settings on SemanticKITTI, 256x256x32: for GPUs. One with 24 GB wants network.feature=32.

    AdamW 1e-4 with weight decay 1e-4, 30 epochs, a tenth of the rate from epoch 20 on, batch 4. Ours: bf16. Give
    network.weights a folder or hub name of EfficientNet-B7, or the encoder begins with random weights.
    """
    training = TrainConfig(
        epochs=30,
        batch_size=4,
        learning_rate=1e-4,
        weight_decay=1e-4,
        schedule=Schedule(kind="multistep", milestones=(20,), unit="epoch"),
        precision="bf16",
        sync_batch_norm=True,
        workers=4,
        checkpoint_every=1000,
        validate_every=2000,
    )
    return SscConfig(network=MonoSceneConfig(), samples=SampleConfig(), training=training, sources=sources, seed=0)


def small(sources: Sources) -> SscConfig:
    """The comparison grid, 64x64x16 at 0.4 m, with images of 384x128: 600 steps in minutes of one core."""
    training = TrainConfig(
        steps=600,
        batch_size=1,
        learning_rate=1e-3,
        weight_decay=1e-4,
        schedule=Schedule(kind="cosine", warmup_steps=20, floor=0.01),
        clip_norm=10.0,
        ema_decay=0.99,
        torch_threads=1,
        checkpoint_every=200,
        validate_every=200,
        keep=1,
    )
    network = MonoSceneConfig(encoder="small", decoder=256, feature=16, dilations=(1, 2), location_prior=True)
    samples = SampleConfig(width_px=384, height_px=128, fit="resize")
    return SscConfig(network=network, samples=samples, training=training, sources=sources, seed=0, norm_frames=64)


def surfaces(sources: Sources) -> SscConfig:
    """`small` that predicts the first surface on each line of sight, its 2D half trained on those alone beforehand.

    Made for 1,680 frames of 84 drives, which it does not learn by heart; some 75 minutes of one core.
    """
    base = small(sources)
    before = base.training.model_copy(
        update={
            "steps": 4500,
            "batch_size": 4,
            "learning_rate": 2e-3,
            "schedule": Schedule(kind="cosine", warmup_steps=50, floor=0.01),
            "ema_decay": None,
            "validate_every": 0,
        }
    )
    training = base.training.model_copy(update={"steps": 4500, "checkpoint_every": 500, "validate_every": 500})
    network = base.network.model_copy(update={"depth_bins": 64})
    return base.model_copy(update={"network": network, "training": training, "surfaces": before})


def tiny(sources: Sources) -> SscConfig:
    """Any small grid in seconds, for tests: what it learns is of no use."""
    training = TrainConfig(
        steps=4,
        batch_size=2,
        learning_rate=3e-3,
        torch_threads=1,
        device="cpu",
        log_every=1,
        checkpoint_every=2,
        keep=1,
    )
    network = MonoSceneConfig(encoder="tiny", decoder=32, feature=8, depth=1, dilations=(1,), scales=(2, 4))
    samples = SampleConfig(width_px=64, height_px=32, fit="resize")
    return SscConfig(network=network, samples=samples, training=training, sources=sources, seed=0)


SSC_RECIPES: dict[str, Callable[[Sources], SscConfig]] = {f.__name__: f for f in (published, small, surfaces, tiny)}


def ssc_recipe(name: str, sources: Sources, changes: tuple[str, ...] = ()) -> SscConfig:
    """A recipe by name with "path=value" changes, such as training.steps=300. Raises InputError."""
    if name not in SSC_RECIPES:
        raise InputError("recipe", f"one of {', '.join(SSC_RECIPES)}", repr(name))
    table = table_of(SSC_RECIPES[name](sources))
    apply_changes(table, changes)
    return validated(SscConfig, table)
