"""The critic: what a photograph shows, as class labels and log depth, to be held against a rendered condition.

    image (3, H, W) -> 4 levels of residual convolutions, 1/2 .. 1/16 -> back up with skips -> class logits, log depth

Class 0 means that nothing of the grid is there: sky, or what lies beyond. `SegmentationAndDepth` is the network,
`Critic` a trained one with its card; training is in critic_training.py, models of others in foreign_critic.py. All
critics have `classes`, names by id, and `predict`. The critic is not the network that SSC scores are made with.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from pipeline.learning.checkpoint import load_model, read_card, save_model
from pipeline.learning.config import Schedule, TrainConfig
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import Taxonomy

Width = Annotated[int, Field(ge=4, multiple_of=4)]
FORMAT = "image critic"


class CriticConfig(BaseModel):
    """Sizes of the network, and how it is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=254)]  # names by id, empty first
    widths: Annotated[tuple[Width, ...], Field(min_length=2)] = (24, 48, 96, 128)  # channels a level, halved each
    blocks: Annotated[int, Field(ge=1)] = 1  # residual blocks a level, down and up
    weight_power: Annotated[float, Field(ge=0, le=1)] = 0.4  # class weight: (largest frequency / own) ** power
    depth_weight: Annotated[float, Field(ge=0)] = 1.0  # of the depth's loss beside the labels'
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.15  # spread of brightness, contrast and balance in training
    train: TrainConfig


def small(taxonomy: Taxonomy) -> CriticConfig:
    """1.17 M weights, for images of 384x128 or 192x64."""
    train = TrainConfig(
        steps=2000,
        batch_size=8,
        learning_rate=2e-3,
        weight_decay=1e-3,
        schedule=Schedule(kind="cosine", warmup_steps=50),
        clip_norm=1.0,
        ema_decay=0.99,
        torch_threads=1,
    )
    return CriticConfig(classes=taxonomy.classes, train=train)


def tiny(taxonomy: Taxonomy) -> CriticConfig:
    """Seconds of training, for tests."""
    train = TrainConfig(steps=100, batch_size=4, learning_rate=1e-2, ema_decay=0.9, torch_threads=1)
    return CriticConfig(classes=taxonomy.classes, widths=(8, 16), train=train)


class Prediction(NamedTuple):
    """labels: class ids, 0 = nothing of the grid; log_depth: of z [m], meaningful where something is."""

    labels: UInt8[np.ndarray, "h w"]
    log_depth: Float32[np.ndarray, "h w"]


class Judge(Protocol):
    """What the structure check asks of a critic: class names by id, empty first, and what an image shows."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def multiple(self) -> int: ...  # sides of images must be one of it [px]

    def predict(self, image: UInt8[np.ndarray, "h w 3"]) -> Prediction: ...


class Residual(nn.Module):
    """x + two 3x3 convolutions of x."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.second = _convolution(channels, channels), _convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return silu(x + self.second(silu(self.first(x))))


def _convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out))


def _level(channels_in: int, channels_out: int, stride: int, blocks: int) -> nn.Sequential:
    head = (_convolution(channels_in, channels_out, stride), nn.SiLU())
    return nn.Sequential(*head, *(Residual(channels_out) for _ in range(blocks)))


class SegmentationAndDepth(nn.Module):
    """Image -> class logits and log depth at the image's size, which must be a multiple of `multiple`."""

    def __init__(self, config: CriticConfig):
        super().__init__()
        widths = (3, *config.widths)
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(_level(a, b, 2, config.blocks) for a, b in pairs)
        self.up = nn.ModuleList(_level(b + a, a, 1, config.blocks) for a, b in reversed(pairs[1:]))
        self.classes, self.multiple = len(config.classes), 2 ** len(config.widths)
        self.head = nn.Conv2d(config.widths[0], 4 * (self.classes + 1), 1)  # four pixels a cell of the finest level
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # quicker on CPUs

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in -1..1 -> logits (B, K, H, W), log depth [log m] (B, H, W)."""
        skips, x = [], image.contiguous(memory_format=torch.channels_last)
        for level in self.down:
            x = level(x)
            skips.append(x)
        for level, skip in zip(self.up, skips[-2::-1], strict=True):
            x = level(torch.cat([interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        out = nn.functional.pixel_shuffle(self.head(x), 2)  # B K+1 H W
        return out[:, :-1], out[:, -1] + 2.5  # streets are about e**2.5 = 12 m deep


def as_input(images: Tensor) -> Tensor:
    """Images (B, H, W, 3) uint8 -> (B, 3, H, W) in -1..1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True, eq=False)
class Critic:
    """A trained network. card: what it was trained on, with the data's digest, and how it does on held-out pairs."""

    config: CriticConfig
    network: SegmentationAndDepth
    card: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by class id."""
        return self.config.classes

    @property
    def multiple(self) -> int:
        """Sides of images must be multiples of this [px]."""
        return self.network.multiple

    @torch.no_grad()
    def predict(self, image: UInt8[np.ndarray, "h w 3"]) -> Prediction:
        """What one photograph shows; one at a time, so that no image depends on its batch. Raises InputError."""
        check_image(image, self.network.multiple)
        device = next(self.network.parameters()).device
        logits, log_depth = self.network(as_input(torch.from_numpy(np.array(image))[None].to(device)))
        return Prediction(logits[0].argmax(0).to(torch.uint8).cpu().numpy(), log_depth[0].float().cpu().numpy())

    def save(self, folder: Path) -> None:
        """Write weights and card. Raises InputError where something else stands at `folder`."""
        own = {"kind": FORMAT, "config": self.config.model_dump(mode="json")}
        save_model(folder, self.network, {**self.card, **own})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote, on the CPU. Raises InputError."""
        card = read_card(folder)
        if card.get("kind") != FORMAT:
            raise InputError(folder, "the weights of an image critic", f"those of {card.get('kind')!r}")
        try:
            config = CriticConfig.model_validate(card.get("config"))
        except ValidationError as error:
            fault = error.errors()[0]
            found = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            raise InputError(folder, "the card of an image critic", found) from None
        network = SegmentationAndDepth(config)
        load_model(folder, network)
        return cls(config, network.eval(), card)


def feature_maps(critic: Critic) -> Callable[[Tensor], list[Tensor]]:
    """Images (B, 3, H, W) in -1..1 -> the network's maps on the way down, for a perceptual loss; it learns no more."""
    network = critic.network.eval().requires_grad_(False)

    def maps(image: Tensor) -> list[Tensor]:
        network.to(image.device)
        found = [image.contiguous(memory_format=torch.channels_last)]
        for level in network.down:
            found.append(level(found[-1]))
        return found[1:]

    return maps


def check_image(image: np.ndarray, multiple: int = 1) -> None:
    """Raises InputError unless this is (H, W, 3) uint8 of sides that divide by `multiple`."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError("image to judge", "(height, width, 3) of uint8", f"{image.shape} of {image.dtype}")
    if image.shape[0] % multiple or image.shape[1] % multiple:
        raise InputError("image to judge", f"sides that divide by {multiple} px", f"{image.shape[1]}x{image.shape[0]}")


def check_classes(critic: Judge, classes: Sequence[str]) -> None:
    """A critic must know the classes that views are labelled with. Raises InputError."""
    if tuple(critic.classes) != tuple(classes):
        other = next((name for name in critic.classes if name not in classes), "another order")
        raise InputError("critic", f"the views' classes, {', '.join(classes[:4])}, ...", other, "train one on these")
