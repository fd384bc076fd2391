"""Stage 1 of the small pipeline: the VAE, which sets the ceiling of all that the later stage can show.

    loss = |x - x'|_1 + g * |grad x - grad x'|_1 (three scales) + c * |mean x - mean x'|_1 (over squares)
           + k * KL(q(z | x) || N(0, 1)) + p * features' distance

Auto-encoding variational Bayes (Kingma and Welling, 2014). The gradient term stands in for the learned perceptual and
adversarial losses of latent diffusion (Rombach et al., 2022), whose networks would have to be downloaded: it keeps
edges, so class borders, from blurring away. The means keep colours, which weigh little in single pixels: without them
the latents learn light and shade alone for a long time. Afterwards latents are scaled to unit variance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pipeline.images.pairs import Images, Pairs
from pipeline.learning.checkpoint import load_model
from pipeline.learning.config import TrainConfig
from pipeline.learning.loop import Trained, train
from pipeline.learning.order import Indexed
from pipeline.scene.files import digest_of

Weight = Annotated[float, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Features = Callable[[Float[Tensor, "b 3 h w"]], Sequence[Tensor]]
COLOUR_PX = 8
SCALED_ON = 64  # samples that the latents' scale is taken from


class VaeTraining(BaseModel):
    """How the VAE is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    train: TrainConfig
    kl_weight: Weight = 1e-6
    gradient_weight: Weight = 1.0
    colour_weight: Weight = 0.0  # of means over squares of COLOUR_PX
    feature_weight: Weight = 0.0  # of `features`, where the caller gives some
    mirror: bool = True  # every other image left to right
    crop_px: tuple[Size, Size] | None = None  # (width, height) of random parts to learn from, not the images whole


class _Coder(nn.Module):
    """The VAE as one call, so that precision and devices reach it: image -> (reconstruction, KL a latent value)."""

    def __init__(self, vae: Any):
        super().__init__()
        self.vae = vae

    def forward(self, image: Float[Tensor, "b 3 h w"], noise: torch.Generator) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(image).latent_dist
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return self.vae.decode(posterior.sample(generator=noise)).sample, kl


def train_vae(
    pipeline: Any,
    dataset: Indexed,
    config: VaeTraining,
    out: Path,
    *,
    features: Features | None = None,
    data_digest: str = "",
) -> Trained:
    """Train `pipeline.vae` on the images of pairs, resuming what is in `out`; it ends as the average, scaled.

    features: maps of another frozen network for the perceptual term (on the images' device); not of the critic that
    will judge the images. Raises InputError.
    """
    images = Images(Pairs(dataset, pipeline, config.mirror))
    coder = _Coder(pipeline.vae.requires_grad_(True))
    digest = digest_of({"data": data_digest, "config": config.model_dump(mode="json", exclude={"train"})})
    trained = train(coder, _loss(config, features), images, config.train, Path(out), data_digest=digest)
    load_model(trained.checkpoint, coder)
    pipeline.vae.to("cpu").eval()
    scale_latents(pipeline, images)
    return trained


def _loss(config: VaeTraining, features: Features | None) -> Callable[..., tuple[Tensor, Mapping[str, Tensor]]]:
    def loss(model: nn.Module, batch: Any, noise: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        image = batch["image"] if config.crop_px is None else cropped(batch["image"], config.crop_px, noise)
        found, kl = model(image, noise)
        terms = {"pixels": (found - image).abs().mean(), "gradients": gradient_distance(found, image), "kl": kl}
        total = terms["pixels"] + config.gradient_weight * terms["gradients"] + config.kl_weight * kl
        if config.colour_weight:
            terms["colours"] = (avg_pool2d(found, COLOUR_PX) - avg_pool2d(image, COLOUR_PX)).abs().mean()
            total = total + config.colour_weight * terms["colours"]
        if features is not None:
            terms["features"] = _feature_distance(features, found, image)
            total = total + config.feature_weight * terms["features"]
        return total, terms

    return loss


def cropped(
    images: Float[Tensor, "b c h w"], size_px: tuple[int, int], draws: torch.Generator
) -> Float[Tensor, "b c height width"]:
    """A part of size_px = (width, height) of each image, anywhere alike; of a smaller image, as much as it has.

    Many parts of many images say more in a step than few whole ones of as many pixels.
    """
    (width, height), (high, wide) = size_px, images.shape[2:]
    tops, lefts = (
        torch.randint(max(room, 0) + 1, (len(images),), generator=draws, device=draws.device).tolist()
        for room in (high - height, wide - width)
    )
    parts = [image[:, t : t + height, u : u + width] for image, t, u in zip(images, tops, lefts, strict=True)]
    return torch.stack(parts)


def gradient_distance(a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"]) -> Tensor:
    """Mean |difference of neighbouring pixels' differences|, along both axes, at full, half and quarter size."""
    total = a.new_zeros(())
    for scale in range(3):
        error = a - b
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        if scale < 2:
            a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    return total / 3


def _feature_distance(features: Features, found: Tensor, image: Tensor) -> Tensor:
    with torch.no_grad():
        wanted = features(image)
    distances = [(a - b).abs().mean() for a, b in zip(features(found), wanted, strict=True)]
    return torch.stack(distances).mean()


@torch.no_grad()
def scale_latents(pipeline: Any, images: Images) -> float:
    """Set the VAE's scaling factor, 1 / standard deviation of drawn latents of the first images, and return it."""
    squares, mean, count = 0.0, 0.0, 0
    for index in range(min(SCALED_ON, len(images))):
        posterior = pipeline.vae.encode(images[index]["image"][None]).latent_dist
        squares += float((posterior.mean.double().square() + posterior.var.double()).sum())
        mean, count = mean + float(posterior.mean.double().sum()), count + posterior.mean.numel()
    deviation = max(squares / count - (mean / count) ** 2, 1e-12) ** 0.5
    pipeline.vae.register_to_config(scaling_factor=1 / deviation)
    return 1 / deviation
