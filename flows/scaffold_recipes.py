"""Recipes of Scaffold Diffusion and the baselines of its tables, alike in data, batch, rate and steps.

craft_scaffold, craft_learned and craft_autoregressive have one backbone and so the same weights in number, but for the
learned table itself (a row a voxel); the others have other backbones of about that size
(tests/flows/test_scaffold_recipes.py counts). Steps are of each stage.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.diffusion.dit import DiTConfig
from pipeline.diffusion.stage import StageConfig
from pipeline.generators.autoregressive import AutoregressiveConfig, AutoregressiveSampling
from pipeline.generators.dit3d import DiT3DConfig
from pipeline.generators.latent import LatentConfig
from pipeline.generators.scaffold import CRAFT_GRID, ScaffoldConfig
from pipeline.generators.token_sampling import ScaffoldSampling
from pipeline.generators.volumes import SamplingConfig
from pipeline.generators.vqvae import VQConfig
from pipeline.learning.config import Schedule, TrainConfig
from pipeline.scene.grid import COMPARISON_GRID, VoxelGrid

STEPS = 700
TINY_CRAFT_GRID = VoxelGrid((16, 16, 16), 1.0, (0.0, 0.0, 0.0))
TINY_STREET_GRID = VoxelGrid((16, 16, 8), 0.4, (0.0, -3.2, -2.0))


def _training() -> TrainConfig:
    """What all have in common: batches of 4, a constant rate, averaged weights: a run may be lengthened."""
    return TrainConfig(
        steps=STEPS,
        batch_size=4,
        learning_rate=2e-3,
        schedule=Schedule(warmup_steps=100),
        clip_norm=1.0,
        ema_decay=0.999,
        checkpoint_every=250,
        keep=1,
        torch_threads=1,
    )


def _network() -> DiTConfig:
    return DiTConfig(width=128, depth=4, heads=4)


def craft_scaffold() -> ScaffoldConfig:
    """Scaffold Diffusion on houses of 32^3, 1.3 M weights: what its baselines are held against."""
    # One house at a time: those of other lengths can't share a batch, and a core gains nothing from larger ones.
    return ScaffoldConfig(
        network=_network(), training=_training(), sampling=ScaffoldSampling(steps=64, batch=1, threads=1)
    )


def craft_learned() -> ScaffoldConfig:
    """Ablation: craft_scaffold with a learned position for every voxel in place of frozen 3D sin-cos codes."""
    base = craft_scaffold()
    return base.model_copy(update={"network": base.network.model_copy(update={"positions": "learned"})})


def craft_autoregressive() -> AutoregressiveConfig:
    """The baseline that draws one class after the other, by the backbone of craft_scaffold."""
    return AutoregressiveConfig(
        network=_network(), training=_training(), sampling=AutoregressiveSampling(bucket=256, threads=1)
    )


def craft_latent() -> LatentConfig:
    """Lee et al.'s baseline on houses: a VQ-VAE with inverse-frequency weights, multinomial diffusion of 8^3 codes."""
    return LatentConfig(
        grid=CRAFT_GRID,
        taxonomy="minecraft",
        autoencoder=VQConfig(width=32, loss_share=0.1, training=_training()),
        prior=StageConfig(width=64, depth=2, training=_training()),
        sampling=SamplingConfig(steps=100, batch=8, threads=1),
    )


def street_scaffold() -> ScaffoldConfig:
    """Scaffold Diffusion of street scenes on the comparison grid, 1.5 M weights; not among what is compared.

    A scene's occupied voxels are learned and drawn in windows of 1,024; maps are given (`sample --maps`).
    """
    network = _network().model_copy(update={"reach": 2})
    sampling = ScaffoldSampling(sampler="confidence", chance=8, steps=64, batch=1, threads=1)
    return ScaffoldConfig(
        grid=COMPARISON_GRID, taxonomy="semantic_kitti", network=network, training=_training(), sampling=sampling
    )


def street_latent() -> LatentConfig:
    """Lee et al.'s baseline on street scenes, the comparison grid of 64x64x16 voxels of 0.4 m."""
    return LatentConfig(
        grid=COMPARISON_GRID,
        autoencoder=VQConfig(training=_training()),
        prior=StageConfig(width=128, depth=2, training=_training()),
        sampling=SamplingConfig(steps=100, batch=8, threads=1),
    )


