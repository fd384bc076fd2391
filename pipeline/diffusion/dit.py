"""DiT over token sequences in 3D (Peebles and Xie, arXiv 2212.09748): adaLN-zero blocks, a position for every token.

Sequences of different lengths are packed one after the other, (N,) tokens in all, so nothing is padded. Attention stays
within a sequence, exactly: by a call a sequence ("slices", one batched call where all are equally long), or by one
compiled FlexAttention kernel with a block mask ("flex", on CUDA alone). A token is a class or MASK; what the
network says of a token is the logits of its class. Positions are frozen 3D sin-cos codes of the voxel's index, a third
of the channels an axis, or a learned table with a row a voxel (Scaffold Diffusion's ablation). Past the paper, a
token's embedding may hold what the voxels around it are (`reach`): from codes alone, attention learns only late which
tokens are neighbours.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

import torch
from jaxtyping import Float, Int, Int64
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.diffusion.bedit import frequencies, modulated, zero
from pipeline.diffusion.masked import Denoise
from pipeline.learning.fields import unwritten
from pipeline.scene.errors import InputError

Count = Annotated[int, Field(ge=1)]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v -> values, (N, heads, d / heads) each


class DiTConfig(BaseModel):
    """The network's size, and how it computes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Count = 768  # channels of a token
    depth: Count = 12  # blocks
    heads: Count = 12
    positions: Literal["sincos", "learned"] = "sincos"
    reach: int = unwritten(0, ge=0, le=3)  # how far along each axis a token is told its neighbours [voxels]
    # Queries and keys are turned by where their tokens are: heads see offsets (RoPE, arXiv 2104.09864, axis by axis).
    rotary: bool = unwritten(False)
    # Each token is told how many of each class its sequence holds, which attention, a mean, learns late: one door.
    census: bool = unwritten(False)
    attention: Literal["slices", "flex"] = "slices"
    bf16: bool = True  # blocks in bfloat16 where they run on a GPU; norms and the residual stream stay in float32
    recompute: bool = False  # gradient checkpointing: less memory, a third more time

    @model_validator(mode="after")
    def _splits(self) -> Self:
        if self.width % self.heads or self.width < 6:
            raise ValueError("width must be a multiple of heads, and at least 6")
        if self.rotary and (self.width // self.heads % 2 or self.width // self.heads < 6):
            raise ValueError("rotary needs an even number of channels a head, at least 6")
        return self


class DiT(nn.Module):
    """forward(tokens, positions, lengths) -> logits.

    classes: K; places: the grid's shape, which a learned table needs; causal: a token sees itself and what precedes it.
    """

    def __init__(self, classes: int, config: DiTConfig, places: tuple[int, int, int], causal: bool = False):
        super().__init__()
        self.config, self.places, self.causal = config, places, causal
        width = config.width
        self.embedding = nn.Embedding(classes + 1, width)  # MASK first
        self.table = nn.Embedding(math.prod(places), width) if config.positions == "learned" else None
        if causal and (config.reach or config.rotary or config.census):
            expected = "reach 0, nothing rotary and no census for a model of the next token"
            raise InputError("network", expected, str(config))
        self.neighbours = Neighbours(classes, width, config.reach) if config.reach else None
        self.census = zero(nn.Linear(classes + 1, width)) if config.census else None
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero(nn.Linear(width, 2 * width))
        self.leave = zero(nn.Linear(width, classes))

    def forward(
        self,
        tokens: Int64[Tensor, "n"],
        positions: Int[Tensor, "n 3"],
        lengths: Sequence[int],
        *,
        t: Float[Tensor, "b"] | None = None,
        extra: Float[Tensor, "n d"] | None = None,
        cells: Int[Tensor, "n 3"] | None = None,
        chosen: Int64[Tensor, "c"] | None = None,
        attends: Sequence[Attend] | None = None,
    ) -> Float[Tensor, "c k"]:
        """Logits of each token's class. lengths: of the packed sequences, in order; their sum is N.

        t: a time a sequence, in any unit, None for a network that is told none; extra: added to the embedded tokens
        (a condition); cells: indices in which neighbours differ by 1, None: positions; chosen: which tokens to give
        logits of, None for all; attends: each block's attention in place of its own (one that remembers earlier ones).
        """
        x = self.embedding(tokens + 1) + self.placed(positions)
        x = x if extra is None else x + extra
        if self.neighbours is not None:
            x = x + self.neighbours(tokens, positions if cells is None else cells, lengths)
        if self.census is not None:
            x = x + self.census(census(tokens, lengths, self.census.in_features).log1p())[_rows(lengths, x.device)]
        time = self.time(frequencies(torch.zeros(1, device=x.device) if t is None else t))
        if t is not None:
            time = time.repeat_interleave(torch.tensor(lengths, device=x.device), 0, output_size=len(tokens))
        if attends is None:
            kind = self.config.attention if x.is_cuda else "slices"
            attends = [attention(kind, tuple(lengths), self.causal, x.device)] * len(self.blocks)
        if self.config.rotary:
            angles = turns(positions if cells is None else cells, self.config.width // self.config.heads)
            attends = [functools.partial(_turned, angles=angles, attend=attend) for attend in attends]
        with torch.autocast("cuda", torch.bfloat16, enabled=x.is_cuda and self.config.bf16):
            for block, attend in zip(self.blocks, attends, strict=True):
                if self.config.recompute and self.training:
                    x = checkpoint(block, x, time, attend, use_reentrant=False)
                else:
                    x = block(x, time, attend)
        if chosen is not None:
            x, time = x[chosen], time if t is None else time[chosen]
        shift, scale = self.modulation(time).chunk(2, dim=-1)
        return self.leave(modulated(self.norm, x, shift, scale))

    def placed(self, positions: Int[Tensor, "n 3"]) -> Float[Tensor, "n d"]:
        """Codes of positions."""
        if self.table is None:
            return sincos(positions, self.config.width)
        _, y, z = self.places
        return self.table((positions[:, 0] * y + positions[:, 1]) * z + positions[:, 2])


class Neighbours(nn.Module):
    """forward(tokens, cells, lengths) -> a part of each token's embedding: what the cells around it are, by offset.

    classes: K; reach: offsets go up to so many cells along each axis. An empty cell counts for 0.
    """

    def __init__(self, classes: int, width: int, reach: int):
        super().__init__()
        self.reach = reach
        self.embedding = nn.Embedding(classes + 2, 8, padding_idx=0)  # empty, MASK, classes
        self.join = nn.Linear(8 * ((2 * reach + 1) ** 3 - 1), width)

    def forward(
        self, tokens: Int64[Tensor, "n"], cells: Int[Tensor, "n 3"], lengths: Sequence[int]
    ) -> Float[Tensor, "n d"]:
        return self.join(self.embedding(around(tokens, cells, lengths, self.reach)).flatten(1))


def around(
    tokens: Int64[Tensor, "n"], cells: Int[Tensor, "n 3"], lengths: Sequence[int], reach: int
) -> Int64[Tensor, "n m"]:
    """What lies about each token's cell, its own left out, z fastest: 0 where its sequence has no token, 1 a hidden
    one, else its class + 2."""
    device = tokens.device
    row = _rows(lengths, device)
    _, y, z = edges = [int(n) + 1 + 2 * reach for n in cells.amax(0)]
    volume = torch.zeros(len(lengths) * math.prod(edges), dtype=torch.int64, device=device)
    i, j, k = (cells.long() + reach).unbind(1)
    place = ((row * edges[0] + i) * y + j) * z + k
    volume[place] = tokens + 2
    offsets = [p for p in itertools.product(range(-reach, reach + 1), repeat=3) if any(p)]
    steps = torch.tensor([(a * y + b) * z + c for a, b, c in offsets], device=device)
    return volume[place[:, None] + steps]


def census(tokens: Int64[Tensor, "n"], lengths: Sequence[int], kinds: int) -> Float[Tensor, "b k"]:
    """How many tokens of each sequence are hidden, of class 0, 1, .."""
    found = torch.bincount(_rows(lengths, tokens.device) * kinds + tokens + 1, minlength=len(lengths) * kinds)
    return found.view(len(lengths), kinds).float()


def _rows(lengths: Sequence[int], device: torch.device) -> Int64[Tensor, "n"]:
    """Which sequence each token is of."""
    row = torch.arange(len(lengths), device=device)
    return row.repeat_interleave(torch.tensor(lengths, device=device), output_size=sum(lengths))


class Block(nn.Module):
    """x += gate * f(norm(x) (1 + scale) + shift), for attention and then the MLP."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = zero(nn.Linear(width, 6 * width))

    def forward(self, x: Float[Tensor, "n d"], time: Float[Tensor, "_n d"], attend: Attend) -> Float[Tensor, "n d"]:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(time).chunk(6, dim=-1)
        q, k, v = self.qkv(modulated(self.norms[0], x, shift, scale)).view(len(x), 3, self.heads, -1).unbind(1)
        x = x + gate * self.out(attend(q, k, v).reshape(len(x), -1))
        return x + gate_mlp * self.mlp(modulated(self.norms[1], x, shift_mlp, scale_mlp))


def turns(cells: Int[Tensor, "n 3"], width: int) -> tuple[Float[Tensor, "n 1 e"], Float[Tensor, "n 1 e"]]:
    """Cosines and sines by which pairs of a head's `width` channels are turned: by x, y and z times 2^-k of a quarter
    of a turn, a third of the pairs each; by nothing the pairs left over."""
    count = width // 6
    rates = torch.pi / 2 * 0.5 ** torch.arange(count, device=cells.device)
    angles = nn.functional.pad((cells[..., None].float() * rates).flatten(1), (0, width // 2 - 3 * count))
    return angles.cos()[:, None], angles.sin()[:, None]


def _turned(q: Tensor, k: Tensor, v: Tensor, angles: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
    """Attention of turned queries and keys: a score knows where tokens are by their offset alone."""
    cos, sin = (a.to(q.dtype) for a in angles)
    (q1, q2), (k1, k2) = q.chunk(2, -1), k.chunk(2, -1)
    q = torch.cat([q1 * cos - q2 * sin, q2 * cos + q1 * sin], -1)
    return attend(q, torch.cat([k1 * cos - k2 * sin, k2 * cos + k1 * sin], -1), v)


def attention(kind: str, lengths: tuple[int, ...], causal: bool, device: torch.device) -> Attend:
    """Attention within each of the packed sequences. kind: see DiTConfig."""
    if kind == "flex":
        return _flex(lengths, causal, device)
    return functools.partial(_slices, lengths=lengths, causal=causal)


def _slices(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], causal: bool) -> Tensor:
    within = _equally_long if len(set(lengths)) == 1 else _one_by_one
    if not q.is_cpu:
        return within(q, k, v, lengths, causal)
    with torch.autocast("cpu", enabled=False):  # backward through bfloat16 takes a CPU three times as long
        return within(q.float(), k.float(), v.float(), lengths, causal)


def _equally_long(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], causal: bool) -> Tensor:
    q, k, v = (x.unflatten(0, (len(lengths), lengths[0])).transpose(1, 2) for x in (q, k, v))  # b heads l e
    found = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return found.transpose(1, 2).flatten(0, 1)


def _one_by_one(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], causal: bool) -> Tensor:
    sequences = zip(*(x.split(lengths) for x in (q, k, v)), lengths, strict=True)
    return torch.cat([_equally_long(a, b, c, (length,), causal) for a, b, c, length in sequences])


def _flex(lengths: tuple[int, ...], causal: bool, device: torch.device) -> Attend:
    kernel, mask = _flex_function("flex_attention", device.type), _flex_mask(lengths, causal, device)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # 1 heads n e
        return kernel(q, k, v, block_mask=mask)[0].transpose(0, 1)

    return attend


@functools.lru_cache(maxsize=4)  # a sampler asks for the same one at each step
def _flex_mask(lengths: tuple[int, ...], causal: bool, device: torch.device) -> Any:
    size = torch.tensor(lengths, device=device)
    sequence = torch.arange(len(lengths), device=device).repeat_interleave(size)

    def visible(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        same = sequence[q] == sequence[k]
        return same & (q >= k) if causal else same

    make = _flex_function("create_block_mask", device.type)
    return make(visible, None, None, len(sequence), len(sequence), device=str(device))


@functools.cache
def _flex_function(name: str, device_type: str) -> Callable[..., Any]:
    """Compiled on CUDA: eager ones would hold an N x N array."""
    from torch.nn.attention import flex_attention as module

    function: Callable[..., Any] = getattr(module, name)
    return torch.compile(function) if device_type == "cuda" else function


def sincos(positions: Int[Tensor, "n 3"], width: int) -> Float[Tensor, "n d"]:
    """Sines and cosines of each coordinate, d/3 channels an axis, base 10,000; 0 in channels left over."""
    count = width // 6
    rates = torch.exp(torch.arange(count, device=positions.device) * (-math.log(10000) / count))
    angles = positions[..., None].float() * rates  # n 3 d/6
    codes = torch.cat([angles.sin(), angles.cos()], -1).flatten(1)
    return nn.functional.pad(codes, (0, width - codes.shape[1]))


def denoiser(network: nn.Module, positions: Int[Tensor, "b l 3"], lengths: Sequence[int]) -> Denoise:
    """The network as samplers take it: rows of l tokens, of which the first lengths[i] are row i's.

    What fills a row up is a sequence of its own, so nothing sees it, and shapes depend on b and l alone.
    """
    width = positions.shape[1]
    parts = [part for length in lengths for part in (length, width - length) if part]
    places = positions.flatten(0, 1)

    def denoise(z: Int64[Tensor, "b l"]) -> Float[Tensor, "b l k"]:
        return network(z.flatten(), places, parts).float().unflatten(0, tuple(z.shape))

    return denoise
