"""Lee et al.'s latent baseline (2301.00527): a VQ-VAE of the whole scene, and multinomial diffusion of its codes.

Stage "autoencoder" is trained first (vqvae.py: inverse-frequency weights, straight-through codes); stage "prior" is the
D3PM of pipeline/diffusion on the grid of codes. A draw starts from codes that are uniform at random (not from the codes
of random voxels, as the public code does), runs all T steps or fewer, and every voxel takes its likeliest class.

Known voxels: a cell of which at least half is known keeps, through eq. 9 of Comp-D3PM, the code that the known scene
has there; at the end every known voxel takes its known label. So known voxels are exact, but what is around them was
conditioned on codes, not on them: a seam may stay. Free voxels become what `Known.classes` allows.

Deviations: the authors' codebook (1100 x 11, beta .25) with convolutions and settings of ours; AdamW and EMA.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from jaxtyping import Int16, Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pipeline.diffusion.sampling import generators
from pipeline.diffusion.stage import Held, Stage, StageConfig, StageData
from pipeline.generators.protocol import Known
from pipeline.generators.volumes import (
    SamplingConfig,
    all_turns,
    allowed_classes,
    batches_of,
    check_draws,
    digest_of_labels,
    filled,
    label_counts,
    stack_placed,
    threads,
)
from pipeline.generators.vqvae import VQVAE, VolumeData, VQConfig, VQLoss, inverse_frequency, latent_shape
from pipeline.learning.checkpoint import check_whole, fill, load_model, load_part, save_parts
from pipeline.learning.loop import train
from pipeline.scene.downsample import share_in_block
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import IGNORE, Taxonomy, load_taxonomy

FREE = -1  # a cell to be generated; 255 is a code
Count = Annotated[int, Field(ge=1)]


class LatentConfig(BaseModel):
    """The whole method."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Literal["latent"] = "latent"
    grid: VoxelGrid = COMPARISON_GRID
    taxonomy: str = "semantic_kitti"  # a shipped one by name, or a .toml file
    autoencoder: VQConfig
    prior: StageConfig
    turn: bool = False  # train on all eight turned and mirrored forms of each scene
    sampling: SamplingConfig = SamplingConfig()
    seed: int = Field(0, ge=0)  # of the initial weights


class Autoencoder:
    """The first stage: its network."""

    def __init__(self, config: VQConfig, classes: int, seed: int):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer_seed(seed, "weights", 0))
            self.network: nn.Module = VQVAE(config, classes)


