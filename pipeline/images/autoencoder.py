"""Stage 1 of the small pipeline: the autoencoder, which sets the ceiling of all that the later stage can show.

    z = S W^T (p - mean): p a patch of f x f pixels, W its first principal components over the photographs
    loss = |e|_1 + g * |grad e|_1 (three scales) + c * |mean of e over squares|_1 + p * features' distance,
    e = x - D(z + noise), its colour differences counting CHROMA times

The encoder is linear and fitted in closed form, the decoder D trained: in diffusers' AutoencoderTiny, whose layers
without normalisation can hold both. An encoder that learns with its decoder finds brightness within minutes and colours
not within an hour, as they weigh little in single pixels; components hold them from the first step. They also vary
smoothly with the image, which is easy to denoise; by the roots of their deviations they differ less in size.

High-resolution image synthesis with latent diffusion models (Rombach et al., 2022) has a learned encoder, and in place
of the gradient term perceptual and adversarial losses, whose networks would have to be downloaded. That term keeps
edges, so class borders, from blurring away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pixel_unshuffle

from pipeline.images.latents import means
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
FITTED_ON = 256  # samples that the encoder is fitted to
CHROMA = 2.0  # weight of colour differences against brightness


class VaeTraining(BaseModel):
    """How the autoencoder is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    train: TrainConfig
    gradient_weight: Weight = 1.0
    colour_weight: Weight = 0.0  # of means over squares of COLOUR_PX
    feature_weight: Weight = 0.0  # of `features`, where the caller gives some
    latent_noise: Weight = 0.05  # deviation, in latents' own: what is drawn later is never quite right
    mirror: bool = True  # every other image left to right
    crop_px: tuple[Size, Size] | None = None  # (width, height) of random parts to learn from, not the images whole


class _Decoder(nn.Module):
    """The decoder as one call; the encoder, which doesn't learn, stays out of checkpoints."""

    def __init__(self, vae: Any, latent_noise: float):
        super().__init__()
        self.decoder = vae.decoder.requires_grad_(True).train()
        self._frozen, self.latent_noise = {"encoder": vae.encoder.requires_grad_(False)}, latent_noise

    def forward(self, image: Float[Tensor, "b 3 h w"], noise: torch.Generator) -> Float[Tensor, "b 3 h w"]:
        with torch.no_grad():
            latents = self._frozen["encoder"].to(image.device)(image)
            deviation = latents.std(dim=(0, 2, 3), keepdim=True)
            drawn = torch.randn(latents.shape, generator=noise, device=image.device)
        return self.decoder(latents + self.latent_noise * deviation * drawn)


def train_vae(
    pipeline: Any,
    dataset: Indexed,
    config: VaeTraining,
    out: Path,
    *,
    features: Features | None = None,
    data_digest: str = "",
) -> Trained:
    """Fit the encoder of `pipeline.vae` to the images of pairs and train its decoder, resuming what is in `out`.

    The decoder ends as its average; latents are scaled to unit variance. features: maps of another frozen network for
    the perceptual term (on the images' device); not of the critic that will judge the images. Raises InputError.
    """
    images = Images(Pairs(dataset, pipeline, config.mirror))
    fit_encoder(pipeline.vae, images)
    decoder = _Decoder(pipeline.vae, config.latent_noise)
    digest = digest_of({"data": data_digest, "config": config.model_dump(mode="json", exclude={"train"})})
    trained = train(decoder, _loss(config, features), images, config.train, Path(out), data_digest=digest)
    load_model(trained.checkpoint, decoder)
    pipeline.vae.to("cpu").eval()
    scale_latents(pipeline, images)
    return trained


@torch.no_grad()
def fit_encoder(vae: Any, images: Indexed) -> None:
    """Make the encoder of an AutoencoderTiny without blocks the principal components of the images' patches.

    Latent k is the patch's k-th component in opponent colours over the root of its deviation, times a constant for
    which latent 0 has unit variance. The patches are those the encoder's strides cut: f x f, f = 2^halvings.
    """
    halvings, count = len(vae.config.encoder_block_out_channels) - 1, vae.config.latent_channels
    mean, covariance = _patch_moments(images, halvings)
    variances, axes = torch.linalg.eigh(covariance)  # ascending
    axes, deviations = axes.flip(1)[:, :count], variances.flip(0)[:count].clamp(min=1e-12).sqrt()
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # eigenvectors have no sign of their own
    components = (axes / (deviations * deviations[0]).sqrt()).T  # (count, 3 f^2)
    shift = -components @ mean
    colours = components.view(count, 3, -1)
    _write(vae.encoder.layers, torch.einsum("zki,kc->zci", colours, opponent_axes().double()).flatten(1), shift)


def _patch_moments(images: Indexed, halvings: int) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of patches in opponent colours, in the encoder's 0..1."""
    step = max(1, len(images) // FITTED_ON)
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for index in range(0, len(images), step):
        patches = opponent((images[index]["image"][None].double() + 1) / 2)
        for _ in range(halvings):
            patches = pixel_unshuffle(patches, 2)
        rows = patches[0].flatten(1)  # (d, n)
        total, squares, count = total + rows.sum(1), squares + rows @ rows.T, count + rows.shape[1]
    mean = total / count
    return mean, squares / count - torch.outer(mean, mean)


def _write(layers: Any, components: Float[Tensor, "z d"], shift: Float[Tensor, "z"]) -> None:
    """Convolutions that move each square of 2 x 2 pixels into channels, as pixel_unshuffle does; the last one sums."""
    first, *downs, last = layers
    for layer in layers:
        layer.weight.zero_()
    for layer in (first, last):
        layer.bias.zero_()
        for k in range(min(layer.weight.shape[:2])):
            layer.weight[k, k, 1, 1] = 1
    for level, down in enumerate(downs[:-1]):
        for channel in range(3 * 4**level):
            for place in range(4):
                down.weight[4 * channel + place, channel, 1 + place // 2, 1 + place % 2] = 1
    squares = components.view(len(components), -1, 2, 2)
    downs[-1].weight[: len(squares), : squares.shape[1], 1:, 1:] = squares.float()
    last.bias.copy_(shift)


def opponent_axes() -> Float[Tensor, "3 3"]:
    """Rows: brightness, and CHROMA times red against green and both against blue; orthogonal."""
    axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
    return axes / axes.norm(dim=1, keepdim=True) * torch.tensor([[1.0], [CHROMA], [CHROMA]])


def opponent(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """RGB in `opponent_axes`."""
    return torch.einsum("kc,bchw->bkhw", opponent_axes().to(image), image)


def _loss(config: VaeTraining, features: Features | None) -> Callable[..., tuple[Tensor, Mapping[str, Tensor]]]:
    def loss(model: nn.Module, batch: Any, noise: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        image = batch["image"] if config.crop_px is None else cropped(batch["image"], config.crop_px, noise)
        found = model(image, noise)
        error = opponent(found - image)
        terms = {"pixels": error.abs().mean(), "gradients": gradient_distance(found, image)}
        total = terms["pixels"] + config.gradient_weight * terms["gradients"]
        if config.colour_weight:
            terms["colours"] = avg_pool2d(error, COLOUR_PX).abs().mean()
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
    """Set the VAE's scaling factor, 1 / standard deviation of the first images' latents, and return it."""
    found = [means(pipeline.vae, images[index]["image"][None]) for index in range(min(SCALED_ON, len(images)))]
    deviation = max(float(torch.cat(found).double().std(correction=0)), 1e-6)
    pipeline.vae.register_to_config(scaling_factor=1 / deviation)
    return 1 / deviation
