"""Scaffold Diffusion: a class for every occupied voxel, by masked diffusion over them alone.

A scene is a sequence: its occupied voxels in C order, each a token with its position; air is never seen. The occupancy
map is given: by `Known` (255 = occupied, class to be generated; 0 = air), or by a source of maps. Known tokens are
conditioned on exactly and never change, which is completion, recolouring and inpainting.

Deviations: sequences are packed, not padded; any taxonomy; a map of more than max_tokens voxels is generated in
overlapping windows, each the voxels nearest to one that is still to come, conditioned on what is known of them; larger
training scenes are cut to such windows. The network is told no time, as p(x_0 | z_t) needs none. Past the paper, a
generator of maps may be trained and saved with it (`occupancy`), so that scenes are made from nothing, and tokens may
be told what stands around them (`network.reach`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pipeline.diffusion import masked
from pipeline.diffusion.dit import DiT, DiTConfig
from pipeline.diffusion.masked import MASK, Likelihood
from pipeline.diffusion.sampling import generators
from pipeline.generators.occupancy import MapStage, Occupancy, OccupancyConfig
from pipeline.generators.protocol import Known
from pipeline.generators.token_sampling import Draw, ScaffoldSampling, TokenSampler, Window
from pipeline.generators.tokens import (
    OccupancySource,
    TokenData,
    Tokens,
    collate,
    digest_of_tokens,
    map_of,
    placed,
    tokens_of,
)
from pipeline.generators.volumes import allowed_classes, check_draws, threads
from pipeline.learning.checkpoint import check_whole, fill, load_model, load_part, save_parts
from pipeline.learning.config import TrainConfig
from pipeline.learning.fields import unwritten
from pipeline.learning.loop import train
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import IGNORE, Taxonomy, load_taxonomy

Count = Annotated[int, Field(ge=1)]
CLASSES = "classes"  # the stage beside those of maps
CRAFT_GRID = VoxelGrid((32, 32, 32), 1.0, (0.0, 0.0, 0.0))  # a cube of 32 blocks


class ScaffoldConfig(BaseModel):
    """The whole method."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Literal["scaffold"] = "scaffold"
    grid: VoxelGrid = CRAFT_GRID
    taxonomy: str = "minecraft"  # a shipped one by name, or a .toml file
    max_tokens: Count = 1024  # L: of one sequence
    network: DiTConfig = DiTConfig()
    eps: Annotated[float, Field(ge=0, lt=1)] = 1e-3  # share of tokens left at t = 1
    steps: Count | None = None  # T of the discrete-time objective; None: continuous time
    turn: bool = False  # train on scenes turned by multiples of 90 degrees about the vertical, and mirrored
    shift: bool = False  # train on scenes moved to random places within the grid
    # Share of training sequences at t = 1. Of hundreds of tokens all are hidden hardly ever else, and from there a draw
    # begins: what kind of house it is to be.
    all_hidden: float = unwritten(0.0, ge=0, le=1)
    # Half of the sequences that classes are trained on miss voxels that few others hold (`tokens.worn`), as drawn maps
    # do: conditioning augmentation (Ho et al., arXiv 2106.15282).
    wear: float = unwritten(0.0, ge=0, lt=1)
    training: TrainConfig
    sampling: ScaffoldSampling = ScaffoldSampling()
    occupancy: OccupancyConfig | None = None  # a generator of maps, trained beside it; None: maps are given
    seed: int = Field(0, ge=0)  # of the initial weights


@dataclass(frozen=True, eq=False)
class Part:
    """The stage that draws classes."""

    network: nn.Module


