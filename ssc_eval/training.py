"""Training of the SSC network: sources -> weights and a card; and the first check of custom data, one frame overfitted.

The loop is pipeline.learning's: resumed after a kill to the same bits, on one or many devices.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pipeline.datasets.statistics import class_weights
from pipeline.learning.checkpoint import load_model, read_card
from pipeline.learning.config import Schedule, TrainConfig
from pipeline.learning.fields import unwritten
from pipeline.learning.loop import Loss, train
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of
from pipeline.scene.seeds import rng as seeded
from ssc_eval.inference import VIEW, evaluate_network, predict, predicted, settle_norms, tally_network
from ssc_eval.losses import LossWeights, monoscene_losses, relation_targets
from ssc_eval.metrics import ALL, IN_VIEW, region_scores, tally_frame
from ssc_eval.monoscene import (
    LOGITS,
    RELATION_LOGITS,
    SURFACE_LOGITS,
    MonoScene,
    MonoSceneConfig,
    Surfaces,
    build,
)
from ssc_eval.prior import drawn_location_logits
from ssc_eval.samples import SampleConfig, Source, SscDataset
from ssc_eval.surface import surface_losses
from ssc_eval.weights import load_ssc, save_ssc

__all__ = [  # the other modules' names are part of this one's interface
    "SscConfig",
    "evaluate_network",
    "load_ssc",
    "overfit_frame",
    "predict",
    "ssc_loss",
    "train_ssc",
]
AS_PUBLISHED = LossWeights()
REACHED = 0.95  # IoU and mIoU of a frame that was overfitted


class SscConfig(BaseModel):
    """One training run, whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    network: MonoSceneConfig
    samples: SampleConfig
    training: TrainConfig  # its seed is the run's
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    losses: LossWeights = unwritten(LossWeights())
    seed: Annotated[int, Field(ge=0)]
    start: Path | None = None  # weights to begin with, such as those trained on synthetic data
    validation: Source | None = None  # held-out frames, scored every training.validate_every steps
    norm_frames: Annotated[int, Field(ge=0)] = 0  # draws that give the batch norms' final statistics; 0: running ones
    adapt: Source | None = None  # its images (no labels) give those statistics instead
    surfaces: TrainConfig | None = unwritten(None)  # of the 2D half alone, on surfaces (network.depth_bins), beforehand


def train_ssc(config: SscConfig, out: Path) -> Path:
    """Train, or go on training, in `out`; the folder of weights, OUT/weights. Raises InputError."""
    if config.surfaces is not None and not config.network.depth_bins:
        raise InputError("surfaces", "a network that predicts them", "depth_bins 0", "set network.depth_bins")
    training = config.training.model_copy(update={"seed": config.seed})
    dataset = SscDataset(config.sources, config.samples, config.seed, config.network)
    held_out = _dataset(config, config.validation)
    model = build(config.network, dataset.grid, len(dataset.taxonomy.classes), config.seed)
    lay_out(model)
    if config.start is not None:
        load_model(config.start, model)
    if config.network.location_prior:
        model.location.copy_(torch.from_numpy(drawn_location_logits(dataset)))
    counts = dataset.class_voxels()
    by_class = torch.from_numpy(class_weights(counts)).float()
    about = {
        "sources": _described(dataset),
        "class_voxels": counts.tolist(),
        "frequencies_digest": digest_of(counts.tolist()),
        **config.model_dump(mode="json", include={"losses"}),
        "seed": config.seed,
        "start": config.start and digest_of(read_card(config.start)["files"]),
    }
    if config.surfaces is not None:
        _learn_surfaces(model, dataset, config, config.surfaces, by_class, about, Path(out) / "surfaces")
        about["surfaces"] = config.surfaces.model_dump(mode="json")
    done = train(
        model,
        ssc_loss(by_class, config.losses),
        dataset,
        training,
        out,
        validate=None if held_out is None else lambda network, _: _scored(network, held_out),
        data_digest=digest_of([about, config.samples.model_dump(mode="json")]),
    )
    load_model(done.checkpoint, model)  # the average, where there is one
    _settle_norms(model, dataset, config)
    weights = Path(out) / "weights"
    if _is_main():
        more = {"training": training.model_dump(mode="json"), "steps": done.steps, "adapted": config.adapt is not None}
        save_ssc(weights, model, config.samples, dataset, {**about, **more})
    return weights


