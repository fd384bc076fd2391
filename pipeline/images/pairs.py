"""Training pairs as tensors.

A pair is {"image": (H, W, 3) uint8, "control": (C, H, W) float32 in 0..1, "prompt": str}.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.images.loading import check_multiple
from pipeline.images.synthesis import check_words, size_multiple
from pipeline.learning.order import Indexed
from pipeline.scene.errors import InputError


class Pairs:
    """A data set of pairs as tensors, mirrored left to right every other time if `mirror`.

    Items: image (3, H, W) in -1..1, control (C, H, W), tokens (L,), index, mirrored, and labels (H, W) where the source
    has them. The source's own `draw` is used where it has one; it may change the prompt. Raises InputError on a pair
    that doesn't fit the pipeline.
    """

    def __init__(self, source: Indexed, pipeline: Any, mirror: bool):
        self.source, self.tokenizer, self.mirror = source, pipeline.tokenizer, mirror
        self.channels = pipeline.controlnet.config.conditioning_channels
        self.multiple = size_multiple(pipeline)
        if not len(source):
            raise InputError("training pairs", "at least one", "none")
        self.size = source[0]["image"].shape[:2]
        self.check(source[0], 0)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.tensors(self.source[index], index, mirrored=False)

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """As the training loop asks for it."""
        draw = getattr(self.source, "draw", None)
        pair = draw(index, rng) if draw else self.source[index]
        return self.tensors(pair, index, mirrored=self.mirror and bool(rng.random() < 0.5))

    def tensors(self, pair: dict[str, Any], index: int, mirrored: bool) -> dict[str, Any]:
        """One pair, checked."""
        self.check(pair, index)
        image, control = pixels(pair["image"]), torch.from_numpy(np.ascontiguousarray(pair["control"]))
        places = {"image": image, "control": control}
        if "labels" in pair:
            places["labels"] = torch.from_numpy(np.ascontiguousarray(pair["labels"]))
        if mirrored:
            places = {name: value.flip(-1) for name, value in places.items()}
        tokens = tokens_of(self.tokenizer, pair["prompt"])
        return {**places, "tokens": tokens, "index": index, "mirrored": mirrored}

    def check(self, pair: dict[str, Any], index: int) -> None:
        """Shapes, types and words of one pair. Raises InputError."""
        image, control, subject = pair["image"], pair["control"], f"training pair {index}"
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(subject, "an image (H, W, 3) of uint8", f"{image.shape} of {image.dtype}")
        if image.shape[:2] != self.size:
            raise InputError(subject, f"an image of {self.size}, as pair 0", str(image.shape[:2]))
        for name, value in zip(("height", "width"), image.shape[:2], strict=True):
            check_multiple(name, value, self.multiple)
        if control.shape != (self.channels, *self.size) or control.dtype != np.float32:
            what = f"a control image {(self.channels, *self.size)} of float32"
            raise InputError(subject, what, f"{control.shape} of {control.dtype}")
        if not 0 <= control.min() <= control.max() <= 1:  # not a number fails, too
            raise InputError(subject, "a control image in 0..1", f"{control.min()} to {control.max()}")
        check_words(self.tokenizer, pair["prompt"])


class Images:
    """The pairs' images alone, {"image": (3, H, W) in -1..1}, which are quick to read; `draw` mirrors as the pairs do.

    A source's own `photograph(index)` is used where it has one. Raises InputError on images of another size.
    """

    def __init__(self, pairs: Pairs):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        photograph = getattr(self.pairs.source, "photograph", None)
        image = photograph(index) if photograph else self.pairs.source[index]["image"]
        if image.shape != (*self.pairs.size, 3) or image.dtype != np.uint8:
            found = f"{image.shape} of {image.dtype}"
            raise InputError(f"training pair {index}", f"an image of {self.pairs.size}, as pair 0", found)
        return {"image": pixels(image)}

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """As the training loop asks for it."""
        image = self[index]["image"]
        return {"image": image.flip(-1) if self.pairs.mirror and rng.random() < 0.5 else image}


def pixels(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """0..255 -> -1..1, as diffusers' VAEs have it."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 127.5 - 1


def tokens_of(tokenizer: Any, text: str) -> Tensor:
    """A prompt's ids, padded to the tokenizer's length, (L,)."""
    found = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
    return torch.tensor(found.input_ids)
