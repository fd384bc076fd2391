"""The autoregressive baseline of Scaffold Diffusion's tables: the same backbone, one class after the other.

    p(classes | map) = prod_i p(x_i | x_1 .. x_{i-1}, positions of tokens 1..i),  tokens in the voxels' C order

The input of step i is the token before (BOS for the first) with its own position, and where the next one stands: that
position's code with its channels reversed, so that the fast rates of one lie on the slow rates of the other. Attention
is causal, and no time goes in. BOS is the embedding that Scaffold has for MASK, so the weights are the same in number.

Known tokens are forced, never changed. What is drawn is conditioned on those known ones that come before it in C order,
and on none that come later; the order allows no more. Of the map, too, only the part up to token i is seen.

A map of more than max_tokens voxels is drawn in windows of C order, each half overlapping the one before; likelihoods
are taken in the same windows, and training scenes are cut to one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pipeline.diffusion import masked
from pipeline.diffusion.dit import DiT, DiTConfig
from pipeline.diffusion.masked import MASK, Likelihood
from pipeline.diffusion.masked_samplers import nucleus
from pipeline.diffusion.sampling import categorical, generators, uniform_rows
from pipeline.generators.protocol import Known
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
from pipeline.learning.checkpoint import MODEL, check_whole, fill, load_model, load_part, save_parts
from pipeline.learning.config import TrainConfig
from pipeline.learning.loop import train
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import IGNORE, Taxonomy, load_taxonomy

Count = Annotated[int, Field(ge=1)]


class AutoregressiveSampling(BaseModel):
    """How tokens are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # 1: exact; else nucleus truncation
    bucket: Count = 64  # tokens: sequences of a batch are filled up to a multiple of this
    batch: Count = 8  # sequences at once; a short batch is padded
    threads: Count = 2  # CPU threads
    device: Literal["auto", "cpu"] = "auto"  # auto: a GPU if there is one

    def torch_device(self) -> torch.device:
        """Where the network runs."""
        return torch.device("cuda" if self.device == "auto" and torch.cuda.is_available() else "cpu")


