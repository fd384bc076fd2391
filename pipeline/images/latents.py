"""What an autoencoder says of an image: diffusers' variational one gives a distribution, its tiny one a point."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

CERTAIN = -30.0  # logarithm of a variance that is as good as none


def moments(vae: Any, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b m i j"]:
    """Latent means and logarithms of the variances, stacked; unscaled. image: in -1..1."""
    found = vae.encode(image)
    if hasattr(found, "latent_dist"):
        return found.latent_dist.parameters
    return torch.cat([found.latents, torch.full_like(found.latents, CERTAIN)], dim=1)


def means(vae: Any, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c i j"]:
    """The latents to decode for a reconstruction."""
    return moments(vae, image).chunk(2, dim=1)[0]
