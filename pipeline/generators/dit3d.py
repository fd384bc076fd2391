"""DiT-3D's baseline (Mo et al., 2307.01831): diffusion of the whole grid, air and all, by a DiT over cubes of voxels.

A token is a patch of 4^3 voxels; positions are 3D sin-cos codes of the patch. The diffusion is the multinomial D3PM of
pipeline/diffusion, since classes are no scale (DiT-3D's own is Gaussian, on occupancy alone). Nearly all voxels of a
house are air, and so is nearly all of the loss: that this fails on sparse structures is the point of the baseline.

The grid is cut into slabs one patch high, which lie side by side along y while they are diffused: a stage's token then
is a cube, and not a column. Known voxels enter at each step with noise (Comp-D3PM, eq. 9) and are exact.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pipeline.diffusion.bedit import BEDiT
from pipeline.diffusion.dit import sincos
from pipeline.diffusion.sampling import generators
from pipeline.diffusion.stage import Stage, StageConfig, StageData
from pipeline.generators.protocol import Known
from pipeline.generators.volumes import (
    SamplingConfig,
    all_turns,
    allowed_classes,
    batches_of,
    check_draws,
    digest_of_labels,
    filled,
    held_of,
    stack_placed,
    threads,
)
from pipeline.learning.checkpoint import check_whole, fill, load_model, load_part, save_parts
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import Taxonomy, load_taxonomy


class DiT3DConfig(BaseModel):
    """The whole method."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Literal["dit3d"] = "dit3d"
    grid: VoxelGrid = VoxelGrid((32, 32, 32), 1.0, (0.0, 0.0, 0.0))  # a cube of 32 blocks
    taxonomy: str = "minecraft"  # a shipped one by name, or a .toml file
    diffusion: StageConfig  # patch: edge of a token's cube [voxels]
    turn: bool = False  # train on all eight turned and mirrored forms of each scene
    sampling: SamplingConfig = SamplingConfig()
    seed: int = Field(0, ge=0)  # of the initial weights


class PatchDiT(BEDiT):
    """BEDiT whose tokens are cubes in `slabs` slabs side by side along y, placed by 3D sin-cos codes."""

    def __init__(self, *args: Any, slabs: int, **rest: Any):
        super().__init__(*args, **rest)
        self.slabs = slabs

    def places(self, rows: int, columns: int, device: torch.device) -> Float[Tensor, "n d"]:
        """Codes of the patches, row by row; columns holds a slab's after the other."""
        across = columns // self.slabs
        i, j = torch.meshgrid(*(torch.arange(n, device=device) for n in (rows, columns)), indexing="ij")
        return sincos(torch.stack([i, j % across, j // across], -1).flatten(0, 1), self.enter.out_features)


def slabs(labels: UInt8[np.ndarray, "n x y z"], high: int) -> UInt8[np.ndarray, "n x w high"]:
    """Volumes cut into slabs `high` voxels high, laid side by side along y, the lowest first."""
    n, x, y, z = labels.shape
    return labels.reshape(n, x, y, z // high, high).transpose(0, 1, 3, 2, 4).reshape(n, x, -1, high)


def stacked(labels: UInt8[np.ndarray, "n x w high"], count: int) -> UInt8[np.ndarray, "n x y z"]:
    """The inverse of `slabs`, of which there are `count`."""
    n, x, wide, high = labels.shape
    return labels.reshape(n, x, count, wide // count, high).transpose(0, 1, 3, 2, 4).reshape(n, x, wide // count, -1)


class DiT3D:
    """The generator."""

    def __init__(self, config: DiT3DConfig):
        self.config = config
        self.taxonomy: Taxonomy = load_taxonomy(config.taxonomy)
        self.provenance: dict[str, object] = {}
        patch, (x, y, z) = config.diffusion.patch, config.grid.shape
        if config.diffusion.reach:
            raise InputError("DiT-3D", "reach 0: its slabs lie side by side", str(config.diffusion.reach))
        if any(n % patch for n in (x, y, z)):
            raise InputError("DiT-3D", f"a grid that divides into cubes of {patch} voxels an edge", str((x, y, z)))
        self.slabs = z // patch
        self.stages: dict[str, Stage] = {
            "diffusion": Stage(
                config.diffusion,
                (x, self.slabs * y, patch),
                len(self.taxonomy.classes),
                (),
                integer_seed(config.seed, "diffusion", 0),
                backbone=functools.partial(PatchDiT, slabs=self.slabs),
            )
        }

    @property
    def grid(self) -> VoxelGrid:
        """The grid that its scenes lie on."""
        return self.config.grid

    def fit(self, dataset: Iterable[Scene], out: Path, stages: Sequence[str] = ()) -> None:
        """Train, and save the average's weights to `out`/weights; scenes are placed as Scaffold does. Raises
        InputError."""
        labels = stack_placed(dataset, self.grid, self.taxonomy.name)
        digest = digest_of_labels(labels)
        self.provenance |= {"data_digest": digest, "scenes": len(labels)}
        labels = slabs(all_turns(labels) if self.config.turn else labels, self.config.diffusion.patch)
        stage = self.stages["diffusion"]
        done = stage.train(StageData(labels, filled(labels)), Path(out) / "diffusion", digest)
        load_model(done.checkpoint, stage.network)
        self.save(Path(out) / "weights")

    def sample(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None = None) -> list[Scene]:
        """n scenes, without 255; see Generator."""
        check_draws(n, seeds, known, self.grid, len(self.taxonomy.classes))
        return [scene for part in batches_of(seeds, known, self.config.sampling.batch) for scene in self._draw(*part)]

    def _draw(self, seeds: list[int], known: list[Known] | None, count: int) -> list[Scene]:
        settings, device, held = self.config.sampling, self.config.sampling.torch_device(), None
        if known is not None:
            labels = slabs(np.stack([k.labels for k in known]), self.config.diffusion.patch)
            held = held_of(labels, allowed_classes(known, len(self.taxonomy.classes)), device)
        streams = generators([integer_seed(seed, "dit3d", 0) for seed in seeds], device)
        stage = self.stages["diffusion"]
        stage.network.to(device).eval()
        with threads(settings.threads):
            drawn = stage.sample(streams, (), held, settings.steps, settings.draws())
        volumes = stacked(drawn.cpu().numpy().astype(np.uint8), self.slabs)[:count]
        about = [{"source": "dit3d", "seed": seed} for seed in seeds]
        return [Scene(v, self.grid, self.taxonomy, note) for v, note in zip(volumes, about, strict=False)]

    def save(self, folder: Path) -> None:
        """Weights, and a card with config and provenance."""
        parts = {name: stage.network.state_dict() for name, stage in self.stages.items()}
        save_parts(folder, parts, {"config": self.config.model_dump(mode="json"), **self.provenance})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises InputError."""
        card = check_whole(folder)
        try:
            config = DiT3DConfig.model_validate(card["config"])
        except (KeyError, ValueError):
            raise InputError(folder, "weights of dit3d", "a card of something else") from None
        generator = cls(config)
        for name, stage in generator.stages.items():
            fill(stage.network, load_part(folder, name), folder)
        generator.provenance = {k: v for k, v in card.items() if k not in ("config", "format", "files")}
        return generator