def _learn_surfaces(
    model: MonoScene,
    dataset: SscDataset,
    config: SscConfig,
    training: TrainConfig,
    by_class: Tensor,
    about: Mapping[str, Any],
    out: Path,
) -> None:
    """Train the 2D half alone, or go on: images by the second that way are some four times as many.

    Losses of the volume don't matter to it, so runs that differ in those may share the folder.
    """
    part = Surfaces(model)
    weights = by_class if config.losses.balanced else torch.ones_like(by_class)

    def loss(network: nn.Module, batch: Mapping[str, Tensor], _: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        terms = surface_losses(network(batch["image"]), batch["depth"], batch["surface"], weights.to(batch["image"]))
        return config.losses.total(terms), {name: term.detach() for name, term in terms.items()}

    for weight in part.idle():  # or many devices would wait for their gradients
        weight.requires_grad_(False)
    training = training.model_copy(update={"seed": config.seed})
    shares = config.losses.model_dump(include={"depth", "surface", "balanced"})
    digest = digest_of([{**about, "losses": shares}, config.samples.model_dump(mode="json")])
    done = train(part, loss, dataset, training, out, data_digest=digest)
    load_model(done.checkpoint, part)
    for weight in part.idle():
        weight.requires_grad_(True)


def _settle_norms(model: MonoScene, dataset: SscDataset, config: SscConfig) -> None:
    """Take the batch norms' statistics anew: of unlabelled images, or of draws from the sources (unaugmented).

    Running ones remember some ten steps only, too few for batches of one (Wu and Johnson, "Rethinking Batch in
    BatchNorm", 2021).
    """
    adapt = _dataset(config, config.adapt, labelled=False)
    rng, count = seeded(config.seed, "ssc norms", 0), config.norm_frames
    numbers = [dataset.key_of(i * len(dataset) // count, rng) for i in range(count)]
    if adapt is not None:
        dataset, numbers = adapt, list(range(len(adapt.keys)))
    settle_norms(model, dataset, numbers, config.training.batch_size)


def lay_out(model: MonoScene) -> None:
    """Channels last in the 3D half: its convolutions' backward pass then takes some 2/3 of the time on a CPU."""
    model.volume.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _dataset(config: SscConfig, source: Source | None, labelled: bool = True) -> SscDataset | None:
    if source is None:
        return None
    return SscDataset((source,), config.samples, config.seed, config.network, labelled)


def _described(dataset: SscDataset) -> list[dict[str, Any]]:
    """The sources without the paths of this machine."""
    return [
        {**source.model_dump(mode="json", exclude={"root"}), "name": source.root.name, "digest": digest_of(chosen)}
        for source, chosen in zip(dataset.sources, dataset.chosen, strict=True)
    ]


def _is_main() -> bool:
    parallel = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not parallel or torch.distributed.get_rank() == 0


def ssc_loss(weights: Tensor, shares: LossWeights = AS_PUBLISHED) -> Loss:
    """MonoScene's losses, summed by their shares, on batches of SscDataset; weights: of the cross-entropy by class."""
    weights = weights if shares.balanced else torch.ones_like(weights)

    def loss(model: nn.Module, batch: Mapping[str, Tensor], _: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        found = model(batch["image"], batch["pixels"], batch.get("sight"))
        by_class = weights.to(batch["image"].device)
        terms = monoscene_losses(
            found[LOGITS],
            batch["labels"],
            by_class,
            batch.get("tiles"),
            found.get(RELATION_LOGITS),
            relation_targets(batch["coarse"]) if RELATION_LOGITS in found else None,
        )
        if SURFACE_LOGITS in found:
            terms |= surface_losses(found[SURFACE_LOGITS], batch["depth"], batch["surface"], by_class)
        return shares.total(terms), {name: term.detach() for name, term in terms.items()}

    return loss


def _scored(model: nn.Module, dataset: SscDataset) -> dict[str, float]:
    assert isinstance(model, MonoScene)
    whole = region_scores(tally_network(model, dataset, 1).of(ALL), dataset.taxonomy.classes)
    return {name: float(whole[name]) for name in ("iou", "miou", "precision", "recall")}


class _LearntError(Exception):
    """No error: ends an overfit early, out of the loop's validation."""


class _OneFrame:
    """The same unaugmented sample at every draw."""

    def __init__(self, dataset: SscDataset, number: int):
        self.dataset, self.number = dataset, number
        self.sample, self.in_view = dataset[number], dataset.in_view(number)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> dict[str, Tensor]:
        return self.sample

    def scored(self, model: MonoScene) -> dict[str, Any]:
        """Scores over voxels in view; batch norms use the frame's own statistics, as in training."""
        device = next(model.parameters()).device
        view = [self.sample[name][None].to(device) for name in VIEW if name in self.sample]
        mode = model.training
        labels = predicted(model.train(), *view)[0]
        model.train(mode)
        target, classes = self.sample["labels"].numpy(), self.dataset.taxonomy.classes
        tally = tally_frame(target, labels, self.dataset.grid, len(classes), self.in_view)
        found = region_scores(tally.of(IN_VIEW), classes)
        scores = {"iou": found["iou"], "miou": found["miou_present"]}
        return {**scores, "voxels": found["voxels"], "classes": found["present"]}


def overfit_frame(config: SscConfig, root: Path, split: str, frame: str, check_every: int = 25) -> dict[str, Any]:
    """Learn one frame ("SEQUENCE/NAME") by heart, until IoU and mIoU pass 95 % or the config's steps are done.

    Both are over voxels in view, mIoU over the classes present there. Network, image, steps, rate, threads and
    precision are the config's, the losses the paper's; no augmentation, a batch of one. Returns iou, miou, voxels
    (scored and in view), classes (names of those present), steps, seconds, cpu_seconds, reached. Raises InputError.
    """
    dataset = SscDataset((Source(root=root, split=split),), config.samples, config.seed, config.network)
    one = _OneFrame(dataset, _number_of(dataset, split, frame))
    counts = np.bincount(one.sample["labels"].numpy().ravel(), minlength=256)[: len(dataset.taxonomy.classes)]
    model = build(config.network, dataset.grid, len(counts), config.seed)
    lay_out(model)
    result: dict[str, Any] = {"steps": 0}
    began, worked = time.perf_counter(), time.process_time()

    def check(network: nn.Module, _: torch.Generator) -> dict[str, float]:
        assert isinstance(network, MonoScene)
        result.update(one.scored(network), steps=min(result["steps"] + check_every, total))
        if min(result["iou"], result["miou"]) > REACHED:
            raise _LearntError
        return {"iou": result["iou"], "miou": result["miou"]}

    training = _one_frame_training(config, check_every)
    total = training.total_steps(1)
    loss = ssc_loss(torch.from_numpy(class_weights(counts.astype(np.float64))).float())
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_LearntError):
        train(model, loss, one, training, Path(folder), validate=check)
    reached = min(result["iou"], result["miou"]) > REACHED
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - worked}
    return {**result, **took, "reached": reached}


def _number_of(dataset: SscDataset, split: str, frame: str) -> int:
    names = [f"{key.sequence}/{key.frame}" for key in dataset.keys]
    if frame not in names:
        some = ", ".join(names[:3])
        raise InputError(dataset.roots[0].path, f"a labelled frame of split {split}, such as {some}", repr(frame))
    return names.index(frame)


def _one_frame_training(config: SscConfig, check_every: int) -> TrainConfig:
    """The config's training with a batch of one, a constant rate, no decay and no average."""
    changes = {
        "seed": config.seed,
        "steps": config.training.total_steps(1),
        "epochs": None,
        "batch_size": 1,
        "accumulation": 1,
        "weight_decay": 0.0,
        "schedule": Schedule(),
        "ema_decay": None,
        "workers": 0,
        "validate_every": check_every,
        "checkpoint_every": 1 << 30,
    }
    return config.training.model_copy(update=changes)
