"""Occupancy maps from nothing: an octree, coarse to fine, each level by masked diffusion over its occupied cells alone.

A cell of edge s (voxels) has eight halves; which of them hold an occupied voxel is its token's class, 0..255. The
coarsest cells are all there; those of each finer level are what the level before says is occupied, so that the
condition on the coarser map is the set of tokens itself, and a class of 0 can't come again. One DiT serves all levels,
or all but the coarsest, which has every cell and says what is built where (`coarse`). With p(map) = prod over levels of
p(patterns | cells), each level's bound is that of masked diffusion.

Known voxels are kept exactly: at each level a cell may take only patterns that hold its known occupied voxels and leave
room for none but those that may be; a cell with one such pattern is a known token.

Beyond Scaffold Diffusion, which leaves the map open. Positions are cells' centres in half voxels: a centre's lowest set
bit is its cell's edge, which says the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from pipeline.diffusion import masked
from pipeline.diffusion.dit import DiT, DiTConfig
from pipeline.diffusion.masked import MASK
from pipeline.diffusion.sampling import generators
from pipeline.generators.protocol import Known
from pipeline.generators.token_sampling import Draw, ScaffoldSampling, TokenSampler
from pipeline.generators.tokens import Shape, TokenData, Tokens, collate, map_of, occupied
from pipeline.learning.checkpoint import load_model
from pipeline.learning.config import TrainConfig
from pipeline.learning.fields import unwritten
from pipeline.learning.loop import train
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import IGNORE

PATTERNS = 256  # of a cell's eight halves
COARSE, OCCUPANCY = "coarse", "occupancy"  # stages
_BITS = 1 << np.arange(8)
Map = Bool[np.ndarray, "x y z"]


class CoarseConfig(BaseModel):
    """The coarsest level's own network."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    network: DiTConfig = DiTConfig(width=384, depth=8, heads=6)
    training: TrainConfig


