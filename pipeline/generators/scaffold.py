"""Scaffold Diffusion: a class for every occupied voxel, by masked diffusion over them alone.

A scene is a sequence: its occupied voxels in C order, each a token with its position; air is never seen. The occupancy
map is given: by `Known` (255 = occupied, class to be generated; 0 = air), or by a source of maps. Known tokens are
conditioned on exactly and never change, which is completion, recolouring and inpainting.

Deviations: sequences are packed, not padded; any taxonomy; a map of more than max_tokens voxels is generated in
overlapping windows, each the voxels nearest to one that is still to come, conditioned on what is known of them; larger
training scenes are cut to such windows. The network is told no time, as p(x_0 | z_t) needs none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from pipeline.diffusion import masked, masked_samplers
from pipeline.diffusion.dit import DiT, DiTConfig, denoiser
from pipeline.diffusion.masked import MASK, Denoise, Likelihood
from pipeline.diffusion.masked_samplers import Watch
from pipeline.diffusion.sampling import generators
from pipeline.generators.protocol import Known
from pipeline.generators.tokens import (
    OccupancySource,
    TokenData,
    Tokens,
    collate,
    digest_of_tokens,
    map_of,
    nearest,
    placed,
    tokens_of,
)
from pipeline.generators.volumes import allowed_classes, check_draws, threads
from pipeline.learning.checkpoint import MODEL, check_whole, fill, load_model, load_part, save_parts
from pipeline.learning.config import TrainConfig
from pipeline.learning.loop import train
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import IGNORE, Taxonomy, load_taxonomy

Count = Annotated[int, Field(ge=1)]
CRAFT_GRID = VoxelGrid((32, 32, 32), 1.0, (0.0, 0.0, 0.0))  # a cube of 32 blocks


class ScaffoldSampling(BaseModel):
    """How tokens are drawn; see masked_samplers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sampler: Literal["ancestral", "first_hitting", "confidence", "remasking"] = "first_hitting"
    steps: Count | None = None  # None, of first_hitting and confidence: one token a call
    cached: bool = True  # the network runs only after a token has changed; samples are the same
    order: Literal["probability", "margin", "entropy"] = "probability"  # confidence: what opens first
    eta: Annotated[float, Field(ge=0, le=1)] = 0.1  # remasking: share of what may be hidden again
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # 1: exact; else nucleus truncation
    bucket: Count = 64  # tokens: sequences of a batch are filled up to a multiple of this
    batch: Count = 8  # sequences at once; a short batch is padded
    threads: Count = 2  # CPU threads
    device: Literal["auto", "cpu"] = "auto"  # auto: a GPU if there is one

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.steps is None and self.sampler in ("ancestral", "remasking"):
            raise ValueError(f"sampler {self.sampler!r} needs steps")
        return self

    def torch_device(self) -> torch.device:
        """Where the network runs."""
        return torch.device("cuda" if self.device == "auto" and torch.cuda.is_available() else "cpu")

    def draw(
        self, denoise: Denoise, start: Tensor, streams: Sequence[torch.Generator], watch: Watch | None = None
    ) -> Int64[Tensor, "b l"]:
        """Tokens for every MASK of `start`, by the sampler of this config."""
        denoise = masked_samplers.cached(denoise) if self.cached else denoise
        rest: dict[str, Any] = {"top_p": self.top_p, "watch": watch}
        if self.sampler == "ancestral":
            return masked_samplers.ancestral(denoise, start, streams, self.steps or 1, **rest)
        if self.sampler == "remasking":
            return masked_samplers.remasking(denoise, start, streams, self.steps or 1, eta=self.eta, **rest)
        if self.sampler == "confidence":
            return masked_samplers.confidence_ordered(denoise, start, streams, self.steps, by=self.order, **rest)
        return masked_samplers.first_hitting(denoise, start, streams, self.steps, **rest)


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
    training: TrainConfig
    sampling: ScaffoldSampling = ScaffoldSampling()
    seed: int = Field(0, ge=0)  # of the initial weights


@dataclass(eq=False)
class _Draw:
    """A sample on its way. classes: token ids, MASK while to be generated; allowed: ids that these may become."""

    shape: tuple[int, int, int]
    positions: Int64[np.ndarray, "n 3"]
    classes: Int64[np.ndarray, "n"]
    allowed: Bool[np.ndarray, "k"]
    stream: torch.Generator

    @property
    def waits(self) -> bool:
        return bool((self.classes == MASK).any())

    def labels(self, classes: Int64[np.ndarray, "n"]) -> UInt8[np.ndarray, "x y z"]:
        """Classes as a volume, 255 where one is still hidden."""
        labels = np.zeros(self.shape, np.uint8)
        labels[tuple(self.positions.T)] = np.where(classes == MASK, IGNORE, classes + 1)
        return labels


