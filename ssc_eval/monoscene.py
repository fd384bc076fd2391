"""MonoScene: one image to a whole semantic scene (Cao and de Charette, CVPR 2022), for any grid, taxonomy and camera.

image -> 2D UNet -> features at 1/1..1/8 -> FLoSP (lifting.py) -> 3D UNet -> class logits. The published setting has
149.6 million parameters. Deviations from the public code: no custom operation, no unused weights, images padded instead
of corners aligned (encoder.py), the pretrained encoder is transformers' and not the noisy student. `location_prior` is
ours: the network begins at what is most frequent at each voxel and learns in what a frame differs; `depth_bins` too:
the 2D network says where surfaces are (surface.py), and the 3D network is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.learning.fields import unwritten
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.seeds import integer_seed
from ssc_eval.encoder import STRIDE, EncoderName, UNet2D, load_pretrained
from ssc_eval.lifting import check_pixels, coarser, lift
from ssc_eval.surface import CELL, evidence
from ssc_eval.unet3d import UNet3D, call

LOGITS, RELATION_LOGITS, SURFACE_LOGITS = "logits", "relations", "surfaces"
Dilation = Annotated[int, Field(ge=1)]


class MonoSceneConfig(BaseModel):
    """The network; the defaults are the published setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    encoder: EncoderName = "b7"  # EfficientNet's size
    weights: str = ""  # the encoder's pretrained weights: a local folder or a hub name; empty: random
    download: bool = False  # whether the hub may be asked for them
    decoder: Annotated[int, Field(ge=32, multiple_of=32)] = 2560  # the 2D decoder's channels at 1/32, halved each step
    scales: Annotated[tuple[Literal[1, 2, 4, 8, 16], ...], Field(min_length=1)] = (1, 2, 4, 8)  # lifted: at 1/s
    feature: Annotated[int, Field(ge=4, multiple_of=4)] = 64  # channels of the lifted volume
    project_scale: Literal[1, 2, 4] = 2  # voxels of the lifted volume are this much larger than the labels'
    depth: Annotated[int, Field(ge=1, le=4)] = 2  # how often the 3D UNet halves the lifted volume
    dilations: Annotated[tuple[Dilation, ...], Field(min_length=1)] = (1, 2, 3)  # DDR blocks a level, branches of ASPP
    relation_prior: bool = True
    location_prior: bool = False  # what lies where in the training frames is added to the logits; not the paper's
    # A voxel is occupied where its probability of not being empty is above this, and then of the likeliest class; None:
    # the likeliest of all, as in the paper. IoU counts what is found twice, so that guesses pay from about 0.4 on.
    occupied_above: float | None = unwritten(None, gt=0, lt=1)
    # Bins of the depth at which each line of sight meets its first surface, which the 2D network then predicts and the
    # 3D network takes in; 0: no such prediction, as in the paper.
    depth_bins: int = unwritten(0, ge=0, le=1024)
    recompute: bool = False  # gradient checkpointing: less memory, about a third more time

    @property
    def divisor(self) -> int:
        """A grid's sizes [voxels] must be divisible by this; relations are between voxels that many labels wide / 2."""
        return self.project_scale * 2 ** (self.depth + int(self.relation_prior))


def published() -> MonoSceneConfig:
    """The paper's network for SemanticKITTI, 149.6 M parameters; set `weights` to train as published."""
    return MonoSceneConfig()


def tiny() -> MonoSceneConfig:
    """The CPU twin: 64x64x16 voxels, images about 384x128."""
    return MonoSceneConfig(encoder="tiny", decoder=256, feature=16)


