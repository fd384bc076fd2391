"""Stage 2: the ControlNet, with the UNet and the text encoder (the small pipeline) or alone on a frozen base.

    z = s E(x), z_t = sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps, t = T (1 - u^n), u uniform
    loss = w(t) |f(z_t, t, prompt, control) - target|^2,  target: eps, or the velocity
    v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) z;  each place counts r(c) = (n_max / n_c)^p / mean, c: its class
    w(t) = min(SNR, gamma) / SNR for eps, / (SNR + 1) for v;  SNR = alpha_bar_t / (1 - alpha_bar_t)
    and, with a critic, structure_weight times what it finds missing in the prediction: structure.py

Adding conditional control to text-to-image diffusion models (Zhang et al., 2023); the weight: Efficient diffusion
training via min-SNR weighting (Hang et al., 2023). Deviation: from scratch, base and ControlNet learn together; a base
first and then the ControlNet does far worse in the same time (shared facts: mIoU .33 against .60).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from pipeline.images.config import SynthesisConfig
from pipeline.images.critic import Critic
from pipeline.images.critic_training import class_weights
from pipeline.images.latents import moments
from pipeline.images.pairs import Pairs, tokens_of
from pipeline.images.structure import Structure, clean
from pipeline.images.validation import Pictures, Run
from pipeline.learning.checkpoint import load_model
from pipeline.learning.config import TrainConfig
from pipeline.learning.loop import Trained, train
from pipeline.learning.order import Indexed
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of

LEARNED = {"joint": ("unet", "controlnet", "text_encoder"), "controlnet": ("controlnet",)}
JUDGED_ON = 32  # held-out pairs of the validation loss
PARTS = ("unet", "controlnet", "text_encoder", "vae")


class ControlTraining(BaseModel):
    """How the ControlNet is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    train: TrainConfig
    learn: Literal["joint", "controlnet"] = "joint"  # controlnet: the base stays as it is
    prompt_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1  # share of samples without a prompt, for guidance
    snr_gamma: Annotated[float, Field(gt=0)] | None = (
        None  # 5 for a base that predicts noise; None: all t weigh the same
    )
    # n, 1: uniform; above, more of the noisiest steps, which lay an image out, by the condition or else by the noise
    time_power: Annotated[float, Field(ge=1)] = 1.0
    # p, 0: all places weigh the same; above, those of rare classes more. The best prediction stays what it is, as the
    # control image tells the place; a small network spends more on it
    rare_power: Annotated[float, Field(ge=0, le=1)] = 0.0
    # of the critic's loss on what is predicted, for the first structure_share of a batch; 0: no critic
    structure_weight: Annotated[float, Field(ge=0)] = 0.0
    structure_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    mirror: bool = True  # every other pair left to right
    keep_latents: bool = True  # encode each image once, in memory: 4 bytes * 2 * latent channels / f^2 a pixel
    gradient_checkpointing: bool = False  # less memory, a third more time
    pictures: Annotated[int, Field(ge=0)] = 4  # validation images, drawn every train.validate_every steps
    synthesis: SynthesisConfig = SynthesisConfig()  # how they are drawn