class AutoregressiveConfig(BaseModel):
    """The whole method."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Literal["autoregressive"] = "autoregressive"
    grid: VoxelGrid = VoxelGrid((32, 32, 32), 1.0, (0.0, 0.0, 0.0))  # a cube of 32 blocks
    taxonomy: str = "minecraft"  # a shipped one by name, or a .toml file
    max_tokens: Annotated[int, Field(ge=2)] = 1024  # of one sequence
    network: DiTConfig = DiTConfig()
    turn: bool = False  # train on scenes turned by multiples of 90 degrees about the vertical, and mirrored
    shift: bool = False  # train on scenes moved to random places within the grid
    training: TrainConfig
    sampling: AutoregressiveSampling = AutoregressiveSampling()
    seed: int = Field(0, ge=0)  # of the initial weights


class NextToken(nn.Module):
    """forward(tokens, positions, lengths) -> logits of each token, given those before it in its sequence."""

    def __init__(self, classes: int, config: DiTConfig, places: tuple[int, int, int]):
        super().__init__()
        self.dit = DiT(classes, config, places, causal=True)

    def forward(
        self, tokens: Int64[Tensor, "n"], positions: Int64[Tensor, "n 3"], lengths: Sequence[int]
    ) -> Float[Tensor, "n k"]:
        """Packed sequences, as DiT takes them."""
        starts = np.cumsum([0, *lengths[:-1]])
        before, place = tokens.roll(1), positions.roll(1, 0)
        before[starts], place[starts] = MASK, positions[starts]
        return self.dit(before, place, lengths, extra=self._next(positions))

    def step(
        self,
        before: Int64[Tensor, "b"],
        place: Int64[Tensor, "b 3"],
        position: Int64[Tensor, "b 3"],
        caches: Sequence[Cache],
    ) -> Float[Tensor, "b k"]:
        """Logits of one more token a row: the one before it, its place, and the position of the one to come."""
        attends = [cache.attend for cache in caches]
        return self.dit(before, place, [1] * len(before), extra=self._next(position), attends=attends)

    def _next(self, positions: Int64[Tensor, "n 3"]) -> Float[Tensor, "n d"]:
        return self.dit.placed(positions).flip(-1)


class Cache:
    """Keys and values of the tokens so far, of one block, all rows equally far."""

    def __init__(self, room: int):
        self.room, self.count = room, 0
        self.stored: Tensor | None = None  # 2 b heads room e

    def attend(
        self, q: Float[Tensor, "b h e"], k: Float[Tensor, "b h e"], v: Float[Tensor, "b h e"]
    ) -> Float[Tensor, "b h e"]:
        """Attention of the newest token to itself and all before it."""
        if self.stored is None:
            self.stored = k.new_empty(2, *k.shape[:2], self.room, k.shape[2])
        self.stored[:, :, :, self.count] = torch.stack([k, v])
        self.count += 1
        keys, values = self.stored[:, :, :, : self.count]
        return nn.functional.scaled_dot_product_attention(q[:, :, None], keys, values)[:, :, 0]


@torch.no_grad()
def ancestral(
    network: NextToken,
    start: Int64[Tensor, "b l"],
    positions: Int64[Tensor, "b l 3"],
    streams: Sequence[torch.Generator],
    *,
    allowed: Bool[Tensor, "b k"] | None = None,
    top_p: float = 1.0,
) -> Int64[Tensor, "b l"]:
    """start with a class for every MASK, in order. allowed: classes that they may become; None: all."""
    z, uniforms = start.clone(), uniform_rows(streams, start.shape[1])
    caches = [Cache(z.shape[1]) for _ in network.dit.blocks]
    before, place = torch.full_like(z[:, 0], MASK), positions[:, 0]
    for i in range(z.shape[1]):
        logits = network.step(before, place, positions[:, i], caches).float()
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        drawn = categorical(nucleus(logits, top_p), uniforms[:, i])
        z[:, i] = torch.where(z[:, i] == MASK, drawn, z[:, i])
        before, place = z[:, i], positions[:, i]
    return z


def spans(size: int, limit: int) -> list[tuple[int, int, int]]:
    """(begin, first, end) of each window of at most `limit` tokens: tokens first..end-1 are its own, those from begin
    on are what it sees of the window before, half of it."""
    found = [(0, 0, min(size, limit))]
    while (end := found[-1][2]) < size:
        begin = end - limit // 2
        found.append((begin, end, min(size, begin + limit)))
    return found


def in_order(tokens: Tokens) -> Tokens:
    """The tokens in C order of their voxels."""
    return tokens.at(np.lexsort(tokens.positions.T[::-1]))


@dataclass(frozen=True, eq=False)
class OrderedData:
    """Training sequences in C order, cut to a random window; see pipeline.learning.order.Indexed."""

    tokens: TokenData  # without a limit of its own
    limit: int

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int, /) -> Tokens:
        return self.tokens[index]

    def draw(self, index: int, random: np.random.Generator) -> Tokens:
        """A sequence as training sees it this time."""
        tokens = in_order(self.tokens.draw(index, random))
        more = max(0, len(tokens.classes) - self.limit)
        first = int(random.integers(more + 1))
        return tokens.at(np.arange(first, len(tokens.classes) - more + first))


@dataclass(eq=False)
class _Draw:
    """A sample on its way; classes: token ids, MASK while to be generated; allowed: ids that these may become."""

    positions: Int64[np.ndarray, "n 3"]
    classes: Int64[np.ndarray, "n"]
    allowed: Bool[np.ndarray, "k"]
    stream: torch.Generator

    @property
    def waits(self) -> bool:
        return bool((self.classes == MASK).any())

    def window(self, limit: int) -> slice:
        """Where the first hidden token is drawn."""
        hidden = int(np.argmax(self.classes == MASK))
        return next(slice(a, end) for a, first, end in spans(len(self.classes), limit) if first <= hidden < end)


class Autoregressive:
    """The generator. source: of occupancy maps; without one `sample` needs `known`, whose 255 are occupied."""

    def __init__(self, config: AutoregressiveConfig, source: OccupancySource | None = None):
        self.config, self.source = config, source
        self.taxonomy: Taxonomy = load_taxonomy(config.taxonomy)
        self.provenance: dict[str, object] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer_seed(config.seed, "weights", 0))
            self.network: nn.Module = NextToken(len(self.taxonomy.classes) - 1, config.network, config.grid.shape)

    @property
    def grid(self) -> VoxelGrid:
        """The grid that its scenes lie on."""
        return self.config.grid

    def fit(self, dataset: Iterable[Scene], out: Path) -> None:
        """Train, and save the average's weights to `out`/weights; scenes are placed as Scaffold does. Raises
        InputError."""
        config, sequences = self.config, [self._tokens(scene) for scene in dataset]
        whole = TokenData(sequences, self.grid.shape, sys.maxsize, config.turn, config.shift)
        data, digest = OrderedData(whole, config.max_tokens), digest_of_tokens(sequences)
        done = train(self.network, self.loss, data, config.training, Path(out), data_digest=digest, collate=collate)
        load_model(done.checkpoint, self.network)
        self.provenance |= {"data_digest": digest, "scenes": len(sequences)}
        self.save(Path(out) / "weights")

    def _tokens(self, scene: Scene) -> Tokens:
        if scene.taxonomy.name != self.taxonomy.name:
            raise InputError("scene", f"taxonomy {self.taxonomy.name}", scene.taxonomy.name)
        return tokens_of(placed(scene, self.grid))

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Exact -log p(classes | map) [nats a token]; scalar ce, the same."""
        logits = model(batch["classes"], batch["positions"], batch["lengths"])
        loss = nn.functional.cross_entropy(logits.float(), batch["classes"])
        return loss, {"ce": loss.detach()}

    def sample(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None = None) -> list[Scene]:
        """n scenes; see Generator. 255 in `known`: occupied, or as the source of maps says if there is one."""
        draws = self._started(n, seeds, known)
        with threads(self.config.sampling.threads):
            while waiting := [draw for draw in draws if draw.waits]:
                for part in self._batches(waiting):
                    self._run(part)
        return [
            self._scene(draw, {"source": "autoregressive", "seed": seed})
            for draw, seed in zip(draws, seeds, strict=True)
        ]

    def _scene(self, draw: _Draw, about: dict[str, object]) -> Scene:
        labels = np.zeros(self.grid.shape, np.uint8)
        labels[tuple(draw.positions.T)] = draw.classes + 1
        return Scene(labels, self.grid, self.taxonomy, about)

    def _started(self, n: int, seeds: Sequence[int], known: Sequence[Known] | None) -> list[_Draw]:
        check_draws(n, seeds, known, self.grid, len(self.taxonomy.classes))
        if known is None and self.source is None:
            remedy = "give known scenes with 255 where a voxel is occupied, or the generator a source of maps"
            raise InputError("autoregressive", "an occupancy map for each seed", "none", remedy)
        maps: Sequence[Any] = self.source.maps(seeds, known) if self.source else [None] * n
        if known is None:
            known = [Known(np.full(self.grid.shape, IGNORE, np.uint8))] * n
        return [self._start(*each) for each in zip(seeds, known, maps, strict=True)]

    def _start(self, seed: int, known: Known, drawn: Bool[np.ndarray, "x y z"] | None) -> _Draw:
        positions = np.argwhere(map_of(known, drawn))  # in C order
        labels = known.labels[tuple(positions.T)].astype(np.int64)
        classes = np.where(labels == IGNORE, MASK, labels - 1)
        allowed = allowed_classes([known], len(self.taxonomy.classes))[0, 1:]
        if not allowed.any() and (classes == MASK).any():
            raise InputError("known voxels", "classes beside empty that voxels may become", str(known.classes))
        stream = generators([integer_seed(seed, "autoregressive", 0)], self.config.sampling.torch_device())[0]
        return _Draw(positions, classes, allowed, stream)

    def _batches(self, draws: Sequence[_Draw]) -> list[list[_Draw]]:
        """Draws whose windows have the same width together: what else is in a batch then changes no shape."""
        settings, buckets = self.config.sampling, defaultdict[int, list[_Draw]](list)
        for draw in draws:
            window = draw.window(self.config.max_tokens)
            buckets[-(-(window.stop - window.start) // settings.bucket)].append(draw)
        size = settings.batch
        return [group[i : i + size] for group in buckets.values() for i in range(0, len(group), size)]

    def _run(self, draws: Sequence[_Draw]) -> None:
        """Draw each one's next window, in a batch filled up with copies of the last."""
        settings, device = self.config.sampling, self.config.sampling.torch_device()
        rows = [*draws, *[draws[-1]] * (settings.batch - len(draws))]
        windows = [draw.window(self.config.max_tokens) for draw in rows]
        width = -(-(windows[0].stop - windows[0].start) // settings.bucket) * settings.bucket
        classes, positions = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width, 3), np.int64)
        for row, (draw, window) in enumerate(zip(rows, windows, strict=True)):
            size = window.stop - window.start
            classes[row, :size], positions[row, :size] = draw.classes[window], draw.positions[window]
        streams = [draw.stream for draw in draws] + generators([0] * (len(rows) - len(draws)), device)
        drawn = ancestral(
            self.network.to(device).eval(),  # type: ignore[arg-type]
            torch.from_numpy(classes).to(device),
            torch.from_numpy(positions).to(device),
            streams,
            allowed=torch.from_numpy(np.stack([draw.allowed for draw in rows])).to(device),
            top_p=settings.top_p,
        )
        for draw, window, found in zip(draws, windows, drawn.cpu().numpy(), strict=False):
            draw.classes[window] = found[: window.stop - window.start]

    @torch.no_grad()
    def likelihood(self, dataset: Iterable[Scene], seed: int = 0, draws: int = 1) -> Likelihood:
        """Exact -log p(classes | map) of scenes; seed and draws, which bounds need, change nothing. Raises InputError
        below two scenes."""
        sequences = [self._tokens(scene) for scene in dataset]
        with threads(self.config.sampling.threads):
            found = np.array([self.nll(tokens) for tokens in sequences])
        if not len(found):
            raise InputError("likelihood", "at least two scenes", "none")
        sizes = np.array([len(tokens.classes) for tokens in sequences])
        return dataclasses.replace(masked.likelihood(found[:, None], sizes), noise=0.0)

    @torch.no_grad()
    def nll(self, tokens: Tokens) -> float:
        """-log p(classes | map) of one sequence in C order [nats]."""
        device, total = self.config.sampling.torch_device(), 0.0
        network = self.network.to(device).eval()
        for begin, first, end in spans(len(tokens.classes), self.config.max_tokens):
            classes = torch.from_numpy(tokens.classes[begin:end]).to(device)
            positions = torch.from_numpy(tokens.positions[begin:end]).to(device)
            log_p = network(classes, positions, [end - begin]).double().log_softmax(-1)
            total -= float(log_p.gather(-1, classes[:, None])[first - begin :].sum())
        return total

    def save(self, folder: Path) -> None:
        """Weights, and a card with config and provenance."""
        config = self.config.model_dump(mode="json")
        save_parts(folder, {MODEL: self.network.state_dict()}, {"config": config, **self.provenance})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; its source of maps is the caller's to give. Raises InputError."""
        card = check_whole(folder)
        try:
            config = AutoregressiveConfig.model_validate(card["config"])
        except (KeyError, ValueError):
            raise InputError(folder, "weights of autoregressive", "a card of something else") from None
        generator = cls(config)
        fill(generator.network, load_part(folder, MODEL), folder)
        generator.provenance = {k: v for k, v in card.items() if k not in ("config", "format", "files")}
        return generator