class MonoScene(nn.Module):
    """images (B, 3, H, W), RGB in 0..1, and projections (B, x, y, z, 2) -> {"logits": (B, K, X, Y, Z)}.

    x = X / project_scale and so on: `projection(camera, grid, config.project_scale).pixels`. With the relation prior
    also {"relations": (B, 4, M, N)}, see unet3d.RelationPrior. With depth_bins D > 0 it needs sight (B, X, Y, Z, 3),
    of `surface.sight_of`, and gives {"surfaces": (B, D + K, h, w)}. Weights are random: see `build`. Raises InputError.
    """

    location: Tensor

    def __init__(self, config: MonoSceneConfig, grid: VoxelGrid, classes: int):
        super().__init__()
        if any(n % config.divisor for n in grid.shape):
            expected = f"a grid of sizes divisible by {config.divisor}"
            raise InputError(
                "MonoScene", expected, str(grid.shape), "reduce depth or project_scale, or change the grid"
            )
        if classes < 2:
            raise InputError("MonoScene", "two classes or more", str(classes))
        if config.depth_bins and min(config.scales) > CELL:
            raise InputError("MonoScene", f"a scale of at most {CELL}, for depth_bins", str(config.scales))
        self.config, self.grid, self.classes = config, grid, classes
        self.shape = coarser(grid, config.project_scale).shape
        self.image = UNet2D(config.encoder, config.decoder, config.feature, config.scales)
        self.volume = UNet3D(
            config.feature,
            self.shape,
            classes,
            config.depth,
            config.project_scale,
            config.dilations,
            config.relation_prior,
            classes if config.depth_bins else 0,
        )
        if config.depth_bins:
            self.surface = nn.Conv2d(config.decoder * CELL // STRIDE, config.depth_bins + classes, 1)
        if config.location_prior:  # log p(class at voxel), see prior.location_logits
            self.register_buffer("location", torch.zeros(classes, *grid.shape))
            nn.init.zeros_(self.volume.head.classify.weight)  # so that it begins there

    def forward(
        self,
        image: Float[Tensor, "b 3 h w"],
        pixels: Int[Tensor, "b x y z 2"],
        sight: Int[Tensor, "b xl yl zl 3"] | None = None,
    ) -> dict[str, Tensor]:
        self._check(image, pixels, sight)
        run = recomputed if self.config.recompute and self.training else call
        found: dict[str, Tensor] = {}
        told = None
        decoded = self.image.decoded(image, run)
        if sight is not None:
            found[SURFACE_LOGITS] = self.surface(decoded[CELL])
            told = evidence(found[SURFACE_LOGITS], sight, self.classes)
        logits, relations = self.volume(lift(self.image.lifted(decoded), pixels), run, told)
        found[LOGITS] = logits + self.location if self.config.location_prior else logits
        return found if relations is None else found | {RELATION_LOGITS: relations}

    def _check(self, image: Tensor, pixels: Tensor, sight: Tensor | None) -> None:
        if (sight is None) == bool(self.config.depth_bins):
            asked, came = ("some, for depth_bins", "none") if sight is None else ("none, without depth_bins", "some")
            raise InputError("MonoScene's lines of sight", asked, came, "surface.sight_of makes them")
        expected = (len(image), *self.shape, 2)
        if tuple(pixels.shape) != expected:
            found, remedy = str(tuple(pixels.shape)), f"project at scale {self.config.project_scale}"
            raise InputError("projections", f"shape {expected}", found, remedy)
        if sight is not None and tuple(sight.shape) != (len(image), *self.grid.shape, 3):
            wanted = f"shape {(len(image), *self.grid.shape, 3)}"
            raise InputError(
                "MonoScene's lines of sight", wanted, str(tuple(sight.shape)), "surface.sight_of makes them"
            )
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise InputError("image", "floats (B, 3, H, W) in 0..1", f"{image.dtype} {tuple(image.shape)}")
        if pixels.device.type == "cpu":  # elsewhere it would wait for the device: check before, with check_pixels
            check_pixels(pixels, image.shape[3], image.shape[2])
            if sight is not None:
                check_pixels(sight[..., :2], image.shape[3], image.shape[2])


class Surfaces(nn.Module):
    """The part of a network with depth bins that predicts surfaces, alone: the same weights, no volume."""

    def __init__(self, model: MonoScene):
        super().__init__()
        self.image, self.surface = model.image, model.surface

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h4 w4"]:
        return self.surface(self.image.decoded(image, finest=CELL)[CELL])

    def idle(self) -> list[nn.Parameter]:
        """Weights that it shares but has no use for: of what is finer than its cells, and of features to be lifted."""
        finer = [up for scale, up in self.image.up.items() if int(scale) < CELL]
        return [weight for part in (*finer, self.image.out) for weight in part.parameters()]


def build(config: MonoSceneConfig, grid: VoxelGrid, classes: int, seed: int) -> MonoScene:
    """A network with weights from the seed, and the encoder's pretrained ones if the config names any.

    The global random state stays as it was. Raises InputError.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, "ssc weights", 0))
        model = MonoScene(config, grid, classes)
    if config.weights:
        load_pretrained(model.image.encoder, config.weights, config.download)
    return model


def recomputed(module: nn.Module, *inputs: Tensor) -> Tensor:
    """The module's output, its inner activations computed again in the backward pass instead of being kept."""

    def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        return contextlib.nullcontext(), _counted_once(module)

    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts, preserve_rng_state=False)


@contextlib.contextmanager
def _counted_once(module: nn.Module) -> Iterator[None]:
    """Batch norms inside use the batch's statistics as before, but don't take them into their running ones again."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, torch.zeros(1)
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
