"""A VQ-VAE of label volumes (van den Oord et al., arXiv 1711.00937), the autoencoder of Lee et al.'s latent diffusion.

    labels -> embedding -> strided convolutions -> z_e -> nearest code e -> transposed convolutions -> logits of classes
    loss = mean over known voxels of w_class CE + |sg(z_e) - e|^2 + beta |z_e - sg(e)|^2

The gradient passes the codebook straight through: dL/dz_e is dL/de, and the codes learn by the second term. Weights are
inverse to the classes' frequencies, w_k ~ 1 / F^k, with a mean of 1 over all voxels. z_e has its norm taken out (mean 0
and variance 1 over its channels) and codes start normal, so that they start where the latents are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Self

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from pipeline.learning.config import TrainConfig
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import IGNORE

Count = Annotated[int, Field(ge=1)]
Shape = tuple[int, int, int]


class VQConfig(BaseModel):
    """The autoencoder and its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    factor: Count = 4  # voxels a latent cell along each axis, a power of two
    codes: Annotated[int, Field(ge=2, le=16384)] = 1100  # of the codebook
    code_width: Count = 11  # channels of a code
    width: Count = 48  # channels at half the resolution; twice as many a halving
    embedding: Count = 8  # channels of a voxel's class
    blocks: Count = 1  # residual blocks a resolution
    beta: Annotated[float, Field(ge=0)] = 0.25  # of the commitment
    weight_power: Annotated[float, Field(ge=0, le=1)] = 1.0  # 1: weights inverse to the frequency; 0: none
    loss_share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the voxels, drawn anew each step, that the loss sees
    training: TrainConfig

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if self.factor < 2 or self.factor & (self.factor - 1):
            raise ValueError("factor must be a power of two, at least 2")
        return self


def inverse_frequency(counts: Int64[np.ndarray, "k"], power: float = 1.0) -> Float64[np.ndarray, "k"]:
    """w_k ~ F_k ** -power, such that the mean over all counted voxels is 1; 0 for a class that there is none of."""
    share = counts / counts.sum()
    weights = np.where(counts > 0, np.where(counts > 0, share, 1.0) ** -power, 0.0)
    return weights / (weights * share).sum()


def nearest_codes(z: Float[Tensor, "n d"], codebook: Float[Tensor, "k d"]) -> Int64[Tensor, "n"]:
    """The code of least Euclidean distance to each latent."""
    return (codebook.square().sum(1) - 2 * z @ codebook.T).argmin(1)