class Scaffold:
    """The generator. source: of occupancy maps, by default the config's own; None where it has none either: then
    `sample` needs `known`, whose 255 are occupied. stages: what is trained and saved, by name."""

    def __init__(self, config: ScaffoldConfig, source: OccupancySource | None = None):
        self.config = config
        self.taxonomy: Taxonomy = load_taxonomy(config.taxonomy)
        self.provenance: dict[str, object] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer_seed(config.seed, "weights", 0))
            self.network: nn.Module = DiT(len(self.taxonomy.classes) - 1, config.network, config.grid.shape)
        self.occupancy = Occupancy(config.occupancy, config.grid.shape, config) if config.occupancy else None
        self.source = source or self.occupancy
        self.stages: dict[str, Part | MapStage] = {CLASSES: Part(self.network)}
        if self.occupancy:
            self.stages |= self.occupancy.stages

    @property
    def grid(self) -> VoxelGrid:
        """The grid that its scenes lie on."""
        return self.config.grid

    def fit(self, dataset: Iterable[Scene], out: Path, stages: Sequence[str] = ()) -> None:
        """Train stages (none: all), each in its own folder of `out`, and save the averages' weights to `out`/weights.

        Stages don't wait for each other: several processes may train one each; the weights are saved by the one that
        names them all. A scene smaller than the grid is placed in the middle of its floor; 255 is left out. Raises
        InputError.
        """
        config, sequences = self.config, [self._tokens(scene) for scene in dataset]
        digest, stages = digest_of_tokens(sequences), stages or tuple(self.stages)
        if CLASSES in stages:
            data = TokenData(sequences, self.grid.shape, config.max_tokens, config.turn, config.shift, config.wear)
            folder = Path(out) / CLASSES
            done = train(self.network, self.loss, data, config.training, folder, data_digest=digest, collate=collate)
            load_model(done.checkpoint, self.network)
        if self.occupancy:
            self.occupancy.fit(sequences, out, stages, digest)
        self.provenance |= {"data_digest": digest, "scenes": len(sequences)}
        if set(self.stages) <= set(stages):
            self.save(Path(out) / "weights")

    def _tokens(self, scene: Scene) -> Tokens:
        if scene.taxonomy.name != self.taxonomy.name:
            raise InputError("scene", f"taxonomy {self.taxonomy.name}", scene.taxonomy.name)
        return tokens_of(placed(scene, self.grid))

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The bound [nats a token] at antithetic times; scalar ce, the mean over masked tokens."""
        x_0, lengths = batch["classes"], batch["lengths"]
        t = masked.antithetic_times(len(lengths), generator, steps=self.config.steps)
        t = masked.with_all_hidden(t, self.config.all_hidden, generator)
        t = t.repeat_interleave(torch.tensor(lengths, device=t.device))
        uniforms = torch.rand(len(x_0), generator=generator, dtype=torch.float64, device=x_0.device)
        z = masked.mask_tokens(x_0, t, uniforms, self.config.eps)
        hidden = (z == MASK).nonzero()[:, 0]
        logits = model(z, batch["positions"], lengths, chosen=hidden)
        terms, ce = masked.weighted_cross_entropy(logits, x_0[hidden], t[hidden])
        return terms.sum() / len(x_0), {"ce": ce.detach().sum() / max(len(hidden), 1)}

    def sample(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None = None) -> list[Scene]:
        """n scenes; see Generator. 255 in `known`: occupied, or as the source of maps says if there is one."""
        draws = self._started(n, seeds, known)
        self._sampler.fill(draws)
        about = [{"source": "scaffold", "seed": seed} for seed in seeds]
        labels = [self._labels(draw, draw.classes) for draw in draws]
        return [Scene(found, self.grid, self.taxonomy, note) for found, note in zip(labels, about, strict=True)]

    def trajectory(self, seed: int, known: Known | None = None, frames: int = 50) -> list[UInt8[np.ndarray, "x y z"]]:
        """How the sample of one seed comes about: at most `frames` volumes, 255 where a class is still hidden.

        The last is the sample. With a window at a time, only what will be final is shown of each.
        """
        (draw,) = self._started(1, [seed], None if known is None else [known])
        seen, sampler = [draw.classes.copy()], self._sampler
        with threads(self.config.sampling.threads):
            while draw.waits:
                window = sampler.window(draw)

                def note(z: Int64[Tensor, "b l"], window: Window = window) -> None:
                    window.take(z[0, : len(window.index)].cpu().numpy())
                    seen.append(window.draw.classes.copy())

                sampler.run([window], note)
        return [self._labels(draw, seen[round(i)]) for i in np.linspace(0, len(seen) - 1, min(frames, len(seen)))]

    @property
    def _sampler(self) -> TokenSampler:
        return TokenSampler(self.network, self.config.sampling, self.config.max_tokens)

    def _labels(self, draw: Draw, classes: Int64[np.ndarray, "n"]) -> UInt8[np.ndarray, "x y z"]:
        """Classes of a draw's tokens as a volume, 255 where one is still hidden."""
        labels = np.zeros(self.grid.shape, np.uint8)
        labels[tuple(draw.positions.T)] = np.where(classes == MASK, IGNORE, classes + 1)
        return labels

    def _started(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None) -> list[Draw]:
        check_draws(n, seeds, known, self.grid, len(self.taxonomy.classes))
        if known is None and self.source is None:
            remedy = "give known scenes with 255 where a voxel is occupied, or the generator a source of maps"
            raise InputError("scaffold", "an occupancy map for each seed", "none", remedy)
        maps: Sequence[Any] = self.source.maps(seeds, known) if self.source else [None] * n
        if known is None:
            known = [Known(np.full(self.grid.shape, IGNORE, np.uint8))] * n
        return [self._start(*each) for each in zip(seeds, known, maps, strict=True)]

    def _start(self, seed: int, known: Known, drawn: Bool[np.ndarray, "x y z"] | None) -> Draw:
        positions = np.argwhere(map_of(known, drawn))
        labels = known.labels[tuple(positions.T)].astype(np.int64)
        classes = np.where(labels == IGNORE, MASK, labels - 1)
        allowed = allowed_classes([known], len(self.taxonomy.classes))[:, 1:]
        if not allowed.any() and (classes == MASK).any():
            raise InputError("known voxels", "classes beside empty that voxels may become", str(known.classes))
        stream = generators([integer_seed(seed, "scaffold", 0)], self.config.sampling.torch_device())[0]
        return Draw(positions, classes, allowed, stream)

    @torch.no_grad()
    def likelihood(self, dataset: Iterable[Scene], seed: int, draws: int = 16) -> Likelihood:
        """The bound on -log p(classes | map) of scenes, in whole sequences. Raises InputError below two scenes."""
        sequences, settings = [self._tokens(scene) for scene in dataset], self.config.sampling
        estimates = []
        with threads(settings.threads):
            for first, tokens in enumerate(sequences):
                x_0, denoise = self._sampler.rows([tokens])
                free = torch.arange(x_0.shape[1], device=x_0.device)[None] < len(tokens.classes)
                streams = generators([integer_seed(seed, "likelihood", first)], x_0.device)
                estimates.append(masked.bounds(denoise, x_0, free, streams, draws).cpu().numpy())
        if not estimates:
            raise InputError("likelihood", "at least two scenes", "none")
        return masked.likelihood(np.concatenate(estimates), np.array([len(tokens.classes) for tokens in sequences]))

    def save(self, folder: Path) -> None:
        """Weights, and a card with config and provenance."""
        config = self.config.model_dump(mode="json")
        parts = {name: stage.network.state_dict() for name, stage in self.stages.items()}
        save_parts(folder, parts, {"config": config, **self.provenance})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; a source of maps that isn't its own is the caller's to give. Raises InputError."""
        card = check_whole(folder)
        try:
            config = ScaffoldConfig.model_validate(card["config"])
        except (KeyError, ValueError):
            raise InputError(folder, "weights of scaffold", "a card of something else") from None
        generator = cls(config)
        for name, stage in generator.stages.items():
            fill(stage.network, load_part(folder, name), folder)
        generator.provenance = {k: v for k, v in card.items() if k not in ("config", "format", "files")}
        return generator
