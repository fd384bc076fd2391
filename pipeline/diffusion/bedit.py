"""BEDiT, Comp-D3PM's BEV-aware diffusion transformer: height is folded into channels, attention runs over BEV tokens.

Every label volume that goes in (x_t, a condition, an earlier estimate of x_0) has its own embedding; its voxels over
one token's footprint, all heights, become that token's channels; volumes are concatenated and projected. Volumes go
in and logits come out *folded*, (B, I, J, V): I x J tokens of V voxels each, so no large array is ever transposed.
Blocks are DiT's (arXiv 2212.09748): adaLN-zero, affine-free norms, zero-initialised last layer; positions are 2D
sin-cos, so the same weights take any number of tokens. Norms stay in float32 under bf16 autocast.

A token of more voxels than its channels carry draws shapes that don't fit its neighbours': cars came in pieces of a
token's size. `Near` is our addition for such tokens: convolutions over quarters of tokens, which see x_t itself and
what the tokens know, and whose logits are added to the tokens'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Patch = tuple[int, int]


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


class BEDiT(nn.Module):
    """forward(t, x_t, *conditions) -> logits of x_0, all folded.

    inputs: the volumes that go in, x_t first; classes: K of x_0, whose shape is x_t's. All have the same token grid.
    """

    def __init__(
        self,
        inputs: tuple[Volume, ...],
        classes: int,
        *,
        width: int,
        depth: int,
        channels: int,
        near_blocks: int = 0,
        recompute: bool = False,
    ):
        super().__init__()
        self.inputs, self.classes, self.recompute = inputs, classes, recompute
        self.embeddings = nn.ModuleList(nn.Embedding(volume.states, channels) for volume in inputs)
        self.enter = nn.Linear(sum(volume.voxels for volume in inputs) * channels, width)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, max(1, width // 32)) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero(nn.Linear(width, 2 * width))
        self.leave = zero(nn.Linear(width, inputs[0].voxels * classes))
        self.near = None
        if near_blocks:
            self.near = Near(inputs[0], classes, channels=channels, width=width, blocks=near_blocks)

    def forward(
        self, t: Int[Tensor, "b"], *volumes: Int[Tensor, "b i j _v"], chosen: Int[Tensor, "c"] | None = None
    ) -> Float[Tensor, "b i j v k"]:
        """chosen: which of a token's V voxels to give logits of; None: all."""
        embedded = [table(labels).flatten(3) for table, labels in zip(self.embeddings, volumes, strict=True)]
        x = self.enter(torch.cat(embedded, -1))
        b, i, j, d = x.shape
        x = x.flatten(1, 2) + positions(i, j, d, x.device).to(x.dtype)  # b n d, n = i * j
        time = self.time(frequencies(t))
        for block in self.blocks:
            x = checkpoint(block, x, time, use_reentrant=False) if self.recompute and self.training else block(x, time)
        shift, scale = self.modulation(time)[:, None].chunk(2, dim=-1)
        weight, bias = self.leave.weight.view(-1, self.classes, d), self.leave.bias.view(-1, self.classes)
        if chosen is not None:
            weight, bias = weight[chosen], bias[chosen]
        x = modulated(self.norm, x, shift, scale)
        logits = nn.functional.linear(x, weight.flatten(0, 1), bias.flatten()).view(b, i, j, -1, self.classes)
        if self.near is None:
            return logits
        return logits + self.near(embedded[0], x.view(b, i, j, d), time, chosen)


class NearBlock(nn.Module):
    """x += gate * mix(gelu(convolution 3x3(norm(x) (1 + scale) + shift))): adaLN-zero as in `Block`."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.convolution = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Linear(width, width)
        self.modulation = zero(nn.Linear(width, 3 * width))

    def forward(self, x: Float[Tensor, "b x y d"], time: Float[Tensor, "b d"]) -> Float[Tensor, "b x y d"]:
        shift, scale, gate = self.modulation(time)[:, None, None].chunk(3, dim=-1)
        near = modulated(self.norm, x, shift, scale).permute(0, 3, 1, 2)  # channels stay last in memory
        near = self.convolution(near).permute(0, 2, 3, 1)
        return x + gate * self.mix(nn.functional.gelu(near, approximate="tanh"))


class Near(nn.Module):
    """Logits of a token's voxels from its quarters and their neighbours, to be added to the token's own.

    Starts at zero, so a trained network may be given it and be trained on. Tokens are of an even number of columns.
    """

    def __init__(self, volume: Volume, classes: int, *, channels: int, width: int, blocks: int):
        super().__init__()
        (p, q), self.classes = volume.patch, classes
        self.part, voxels = (p // 2, q // 2, volume.height), volume.voxels // 4
        self.enter, self.token = nn.Linear(voxels * channels, width), nn.Linear(width, 4 * width)
        self.blocks = nn.ModuleList(NearBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.leave = zero(nn.Linear(width, voxels * classes))

    def forward(
        self,
        embedded: Float[Tensor, "b i j vc"],
        tokens: Float[Tensor, "b i j d"],
        time: Float[Tensor, "b d"],
        chosen: Int[Tensor, "c"] | None = None,
    ) -> Float[Tensor, "b i j v k"]:
        """chosen: as `quarters` makes it of some voxels of a quarter."""
        (p, q, _), (b, i, j, _) = self.part, embedded.shape
        x = embedded.view(b, i, j, 2, p, 2, q, -1).permute(0, 1, 3, 2, 5, 4, 6, 7)  # b i 2 j 2 p q zc
        told = self.token(tokens).view(b, i, j, 2, 2, -1).transpose(2, 3)  # b i 2 j 2 d
        x = self.enter(x.reshape(b, 2 * i, 2 * j, -1)) + told.reshape(b, 2 * i, 2 * j, -1)
        for block in self.blocks:
            x = block(x, time)
        x = self.norm(x).view(b, i, 2, j, 2, -1).transpose(2, 3)  # b i j 2 2 d
        if chosen is None:
            logits = self.leave(x).view(b, i, j, 2, 2, p, q, -1).transpose(4, 5)
            return logits.reshape(b, i, j, -1, self.classes)
        weight, bias = self.leave.weight.view(-1, self.classes, x.shape[-1]), self.leave.bias.view(-1, self.classes)
        mine = self._of_quarter(chosen[: len(chosen) // 4])
        logits = nn.functional.linear(x, weight[mine].flatten(0, 1), bias[mine].flatten())
        return logits.view(b, i, j, -1, self.classes)  # quarter by quarter

    def _of_quarter(self, voxels: Int[Tensor, "c"]) -> Int[Tensor, "c"]:
        """Voxels of a token's first quarter as voxels of a quarter."""
        _, q, z = self.part
        row, rest = voxels // (2 * q * z), voxels % (2 * q * z)
        return row * q * z + rest


def quarters(chosen: Int[Tensor, "c"], volume: Volume) -> Int[Tensor, "4*c"]:
    """Voxels of a quarter of a token as voxels of the token, in each of its quarters in turn."""
    (p, q), z = volume.patch, volume.height
    row, rest = chosen // (q // 2 * z), chosen % (q // 2 * z)
    starts = [(a * (p // 2) * q + c * (q // 2)) * z for a in (0, 1) for c in (0, 1)]
    return torch.cat([start + row * q * z + rest for start in starts])


def modulated(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) (1 + scale) + shift, in float32 under autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return norm(x.float()) * (1 + scale.float()) + shift.float()


def zero(layer: nn.Linear) -> nn.Linear:
    """The layer with weights and bias 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def frequencies(t: Int[Tensor, "b"], count: int = 256) -> Float[Tensor, "b f"]:
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
