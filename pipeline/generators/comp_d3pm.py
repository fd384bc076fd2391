"""Comp-D3PM: a coarse background, a coarse foreground given it, and their fusion at full resolution, each a D3PM.

Deviations from the paper, or what it leaves open: labels are filled where they are not known (no loss there,
unless a stage says `learn_filled`); T, schedule and loss weight are D3PM's usual ones; few-step sampling; known voxels
may be held in every stage, and enter with less noise than eq. 9's (`SamplingConfig.held_at`); a background may be drawn
without its last estimate (`SamplingConfig.self_condition`); what a voxel shows may count for less than its likelihood
(`SamplingConfig.evidence`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import BaseModel, ConfigDict, Field

from pipeline.diffusion.sampling import generators
from pipeline.diffusion.stage import Held, Stage, StageConfig, StageData
from pipeline.generators.protocol import Known
from pipeline.generators.volumes import (
    SamplingConfig,
    allowed_classes,
    batches_of,
    check_draws,
    digest_of_labels,
    filled,
    held_of,
    label_counts,
    stack,
    tensor,
    threads,
)
from pipeline.learning.checkpoint import check_whole, fill, load_model, load_part, save_parts
from pipeline.scene.downsample import block_of, class_frequency, coarse_grid, pool, share_in_block
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.split import foreground_table, split
from pipeline.scene.taxonomy import EMPTY, IGNORE, Taxonomy, load_taxonomy

Share = Annotated[float, Field(gt=0, lt=1)]
StageName = Literal["background", "foreground", "fusion"]
STAGES: tuple[StageName, ...] = ("background", "foreground", "fusion")


class CompConfig(BaseModel):
    """The whole method."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Literal["comp_d3pm"] = "comp_d3pm"
    grid: VoxelGrid = COMPARISON_GRID
    taxonomy: str = "semantic_kitti"  # a shipped one by name, or a .toml file
    foreground_classes: tuple[str, ...] | None = None  # None: the taxonomy's own set
    block_m: tuple[float, float, float] = (1.6, 1.6, 0.8)  # edges of a pooling block [m]
    background_threshold: Share = 0.85  # largest share of empty or invalid voxels of a block that has a label
    foreground_threshold: Share = 0.98  # nearer to 1: a pole is one voxel of 32
    background: StageConfig
    foreground: StageConfig
    fusion: StageConfig
    sampling: SamplingConfig = SamplingConfig()
    seed: int = Field(0, ge=0)  # of the initial weights


@dataclass(frozen=True, eq=False)
class Coarse:
    """A batch of pooled scenes. background: 255 where not known; foreground: likewise; (B, a, b, c) each."""

    background: UInt8[np.ndarray, "n a b c"]
    foreground: UInt8[np.ndarray, "n a b c"]