class VQVAE(nn.Module):
    """forward(labels, chosen) -> (logits, z_e, e). classes: K; in labels 255 is a state of its own."""

    def __init__(self, config: VQConfig, classes: int):
        super().__init__()
        self.config, self.classes = config, classes
        halvings = config.factor.bit_length() - 1
        widths = [config.width << level for level in range(halvings)]
        self.embedding = nn.Embedding(classes + 1, config.embedding)
        self.encoder = nn.Sequential(*self._down([config.embedding, *widths]), Channels(widths[-1], config.code_width))
        self.norm = nn.LayerNorm(config.code_width, elementwise_affine=False)
        self.codebook = nn.Embedding(config.codes, config.code_width)  # starts standard normal
        self.decoder = nn.Sequential(Channels(config.code_width, widths[-1]), *self._up([*widths[::-1], widths[0]]))
        self.leave = nn.Linear(widths[0], classes)

    def _down(self, widths: Sequence[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv3d(a, b, 2, 2), *(Residual(b) for _ in range(self.config.blocks))]
        return layers

    def _up(self, widths: Sequence[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [*(Residual(a) for _ in range(self.config.blocks)), nn.ConvTranspose3d(a, b, 2, 2), nn.SiLU()]
        return layers

    def forward(
        self, labels: UInt8[Tensor, "b x y z"], chosen: Int64[Tensor, "c"] | None = None
    ) -> tuple[Float[Tensor, "b c k"], Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """chosen: voxels (flat) to give logits of, None for all; N: cells of the batch."""
        cells = self.latents(labels)  # b i j k d
        z = cells.flatten(0, 3)
        codes = self.codebook(nearest_codes(z, self.codebook.weight))
        through = z + (codes - z).detach()
        return self._logits(through.view(cells.shape), chosen), z, codes

    def latents(self, labels: UInt8[Tensor, "b x y z"]) -> Float[Tensor, "b i j k d"]:
        """z_e of each cell."""
        states = torch.where(labels == IGNORE, self.classes, labels.long())
        x = self.embedding(states).permute(0, 4, 1, 2, 3)  # b c x y z
        return self.norm(self.encoder(x).permute(0, 2, 3, 4, 1))

    def encode(self, labels: UInt8[Tensor, "b x y z"]) -> Int64[Tensor, "b i j k"]:
        """The code of each cell."""
        cells = self.latents(labels)
        return nearest_codes(cells.flatten(0, 3), self.codebook.weight).view(cells.shape[:4])

    def decode(self, codes: Int64[Tensor, "b i j k"]) -> Float[Tensor, "b v c"]:
        """Logits of all voxels, in C order."""
        return self._logits(self.codebook(codes), None)

    def _logits(self, cells: Float[Tensor, "b i j k d"], chosen: Int64[Tensor, "c"] | None) -> Float[Tensor, "b c k"]:
        x = self.decoder(cells.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1).flatten(1, 3)  # b v c
        return self.leave(x if chosen is None else x[:, chosen])


class Channels(nn.Sequential):
    """A change of channels alone."""

    def __init__(self, before: int, after: int):
        super().__init__(nn.SiLU(), nn.Conv3d(before, after, 1))


class Residual(nn.Module):
    """x + f(x), two convolutions."""

    def __init__(self, width: int):
        super().__init__()
        norms = [nn.GroupNorm(max(1, width // 16), width) for _ in range(2)]
        convolutions = [nn.Conv3d(width, width, 3, padding=1) for _ in range(2)]
        self.f = nn.Sequential(norms[0], nn.SiLU(), convolutions[0], norms[1], nn.SiLU(), convolutions[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)


class VQLoss:
    """The loss as pipeline.learning takes it. weights: of the classes."""

    def __init__(self, config: VQConfig, weights: Float64[np.ndarray, "k"]):
        self.config, self.weights = config, torch.from_numpy(weights).float()

    def __call__(self, model: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalars: ce (weighted), codes (the squared distance of latents to theirs), used (perplexity of codes)."""
        labels = batch["labels"]
        target = labels.flatten(1).long()
        chosen = None
        if self.config.loss_share < 1:
            count = max(1, round(target.shape[1] * self.config.loss_share))
            chosen = torch.randperm(target.shape[1], generator=generator, device=labels.device)[:count].sort().values
            target = target[:, chosen]
        logits, z, codes = model(labels, chosen)
        known = target != IGNORE
        weights = self.weights.to(logits)
        cross_entropy = nn.functional.cross_entropy(logits.float()[known], target[known], reduction="none")
        ce = (weights[target[known]] * cross_entropy).sum() / known.sum().clamp_min(1)
        distance = nn.functional.mse_loss(codes, z.detach())
        commitment = nn.functional.mse_loss(z, codes.detach())
        logged = {"ce": ce.detach(), "codes": distance.detach(), "used": perplexity_of(codes.detach())}
        return ce + distance + self.config.beta * commitment, logged


def perplexity_of(codes: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """exp(entropy) of how often each different row occurs: 1 if all are one, n if none is twice."""
    share = codes.unique(dim=0, return_counts=True)[1].double() / len(codes)
    return (-(share * share.log()).sum()).exp()


class VolumeData:
    """Label volumes by index; see pipeline.learning.order.Indexed."""

    def __init__(self, labels: UInt8[np.ndarray, "n x y z"]):
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {"labels": self.labels[index]}


def latent_shape(shape: Shape, factor: int) -> Shape:
    """Cells along each axis. Raises InputError unless the factor divides the grid."""
    if any(n % factor for n in shape):
        raise InputError("VQ-VAE", f"a grid that divides into cells of {factor} voxels an edge", str(shape))
    x, y, z = (n // factor for n in shape)
    return (x, y, z)
