"""The 3D encoder behind F3D and K3D: an autoencoder of labelled voxel scenes, and a short vector from its bottleneck.

    labels -> columns of 2 x 2 x Z voxels -> convolutions over the ground -> latent (C, X/2, Y/2) -> the same backwards

Height is folded into a column's channels, so all convolutions are 2D and any grid with even X and Y fits. Invalid
voxels (255) are a class of their own at the input and take no part in the loss. The papers' encoders are unpublished;
this one is trained on a training split alone, and its card says which. A scene's feature: moments of the latent over
the ground (`pooled`), projected on the training scenes' principal axes, scaled half way to unit variance. Training is
in encoder3d_training.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from pipeline.learning.checkpoint import check_same, check_whole, fill, load_part, save_parts
from pipeline.learning.config import Schedule, TrainConfig
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import IGNORE

COLUMN = 2  # voxels along x and y that share a latent cell
NETWORK, PROJECTION = "network", "projection"  # parts of the saved weights


class EncoderConfig(BaseModel):
    """The encoder of one grid and taxonomy, and how it is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    shape: tuple[int, int, int]  # voxels along X, Y, Z; X and Y even
    classes: int = Field(ge=2, le=254)  # empty included
    embedding: int = Field(8, ge=1)  # numbers a voxel's class becomes
    width: int = Field(96, ge=1)  # channels of the hidden layers
    channels: int = Field(24, ge=1)  # of a latent cell
    features: int = Field(48, ge=1)  # dimension of a scene's feature; at most an eighth of the scenes to compare
    weight_power: float = Field(0.4, ge=0, le=1)  # class weight in the loss: (largest frequency / own) ** power
    train: TrainConfig = TrainConfig(
        steps=2000,
        batch_size=4,
        learning_rate=5e-3,
        weight_decay=1e-3,
        schedule=Schedule(kind="cosine", warmup_steps=50),
        ema_decay=0.99,
        torch_threads=1,
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.features > 2 * self.channels:
            raise ValueError(f"features {self.features}: at most two a latent channel, {2 * self.channels}")
        if min(self.shape) < 1 or self.shape[0] % COLUMN or self.shape[1] % COLUMN:
            raise ValueError(f"shape {self.shape}: X and Y must be positive and divide by {COLUMN}")
        return self


def columns(labels: Tensor) -> Tensor:
    """Labels (B, X, Y, Z) as columns (B, X/2, Y/2, 4 Z)."""
    b, x, y, z = labels.shape
    cells = labels.view(b, x // COLUMN, COLUMN, y // COLUMN, COLUMN, z).permute(0, 1, 3, 2, 4, 5)
    return cells.reshape(b, x // COLUMN, y // COLUMN, COLUMN * COLUMN * z)


class Residual(nn.Module):
    """x + two 3x3 convolutions of x."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.second = _convolution(channels, channels, 3), _convolution(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return silu(x + self.second(silu(self.first(x))))


def _convolution(channels_in: int, channels_out: int, size: int, affine: bool = True) -> nn.Sequential:
    """Convolution and batch norm; while encoding, the norm is a fixed scale, so scenes don't touch each other."""
    convolution = nn.Conv2d(channels_in, channels_out, size, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out, affine=affine))


class SceneAutoencoder(nn.Module):
    """Labels -> logits by way of a latent with a cell a column; latent channels have unit variance over the data."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        voxels, width = COLUMN * COLUMN * config.shape[2], config.width
        self.classes, self.channels = config.classes, config.channels
        self.embedding = nn.Embedding(config.classes + 1, config.embedding)  # the last: invalid
        self.project_in = nn.Linear(voxels * config.embedding, width)
        self.encoder = nn.Sequential(
            nn.BatchNorm2d(width), nn.SiLU(), Residual(width), _convolution(width, config.channels, 1, affine=False)
        )
        self.decoder = nn.Sequential(_convolution(config.channels, width, 1), nn.SiLU(), Residual(width))
        self.project_out = nn.Linear(width, voxels * config.classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # quicker on CPUs

    def encode(self, labels: Tensor) -> Tensor:
        """Labels (B, X, Y, Z) uint8 -> latent (B, C, X/2, Y/2)."""
        cells = columns(labels)  # B x y 4Z
        embedded = self.embedding(torch.where(cells == IGNORE, self.classes, cells.int()))
        hidden = self.project_in(embedded.flatten(3)).permute(0, 3, 1, 2)  # B W x y
        return self.encoder(hidden)

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (B, X, Y, Z) uint8 -> logits (B, X/2, Y/2, 4 Z, K), in the order of `columns`."""
        hidden = self.decoder(self.encode(labels)).permute(0, 2, 3, 1)  # B x y W
        return self.project_out(hidden).unflatten(3, (-1, self.classes))


@dataclass(frozen=True, eq=False)
class SceneEncoder:
    """A trained encoder. mean, axes: the pooled training scenes' mean (P,) and scaled principal axes (P, D)."""

    config: EncoderConfig
    network: SceneAutoencoder
    mean: Float[np.ndarray, "p"]
    axes: Float[np.ndarray, "p d"]
    card: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As figures name it: what it is, its dimension, and the first letters of its digest."""
        return f"scene-autoencoder-{self.config.features}-{self.digest[:12]}"

    @property
    def digest(self) -> str:
        """SHA-256 over config, weights and projection."""
        found = hashlib.sha256(self.config.model_dump_json().encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        found.update(self.mean.tobytes() + self.axes.tobytes())
        return found.hexdigest()

    def features(self, labels: UInt8[np.ndarray, "n x y z"]) -> Float[np.ndarray, "n d"]:
        """A row a scene, that depends on that scene alone. Raises InputError."""
        check_labels(labels, self.config)
        rows = [(row - self.mean) @ self.axes for row in pooled(self.network, labels)]  # not one product: see `pooled`
        return np.reshape(rows, (len(labels), self.config.features))

    def reconstruct(self, labels: UInt8[np.ndarray, "n x y z"]) -> UInt8[np.ndarray, "n x y z"]:
        """The likeliest class of every voxel, invalid ones included. Raises InputError."""
        check_labels(labels, self.config)
        return np.stack([_reconstructed(self.network, scene) for scene in labels])

    def save(self, folder: Path) -> None:
        """Write weights, projection and card, replacing what stands at `folder`."""
        projection = {"mean": torch.from_numpy(self.mean), "axes": torch.from_numpy(self.axes)}
        parts = {NETWORK: self.network.state_dict(), PROJECTION: projection}
        own = {"name": self.name, "digest": self.digest, "config": self.config.model_dump(mode="json")}
        save_parts(folder, parts, {**self.card, **own})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises InputError."""
        card = check_whole(folder)
        try:
            config = EncoderConfig.model_validate(card.get("config"))
        except ValidationError as error:
            fault = error.errors()[0]
            found = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            raise InputError(folder, "the card of a scene encoder", found) from None
        network = SceneAutoencoder(config).eval()
        fill(network, load_part(folder, NETWORK), folder)
        size = 2 * config.channels
        blank = {"mean": torch.empty(size), "axes": torch.empty(size, config.features)}
        projection = load_part(folder, PROJECTION)
        check_same(blank, projection, folder)
        return cls(config, network, projection["mean"].numpy(), projection["axes"].numpy(), card)


def check_labels(labels: UInt8[np.ndarray, "n x y z"], config: EncoderConfig) -> None:
    """Raises InputError unless these are scenes of the encoder's grid and classes."""
    if labels.dtype != np.uint8 or labels.shape[1:] != config.shape:
        expected = f"uint8 labels of shape (n, {', '.join(map(str, config.shape))})"
        raise InputError("scenes to encode", expected, f"{labels.dtype} {labels.shape}")
    counts = np.bincount(labels.ravel(), minlength=256)
    if counts[config.classes : IGNORE].any():
        found = config.classes + int(np.flatnonzero(counts[config.classes : IGNORE])[0])
        raise InputError("scenes to encode", f"labels below {config.classes}, or 255", str(found))


@torch.no_grad()
def pooled(network: SceneAutoencoder, labels: UInt8[np.ndarray, "n x y z"]) -> Float[np.ndarray, "n p"]:
    """Mean and standard deviation of every latent channel over the ground: P = 2 C.

    A scene at a time: how a product of many rows is summed depends on their number.
    """
    rows = [_moments(network.encode(_tensor(scene))[0]) for scene in labels]
    return np.reshape(rows, (len(labels), 2 * network.channels))


def _tensor(scene: UInt8[np.ndarray, "x y z"]) -> Tensor:
    return torch.from_numpy(np.array(scene, order="C"))[None]  # a copy: arrays may be read-only


def _moments(latent: Tensor) -> Float[np.ndarray, "p"]:
    cells = latent.double().flatten(1)  # C xy
    return torch.cat([cells.mean(1), cells.std(1, correction=0)]).numpy()


@torch.no_grad()
def _reconstructed(network: SceneAutoencoder, scene: UInt8[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
    cells = network(_tensor(scene)).argmax(-1)[0].to(torch.uint8)  # x/2 y/2 4Z
    x, y, z = scene.shape
    split = cells.view(x // COLUMN, y // COLUMN, COLUMN, COLUMN, z)
    return split.permute(0, 2, 1, 3, 4).reshape(x, y, z).numpy()
