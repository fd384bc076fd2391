"""Recipes of scene generators: functions that return one whole config. Each method has a tiny twin for tests.

The three that are compared share grid, data, backbone, batch, schedule and steps; their depths are such that
parameters, summed over stages, and training FLOPs agree within 5 % (tests/flows/test_generator_recipes.py counts both).
All their stages learn filled voxels too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flows.changes import apply_changes, table_of
from flows.generators import GeneratorConfig, config_of
from flows.scaffold_recipes import SCAFFOLD_RECIPES
from pipeline.diffusion.dit import DiTConfig
from pipeline.diffusion.schedules import ScheduleKind
from pipeline.diffusion.stage import StageConfig
from pipeline.generators.comp_d3pm import CompConfig
from pipeline.generators.occupancy import CoarseConfig, OccupancyConfig
from pipeline.generators.scaffold import ScaffoldConfig
from pipeline.generators.token_sampling import ScaffoldSampling
from pipeline.generators.volumes import SamplingConfig
from pipeline.generators.whole_scene import WholeConfig
from pipeline.learning.config import Schedule, TrainConfig
from pipeline.scene.errors import InputError
from pipeline.scene.grid import DEFAULT_GRID, SEMANTIC_KITTI_GRID, VoxelGrid

STEPS = 3000
RATE = 1e-3
REACH = 1  # a token is told its eight neighbours: the halves of a car that lies across tokens fit sooner
SCHEDULE: ScheduleKind = "linear"  # all of a scene's voxels together tell its layout at an alpha_bar of .01 and less
CARLA_SC_GRID = VoxelGrid((256, 256, 16), 0.2, (-25.6, -25.6, -2.0))
TINY_GRID = VoxelGrid((16, 16, 8), 0.4, (0.0, -3.2, -2.0))


def _training() -> TrainConfig:
    """What the compared methods share: batches of 8, a constant rate, averaged weights: a run may be lengthened."""
    return TrainConfig(
        steps=STEPS,
        batch_size=8,
        learning_rate=RATE,
        schedule=Schedule(warmup_steps=100),
        clip_norm=1.0,
        ema_decay=0.999,
        checkpoint_every=500,
        keep=1,
        torch_threads=1,
    )


def _fine(depth: int) -> StageConfig:
    """A network at full resolution: 4x4x16 voxels a token, more than its 128 channels carry unchanged."""
    return StageConfig(
        patch=4,
        depth=depth,
        reach=REACH,
        own_evidence=True,
        loss_share=0.25,
        schedule=SCHEDULE,
        learn_filled=True,
        training=_training(),
    )


def _coarse(depth: int) -> StageConfig:
    """A network of blocks, a token a column of them."""
    return StageConfig(depth=depth, reach=REACH, schedule=SCHEDULE, learn_filled=True, training=_training())


def _sampling() -> SamplingConfig:
    """How the compared methods draw: all T steps, but half of them where a coarse scene is given to full resolution.

    The background is not fed its last estimate: where noise is strong that names empty space, never buildings. Half of
    t leaves too little of what is held on a linear schedule. A voxel's own evidence counts for .4: at 1 objects
    crumble, as what noise was left stays for good.
    """
    return SamplingConfig(steps=100, fine_steps=50, evidence=0.4, held_at=0.25, self_condition=False, threads=1)


def comp_d3pm() -> CompConfig:
    """Comp-D3PM on the comparison grid, 64x64x16 at 0.4 m."""
    return CompConfig(
        sampling=_sampling(),
        background=_coarse(4).model_copy(update={"self_condition": True}),
        foreground=_coarse(4),
        fusion=_fine(4),
    )


def whole_scene() -> WholeConfig:
    """The baseline: one D3PM of the whole scene at full resolution."""
    return WholeConfig(sampling=_sampling(), fine=_fine(13))


def two_stage() -> WholeConfig:
    """The non-compositional baseline: the whole scene coarse, then full resolution."""
    return WholeConfig(
        sampling=_sampling(),
        coarse=_coarse(7),
        fine=_fine(6),
    )


def comp_things() -> CompConfig:
    """Ablation: classes 1-8 alone (vehicles and people) as foreground."""
    things = ("car", "bicycle", "motorcycle", "truck", "other-vehicle", "person", "bicyclist", "motorcyclist")
    return comp_d3pm().model_copy(update={"foreground_classes": things})


def comp_full() -> CompConfig:
    """Table 3: composition without pooling, both parts at full resolution."""
    return _with_blocks((0.4, 0.4, 0.4), patch=4)


def comp_block_08() -> CompConfig:
    """Table 3: blocks of 0.8 m (/4 at 0.2 m)."""
    return _with_blocks((0.8, 0.8, 0.4), patch=2)


def comp_block_32() -> CompConfig:
    """Table 3: blocks of 3.2 m (/16 at 0.2 m)."""
    return _with_blocks((3.2, 3.2, 1.6), patch=1)


def _with_blocks(block_m: tuple[float, float, float], patch: int) -> CompConfig:
    """comp_d3pm with other blocks. Thresholds keep a block that has one voxel of foreground, or 1/8 of background."""
    base = comp_d3pm()
    voxels = round(block_m[0] * block_m[1] * block_m[2] / 0.4**3)
    coarse = {"patch": patch, "own_evidence": patch == 4, "loss_share": 0.25 if patch == 4 else 1.0}
    return base.model_copy(
        update={
            "block_m": block_m,
            "background_threshold": 0.85,
            "foreground_threshold": max(0.5, 1 - 0.64 / voxels),
            "background": base.background.model_copy(update=coarse),
            "foreground": base.foreground.model_copy(update=coarse),
            # a token of the fusion can't be smaller than a block
            "fusion": base.fusion.model_copy(update={"patch": max(4, round(block_m[0] / 0.4))}),
        }
    )


def comp_default() -> CompConfig:
    """Comp-D3PM on the default grid, 128x128x16 at 0.4 m: for a GPU."""
    training = _training().model_copy(update={"steps": 50_000, "batch_size": 32, "precision": "bf16"})
    base = comp_d3pm()
    stages = {
        name: getattr(base, name).model_copy(update={"width": 256, "depth": 8, "training": training})
        for name in ("background", "foreground", "fusion")
    }
    return base.model_copy(update={"grid": DEFAULT_GRID, **stages})


def semantic_kitti() -> CompConfig:
    """The paper's settings on SemanticKITTI at full resolution, 256x256x32 at 0.2 m: for a GPU."""
    return _published("semantic_kitti", SEMANTIC_KITTI_GRID)


