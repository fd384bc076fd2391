"""Fitting the 3D encoder on a training split: the autoencoder, then the axes on which its pooled latents are projected.

    fit_encoder(train, config, out, held_out)      checkpoints and logs in out/training, the encoder in out/weights

The card holds what a figure must say: the training scenes' digest and number, the config, and how well held-out scenes
are reconstructed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.learning.checkpoint import load_model
from pipeline.learning.loop import Loss, train
from pipeline.learning.order import Indexed
from pipeline.metrics.encoder3d import (
    EncoderConfig,
    SceneAutoencoder,
    SceneEncoder,
    check_labels,
    columns,
    pooled,
)
from pipeline.scene import seeds
from pipeline.scene.confusion import class_ious, confusion
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import IGNORE

COMMAND = "occfactory train-encoder ROOT --out DIR"  # trains anew what a card describes


def fit_encoder(scenes: Indexed, config: EncoderConfig, out: Path, held_out: Indexed | None = None) -> SceneEncoder:
    """Train on `scenes` (a data set whose items are uint8 labels (X, Y, Z)), and save to out/weights.

    held_out: scenes of another split, whose reconstruction the card then tells. A run found in `out` is resumed.
    Raises InputError: labels of another grid or taxonomy, too few scenes, or a run of other data or config in `out`.
    """
    if len(scenes) <= config.features:
        raise InputError("training an encoder", f"more than {config.features} scenes, its features", str(len(scenes)))
    counts, digest = _survey(scenes, config)
    network = initial_network(config)
    trained = train(network, _loss(config, counts), scenes, config.train, Path(out) / "training", data_digest=digest)
    run = load_model(trained.checkpoint, network)
    network.cpu().eval()
    data = {"digest": digest, "scenes": len(scenes), "voxels": counts.tolist()}
    rows = np.concatenate([pooled(network, _item(scenes, i)[None]) for i in range(len(scenes))])
    card: dict[str, Any] = {"kind": "scene autoencoder", "data": data, "steps": trained.steps}
    card |= {"versions": run["versions"], "hardware": run["hardware"], "command": COMMAND}
    encoder = SceneEncoder(config, network, *principal_axes(rows, config.features), card)
    if held_out is not None:
        card["held_out"] = reconstruction(encoder, held_out)
    encoder.save(Path(out) / "weights")
    return encoder


def initial_network(config: EncoderConfig) -> SceneAutoencoder:
    """The untrained network, its weights drawn from the training's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.integer_seed(config.train.seed, "encoder3d weights", 0))
        return SceneAutoencoder(config)


def _item(scenes: Indexed, index: int) -> UInt8[np.ndarray, "x y z"]:
    return np.asarray(scenes[index])


def _survey(scenes: Indexed, config: EncoderConfig) -> tuple[Int64[np.ndarray, "k"], str]:
    """Voxels a class, and SHA-256 over all labels in order. Raises InputError."""
    counts, digest = np.zeros(256, np.int64), hashlib.sha256()
    for index in range(len(scenes)):
        labels = _item(scenes, index)
        check_labels(labels[None], config)
        counts += np.bincount(labels.ravel(), minlength=256)
        digest.update(np.ascontiguousarray(labels).tobytes())
    return counts[: config.classes], digest.hexdigest()


def class_weights(counts: Int64[np.ndarray, "k"], power: float) -> Float32[np.ndarray, "k"]:
    """(largest count / own) ** power; a class that never occurs weighs as one that occurs once."""
    return ((counts.max() / np.maximum(counts, 1)) ** power).astype(np.float32)


def _loss(config: EncoderConfig, counts: Int64[np.ndarray, "k"]) -> Loss:
    weights = torch.from_numpy(class_weights(counts, config.weight_power))

    def loss(model: nn.Module, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits = model(batch).flatten(0, 3)  # voxels K
        target = columns(batch).flatten().long()
        return cross_entropy(logits, target, weights.to(logits.device), ignore_index=IGNORE), {}

    return loss


def principal_axes(
    rows: Float[np.ndarray, "n p"], dimension: int
) -> tuple[Float[np.ndarray, "p"], Float[np.ndarray, "p d"]]:
    """Mean and the `dimension` directions of largest deviation s, scaled to the deviation sqrt(s / mean s).

    Half way to unit variance. Unscaled, the road's layout hides rare classes, which move few directions by little; at
    unit variance chance in the flattest directions hides both. Directions without variance count as none. Each
    direction's largest entry is positive.
    """
    variances, vectors = np.linalg.eigh(np.cov(rows.T))  # ascending
    variances, axes = variances[::-1][:dimension], vectors[:, ::-1][:, :dimension]
    deviations = np.sqrt(np.where(variances > 1e-9 * variances[0], variances, np.inf))
    mean_deviation = deviations[np.isfinite(deviations)].mean()
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(dimension)])
    return rows.mean(0), np.ascontiguousarray(axes * signs / np.sqrt(deviations * mean_deviation))


def reconstruction(encoder: SceneEncoder, scenes: Indexed) -> dict[str, Any]:
    """How well scenes survive encoding: N, mIoU over the classes (empty aside) that occur in them, IoU by class."""
    classes = encoder.config.classes
    matrix = np.zeros((classes, classes), np.int64)
    for index in range(len(scenes)):
        labels = _item(scenes, index)
        matrix += confusion(labels, encoder.reconstruct(labels[None])[0], classes)
    present = np.flatnonzero(matrix.sum(1)[1:]) + 1
    ious = class_ious(matrix)
    miou = float(ious[present].mean()) if len(present) else 0.0
    return {"scenes": len(scenes), "miou": miou, "classes": len(present), "class_iou": [float(v) for v in ious]}
