"""A new ControlNet that is to learn beside its base begins by seeing its condition, and that alone.

diffusers' embedding of the control image is a stack of convolutions without normalisation, at torch's default scale:
of the image's contrasts next to nothing is left at its end, and what is left is added to noise. The scale is set by
data instead, layer by layer: All you need is a good init (Mishkin and Matas, 2016). The noisy latent counts nothing at
first; the ControlNet learns to look at it. A ControlNet on a frozen base keeps the paper's start (base.new_controlnet).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from pipeline.images.pairs import Pairs
from pipeline.scene.seeds import integer_seed

FITTED_ON = 16  # control images
MIN_DEVIATION = 1e-3  # of a channel, lest one that is all the same be blown up


@torch.no_grad()
def show_condition(controlnet: Any, pairs: Pairs, seed: int) -> None:
    """Give each layer of the embedding orthogonal weights and outputs of mean 0 and deviation 1 over the pairs.

    The convolution of the noisy latent becomes zero. The ControlNet adds as little to its base as before.
    """
    step = max(1, len(pairs) // FITTED_ON)
    features = torch.stack([pairs[index]["control"] for index in range(0, len(pairs), step)])
    embedding = controlnet.controlnet_cond_embedding
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, "condition", 0))
        for layer in (embedding.conv_in, *embedding.blocks):
            features = silu(_standardise(layer, features))
        _standardise(embedding.conv_out, features)
    nn.init.zeros_(controlnet.conv_in.weight)
    nn.init.zeros_(controlnet.conv_in.bias)


def _standardise(layer: Any, features: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
    """Set a convolution's weights; its outputs."""
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    outputs = layer(features)
    scale = 1 / outputs.std(dim=(0, 2, 3)).clamp(min=MIN_DEVIATION)
    layer.weight *= scale[:, None, None, None]
    layer.bias -= scale * outputs.mean(dim=(0, 2, 3))
    return layer(features)