class OccupancyConfig(BaseModel):
    """The generator of maps."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cell: Annotated[int, Field(ge=2)] = 8  # edge of the coarsest cells [voxels], a power of two
    max_tokens: Annotated[int, Field(ge=1)] = 1024  # cells of one sequence; more are drawn in windows
    network: DiTConfig = DiTConfig(width=384, depth=8, heads=6)
    eps: Annotated[float, Field(ge=0, lt=1)] = 1e-3  # share of tokens left at t = 1
    # Share of scenes that are trained on with their finest level, which holds most of the tokens; the coarser ones, at
    # which it is settled what there is, are learned faster without.
    finest: float = unwritten(1.0, ge=0, le=1)
    coarse: CoarseConfig | None = unwritten(None)  # None: one network for all levels
    training: TrainConfig
    sampling: ScaffoldSampling = ScaffoldSampling()

    @field_validator("cell")
    @classmethod
    def _halves(cls, cell: int) -> int:
        if cell & (cell - 1):
            raise ValueError("cell must be a power of two")
        return cell


class MapConfig(Protocol):
    """What the generator of maps needs to know of the method that it serves."""

    @property
    def turn(self) -> bool: ...

    @property
    def shift(self) -> bool: ...

    @property
    def all_hidden(self) -> float: ...

    @property
    def seed(self) -> int: ...


def any_in(volume: Map, edge: int) -> Map:
    """Cells of `edge` voxels that hold a True."""
    x, y, z = (n // edge for n in volume.shape)
    return np.asarray(volume.reshape(x, edge, y, edge, z, edge).any(axis=(1, 3, 5)))


def patterns(volume: Map, edge: int) -> Int64[np.ndarray, "a b c"]:
    """Which halves of each cell of `edge` voxels hold a True, as eight bits; x is the slowest, z the lowest."""
    halves = any_in(volume, edge // 2)
    x, y, z = (n // 2 for n in halves.shape)
    bits = halves.reshape(x, 2, y, 2, z, 2).transpose(0, 2, 4, 1, 3, 5).reshape(x, y, z, 8)
    return (bits @ _BITS).astype(np.int64)


def halved(cells: Int64[np.ndarray, "a b c"]) -> Map:
    """The inverse: patterns of all cells (0 where there is none) as a map of their halves."""
    x, y, z = cells.shape
    bits = (cells[..., None] & _BITS).astype(bool).reshape(x, y, z, 2, 2, 2)
    return bits.transpose(0, 3, 1, 4, 2, 5).reshape(2 * x, 2 * y, 2 * z)


def octree(volume: Map, cell: int) -> list[Tokens]:
    """A map's levels as sequences, coarsest first; finer levels hold occupied cells alone."""
    found, edge = [], cell
    while edge > 1:
        there = np.ones([n // edge for n in volume.shape], bool) if edge == cell else any_in(volume, edge)
        at = np.argwhere(there)
        found.append(Tokens(patterns(volume, edge)[tuple(at.T)], centres(at, edge)))
        edge //= 2
    return found


def centres(cells: Int64[np.ndarray, "n 3"], edge: int) -> Int64[np.ndarray, "n 3"]:
    """Centres of cells in half voxels."""
    return (2 * cells + 1) * edge


class OctreeDiT(nn.Module):
    """A DiT of patterns that is told each token's level; called as a DiT is."""

    def __init__(self, config: DiTConfig, shape: Shape, levels: int):
        super().__init__()
        self.network = DiT(PATTERNS, config, (2 * shape[0], 2 * shape[1], 2 * shape[2]))
        self.level = nn.Embedding(levels + 1, config.width)

    def forward(
        self,
        tokens: Int64[Tensor, "n"],
        positions: Int[Tensor, "n 3"],
        lengths: Sequence[int],
        *,
        chosen: Int64[Tensor, "c"] | None = None,
    ) -> Float[Tensor, "c k"]:
        """Logits of each token's pattern; a position of 0, which only fills a row up, has level 0."""
        edge = (positions[:, 0] & -positions[:, 0]).clamp_min(1)
        extra, cells = self.level(edge.float().log2().long()), positions // (2 * edge[:, None])
        return self.network(tokens, positions, lengths, extra=extra, cells=cells, chosen=chosen)


@dataclass(frozen=True, eq=False)
class OctreeData:
    """Maps as training sees them: every level of a scene is a sequence; see TokenData. levels: those that are trained
    on; finest: see OccupancyConfig."""

    scenes: TokenData
    cell: int
    finest: float = 1.0
    levels: slice = field(default_factory=lambda: slice(None))

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int, /) -> list[Tokens]:
        return self._levels(self.scenes[index])

    def draw(self, index: int, random: np.random.Generator) -> list[Tokens]:
        """A scene's levels as training sees them this time; the first of them always."""
        levels = self._levels(self.scenes.draw(index, random))
        whole = self.finest == 1 or len(levels) == 1 or random.random() < self.finest
        return levels if whole else levels[:-1]

    def _levels(self, tokens: Tokens) -> list[Tokens]:
        volume = np.zeros(self.scenes.shape, bool)
        volume[tuple(tokens.positions.T)] = True
        return octree(volume, self.cell)[self.levels]


def collate_levels(batch: list[list[Tokens]]) -> dict[str, Any]:
    """All levels of all scenes, packed."""
    return collate(list(chain.from_iterable(batch)))


@dataclass(frozen=True, eq=False)
class MapStage:
    """A network, and the levels that it is trained on and draws."""

    network: nn.Module
    training: TrainConfig
    levels: slice


class Occupancy:
    """The generator of maps; an OccupancySource. stages: what is trained and saved, by name. Raises InputError on a
    grid that cells don't divide, and on a network for finer levels where there are none."""

    def __init__(self, config: OccupancyConfig, shape: Shape, of: MapConfig):
        if any(n % config.cell for n in shape):
            raise InputError("occupancy", f"a grid that cells of {config.cell} voxels divide", str(shape))
        if config.coarse and config.cell == 2:
            raise InputError("occupancy.coarse", "a level below the coarsest", "cells of 2 voxels")
        self.config, self.shape, self.of = config, shape, of
        self.stages: dict[str, MapStage] = {}
        if config.coarse:
            self._add(COARSE, config.coarse, slice(0, 1))
        self._add(OCCUPANCY, config, slice(1 if config.coarse else 0, None))

    def _add(self, name: str, config: CoarseConfig | OccupancyConfig, levels: slice) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer_seed(self.of.seed, f"{name} weights", 0))
            network = OctreeDiT(config.network, self.shape, self.config.cell.bit_length() - 1)
        self.stages[name] = MapStage(network, config.training, levels)

    def fit(self, sequences: Sequence[Tokens], out: Path, stages: Sequence[str], data_digest: str) -> None:
        """Train those of its stages that are named on scenes' occupied voxels, each in its own folder of `out`."""
        whole = max(len(tokens.classes) for tokens in sequences)
        scenes = TokenData(sequences, self.shape, whole, self.of.turn, self.of.shift)
        for name, stage in self.stages.items():
            if name in stages:
                finest = 1.0 if name == COARSE else self.config.finest
                data, folder = OctreeData(scenes, self.config.cell, finest, stage.levels), Path(out) / name
                done = train(
                    stage.network,
                    self.loss,
                    data,
                    stage.training,
                    folder,
                    data_digest=data_digest,
                    collate=collate_levels,
                )
                load_model(done.checkpoint, stage.network)

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The bound [nats a cell] at antithetic times; scalar ce, the mean over masked cells."""
        x_0, lengths = batch["classes"], batch["lengths"]
        t = masked.with_all_hidden(masked.antithetic_times(len(lengths), generator), self.of.all_hidden, generator)
        t = t.repeat_interleave(torch.tensor(lengths, device=t.device))
        uniforms = torch.rand(len(x_0), generator=generator, dtype=torch.float64, device=x_0.device)
        z = masked.mask_tokens(x_0, t, uniforms, self.config.eps)
        hidden = (z == MASK).nonzero()[:, 0]
        logits = model(z, batch["positions"], lengths, chosen=hidden)
        terms, ce = masked.weighted_cross_entropy(logits, x_0[hidden], t[hidden])
        return terms.sum() / len(x_0), {"ce": ce.detach().sum() / max(len(hidden), 1)}

    def maps(self, seeds: Sequence[int], known: Sequence[Known] | None = None) -> list[Map]:
        """A map a seed, of its seed (and known[i]) alone; known voxels are as they are known."""
        if known is None:
            known = [Known(np.full(self.shape, IGNORE, np.uint8))] * len(seeds)
        must = [occupied(k.labels) for k in known]
        may = [map_of(k, None) for k in known]
        device = self.config.sampling.torch_device()
        streams = generators([integer_seed(seed, "occupancy", 0) for seed in seeds], device)
        samplers = {
            name: TokenSampler(stage.network, self.config.sampling, self.config.max_tokens)
            for name, stage in self.stages.items()
        }
        edge = self.config.cell
        found = [np.ones([n // edge for n in self.shape], bool)] * len(seeds)
        while edge > 1:
            draws = [self._start(edge, *each) for each in zip(found, must, may, streams, strict=True)]
            samplers[COARSE if self.config.coarse and edge == self.config.cell else OCCUPANCY].fill(draws)
            found = [_children(cells, draw) for cells, draw in zip(found, draws, strict=True)]
            edge //= 2
        return found

    def _start(self, edge: int, cells: Map, must: Map, may: Map, stream: torch.Generator) -> Draw:
        """A level's tokens, those known that known voxels leave one pattern."""
        at = np.argwhere(cells)
        least, most = (patterns(volume, edge)[tuple(at.T)] for volume in (must, may))
        every = np.arange(PATTERNS)
        allowed = (every & least[:, None] == least[:, None]) & (every & ~most[:, None] == 0)
        allowed[:, 0] &= edge == self.config.cell  # finer cells hold something
        only = allowed.sum(1) == 1
        return Draw(centres(at, edge), np.where(only, allowed.argmax(1), MASK), allowed, stream)


def _children(cells: Map, draw: Draw) -> Map:
    found = np.zeros(cells.shape, np.int64)
    found[cells] = draw.classes
    return halved(found)