class CompD3PM:
    """The generator. frequency: F^k of the training set, (K,), which eq. 6 needs; known after `fit` or `load`."""

    def __init__(self, config: CompConfig):
        self.config = config
        self.taxonomy: Taxonomy = load_taxonomy(config.taxonomy)
        self.frequency: Float[np.ndarray, "k"] | None = None
        self.provenance: dict[str, object] = {}
        classes, fine = len(self.taxonomy.classes), config.grid.shape
        self.block = block_of(config.grid, config.block_m)
        coarse = coarse_grid(config.grid, self.block)
        self.stages: dict[StageName, Stage] = {
            "background": Stage(config.background, coarse, classes, (), integer_seed(config.seed, "background", 0)),
            "foreground": Stage(
                config.foreground, coarse, classes, (coarse,), integer_seed(config.seed, "foreground", 0)
            ),
            "fusion": Stage(config.fusion, fine, classes, (coarse, coarse), integer_seed(config.seed, "fusion", 0)),
        }

    @property
    def grid(self) -> VoxelGrid:
        """The grid that its scenes lie on."""
        return self.config.grid

    @cached_property
    def is_foreground(self) -> Bool[np.ndarray, "256"]:
        """The foreground set as a look-up table."""
        names = self.config.foreground_classes
        if names is None:
            return self.taxonomy.is_foreground()
        return foreground_table({self.taxonomy.id_of(name) for name in names})

    def coarse(self, labels: UInt8[np.ndarray, "n x y z"]) -> Coarse:
        """Split and pooled (eq. 6). Background blocks that a thing hides are not known. Raises InputError."""
        if self.frequency is None:
            raise InputError("comp_d3pm", "a generator that was fitted or loaded", "a new one")
        found = []
        for volume in labels:
            foreground, background = split(volume, self.is_foreground)
            found.append(
                (
                    pool(background, self.block, self.frequency, self.config.background_threshold),
                    pool(foreground, self.block, self.frequency, self.config.foreground_threshold),
                )
            )
        return Coarse(np.stack([b for b, _ in found]), np.stack([f for _, f in found]))

    def fit(self, dataset: Iterable[Scene], out: Path, stages: Sequence[StageName] = STAGES) -> None:
        """Train the stages, each in its own folder of `out`, and save the weights to `out`/weights once all are there.

        Stages don't wait for each other: they may be trained by several processes at once. Raises InputError.
        """
        labels = stack(dataset, self.grid, self.taxonomy.name)
        self.frequency = class_frequency(label_counts(labels, len(self.taxonomy.classes)))
        data, digest = self.training_data(labels, stages), digest_of_labels(labels)
        for name in stages:
            done = self.stages[name].train(data[name], Path(out) / name, digest)
            load_model(done.checkpoint, self.stages[name].network)
        self.provenance |= {"data_digest": digest, "scenes": len(labels)}
        if set(stages) == set(STAGES):
            self.save(Path(out) / "weights")

    def training_data(
        self, labels: UInt8[np.ndarray, "n x y z"], stages: Sequence[StageName]
    ) -> dict[StageName, StageData]:
        """What stages learn from scenes: targets with 255, conditions of the real scenes' own. Raises InputError."""
        coarse = self.coarse(labels)
        background = filled(coarse.background)
        foreground = _emptied(coarse.foreground)
        data: dict[StageName, StageData] = {
            "background": StageData(coarse.background, background),
            "foreground": StageData(coarse.foreground, foreground, (background,)),
        }
        if "fusion" in stages:
            data["fusion"] = StageData(labels, filled(labels), (background, foreground))
        return data

    def sample(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None = None) -> list[Scene]:
        """n scenes, without 255; see Generator."""
        check_draws(n, seeds, known, self.grid, len(self.taxonomy.classes))
        return [scene for part in batches_of(seeds, known, self.config.sampling.batch) for scene in self._draw(*part)]

    def refine(self, scenes: Sequence[Scene], seeds: Sequence[int]) -> list[Scene]:
        """Split and pool each scene, then let the fusion stage rebuild the shapes; see Refiner."""
        labels = stack(scenes, self.grid, self.taxonomy.name)
        check_draws(len(scenes), seeds, None, self.grid, len(self.taxonomy.classes))
        coarse = self.coarse(labels)
        back, front = filled(coarse.background), _emptied(coarse.foreground)
        out: list[Scene] = []
        for part, _, count in batches_of(seeds, None, self.config.sampling.batch):
            rows = np.minimum(np.arange(len(part)), count - 1) + len(out)  # padded as the seeds are
            volumes = self._fuse(part, Coarse(back[rows], front[rows]), None)
            out += [self._scene(volume, seed) for volume, seed in zip(volumes[:count], part, strict=False)]
        return out

    def _draw(self, seeds: list[int], known: list[Known] | None, count: int) -> list[Scene]:
        volumes = self._fuse(seeds, self.draw_coarse(seeds, known), known)
        return [self._scene(volume, seed) for volume, seed in zip(volumes[:count], seeds, strict=False)]

    def _scene(self, labels: UInt8[np.ndarray, "x y z"], seed: int) -> Scene:
        return Scene(labels, self.grid, self.taxonomy, {"source": "comp_d3pm", "seed": seed})

    def draw_coarse(self, seeds: list[int], known: list[Known] | None = None) -> Coarse:
        """The first two stages for one batch. A block is held if at least half of its voxels are known.

        Where generated voxels may not become background, all of the background is held.
        """
        settings = self.config.sampling
        held_b, held_f = self._held_coarse(seeds, known)
        with threads(settings.threads):
            back = self._stage("background").sample(
                self._streams(seeds, "background"), (), held_b, settings.steps, settings.draws()
            )
            streams = self._streams(seeds, "foreground")
            front = self._stage("foreground").sample(streams, (back,), held_f, settings.steps, settings.draws())
        return Coarse(back.cpu().numpy().astype(np.uint8), front.cpu().numpy().astype(np.uint8))

    def _fuse(self, seeds: list[int], coarse: Coarse, known: list[Known] | None) -> UInt8[np.ndarray, "b x y z"]:
        settings, device = self.config.sampling, self.config.sampling.torch_device()
        conditions = tensor(coarse.background, device), tensor(coarse.foreground, device)
        held = None
        if known is not None:
            held = held_of(
                np.stack([k.labels for k in known]), allowed_classes(known, len(self.taxonomy.classes)), device
            )
        with threads(settings.threads):
            streams = self._streams(seeds, "fusion")
            drawn = self._stage("fusion").sample(streams, conditions, held, settings.fine_steps, settings.draws())
        return drawn.cpu().numpy().astype(np.uint8)

    def _held_coarse(self, seeds: list[int], known: list[Known] | None) -> tuple[Held, Held]:
        device, things = self.config.sampling.torch_device(), self.is_foreground[: len(self.taxonomy.classes)]
        if known is None:
            known = [Known(np.full(self.grid.shape, IGNORE, np.uint8))] * len(seeds)
        allowed = allowed_classes(known, len(self.taxonomy.classes))
        coarse = self.coarse(np.stack([k.labels for k in known]))
        free = np.stack([share_in_block(k.labels == IGNORE, self.block) > 0.5 for k in known])
        back = np.where(free, np.uint8(IGNORE), coarse.background)
        fixed = ~(allowed & ~things)[:, 1:].any(1)
        back[fixed] = filled(coarse.background[fixed])
        front = np.where(free, np.uint8(IGNORE), coarse.foreground)
        front_fixed = ~(allowed & things).any(1)
        front[front_fixed] = _emptied(coarse.foreground[front_fixed])
        empty = np.arange(len(things)) == EMPTY
        return held_of(back, allowed & ~things | empty, device), held_of(front, allowed & things | empty, device)

    def _stage(self, name: StageName) -> Stage:
        stage = self.stages[name]
        stage.network.to(self.config.sampling.torch_device()).eval()
        return stage

    def _streams(self, seeds: list[int], stage: StageName) -> list[torch.Generator]:
        return generators([integer_seed(seed, stage, 0) for seed in seeds], self.config.sampling.torch_device())

    def save(self, folder: Path) -> None:
        """Weights of the three stages, and a card with config, class frequencies and provenance. Raises InputError."""
        if self.frequency is None:
            raise InputError("comp_d3pm", "a generator that was fitted or loaded", "a new one")
        parts = {str(name): stage.network.state_dict() for name, stage in self.stages.items()}
        config = self.config.model_dump(mode="json")
        save_parts(folder, parts, {"config": config, "frequency": self.frequency.tolist(), **self.provenance})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises InputError."""
        card = check_whole(folder)
        try:
            config, frequency = CompConfig.model_validate(card["config"]), np.asarray(card["frequency"], float)
        except (KeyError, ValueError):
            raise InputError(folder, "weights of comp_d3pm", "a card of something else") from None
        generator = cls(config)
        for name, stage in generator.stages.items():
            fill(stage.network, load_part(folder, name), folder)
        generator.frequency = frequency
        generator.provenance = {k: v for k, v in card.items() if k not in ("config", "frequency", "format", "files")}
        return generator


def _emptied(labels: UInt8[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    return np.where(labels == IGNORE, np.uint8(EMPTY), labels)