def carla_sc() -> CompConfig:
    """The paper's settings on CarlaSC's fine grid, 256x256x16: for a GPU."""
    return _published("carla_sc", CARLA_SC_GRID)


def _published(taxonomy: str, grid: VoxelGrid) -> CompConfig:
    """AdamW, 500 epochs, batch 4, 1e-4, x0.1 at epochs 320 and 420; sizes, T and lambda aren't stated: ours."""
    training = TrainConfig(
        epochs=500,
        batch_size=4,
        learning_rate=1e-4,
        schedule=Schedule(kind="multistep", milestones=(320, 420), unit="epoch"),
        ema_decay=0.9999,
        precision="bf16",
        checkpoint_every=1000,
    )
    coarse = StageConfig(width=512, depth=12, training=training)
    return CompConfig(
        grid=grid,
        taxonomy=taxonomy,
        foreground_threshold=1 - 0.64 / (8 * 8 * 4),  # of a block's 256 voxels one is enough
        background=coarse.model_copy(update={"self_condition": True}),
        foreground=coarse,
        fusion=StageConfig(
            width=512, depth=12, patch=8, own_evidence=True, loss_share=0.25, recompute=True, training=training
        ),
        sampling=SamplingConfig(steps=100, fine_steps=100, batch=4),
    )


def craft3d() -> ScaffoldConfig:
    """The paper's settings on 3D-Craft's houses of 32^3 and 1,024 blocks, with a generator of maps: for a GPU.

    Its batch isn't stated: ours.
    """
    training = TrainConfig(
        steps=1_000_000,
        batch_size=64,
        learning_rate=3e-4,
        schedule=Schedule(warmup_steps=2500),
        ema_decay=0.9999,
        checkpoint_every=5000,
    )  # blocks are in bfloat16 by the network's own setting
    maps = OccupancyConfig(network=DiTConfig(attention="flex"), training=training)
    return ScaffoldConfig(network=DiTConfig(attention="flex"), training=training, occupancy=maps)


