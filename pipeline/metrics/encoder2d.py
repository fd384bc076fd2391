"""Image encoders behind FID, KID and IS: pluggable, on uint8 RGB renders of scenes (flows makes the renders).

`RandomConvolutions` is the offline encoder: fixed random filters at four scales, no weights to fetch, no training.
`inception.InceptionEncoder` is the standard network, for users who have its weights as a file. A figure names the
encoder it was made with; figures of different encoders do not compare.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, relu

from pipeline.scene import seeds
from pipeline.scene.errors import InputError

SCALES, FILTERS, SIZE = 4, 24, 5  # octaves; filters an octave; their edge [px]
FAINT = 0.01  # of full scale: responses below it count as none
SEED = 1  # of random-conv-v1, once and for all


class ImageEncoder(Protocol):
    """Images -> features. A row depends on its image alone."""

    @property
    def name(self) -> str:
        """As figures name it."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of what its features depend on."""
        ...

    @property
    def dimension(self) -> int:
        """Features an image."""
        ...

    def features(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        """A row an image, float64. Raises InputError."""
        ...

    def probabilities(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n k"] | None:
        """A trained class head's output, for the inception score; None where the encoder has no such head."""
        ...


def check_images(images: UInt8[np.ndarray, "n h w 3"], smallest_px: int) -> None:
    """Raises InputError unless these are RGB images of at least that edge."""
    shape = images.shape
    if images.dtype != np.uint8 or images.ndim != 4 or shape[3] != 3 or min(shape[1:3]) < smallest_px:
        expected = f"uint8 (images, height, width, 3) with edges of at least {smallest_px} px"
        raise InputError("images to encode", expected, f"{images.dtype} {shape}")


class RandomConvolutions:
    """Random-conv-v1: mean and spread of random filters' responses over an image, at four scales.

    Colour in -1..1; per octave s (halved s times): 24 filters of 5x5x3, zero-mean but for the first six, which see
    colour itself, unit L2 norm; rectified; the map's mean and standard deviation over the image: 4 x 24 x 2 = 192
    numbers. Their logarithms, so that faint textures count beside strong colours, are projected on `dimension` Gaussian
    directions, drawn once as well. Such features tell textures, edges and colours apart (Saxe et al., 2011: random
    filters come close to trained ones for that), no objects.
    """

    name = "random-conv-v1"

    def __init__(self, dimension: int = 48):
        if not 1 <= dimension <= SCALES * FILTERS * 2:
            raise InputError(self.name, f"1 to {SCALES * FILTERS * 2} features", str(dimension))
        self._dimension = dimension
        self._filters = [_filters(scale) for scale in range(SCALES)]
        self._projection = _projection(dimension)

    @property
    def dimension(self) -> int:
        """Features an image."""
        return self._dimension

    @property
    def digest(self) -> str:
        """SHA-256 of the filters and the projection."""
        arrays = [*(f.numpy() for f in self._filters), self._projection]
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    def features(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        """A row an image, float64. Raises InputError."""
        check_images(images, SIZE << (SCALES - 1))
        rows = [np.log(FAINT + self._responses(image)) @ self._projection for image in images]  # each on its own
        return np.reshape(rows, (len(images), self._dimension))

    def probabilities(self, images: UInt8[np.ndarray, "n h w 3"]) -> None:
        """None: nothing here was trained to tell classes."""
        return None

    @torch.no_grad()
    def _responses(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "192"]:
        x = torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)[None].float() / 127.5 - 1
        found = []
        for filters in self._filters:
            response = relu(conv2d(x, filters))[0].double()  # F h w
            found += [response.mean((1, 2)), response.std((1, 2), correction=0)]
            x = avg_pool2d(x, 2)
        return torch.cat(found).numpy()


def _filters(scale: int) -> Tensor:
    weights = seeds.rng(SEED, "random-conv-v1 filters", scale).normal(size=(FILTERS, 3, SIZE, SIZE))
    weights[6:] -= weights[6:].mean((1, 2, 3), keepdims=True)
    weights /= np.sqrt(np.square(weights).sum((1, 2, 3), keepdims=True))
    return torch.from_numpy(weights.astype(np.float32))


def _projection(dimension: int) -> Float[np.ndarray, "192 d"]:
    """Gaussian, not orthonormal: a decomposition's last digits, and so the digest, would change with the machine."""
    size = SCALES * FILTERS * 2
    directions = seeds.rng(SEED, "random-conv-v1 projection", 0).normal(size=(size, size))[:, :dimension]
    return (directions / np.sqrt(size)).astype(np.float32).astype(np.float64)