class Latent:
    """The generator."""

    def __init__(self, config: LatentConfig):
        self.config = config
        self.taxonomy: Taxonomy = load_taxonomy(config.taxonomy)
        self.provenance: dict[str, object] = {}
        classes = len(self.taxonomy.classes)
        shape = latent_shape(config.grid.shape, config.autoencoder.factor)
        self.autoencoder = Autoencoder(config.autoencoder, classes, integer_seed(config.seed, "autoencoder", 0))
        codes, seed = config.autoencoder.codes, integer_seed(config.seed, "prior", 0)
        self.prior = Stage(config.prior, shape, codes, (), seed, ignore=FREE)
        self.stages: dict[str, Autoencoder | Stage] = {"autoencoder": self.autoencoder, "prior": self.prior}

    @property
    def grid(self) -> VoxelGrid:
        """The grid that its scenes lie on."""
        return self.config.grid

    def fit(self, dataset: Iterable[Scene], out: Path, stages: Sequence[str] = ()) -> None:
        """Train the stages (default both), each in its own folder of `out`; scenes are placed as Scaffold does.

        The prior learns the codes of the autoencoder there, which is trained first if it isn't finished. Raises
        InputError.
        """
        labels = stack_placed(dataset, self.grid, self.taxonomy.name)
        digest = digest_of_labels(labels)
        self.provenance |= {"data_digest": digest, "scenes": len(labels)}
        labels = all_turns(labels) if self.config.turn else labels
        self._fit_autoencoder(labels, Path(out) / "autoencoder", digest)
        if stages and "prior" not in stages:
            return
        codes = self.codes(filled(labels))
        done = self.prior.train(StageData(codes, codes), Path(out) / "prior", digest)
        load_model(done.checkpoint, self.prior.network)
        self.save(Path(out) / "weights")

    def _fit_autoencoder(self, labels: UInt8[np.ndarray, "n x y z"], out: Path, digest: str) -> None:
        config = self.config.autoencoder
        weights = inverse_frequency(label_counts(labels, len(self.taxonomy.classes)), config.weight_power)
        network, data = self.autoencoder.network, VolumeData(labels)
        done = train(network, VQLoss(config, weights), data, config.training, out, data_digest=digest)
        load_model(done.checkpoint, network)

    @torch.no_grad()
    def codes(self, labels: UInt8[np.ndarray, "n x y z"]) -> Int16[np.ndarray, "n i j k"]:
        """The codes of scenes without 255."""
        network, found = self._network("autoencoder"), []
        with threads(self.config.sampling.threads):
            for volume in labels:
                found.append(network.encode(self._tensor(volume[None])).cpu().numpy()[0])  # type: ignore[operator]
        return np.stack(found).astype(np.int16)

    def sample(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None = None) -> list[Scene]:
        """n scenes, without 255; see Generator."""
        check_draws(n, seeds, known, self.grid, len(self.taxonomy.classes))
        return [scene for part in batches_of(seeds, known, self.config.sampling.batch) for scene in self._draw(*part)]

    def _draw(self, seeds: list[int], known: list[Known] | None, count: int) -> list[Scene]:
        settings = self.config.sampling
        streams = generators([integer_seed(seed, "prior", 0) for seed in seeds], settings.torch_device())
        self._network("prior")
        with threads(settings.threads):
            held = None if known is None else self._held(known)
            codes = self.prior.sample(streams, (), held, settings.steps, settings.draws())
            free = known or [Known(np.full(self.grid.shape, IGNORE, np.uint8))] * len(seeds)
            allowed = torch.from_numpy(allowed_classes(free, len(self.taxonomy.classes))).to(codes.device)
            volumes = [self._decoded(*row) for row in zip(codes[:count], allowed, free, strict=False)]
        about = [{"source": "latent", "seed": seed} for seed in seeds]
        return [Scene(v, self.grid, self.taxonomy, note) for v, note in zip(volumes, about, strict=False)]

    def _held(self, known: Sequence[Known]) -> Held:
        """Codes of cells that are known by half or more, the others free; any code may be drawn."""
        labels, factor = np.stack([k.labels for k in known]), self.config.autoencoder.factor
        free = np.stack([share_in_block(volume == IGNORE, (factor,) * 3) > 0.5 for volume in labels])
        cells = np.where(free, FREE, self.codes(filled(labels))).astype(np.int64)
        device = self.config.sampling.torch_device()
        any_code = torch.ones(len(known), self.config.autoencoder.codes, dtype=torch.bool, device=device)
        return Held(torch.from_numpy(cells).to(device), any_code)

    @torch.no_grad()
    def _decoded(self, codes: Int64[Tensor, "i j k"], allowed: Tensor, known: Known) -> UInt8[np.ndarray, "x y z"]:
        """Each voxel's likeliest class of those allowed, and known labels where there are any."""
        logits = self._network("autoencoder").decode(codes[None])[0]  # type: ignore[operator]  # v k
        drawn = logits.masked_fill(~allowed, -torch.inf).argmax(-1).cpu().numpy().astype(np.uint8)
        return np.where(known.labels == IGNORE, drawn.reshape(self.grid.shape), known.labels)

    def _network(self, stage: str) -> nn.Module:
        return self.stages[stage].network.to(self.config.sampling.torch_device()).eval()

    def _tensor(self, labels: UInt8[np.ndarray, "b x y z"]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(labels)).to(self.config.sampling.torch_device())

    def save(self, folder: Path) -> None:
        """Weights of both stages, and a card with config and provenance."""
        parts = {name: stage.network.state_dict() for name, stage in self.stages.items()}
        save_parts(folder, parts, {"config": self.config.model_dump(mode="json"), **self.provenance})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises InputError."""
        card = check_whole(folder)
        try:
            config = LatentConfig.model_validate(card["config"])
        except (KeyError, ValueError):
            raise InputError(folder, "weights of latent", "a card of something else") from None
        generator = cls(config)
        for name, stage in generator.stages.items():
            fill(stage.network, load_part(folder, name), folder)
        generator.provenance = {k: v for k, v in card.items() if k not in ("config", "format", "files")}
        return generator