def houses() -> ScaffoldConfig:
    """Scaffold with its generator of maps on the embedded houses: 4 million parameters, for two cores.

    Unlike the paper's, its tokens are told what stands around them (`reach`), which saves most of the training, and how
    many of each class there are (`census`). Classes are drawn surest first, as a wrong block early on draws others
    after it; maps in random order, which doesn't leave out what is unlikely at any single place. Of both, what the
    whole makes unlikely is drawn again, in rounds.
    """
    training = _training().model_copy(update={"learning_rate": 2e-3, "checkpoint_every": 100})
    adaptive = ScaffoldSampling(
        sampler="adaptive", order="probability", sure=0.998, least=0.002, rounds=4, doubt=0.05, batch=1, threads=1
    )
    network = DiTConfig(width=128, depth=3, heads=4, reach=2, rotary=True, census=True)
    maps = OccupancyConfig(
        network=network,
        coarse=CoarseConfig(network=network, training=training.model_copy(update={"steps": 3000})),
        training=training.model_copy(update={"steps": 3000}),
        sampling=adaptive.model_copy(update={"order": "random"}),
    )
    return ScaffoldConfig(
        network=DiTConfig(width=128, depth=4, heads=4, reach=2, census=True),
        training=training.model_copy(update={"steps": 1500, "batch_size": 4}),
        sampling=adaptive.model_copy(update={"chance": 8}),
        occupancy=maps,
    )


def craft3d_tiny() -> ScaffoldConfig:
    """Scaffold and its generator of maps on 32^3 in seconds, for tests."""
    training = _training().model_copy(update={"steps": 4, "batch_size": 2, "schedule": Schedule()})
    network, sampling = DiTConfig(width=24, depth=1, heads=2), ScaffoldSampling(steps=2, batch=2, threads=1)
    maps = OccupancyConfig(network=network, training=training, sampling=sampling)
    return ScaffoldConfig(network=network, training=training, sampling=sampling, occupancy=maps)


def comp_d3pm_tiny() -> CompConfig:
    """All three stages on 16x16x8 voxels in seconds, for tests."""
    training = _training().model_copy(update={"steps": 20, "batch_size": 4, "schedule": Schedule()})
    coarse = StageConfig(width=32, depth=1, channels=4, reach=REACH, learn_filled=True, steps=20, training=training)
    return CompConfig(
        grid=TINY_GRID,
        background=coarse.model_copy(update={"self_condition": True}),
        foreground=coarse,
        fusion=coarse.model_copy(update={"patch": 4, "loss_share": 0.5}),
        sampling=SamplingConfig(steps=5, fine_steps=3, batch=4, threads=1),
    )


def whole_scene_tiny() -> WholeConfig:
    """The baseline on 16x16x8 voxels in seconds, for tests."""
    tiny = comp_d3pm_tiny()
    return WholeConfig(grid=tiny.grid, fine=tiny.fusion, sampling=tiny.sampling)


GENERATOR_RECIPES: dict[str, Callable[[], GeneratorConfig]] = {
    f.__name__: f
    for f in (
        comp_d3pm,
        whole_scene,
        two_stage,
        comp_things,
        comp_full,
        comp_block_08,
        comp_block_32,
        comp_default,
        semantic_kitti,
        carla_sc,
        craft3d,
        houses,
        comp_d3pm_tiny,
        whole_scene_tiny,
        craft3d_tiny,
        *SCAFFOLD_RECIPES,
    )
}


def generator_recipe(name: str, changes: tuple[str, ...] = ()) -> GeneratorConfig:
    """A recipe by name with "path=value" changes; a path's first word "*" means every stage. Raises InputError."""
    if name not in GENERATOR_RECIPES:
        raise InputError("recipe", f"one of {', '.join(GENERATOR_RECIPES)}", repr(name))
    table = table_of(GENERATOR_RECIPES[name]())
    for change in changes:
        wide = change.startswith("*.")
        apply_changes(table, tuple(f"{stage}{change[2:]}" for stage in _stages(table)) if wide else (change,))
    return config_of(table)


def _stages(table: dict[str, Any], path: str = "") -> list[str]:
    """Where stages of training are, each with its dot; "" is a method whose main stage is the table itself."""
    parts = [(f"{path}{key}.", value) for key, value in table.items() if isinstance(value, dict)]
    inner = [found for name, part in parts for found in _stages(part, name)]
    return [*inner, path] if "training" in table else inner
