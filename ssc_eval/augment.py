"""Augmentations of an image before the network sees it: photometric jitter and a mirror. The scene itself never moves.

MonoScene's training: brightness, contrast and saturation jittered by 0.4, and with probability 1/2 the image flipped
together with the projection (lifting.mirrored), which changes what the 2D network sees and nothing else.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601


def as_floats(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """0..255 -> 0..1."""
    return image.astype(np.float32) / np.float32(255)


def jittered(
    image: Float32[np.ndarray, "h w 3"], strength: float, rng: np.random.Generator
) -> Float32[np.ndarray, "h w 3"]:
    """Brightness, contrast and saturation times factors of 1 - strength .. 1 + strength, in random order; in 0..1.

    Contrast is around the image's mean grey, saturation around each pixel's own.
    """
    factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, 3).astype(np.float32)
    for kind in rng.permutation(3):
        grey = (image @ _GREY)[..., None]
        around = (np.zeros_like(grey), grey.mean(keepdims=True), grey)[kind]
        image = np.clip(around + factors[kind] * (image - around), 0, 1)
    return image


def flipped(image: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """Left to right."""
    return image[:, ::-1]