class Denoiser(nn.Module):
    """A pipeline's networks as one call. Those that learn are its parameters; frozen ones stay out of checkpoints."""

    def __init__(self, pipeline: Any, learned: tuple[str, ...]):
        super().__init__()
        self._frozen: dict[str, nn.Module] = {}  # in a dict, so that torch doesn't count them as this module's own
        for name in PARTS:
            network = getattr(pipeline, name)
            if name in learned:
                self.add_module(name, network.requires_grad_(True).train())
            else:
                self._frozen[name] = network.requires_grad_(False).eval()
        self.scale = pipeline.vae.config.scaling_factor

    def part(self, name: str, device: torch.device) -> Any:
        """One network, on this device."""
        return self._frozen[name].to(device) if name in self._frozen else getattr(self, name)

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b m i j"]:
        """Latent mean and logarithm of the variance, stacked."""
        with torch.no_grad():
            return moments(self.part("vae", image.device), image)

    def decode(self, latent: Float[Tensor, "b c i j"]) -> Float[Tensor, "b 3 h w"]:
        """Images in about -1..1, with gradients."""
        return self.part("vae", latent.device).decode(latent / self.scale, return_dict=False)[0]

    def forward(
        self,
        noisy: Float[Tensor, "b c i j"],
        t: Int[Tensor, "b"],
        tokens: Int[Tensor, "b l"],
        control: Float[Tensor, "b k h w"],
    ) -> Float[Tensor, "b c i j"]:
        """The network's prediction (noise or velocity)."""
        device = noisy.device
        words = self.part("text_encoder", device)(tokens)[0]  # (b, l, d)
        down, middle = self.part("controlnet", device)(noisy, t, words, control, return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self.part("unet", device)(noisy, t, words, **residuals, return_dict=False)[0]


def train_control(
    pipeline: Any,
    dataset: Indexed,
    config: ControlTraining,
    out: Path,
    *,
    held_out: Indexed | None = None,
    critic: Critic | None = None,
    data_digest: str = "",
) -> Trained:
    """Train the ControlNet of `pipeline`, and with `joint` its base, resuming what is in `out`.

    The networks that learn end as their average. Every train.validate_every steps, held-out pairs give a loss with
    fixed noise and images with fixed seeds, out/pictures/step_NNNNNNNN.png in rows of render, drawn image, photograph.
    keep_latents asks of the data set that sample i always has the same image. critic: where structure_weight is above
    0, another one than will judge the images; of the digest. Raises InputError.
    """
    pairs, structure = Pairs(dataset, pipeline, config.mirror), _structure(critic, config, dataset)
    denoiser = Denoiser(pipeline, LEARNED[config.learn])
    if config.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        pipeline.controlnet.enable_gradient_checkpointing()
    data: Indexed = Latents(pairs, denoiser) if config.keep_latents else pairs
    task = _Task(pipeline, config, _class_weights(dataset, config.rare_power), structure)
    validate = None
    if held_out is not None:
        run = Run(config.train, len(pairs), Path(out))
        validate = _validation(pipeline, denoiser, held_out, task, run)
    digest = _digest(pipeline, config, data_digest, structure)
    trained = train(denoiser, task.loss, data, config.train, Path(out), validate=validate, data_digest=digest)
    load_model(trained.checkpoint, denoiser)
    for name in PARTS:
        getattr(pipeline, name).to("cpu").eval()
    return trained


class Latents:
    """Pairs with the latent of each image, and of its mirror image, computed once."""

    def __init__(self, pairs: Pairs, denoiser: Denoiser):
        self.pairs, self.latents = pairs, []
        for index in range(len(pairs)):
            image = pairs[index]["image"][None]
            both = [image, image.flip(-1)] if pairs.mirror else [image]
            self.latents.append(torch.cat([denoiser.encode(each) for each in both]))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._with_latent(self.pairs[index])

    def draw(self, index: int, rng: Any) -> dict[str, Any]:
        """As the training loop asks for it."""
        return self._with_latent(self.pairs.draw(index, rng))

    def _with_latent(self, item: dict[str, Any]) -> dict[str, Any]:
        del item["image"]
        return item | {"latent": self.latents[item["index"]][int(item["mirrored"])]}


class _Task:
    """The loss, with what it needs beside the network."""

    def __init__(
        self,
        pipeline: Any,
        config: ControlTraining,
        class_weights: Tensor | None = None,
        structure: Structure | None = None,
    ):
        self.config, self.class_weights, self.structure = config, class_weights, structure  # (k,)
        self.velocity = pipeline.scheduler.config.prediction_type == "v_prediction"
        self.alpha_bar = pipeline.scheduler.alphas_cumprod.double()  # (T,)
        self.no_prompt = tokens_of(pipeline.tokenizer, "")  # (L,)

    def loss(self, model: nn.Module, batch: Any, noise: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weighted squared error, a mean over samples."""
        latent = self._latent(model, batch, noise)  # (b, c, i, j)
        size, device = len(latent), latent.device
        t = self._times(torch.rand(size, generator=noise, device=device, dtype=torch.float64))
        dropped = torch.rand(size, generator=noise, device=device) < self.config.prompt_dropout
        tokens = torch.where(dropped[:, None], self.no_prompt.to(device), batch["tokens"])
        eps = torch.randn(latent.shape, generator=noise, device=device)
        signal = self.alpha_bar.to(device)[t].view(-1, 1, 1, 1)
        noisy = signal.sqrt().float() * latent + (1 - signal).sqrt().float() * eps
        target = signal.sqrt().float() * eps - (1 - signal).sqrt().float() * latent if self.velocity else eps
        predicted = model(noisy, t, tokens, batch["control"]).float()
        errors = (predicted - target).square().mean(dim=1)  # (b, i, j)
        weighted = self._weight(signal.flatten()) * self._by_class(errors, batch).mean(dim=(1, 2))  # (b,)
        parts = {"squared_error": errors.mean()}
        if self.structure is None:
            return weighted.mean(), parts
        missing = self._missing(_denoiser(model), (noisy, predicted, latent), t, batch["labels"])
        return weighted.mean() + self.config.structure_weight * missing, parts | {"structure": missing}

    def _missing(
        self, denoiser: Any, latents: tuple[Tensor, Tensor, Tensor], t: Int[Tensor, "b"], labels: Tensor
    ) -> Tensor:
        """What the critic misses in images that are predicted for some of the batch. latents: noisy, predicted, x0."""
        assert self.structure is not None
        count, last = math.ceil(len(t) * self.config.structure_share), len(self.alpha_bar)
        known = last if self.velocity else last // 5  # beyond, predicted noise tells nothing of the image
        some = torch.nonzero(t[:count] < known)[:, 0]
        noisy, predicted, latent = (each[some] for each in latents)
        if not len(some):
            return predicted.new_zeros(())
        signal = self.alpha_bar.to(t.device)[t[some]].view(-1, 1, 1, 1)
        images = denoiser.decode(clean(noisy, predicted, signal, self.velocity))
        with torch.no_grad():
            photographs = denoiser.decode(latent)
        return self.structure.missing(images, photographs, labels[some])

    def _by_class(self, errors: Float[Tensor, "b i j"], batch: Any) -> Float[Tensor, "b i j"]:
        if self.class_weights is None:
            return errors
        weights = self.class_weights.to(errors.device)[batch["labels"].long()]  # (b, h, w)
        return errors * adaptive_avg_pool2d(weights[:, None], (errors.shape[1], errors.shape[2]))[:, 0]

    def _times(self, uniform: Float[Tensor, "b"]) -> Int[Tensor, "b"]:
        last = len(self.alpha_bar) - 1
        return ((last + 1) * (1 - uniform**self.config.time_power)).long().clamp(max=last)

    def _weight(self, signal: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        if self.config.snr_gamma is None:
            return torch.ones_like(signal).float()
        snr = signal / (1 - signal)
        return (snr.clamp(max=self.config.snr_gamma) / (snr + 1 if self.velocity else snr)).float()

    def _latent(self, model: nn.Module, batch: Any, noise: torch.Generator) -> Tensor:
        """A draw from the VAE's posterior, scaled."""
        denoiser = _denoiser(model)
        moments = batch["latent"] if "latent" in batch else denoiser.encode(batch["image"])
        mean, log_variance = moments.float().chunk(2, dim=1)
        deviation = torch.exp(0.5 * log_variance.clamp(-30, 20))  # as diffusers clamps it
        return denoiser.scale * (mean + deviation * torch.randn(mean.shape, generator=noise, device=mean.device))


def _structure(critic: Critic | None, config: ControlTraining, dataset: Indexed) -> Structure | None:
    if not config.structure_weight:
        return None
    if "labels" not in dataset[0]:
        raise InputError("structure_weight", "pairs with labels", "pairs without", "set it to 0")
    if critic is None:
        raise InputError(
            "structure_weight", "a critic, another one than will judge", "none", "give one, or set it to 0"
        )
    return Structure(critic)


def _denoiser(model: nn.Module) -> Any:
    return getattr(model, "module", model)  # inside torch's DistributedDataParallel


def _class_weights(dataset: Indexed, power: float) -> Tensor | None:
    """By class id, a mean of 1 over the pairs' pixels. Raises InputError: pairs without labels."""
    if not power:
        return None
    counts = np.zeros(256, np.int64)
    for index in range(len(dataset)):
        if "labels" not in dataset[index]:
            raise InputError("rare_power", "pairs with labels", "pairs without", "set it to 0")
        counts += np.bincount(dataset[index]["labels"].ravel(), minlength=256)
    weights = class_weights(counts, power)
    return torch.from_numpy(weights * (counts.sum() / (weights * counts).sum())).float()


def _validation(
    pipeline: Any, denoiser: Denoiser, held_out: Indexed, task: _Task, run: Run
) -> Callable[[nn.Module, torch.Generator], Mapping[str, float]]:
    pairs, config = Pairs(held_out, pipeline, mirror=False), task.config
    shown = [held_out[index] for index in range(min(config.pictures, len(pairs)))]
    pictures = Pictures(pipeline, shown, config.synthesis, run)
    items = [pairs[index] for index in range(min(JUDGED_ON, len(pairs)))]

    def validate(model: nn.Module, generator: torch.Generator) -> Mapping[str, float]:
        pictures.draw(generator)
        noise = torch.Generator(generator.device)
        noise.manual_seed(config.train.seed)  # the same each time, so that losses compare
        total = 0.0
        for item in items:
            batch = {name: value[None].to(noise.device) for name, value in item.items() if torch.is_tensor(value)}
            total += float(task.loss(denoiser, batch, noise)[1]["squared_error"])
        return {"squared_error": total / len(items)}

    return validate


def _digest(pipeline: Any, config: ControlTraining, data_digest: str, structure: Structure | None) -> str:
    """What must be the same for a run to be continued, beside TrainConfig: data, settings and the frozen weights."""
    kept = {"train", "pictures", "synthesis", "gradient_checkpointing"}  # of no effect on the weights
    networks = [getattr(pipeline, name) for name in PARTS if name not in LEARNED[config.learn]]
    frozen = hashlib.sha256()
    for network in networks + ([structure.network] if structure else []):
        for key, value in network.state_dict().items():
            frozen.update(key.encode())
            frozen.update(value.detach().cpu().flatten().view(torch.uint8).numpy())
    settings = config.model_dump(mode="json", exclude=kept)
    return digest_of({"data": data_digest, "config": settings, "frozen": frozen.hexdigest()})
