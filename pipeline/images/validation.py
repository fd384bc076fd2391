"""Pictures of a training's progress: the same held-out pairs with the same seeds, each time as one PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from pipeline.images.base import assemble
from pipeline.images.config import SynthesisConfig
from pipeline.images.synthesis import Request, Synthesizer
from pipeline.learning.config import TrainConfig
from pipeline.scene.files import atomic_path
from pipeline.scene.seeds import integer_seed

PARTS = ("vae", "text_encoder", "tokenizer", "unet", "controlnet", "scheduler")
GAP = 4  # white pixels between the pictures of a row


@dataclass(frozen=True)
class Run:
    """A training run: its config, its number of training samples and its folder."""

    training: TrainConfig
    samples: int
    out: Path


class Pictures:
    """Rows of (control image, drawn image, photograph), one a held-out pair, in out/pictures."""

    def __init__(self, pipeline: Any, pairs: list[dict[str, Any]], config: SynthesisConfig, run: Run):
        # Weights are those in training: they must keep their precision and layout.
        kept = {
            "precision": "float32",
            "compile": False,
            "channels_last": False,
            "torch_threads": run.training.torch_threads,
        }
        self.pipeline, self.pairs, self.run, self.config = pipeline, pairs, run, config.model_copy(update=kept)

    def draw(self, generator: torch.Generator) -> None:
        """Draw and write the picture of this moment; generator: the one that the training loop hands to `validate`."""
        if not self.pairs:
            return
        requests = [
            Request(
                pair["control"], pair["prompt"], "", integer_seed(self.run.training.seed, "validation picture", index)
            )
            for index, pair in enumerate(self.pairs)
        ]
        parts = {name: getattr(self.pipeline, name) for name in PARTS}  # a scheduler of its own is put in there
        drawn = Synthesizer(assemble(parts), self.config, generator.device).images(requests)
        rows = [row(pair["control"], image, pair["image"]) for pair, image in zip(self.pairs, drawn, strict=True)]
        write_png(self.run.out / "pictures" / f"step_{self._step(generator):08d}.png", np.concatenate(rows))

    def _step(self, generator: torch.Generator) -> int:
        """The loop seeds the generator with the step alone: the step whose seed it is; the run's end may be any."""
        training = self.run.training
        every, last = training.validate_every, training.total_steps(self.run.samples)
        for step in (last, *range(every, last, every)):
            if integer_seed(training.seed, "validate", step) == generator.initial_seed():
                return step
        raise ValueError("the generator is not one of this training's validations")


def row(control: Float32[np.ndarray, "c h w"], *images: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A control image's first three channels (its only one as grey) and images beside it, with a white edge."""
    shown = control[:3] if len(control) >= 3 else np.repeat(control[:1], 3, axis=0)
    first = np.round(shown.transpose(1, 2, 0) * 255).astype(np.uint8)
    edge = ((0, GAP), (0, GAP), (0, 0))
    return np.concatenate([np.pad(each, edge, constant_values=255) for each in (first, *images)], axis=1)


def write_png(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Atomically."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
