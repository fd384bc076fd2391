"""The baselines of Comp-D3PM's tables, on its backbone: a D3PM of the whole scene, with or without a coarse stage.

Without: logits = BEDiT(Emb(x_t)) at full resolution. With ("non-compositional" in the ablation): the scene is pooled
(eq. 6) but not split, generated coarse, and a second network makes full resolution of it: no background or foreground
of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict, Field

from pipeline.diffusion.sampling import generators
from pipeline.diffusion.stage import Stage, StageConfig, StageData
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
    threads,
)
from pipeline.learning.checkpoint import check_whole, fill, load_model, load_part, save_parts
from pipeline.scene.downsample import block_of, class_frequency, coarse_grid, pool, share_in_block
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import IGNORE, Taxonomy, load_taxonomy


class WholeConfig(BaseModel):
    """The whole method."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Literal["whole_scene"] = "whole_scene"
    grid: VoxelGrid = COMPARISON_GRID
    taxonomy: str = "semantic_kitti"  # a shipped one by name, or a .toml file
    block_m: tuple[float, float, float] = (1.6, 1.6, 0.8)  # edges of a pooling block [m]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.85  # largest share of empty or invalid of a block with a label
    coarse: StageConfig | None = None  # None: one stage
    fine: StageConfig
    sampling: SamplingConfig = SamplingConfig()
    seed: int = Field(0, ge=0)  # of the initial weights


class WholeScene:
    """The generator. frequency: as in CompD3PM."""

    def __init__(self, config: WholeConfig):
        self.config = config
        self.taxonomy: Taxonomy = load_taxonomy(config.taxonomy)
        self.frequency: Float[np.ndarray, "k"] | None = None
        self.provenance: dict[str, object] = {}
        self.block = block_of(config.grid, config.block_m)
        classes, shape = len(self.taxonomy.classes), coarse_grid(config.grid, self.block)
        self.stages: dict[str, Stage] = {}
        if config.coarse:
            self.stages["coarse"] = Stage(config.coarse, shape, classes, (), integer_seed(config.seed, "coarse", 0))
        conditions = (shape,) if config.coarse else ()
        fine_seed = integer_seed(config.seed, "fine", 0)
        self.stages["fine"] = Stage(config.fine, config.grid.shape, classes, conditions, fine_seed)

    @property
    def grid(self) -> VoxelGrid:
        """The grid that its scenes lie on."""
        return self.config.grid

    def coarse(self, labels: UInt8[np.ndarray, "n x y z"]) -> UInt8[np.ndarray, "n a b c"]:
        """Pooled scenes (eq. 6), 255 where not known. Raises InputError."""
        if self.frequency is None:
            raise InputError("whole_scene", "a generator that was fitted or loaded", "a new one")
        return np.stack([pool(volume, self.block, self.frequency, self.config.threshold) for volume in labels])

    def fit(self, dataset: Iterable[Scene], out: Path, stages: Sequence[str] = ()) -> None:
        """Train the stages (default all), each in its own folder of `out`; see CompD3PM.fit. Raises InputError."""
        labels = stack(dataset, self.grid, self.taxonomy.name)
        self.frequency = class_frequency(label_counts(labels, len(self.taxonomy.classes)))
        digest = digest_of_labels(labels)
        for name in stages or tuple(self.stages):
            done = self.stages[name].train(self.training_data(labels, name), Path(out) / name, digest)
            load_model(done.checkpoint, self.stages[name].network)
        self.provenance |= {"data_digest": digest, "scenes": len(labels)}
        if set(stages or self.stages) == set(self.stages):
            self.save(Path(out) / "weights")

    def training_data(self, labels: UInt8[np.ndarray, "n x y z"], stage: str) -> StageData:
        """What a stage learns from scenes; see CompD3PM.training_data. Raises InputError."""
        if not self.config.coarse:
            return StageData(labels, filled(labels))
        coarse = self.coarse(labels)
        if stage == "coarse":
            return StageData(coarse, filled(coarse))
        return StageData(labels, filled(labels), (filled(coarse),))

    def sample(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None = None) -> list[Scene]:
        """n scenes, without 255; see Generator."""
        check_draws(n, seeds, known, self.grid, len(self.taxonomy.classes))
        return [scene for part in batches_of(seeds, known, self.config.sampling.batch) for scene in self._draw(*part)]

    def _draw(self, seeds: list[int], known: list[Known] | None, count: int) -> list[Scene]:
        settings, device = self.config.sampling, self.config.sampling.torch_device()
        held = None
        if known is not None:
            held = held_of(
                np.stack([k.labels for k in known]), allowed_classes(known, len(self.taxonomy.classes)), device
            )
        with threads(settings.threads):
            conditions = (self._draw_coarse(seeds, known),) if self.config.coarse else ()
            steps = settings.fine_steps if self.config.coarse else settings.steps
            drawn = self._stage("fine").sample(self._streams(seeds, "fine"), conditions, held, steps, settings.draws())
        volumes = drawn.cpu().numpy().astype(np.uint8)[:count]
        about = [{"source": "whole_scene", "seed": seed} for seed in seeds]
        return [Scene(v, self.grid, self.taxonomy, note) for v, note in zip(volumes, about, strict=False)]

    def _draw_coarse(self, seeds: list[int], known: list[Known] | None) -> torch.Tensor:
        """A block is held if at least half of its voxels are known."""
        device, held = self.config.sampling.torch_device(), None
        if known is not None:
            labels = np.stack([k.labels for k in known])
            free = np.stack([share_in_block(volume == IGNORE, self.block) > 0.5 for volume in labels])
            blocks = np.where(free, np.uint8(IGNORE), self.coarse(labels))
            held = held_of(blocks, allowed_classes(known, len(self.taxonomy.classes)), device)
        streams = self._streams(seeds, "coarse")
        return self._stage("coarse").sample(streams, (), held, self.config.sampling.steps, self.config.sampling.draws())

    def _stage(self, name: str) -> Stage:
        stage = self.stages[name]
        stage.network.to(self.config.sampling.torch_device()).eval()
        return stage

    def _streams(self, seeds: list[int], stage: str) -> list[torch.Generator]:
        return generators([integer_seed(seed, stage, 0) for seed in seeds], self.config.sampling.torch_device())

    def save(self, folder: Path) -> None:
        """Weights, and a card with config, class frequencies and provenance. Raises InputError."""
        if self.frequency is None:
            raise InputError("whole_scene", "a generator that was fitted or loaded", "a new one")
        parts = {name: stage.network.state_dict() for name, stage in self.stages.items()}
        config = self.config.model_dump(mode="json")
        save_parts(folder, parts, {"config": config, "frequency": self.frequency.tolist(), **self.provenance})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises InputError."""
        card = check_whole(folder)
        try:
            config, frequency = WholeConfig.model_validate(card["config"]), np.asarray(card["frequency"], float)
        except (KeyError, ValueError):
            raise InputError(folder, "weights of whole_scene", "a card of something else") from None
        generator = cls(config)
        for name, stage in generator.stages.items():
            fill(stage.network, load_part(folder, name), folder)
        generator.frequency = frequency
        generator.provenance = {k: v for k, v in card.items() if k not in ("config", "frequency", "format", "files")}
        return generator
