"""What a prediction shows, by a frozen critic, as a part of the ControlNet's loss: a network then spends more on what
makes a class one than on the texture that fills squared errors.

    x0 = sqrt(alpha_bar_t) z_t - sqrt(1 - alpha_bar_t) v,  or  (z_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t)
    c(z) = CE(critic(D(z / s)), labels), classes weighted as when the critic learned them
    loss = max(0, c(x0) - c(z)), z the photograph's latent

ControlNet++: improving conditional controls with efficient consistency feedback (Li et al., 2024), where t in the last
fifth counts. Deviations: every t, where the network predicts velocities, which tell of an image from the first step;
and no more is asked for than the photograph shows, lest images be drawn for the critic. That must be another one than
will judge them.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.images.critic import Critic
from pipeline.images.critic_training import class_weights
from pipeline.scene.taxonomy import IGNORE


class Structure:
    """A critic that stays as it is, with the weights of its classes."""

    def __init__(self, critic: Critic):
        self.network = critic.network.eval().requires_grad_(False)
        counts = np.asarray(critic.card["data"]["pixels"], np.int64)
        self.weights = torch.from_numpy(class_weights(counts, critic.config.weight_power))

    def missing(
        self, images: Float[Tensor, "b 3 h w"], photographs: Float[Tensor, "b 3 h w"], labels: UInt8[Tensor, "b h w"]
    ) -> Tensor:
        """How much less of the labels is found in images than in photographs, a mean; both in -1..1."""
        with torch.no_grad():
            shown = self.distance(photographs, labels)
        return (self.distance(images, labels) - shown).clamp(min=0).mean()

    def distance(self, images: Float[Tensor, "b 3 h w"], labels: UInt8[Tensor, "b h w"]) -> Float[Tensor, "b"]:
        """Of each image, the cross entropy's mean over pixels that have a label, each by its class's weight."""
        logits, _ = self.network.to(images.device)(images)
        weights, target = self.weights.to(images.device), labels.long()
        summed = cross_entropy(logits.float(), target, weights, ignore_index=IGNORE, reduction="none").sum((1, 2))
        counted = torch.where(target == IGNORE, 0.0, weights[target.clamp(max=len(weights) - 1)]).sum((1, 2))
        return summed / counted.clamp(min=1e-6)


def clean(
    noisy: Float[Tensor, "b c i j"],
    predicted: Float[Tensor, "b c i j"],
    signal: Float[Tensor, "b 1 1 1"],
    velocity: bool,
) -> Float[Tensor, "b c i j"]:
    """The latent x0 that a prediction amounts to. signal: alpha_bar_t."""
    kept, noise = signal.sqrt().float(), (1 - signal).sqrt().float()
    return kept * noisy - noise * predicted if velocity else (noisy - noise * predicted) / kept