@dataclass(frozen=True, eq=False)
class _Window:
    """Which tokens of a draw the network sees at once, and which of those are then final."""

    draw: _Draw
    index: Int64[np.ndarray, "w"]
    final: Bool[np.ndarray, "w"]

    def take(self, classes: Int64[np.ndarray, "w"]) -> None:
        """Put drawn classes into the draw."""
        self.draw.classes[self.index[self.final]] = classes[self.final]


class Scaffold:
    """The generator. source: of occupancy maps; without one `sample` needs `known`, whose 255 are occupied."""

    def __init__(self, config: ScaffoldConfig, source: OccupancySource | None = None):
        self.config, self.source = config, source
        self.taxonomy: Taxonomy = load_taxonomy(config.taxonomy)
        self.provenance: dict[str, object] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer_seed(config.seed, "weights", 0))
            self.network: nn.Module = DiT(len(self.taxonomy.classes) - 1, config.network, config.grid.shape)

    @property
    def grid(self) -> VoxelGrid:
        """The grid that its scenes lie on."""
        return self.config.grid

    def fit(self, dataset: Iterable[Scene], out: Path) -> None:
        """Train, and save the average's weights to `out`/weights.

        A scene smaller than the grid is placed in the middle of its floor; 255 is left out. Raises InputError.
        """
        config, sequences = self.config, [self._tokens(scene) for scene in dataset]
        data = TokenData(sequences, self.grid.shape, config.max_tokens, config.turn, config.shift)
        digest = digest_of_tokens(sequences)
        done = train(self.network, self.loss, data, config.training, Path(out), data_digest=digest, collate=collate)
        load_model(done.checkpoint, self.network)
        self.provenance |= {"data_digest": digest, "scenes": len(sequences)}
        self.save(Path(out) / "weights")

    def _tokens(self, scene: Scene) -> Tokens:
        if scene.taxonomy.name != self.taxonomy.name:
            raise InputError("scene", f"taxonomy {self.taxonomy.name}", scene.taxonomy.name)
        return tokens_of(placed(scene, self.grid))

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The bound [nats a token] at antithetic times; scalar ce, the mean over masked tokens."""
        x_0, lengths = batch["classes"], batch["lengths"]
        t = masked.antithetic_times(len(lengths), generator, steps=self.config.steps)
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
        with threads(self.config.sampling.threads):
            while waiting := [draw for draw in draws if draw.waits]:
                for windows in self._batches([self._window(draw) for draw in waiting]):
                    self._run(windows)
        about = [{"source": "scaffold", "seed": seed} for seed in seeds]
        return [
            Scene(d.labels(d.classes), self.grid, self.taxonomy, note) for d, note in zip(draws, about, strict=True)
        ]

    def trajectory(self, seed: int, known: Known | None = None, frames: int = 50) -> list[UInt8[np.ndarray, "x y z"]]:
        """How the sample of one seed comes about: at most `frames` volumes, 255 where a class is still hidden.

        The last is the sample. With a window at a time, only what will be final is shown of each.
        """
        (draw,) = self._started(1, [seed], None if known is None else [known])
        seen = [draw.classes.copy()]
        with threads(self.config.sampling.threads):
            while draw.waits:
                window = self._window(draw)

                def note(z: Int64[Tensor, "b l"], window: _Window = window) -> None:
                    window.take(z[0, : len(window.index)].cpu().numpy())
                    seen.append(window.draw.classes.copy())

                self._run([window], note)
        return [draw.labels(seen[round(i)]) for i in np.linspace(0, len(seen) - 1, min(frames, len(seen)))]

    def _started(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None) -> list[_Draw]:
        check_draws(n, seeds, known, self.grid, len(self.taxonomy.classes))
        if known is None and self.source is None:
            remedy = "give known scenes with 255 where a voxel is occupied, or the generator a source of maps"
            raise InputError("scaffold", "an occupancy map for each seed", "none", remedy)
        maps: Sequence[Any] = self.source.maps(seeds, known) if self.source else [None] * n
        if known is None:
            known = [Known(np.full(self.grid.shape, IGNORE, np.uint8))] * n
        return [self._start(*each) for each in zip(seeds, known, maps, strict=True)]

    def _start(self, seed: int, known: Known, drawn: Bool[np.ndarray, "x y z"] | None) -> _Draw:
        positions = np.argwhere(map_of(known, drawn))
        labels = known.labels[tuple(positions.T)].astype(np.int64)
        classes = np.where(labels == IGNORE, MASK, labels - 1)
        allowed = allowed_classes([known], len(self.taxonomy.classes))[0, 1:]
        if not allowed.any() and (classes == MASK).any():
            raise InputError("known voxels", "classes beside empty that voxels may become", str(known.classes))
        stream = generators([integer_seed(seed, "scaffold", 0)], self.config.sampling.torch_device())[0]
        return _Draw(self.grid.shape, positions, classes, allowed, stream)

    def _window(self, draw: _Draw) -> _Window:
        """All tokens, or the `max_tokens` nearest to the first hidden one, of which the nearest half become final."""
        size, limit = len(draw.classes), self.config.max_tokens
        if size <= limit:
            return _Window(draw, np.arange(size), np.ones(size, bool))
        index = nearest(draw.positions, int(np.argmax(draw.classes == MASK)), limit)
        outside = np.ones(size, bool)
        outside[index] = False
        more = bool((draw.classes[outside] == MASK).any())
        return _Window(draw, index, np.arange(limit) < (-(-limit // 2) if more else limit))

    def _batches(self, windows: Sequence[_Window]) -> list[list[_Window]]:
        """Windows of the same width together: what else is in a batch then changes no shape."""
        size, buckets = self.config.sampling.batch, defaultdict[int, list[_Window]](list)
        for window in windows:
            buckets[self._width(len(window.index))].append(window)
        return [group[i : i + size] for group in buckets.values() for i in range(0, len(group), size)]

    def _width(self, length: int) -> int:
        bucket = self.config.sampling.bucket
        return -(-length // bucket) * bucket

    @torch.no_grad()
    def _run(self, windows: Sequence[_Window], watch: Watch | None = None) -> None:
        """Draw one batch, filled up with copies of its last window, and take what is final."""
        settings, device = self.config.sampling, self.config.sampling.torch_device()
        rows = [*windows, *[windows[-1]] * (settings.batch - len(windows))]
        streams = [w.draw.stream for w in windows] + generators([0] * (len(rows) - len(windows)), device)
        allowed = torch.from_numpy(np.stack([w.draw.allowed for w in rows])).to(device)[:, None]
        start, denoise = self._rows([Tokens(w.draw.classes[w.index], w.draw.positions[w.index]) for w in rows])

        def allowing(z: Int64[Tensor, "b l"]) -> Tensor:
            return denoise(z).masked_fill_(~allowed, -torch.inf)

        drawn = settings.draw(allowing, start, streams, watch).cpu().numpy()
        for window, classes in zip(windows, drawn, strict=False):
            window.take(classes[: len(window.index)])

    def _rows(self, sequences: Sequence[Tokens]) -> tuple[Int64[Tensor, "b l"], Denoise]:
        """Sequences as rows, filled up with tokens of class 0, and the network for them."""
        device, lengths = self.config.sampling.torch_device(), [len(tokens.classes) for tokens in sequences]
        width = self._width(max(lengths))
        classes, positions = np.zeros((len(lengths), width), np.int64), np.zeros((len(lengths), width, 3), np.int64)
        for row, tokens in enumerate(sequences):
            classes[row, : lengths[row]], positions[row, : lengths[row]] = tokens.classes, tokens.positions
        network = self.network.to(device).eval()
        return torch.from_numpy(classes).to(device), denoiser(network, torch.from_numpy(positions).to(device), lengths)

    @torch.no_grad()
    def likelihood(self, dataset: Iterable[Scene], seed: int, draws: int = 16) -> Likelihood:
        """The bound on -log p(classes | map) of scenes, in whole sequences. Raises InputError below two scenes."""
        sequences, settings = [self._tokens(scene) for scene in dataset], self.config.sampling
        estimates = []
        with threads(settings.threads):
            for first, tokens in enumerate(sequences):
                x_0, denoise = self._rows([tokens])
                free = torch.arange(x_0.shape[1], device=x_0.device)[None] < len(tokens.classes)
                streams = generators([integer_seed(seed, "likelihood", first)], x_0.device)
                estimates.append(masked.bounds(denoise, x_0, free, streams, draws).cpu().numpy())
        if not estimates:
            raise InputError("likelihood", "at least two scenes", "none")
        return masked.likelihood(np.concatenate(estimates), np.array([len(tokens.classes) for tokens in sequences]))

    def save(self, folder: Path) -> None:
        """Weights, and a card with config and provenance."""
        config = self.config.model_dump(mode="json")
        save_parts(folder, {MODEL: self.network.state_dict()}, {"config": config, **self.provenance})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; its source of maps is the caller's to give. Raises InputError."""
        card = check_whole(folder)
        try:
            config = ScaffoldConfig.model_validate(card["config"])
        except (KeyError, ValueError):
            raise InputError(folder, "weights of scaffold", "a card of something else") from None
        generator = cls(config)
        fill(generator.network, load_part(folder, MODEL), folder)
        generator.provenance = {k: v for k, v in card.items() if k not in ("config", "format", "files")}
        return generator
