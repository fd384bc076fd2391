"""Training the critic on a training split's photographs and the renders of their voxels.

    fit_critic(pairs, taxonomy, config, out, held_out)      checkpoints in out/training, the critic in out/weights

A pair is {"image": (H, W, 3) uint8, "labels": (H, W) uint8 class ids, "depth": (H, W) float32 metres, 0 = no hit}, and
other entries are left alone. Labels of 255 aren't learned. Depth is learned where something is hit, by Eigen's
scale-invariant loss (Depth map prediction from a single image, 2014, eq. 4, lambda = 1/2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.images.config import FidelityConfig
from pipeline.images.critic import Critic, CriticConfig, SegmentationAndDepth, as_input, check_image
from pipeline.images.fidelity import agreements, summed
from pipeline.learning.checkpoint import load_model
from pipeline.learning.loop import Loss, train
from pipeline.learning.order import Indexed
from pipeline.scene import seeds
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import IGNORE, Taxonomy

LAMBDA = 0.5  # of the scale-invariant loss: 0 learns metres, 1 shape alone


def fit_critic(
    pairs: Indexed, taxonomy: Taxonomy, config: CriticConfig, out: Path, held_out: Indexed | None = None
) -> Critic:
    """Train on `pairs` and save to out/weights; a run found in `out` goes on.

    held_out: pairs of another split, agreement with which the card then tells. Raises InputError: pairs that don't fit
    the config, or a run of other data or config in `out`.
    """
    if config.classes != taxonomy.classes:
        raise InputError("training a critic", f"a config of {taxonomy.name}'s classes", "others")
    dataset = Photographs(pairs, config)
    counts, digest = dataset.survey()
    network = initial_network(config)
    trained = train(network, _loss(config, counts), dataset, config.train, Path(out) / "training", data_digest=digest)
    run = load_model(trained.checkpoint, network)
    network.cpu().eval()
    data = {"digest": digest, "pairs": len(pairs), "pixels": counts.tolist(), "size": list(dataset.size)}
    card: dict[str, Any] = {"data": data, "taxonomy": taxonomy.name, "steps": trained.steps}
    card |= {"versions": run["versions"], "hardware": run["hardware"]}
    critic = Critic(config, network, card)
    if held_out is not None:
        found = summed(agreements(critic, held_out, taxonomy, FidelityConfig()), taxonomy)
        card["held_out"] = {"pairs": len(held_out)} | found.figures()
    critic.save(Path(out) / "weights")
    return critic


def initial_network(config: CriticConfig) -> SegmentationAndDepth:
    """The untrained network, its weights drawn from the training's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.integer_seed(config.train.seed, "image critic weights", 0))
        return SegmentationAndDepth(config)


class Photographs:
    """Pairs as the loop sees them: image, labels, depth; drawn ones are mirrored and lit at random.

    Raises InputError on a pair of another size than the first, or with labels that the config lacks.
    """

    def __init__(self, pairs: Indexed, config: CriticConfig):
        self.pairs, self.config = pairs, config
        if not len(pairs):
            raise InputError("training a critic", "at least one pair", "none")
        self.size = pairs[0]["image"].shape[:2]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        pair = self.pairs[index]
        found = {name: np.ascontiguousarray(pair[name]) for name in ("image", "labels", "depth")}
        self._check(found, index)
        return found

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """As training asks for it."""
        found = self[index]
        if rng.random() < 0.5:
            found = {name: np.ascontiguousarray(array[:, ::-1]) for name, array in found.items()}
        found["image"] = _relit(found["image"], self.config.gain, rng)
        return found

    def survey(self) -> tuple[Int64[np.ndarray, "k"], str]:
        """Pixels a class, and SHA-256 over all pairs in order. Raises InputError."""
        counts, digest = np.zeros(256, np.int64), hashlib.sha256()
        for index in range(len(self)):
            pair = self[index]
            counts += np.bincount(pair["labels"].ravel(), minlength=256)
            for array in pair.values():
                digest.update(array.tobytes())
        return counts[: len(self.config.classes)], digest.hexdigest()

    def _check(self, pair: Mapping[str, np.ndarray], index: int) -> None:
        subject, labels, depth = f"training pair {index}", pair["labels"], pair["depth"]
        check_image(pair["image"], 2 ** len(self.config.widths))
        if not pair["image"].shape[:2] == labels.shape == depth.shape == self.size:
            found = f"image {pair['image'].shape[:2]}, labels {labels.shape}, depth {depth.shape}"
            raise InputError(subject, f"image, labels and depth of {tuple(self.size)}", found)
        if labels.dtype != np.uint8 or ((labels >= len(self.config.classes)) & (labels != IGNORE)).any():
            raise InputError(subject, f"uint8 labels below {len(self.config.classes)}, or 255", "others")
        if depth.dtype != np.float32 or not np.isfinite(depth).all() or depth.min() < 0:
            raise InputError(subject, "finite float32 depth in metres, 0 without a hit", str(depth.dtype))


def _relit(image: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
    """Other contrast, brightness and white balance, each by up to `gain` of its range."""
    contrast, brightness = 1 + gain * rng.uniform(-1, 1), 255 * gain * rng.uniform(-1, 1) / 2
    balance = 1 + gain * rng.uniform(-1, 1, 3) / 2
    lit = ((image.astype(np.float32) - 127.5) * contrast + 127.5) * balance + brightness
    return np.clip(np.round(lit), 0, 255).astype(np.uint8)


def class_weights(counts: Int64[np.ndarray, "k"], power: float) -> Float32[np.ndarray, "k"]:
    """(largest count / own) ** power; a class that never occurs weighs as one that occurs once."""
    return ((counts.max() / np.maximum(counts, 1)) ** power).astype(np.float32)


def _loss(config: CriticConfig, counts: Int64[np.ndarray, "k"]) -> Loss:
    weights = torch.from_numpy(class_weights(counts, config.weight_power))

    def loss(
        model: nn.Module, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits, log_depth = model(as_input(batch["image"]))
        classified = cross_entropy(logits, batch["labels"].long(), weights.to(logits.device), ignore_index=IGNORE)
        shaped = scale_invariant_loss(log_depth, batch["depth"])
        return classified + config.depth_weight * shaped, {"labels": classified, "depth": shaped}

    return loss


def scale_invariant_loss(log_depth: Tensor, depth: Tensor) -> Tensor:
    """Mean over images of  mean d^2 - lambda (mean d)^2,  d = log_depth - log depth where depth > 0 (B, H, W)."""
    hit = depth > 0
    pixels = hit.sum((1, 2)).clamp(min=1)
    d = torch.where(hit, log_depth - depth.clamp(min=1e-3).log(), 0.0)
    return (d.square().sum((1, 2)) / pixels - LAMBDA * (d.sum((1, 2)) / pixels).square()).mean()