def craft_dit3d() -> DiT3DConfig:
    """DiT-3D's baseline on houses: diffusion of the whole grid, air and all, tokens of 4^3 voxels."""
    stage = StageConfig(width=64, depth=3, patch=4, loss_share=0.05, training=_training())
    return DiT3DConfig(diffusion=stage, sampling=SamplingConfig(steps=50, batch=8, threads=1))


def _tiny_training() -> TrainConfig:
    return _training().model_copy(update={"steps": 20, "batch_size": 4, "schedule": Schedule()})


def _tiny_network() -> DiTConfig:
    return DiTConfig(width=24, depth=1, heads=2)


def craft_scaffold_tiny() -> ScaffoldConfig:
    """craft_scaffold on 16^3 voxels in seconds, for tests."""
    sampling = ScaffoldSampling(steps=6, batch=4, bucket=16, threads=1)
    return craft_scaffold().model_copy(
        update={
            "grid": TINY_CRAFT_GRID,
            "network": _tiny_network(),
            "training": _tiny_training(),
            "sampling": sampling,
        }
    )


def craft_learned_tiny() -> ScaffoldConfig:
    """craft_learned on 16^3 voxels in seconds, for tests."""
    network = _tiny_network().model_copy(update={"positions": "learned"})
    return craft_scaffold_tiny().model_copy(update={"network": network})


def craft_autoregressive_tiny() -> AutoregressiveConfig:
    """craft_autoregressive on 16^3 voxels in seconds, for tests."""
    return AutoregressiveConfig(
        grid=TINY_CRAFT_GRID,
        network=_tiny_network(),
        training=_tiny_training(),
        sampling=AutoregressiveSampling(batch=4, bucket=16, threads=1),
    )


def craft_latent_tiny() -> LatentConfig:
    """craft_latent on 16^3 voxels in seconds, for tests."""
    return LatentConfig(
        grid=TINY_CRAFT_GRID,
        taxonomy="minecraft",
        autoencoder=VQConfig(codes=300, width=16, loss_share=0.25, training=_tiny_training()),
        prior=StageConfig(width=32, depth=1, channels=4, steps=20, training=_tiny_training()),
        sampling=SamplingConfig(steps=5, batch=4, threads=1),
    )


def street_scaffold_tiny() -> ScaffoldConfig:
    """street_scaffold on 16x16x8 voxels in seconds, for tests; its windows are of 64 voxels."""
    return street_scaffold().model_copy(
        update={
            "grid": TINY_STREET_GRID,
            "max_tokens": 64,
            "network": _tiny_network().model_copy(update={"reach": 2}),
            "training": _tiny_training(),
            "sampling": ScaffoldSampling(steps=6, batch=2, bucket=16, threads=1),
        }
    )


def street_latent_tiny() -> LatentConfig:
    """street_latent on 16x16x8 voxels in seconds, for tests."""
    base = craft_latent_tiny()
    return base.model_copy(update={"grid": TINY_STREET_GRID, "taxonomy": "semantic_kitti"})


def craft_dit3d_tiny() -> DiT3DConfig:
    """craft_dit3d on 16^3 voxels in seconds, for tests."""
    stage = StageConfig(width=32, depth=1, channels=4, patch=4, steps=20, loss_share=0.25, training=_tiny_training())
    return DiT3DConfig(grid=TINY_CRAFT_GRID, diffusion=stage, sampling=SamplingConfig(steps=5, batch=4, threads=1))


COMPARED = ("craft_scaffold", "craft_learned", "craft_autoregressive", "craft_latent", "craft_dit3d")
SCAFFOLD_RECIPES: tuple[
    Callable[[], ScaffoldConfig]
    | Callable[[], AutoregressiveConfig]
    | Callable[[], LatentConfig]
    | Callable[[], DiT3DConfig],
    ...,
] = (
    craft_scaffold,
    craft_learned,
    craft_autoregressive,
    craft_latent,
    street_scaffold,
    street_latent,
    craft_dit3d,
    craft_scaffold_tiny,
    craft_learned_tiny,
    craft_autoregressive_tiny,
    craft_latent_tiny,
    street_scaffold_tiny,
    street_latent_tiny,
    craft_dit3d_tiny,
)
