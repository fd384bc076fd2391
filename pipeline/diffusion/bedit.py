"""BEDiT, Comp-D3PM's BEV-aware diffusion transformer: height is folded into channels, attention runs over BEV tokens.

Every label volume that goes in (x_t, a condition, an earlier estimate of x_0) has its own embedding; its voxels over
one token's footprint, all heights, become that token's channels; volumes are concatenated and projected. Volumes go
in and logits come out *folded*, (B, I, J, V): I x J tokens of V voxels each, so no large array is ever transposed.
Blocks are DiT's (arXiv 2212.09748): adaLN-zero, affine-free norms, zero-initialised last layer; positions are 2D
sin-cos, so the same weights take any number of tokens. Norms stay in float32 under bf16 autocast. Past the paper, a
token may be told its neighbours before each block (`reach`): attention learns late which those are, and until then the
halves of an object that lies across tokens don't fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Patch = tuple[int, int]
AnyLayer = TypeVar("AnyLayer", nn.Linear, nn.Conv2d)


@dataclass(frozen=True)
class Volume:
    """A label volume that goes in or comes out: how many states a voxel has, its height, its voxels a token (x, y)."""

    states: int
    height: int
    patch: Patch

    @property
    def voxels(self) -> int:
        """V: voxels of a token."""
        return self.patch[0] * self.patch[1] * self.height


def fold(labels: Int[Tensor, "b x y z"], patch: Patch) -> Int[Tensor, "b i j v"]:
    """Voxels in token order: V = p q Z, of a token's footprint p x q and all heights Z."""
    (p, q), (b, x, y, z) = patch, labels.shape
    return labels.view(b, x // p, p, y // q, q, z).transpose(2, 3).flatten(3)


def unfold(labels: Int[Tensor, "b i j v"], patch: Patch) -> Int[Tensor, "b x y z"]:
    """The inverse of `fold`."""
    (p, q), (b, i, j, v) = patch, labels.shape
    return labels.view(b, i, j, p, q, v // (p * q)).transpose(2, 3).reshape(b, i * p, j * q, -1)


class Block(nn.Module):
    """x += gate * f(norm(x) (1 + scale) + shift), for attention and then the MLP."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = zero(nn.Linear(width, 6 * width))

    def forward(self, x: Float[Tensor, "b n d"], time: Float[Tensor, "b d"]) -> Float[Tensor, "b n d"]:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(time)[:, None].chunk(6, dim=-1)
        x = x + gate * self._attend(modulated(self.norms[0], x, shift, scale))
        return x + gate_mlp * self.mlp(modulated(self.norms[1], x, shift_mlp, scale_mlp))

    def _attend(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # b heads n d/heads
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class Neighbours(nn.Module):
    """x += convolution of norm(x) over the tokens up to `reach` away along each axis; begins as no change."""

    def __init__(self, width: int, reach: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.convolution = zero(nn.Conv2d(width, width, 2 * reach + 1, padding=reach))

    def forward(self, x: Float[Tensor, "b i j d"]) -> Float[Tensor, "b i j d"]:
        with torch.autocast(x.device.type, enabled=False):
            normed = self.norm(x.float())
        return x + self.convolution(normed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class BEDiT(nn.Module):
    """forward(t, x_t, *conditions) -> logits of x_0, all folded.

    inputs: the volumes that go in, x_t first; classes: K of x_0, whose shape is x_t's. All have the same token grid.
    reach: how far along each axis a token is told its neighbours before each block [tokens]; 0: by attention alone.
    """

    def __init__(
        self,
        inputs: tuple[Volume, ...],
        classes: int,
        *,
        width: int,
        depth: int,
        channels: int,
        reach: int = 0,
        recompute: bool = False,
    ):
        super().__init__()
        self.inputs, self.classes, self.recompute = inputs, classes, recompute
        self.embeddings = nn.ModuleList(nn.Embedding(volume.states, channels) for volume in inputs)
        self.enter = nn.Linear(sum(volume.voxels for volume in inputs) * channels, width)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, max(1, width // 32)) for _ in range(depth))
        self.neighbours = nn.ModuleList(Neighbours(width, reach) for _ in range(depth if reach else 0))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero(nn.Linear(width, 2 * width))
        self.leave = zero(nn.Linear(width, inputs[0].voxels * classes))

    def forward(
        self, t: Float[Tensor, "b"], *volumes: Int[Tensor, "b i j _v"], chosen: Int[Tensor, "c"] | None = None
    ) -> Float[Tensor, "b i j v k"]:
        """chosen: which of a token's V voxels to give logits of; None: all."""
        embedded = [table(labels).flatten(3) for table, labels in zip(self.embeddings, volumes, strict=True)]
        x = self.enter(torch.cat(embedded, -1))
        b, i, j, d = x.shape
        x = x.flatten(1, 2) + self.places(i, j, x.device).to(x.dtype)  # b n d, n = i * j
        time = self.time(frequencies(t))
        for k, block in enumerate(self.blocks):
            if self.neighbours:
                x = self.neighbours[k](x.view(b, i, j, d)).flatten(1, 2)
            x = checkpoint(block, x, time, use_reentrant=False) if self.recompute and self.training else block(x, time)
        shift, scale = self.modulation(time)[:, None].chunk(2, dim=-1)
        weight, bias = self.leave.weight.view(-1, self.classes, d), self.leave.bias.view(-1, self.classes)
        if chosen is not None:
            weight, bias = weight[chosen], bias[chosen]
        logits = nn.functional.linear(modulated(self.norm, x, shift, scale), weight.flatten(0, 1), bias.flatten())
        return logits.view(b, i, j, -1, self.classes)

    def places(self, rows: int, columns: int, device: torch.device) -> Float[Tensor, "n d"]:
        """Codes of the tokens' positions, row by row."""
        return positions(rows, columns, self.enter.out_features, device)


def modulated(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) (1 + scale) + shift, in float32 under autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return norm(x.float()) * (1 + scale.float()) + shift.float()


def zero(layer: AnyLayer) -> AnyLayer:
    """The layer with weights and bias 0."""
    for weights in layer.parameters():
        nn.init.zeros_(weights)
    return layer


def frequencies(t: Float[Tensor, "b"], count: int = 256) -> Float[Tensor, "b f"]:
    """Sines and cosines of t, wavelengths from 2 pi to 20,000 pi."""
    rates = torch.exp(torch.arange(count // 2, device=t.device) * (-math.log(10000) / (count // 2)))
    angles = t[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


def positions(rows: int, columns: int, width: int, device: torch.device) -> Float[Tensor, "n d"]:
    """2D sin-cos positions, half of the channels an axis, base 10,000; row by row."""
    rates = torch.exp(torch.arange(width // 4, device=device) * (-math.log(10000) / (width // 4)))
    axes = [torch.arange(n, device=device)[:, None] * rates for n in (rows, columns)]
    axes = [torch.cat([a.sin(), a.cos()], -1) for a in axes]  # n d/2
    x, y = axes[0][:, None].expand(-1, columns, -1), axes[1][None].expand(rows, -1, -1)
    return torch.cat([x, y], -1).flatten(0, 1)
