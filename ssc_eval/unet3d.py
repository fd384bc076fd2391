"""MonoScene's 3D half: DDR blocks, the 3D context relation prior, the completion head (Cao and de Charette, 2022).

DDR (Li et al., CVPR 2019) replaces a 3x3x3 convolution by one along each axis, with shortcuts between them. ASPP and
the head follow LMSCNet (Roldao et al., 3DV 2020). The four relations between a voxel and a mega-voxel (2x2x2 voxels)
are those of the paper; what each channel means is fixed by the loss. Their logits come from one convolution instead
of four: the same weights, stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

RELATIONS = 4
Size3 = tuple[int, int, int]
Run = Callable[..., Tensor]  # run(module, *inputs) -> its output; where gradient checkpointing comes in


def call(module: nn.Module, *inputs: Tensor) -> Tensor:
    """The plain way to run a part."""
    return module(*inputs)


def _conv_norm(channels_in: int, channels_out: int, size: Size3, stride: Size3, dilation: int) -> nn.Sequential:
    x, y, z = (dilation * (n // 2) for n in size)
    conv = nn.Conv3d(channels_in, channels_out, size, stride, (x, y, z), dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(channels_out))


def _pointwise(channels_in: int, channels_out: int) -> nn.Sequential:
    return _conv_norm(channels_in, channels_out, (1, 1, 1), (1, 1, 1), 1)


def _shortcut(channels: int, pool: Size3) -> nn.Module:
    """Average pooling and 1x1x1, or nothing where nothing shrinks."""
    return nn.Identity() if pool == (1, 1, 1) else nn.Sequential(nn.AvgPool3d(pool), *_pointwise(channels, channels))


class DDRBlock(nn.Module):
    """A residual block of 1-D convolutions along z, y and x: (B, C, X, Y, Z) -> (B, D, X/s, Y/s, Z/s).

    Inside are C/4 channels. Without stride C and D are equal, and an output depends on the 27 inputs at -d, 0, +d.
    """

    def __init__(self, channels: int, channels_out: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        inner, s = channels // 4, stride
        self.reduce = _pointwise(channels, inner)
        self.along_z = _conv_norm(inner, inner, (1, 1, 3), (1, 1, s), dilation)
        self.along_y = _conv_norm(inner, inner, (1, 3, 1), (1, s, 1), dilation)
        self.along_x = _conv_norm(inner, inner, (3, 1, 1), (s, 1, 1), dilation)
        self.expand = _pointwise(inner, channels_out)
        self.z_past_y = _shortcut(inner, (1, s, 1))
        self.z_past_x, self.y_past_x = _shortcut(inner, (s, 1, 1)), _shortcut(inner, (s, 1, 1))
        self.residual: nn.Module = nn.Identity()
        if stride > 1:
            self.residual = nn.Sequential(nn.AvgPool3d(stride), *_pointwise(channels, channels_out))

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b d xs ys zs"]:
        z = self.along_z(relu(self.reduce(x)))
        y = self.along_y(relu(z))
        z = self.z_past_y(z)
        y = y + z
        inner = self.along_x(relu(y)) + self.z_past_x(z) + self.y_past_x(y)
        return relu(self.expand(relu(inner)) + self.residual(x))


class ASPP(nn.Module):
    """A residual sum of pairs of 3x3x3 convolutions, a pair a dilation; shape and channels stay."""

    def __init__(self, channels: int, dilations: Sequence[int]):
        super().__init__()
        cube, one = (3, 3, 3), (1, 1, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(
                *_conv_norm(channels, channels, cube, one, dilation),
                nn.ReLU(),
                *_conv_norm(channels, channels, cube, one, dilation),
            )
            for dilation in dilations
        )

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:
        total = x
        for branch in self.branches:
            total = total + branch(x)
        return relu(total)


class RelationPrior(nn.Module):
    """The 3D context relation prior: every voxel gathers from all mega-voxels by four learnt relations.

    For N voxels and M = N/8 mega-voxels, both flat in C order over (x, y, z): logits P (B, 4, M, N), mega features G
    (B, M, 2C); context_r = sigmoid(P_r)^T G, for r in 4; out = DDR(1x1x1[x, context_1..4]). The sizes must be even.
    """

    def __init__(self, channels: int, shape: Size3, dilations: Sequence[int]):
        super().__init__()
        self.mega_voxels = shape[0] * shape[1] * shape[2] // 8
        self.aspp = ASPP(channels, dilations)
        self.mega = nn.Conv3d(channels, 2 * channels, 3, stride=2, padding=1)
        self.relations = nn.Conv3d(channels, RELATIONS * self.mega_voxels, 1)
        self.resize = nn.Conv3d((1 + 2 * RELATIONS) * channels, channels, 1, bias=False)
        self.block = DDRBlock(channels, channels)

    def forward(self, x: Float[Tensor, "b c x y z"]) -> tuple[Float[Tensor, "b c x y z"], Float[Tensor, "b 4 m n"]]:
        aggregated = self.aspp(x)
        mega = self.mega(aggregated).flatten(2)  # (B, 2C, M)
        logits = self.relations(aggregated).flatten(2).unflatten(1, (RELATIONS, self.mega_voxels))  # (B, 4, M, N)
        context = mega[:, None] @ logits.sigmoid()  # (B, 4, 2C, N)
        gathered = context.flatten(1, 2).unflatten(2, x.shape[2:])  # (B, 8C, X, Y, Z)
        return self.block(self.resize(torch.cat([x, gathered], dim=1))), logits


class Head(nn.Module):
    """The completion head: 3x3x3, ASPP, 3x3x3 to K class logits."""

    def __init__(self, channels: int, classes: int, dilations: Sequence[int]):
        super().__init__()
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.aspp = ASPP(channels, dilations)
        self.classify = nn.Conv3d(channels, classes, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b k x y z"]:
        return self.classify(self.aspp(relu(self.first(x))))


def _up(channels: int, channels_out: int) -> nn.Sequential:
    conv = nn.ConvTranspose3d(channels, channels_out, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(conv, nn.BatchNorm3d(channels_out), nn.ReLU())


class UNet3D(nn.Module):
    """(B, C, X, Y, Z) lifted features -> K logits at `scale` times the resolution, and relation logits (or None).

    shape: the lifted volume's; depth: how often it is halved, channels doubling each time; scale: 1, 2 or 4, channels
    halving at each step up. Sizes must be divisible by 2^depth, with the relation prior by 2^(depth+1). evidence:
    channels of what else is known of each label's voxel, which joins at the door and before the head.
    """

    def __init__(
        self,
        channels: int,
        shape: Size3,
        classes: int,
        depth: int,
        scale: int,
        dilations: Sequence[int],
        prior: bool,
        evidence: int = 0,
    ):
        super().__init__()
        widths = [channels * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            nn.Sequential(*(DDRBlock(c, c, dilation=d) for d in dilations), DDRBlock(c, 2 * c, stride=2))
            for c in widths[:-1]
        )
        x, y, z = (n // 2**depth for n in shape)
        self.prior = RelationPrior(widths[-1], (x, y, z), dilations) if prior else None
        self.up = nn.ModuleList(_up(2 * c, c) for c in reversed(widths[:-1]))
        steps = scale.bit_length() - 1
        self.finer = nn.Sequential(*(_up(channels >> step, channels >> (step + 1)) for step in range(steps)))
        self.head = Head(channels >> steps, classes, dilations)
        if evidence:
            self.coarse_evidence = nn.Sequential(nn.AvgPool3d(scale), nn.Conv3d(evidence, channels, 1))
            self.fine_evidence = nn.Conv3d(evidence, channels >> steps, 1)

    def forward(
        self,
        x: Float[Tensor, "b c x y z"],
        run: Run = call,
        evidence: Float[Tensor, "b e xf yf zf"] | None = None,
    ) -> tuple[Float[Tensor, "b k xf yf zf"], Float[Tensor, "b 4 m n"] | None]:
        skips, relations = [], None
        if evidence is not None:
            x = x + self.coarse_evidence(evidence)
        for down in self.down:
            skips.append(x)
            x = run(down, x)
        if self.prior is not None:
            x, relations = self.prior(x)
        for up in self.up:
            x = up(x) + skips.pop()
        x = run(self.finer, x)
        if evidence is not None:
            x = x + self.fine_evidence(evidence)
        return run(self.head, x), relations
