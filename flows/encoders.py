"""`occfactory train-encoder`: the 3D autoencoder whose features F3D and K3D compare, of a training split alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flows.changes import apply_changes, table_of
from flows.generators import training_scenes
from flows.recipes import validated
from pipeline.metrics.encoder3d import EncoderConfig
from pipeline.metrics.encoder3d_training import fit_encoder
from pipeline.scene.errors import InputError
from pipeline.scene.records import Scene


def train_encoder(root: Path, out: Path, changes: tuple[str, ...] = ()) -> dict[str, object]:
    """Train on ROOT's train split, judged on its val split; what the card says of the latter. Raises InputError.

    OUT/weights holds the encoder; a run found in OUT goes on. changes: "path=value" on the config.
    """
    scenes, held_out = list(training_scenes(root, "train")), list(training_scenes(root, "val"))
    if not scenes:
        raise InputError(root, "labelled scenes in split train", "none")
    fields = {"shape": scenes[0].grid.shape, "classes": len(scenes[0].taxonomy.classes)}
    table = table_of(validated(EncoderConfig, fields))
    apply_changes(table, changes)
    config = validated(EncoderConfig, table)
    encoder = fit_encoder(_labels(scenes), config, Path(out), _labels(held_out) if held_out else None)
    return dict(encoder.card)


def _labels(scenes: list[Scene]) -> list[np.ndarray]:
    return [scene.labels for scene in scenes]
