"""MonoScene's 2D half: an EfficientNet (Tan and Le, ICML 2019) and a decoder back to the image's resolution.

The encoder is transformers' EfficientNetModel, mended in three places: its batch norms forget all but the last batch
(TensorFlow's momentum 0.99 read as PyTorch's), its random weights vanish (batch norm scales drawn around 0), and its
dropout inside residual sums is off, as in the published training. The decoder is AdaBins' (Bhat et al., CVPR 2021).
Images are padded at the right and bottom to multiples of 32 px, so that pixel u is in cell u // s at every scale s; the
public code resizes with corners aligned instead, and pads its coarsest features by one cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from pipeline.scene.errors import InputError
from ssc_eval.unet3d import Run, call

EncoderName = Literal["tiny", "small", "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"]
WIDTH_AND_DEPTH: dict[EncoderName, tuple[float, float]] = {
    "tiny": (0.25, 0.34), "small": (0.5, 0.5),
    "b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4),
    "b4": (1.4, 1.8), "b5": (1.6, 2.2), "b6": (1.8, 2.6), "b7": (2.0, 3.1),
}  # fmt: skip
STRIDE = 32  # the coarsest scale
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the pretrained weights expect
_LAST_STAGE = {2: 0, 4: 1, 8: 2, 16: 4}  # the last of EfficientNet's seven stages at 1/s
_FETCH = "fetch the folder (config.json, model.safetensors), or set download, or leave weights empty"


def encoder_config(name: EncoderName) -> Any:
    """transformers' EfficientNetConfig of this size."""
    from transformers import EfficientNetConfig
    from transformers.models.efficientnet.modeling_efficientnet import round_filters

    width, depth = WIDTH_AND_DEPTH[name]
    config = EfficientNetConfig(width_coefficient=width, depth_coefficient=depth, drop_connect_rate=0.0)
    config.hidden_dim = round_filters(config, 1280)
    return config


class Encoder2D(nn.Module):
    """(B, 3, H, W) images in 0..1, H and W multiples of 32 -> features keyed by s = 1 (the image), 2, 4, 8, 16, 32."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: EncoderName):
        super().__init__()
        from transformers import EfficientNetModel

        config = encoder_config(name)
        self.net: Any = EfficientNetModel(config)
        repeats = [math.ceil(config.depth_coefficient * n) for n in config.num_block_repeats]
        ends = [sum(repeats[: stage + 1]) for stage in range(len(repeats))]
        taps = [ends[stage] for stage in _LAST_STAGE.values()]
        self.spans = list(zip([0, *taps], [*taps, ends[-1]], strict=True))  # the blocks between taps
        self.channels = {1: 3, STRIDE: int(config.hidden_dim)}  # features at 1/s
        for scale, tap in zip(_LAST_STAGE, taps, strict=True):
            self.channels[scale] = self.net.encoder.blocks[tap - 1].projection.project_bn.num_features
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        _reset(self.net)

    def forward(self, image: Float[Tensor, "b 3 h w"], run: Run = call) -> dict[int, Tensor]:
        x = (image - self.mean) / self.std
        taps = {1: x}
        x, blocks = self.net.embeddings(x), self.net.encoder.blocks
        for scale, (first, end) in zip([*_LAST_STAGE, STRIDE], self.spans, strict=True):
            x = run(nn.Sequential(*blocks[first:end]), x)
            taps[scale] = x
        top = self.net.encoder
        taps[STRIDE] = top.top_activation(top.top_bn(top.top_conv(x)))
        return taps


def _reset(net: nn.Module) -> None:
    """He's initialisation (fan out) of convolutions, ones and zeros for batch norms, and their usual momentum."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
            module.reset_parameters()


def load_pretrained(encoder: Encoder2D, weights: str, download: bool = False) -> None:
    """Fill the encoder from a local folder or a hub name (google/efficientnet-b7); only safetensors are read.

    download: whether the hub may be asked; without it a hub name must be in the local cache. Raises InputError.
    """
    from safetensors import SafetensorError
    from transformers import EfficientNetModel
    from transformers.utils import logging

    wanted = f"EfficientNet weights of width {encoder.net.config.width_coefficient:g}, a local folder or a hub name"
    loud = logging.get_verbosity()
    logging.set_verbosity_error()  # its table of keys: what matters of it is told below
    try:
        found, report = EfficientNetModel.from_pretrained(
            weights,
            config=encoder.net.config,
            local_files_only=not download or Path(weights).exists(),
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(weights, wanted, _reason(error, weights, download), _FETCH) from None
    finally:
        logging.set_verbosity(loud)
    if wrong := len(report["missing_keys"]) + len(report["mismatched_keys"]):
        raise InputError(weights, wanted, f"{wrong} tensors absent or of another shape", "choose that size of encoder")
    encoder.net.load_state_dict(found.state_dict())


def _reason(error: Exception, weights: str, download: bool) -> str:
    """transformers' paragraphs as one clause."""
    if not download and not Path(weights).exists():
        return "neither such a folder nor such weights in the local cache"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class UpBlock(nn.Module):
    """Doubles the resolution (bilinear) and joins the encoder's features; twice 3x3, batch norm, leaky rectifier."""

    def __init__(self, channels: int, skip_channels: int, channels_out: int):
        super().__init__()
        layers: list[nn.Module] = []
        for size in (channels + skip_channels, channels_out):
            layers += [nn.Conv2d(size, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.LeakyReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b e h2 w2"]) -> Float[Tensor, "b d h2 w2"]:
        finer = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)  # edges, not centres, are scaled
        return self.layers(torch.cat([finer, skip], dim=1))


class UNet2D(nn.Module):
    """(B, 3, H, W) images in 0..1 of any size -> {s: (B, C, H', W')} for s in `scales`, H' = 32 ceil(H/32) / s.

    width: the decoder's channels at 1/32, halved at every finer scale. Parts that no asked scale needs are not built.
    """

    def __init__(self, name: EncoderName, width: int, channels: int, scales: Sequence[int]):
        super().__init__()
        self.encoder = Encoder2D(name)
        taps = self.encoder.channels
        self.squeeze = nn.Conv2d(taps[STRIDE], width, 1)
        self.up, self.out = nn.ModuleDict(), nn.ModuleDict()
        scale = STRIDE
        while scale > min(scales):
            scale //= 2
            finer = width * scale // STRIDE
            self.up[str(scale)] = UpBlock(2 * finer, taps[scale], finer)
            if scale in scales:
                self.out[str(scale)] = nn.Conv2d(finer, channels, 1)

    def forward(self, image: Float[Tensor, "b 3 h w"], run: Run = call) -> dict[int, Tensor]:
        return self.lifted(self.decoded(image, run))

    def lifted(self, decoded: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The features at the asked scales, of what `decoded` found."""
        return {int(scale): out(decoded[int(scale)]) for scale, out in self.out.items()}

    def decoded(self, image: Float[Tensor, "b 3 h w"], run: Run = call, finest: int = 1) -> dict[int, Tensor]:
        """The decoder's states at 1/s, of `width` * s / 32 channels, for s from 16 to the finest scale, or `finest`."""
        height, width = image.shape[-2:]
        taps = self.encoder(pad(image, (0, -width % STRIDE, 0, -height % STRIDE)), run)
        x = self.squeeze(taps[STRIDE])
        states = {}
        for scale, up in ((int(key), up) for key, up in self.up.items()):
            if scale >= finest:
                x = states[scale] = run(up, x, taps[scale])
        return states
