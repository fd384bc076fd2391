"""A trained network on a dataset: labels frame by frame, raw-id files as the benchmark wants them, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.scene.errors import InputError
from pipeline.scene.files import require_empty
from pipeline.scene.taxonomy import EMPTY
from ssc_eval.batch_norm import reestimate_batch_norm
from ssc_eval.metrics import Tally, empty_tally, tally_frame
from ssc_eval.monoscene import LOGITS, MonoScene
from ssc_eval.predictions import write_prediction
from ssc_eval.samples import Source, SscDataset
from ssc_eval.views import ImageKind
from ssc_eval.weights import check_fits, load_ssc, samples_config

VIEW = ("image", "pixels", "sight")  # of a sample, in the order that networks take them; sight only where it is needed


def predictions(model: MonoScene, dataset: SscDataset, batch: int) -> Iterator[tuple[int, UInt8[np.ndarray, "x y z"]]]:
    """(number in dataset.keys, class ids) of every frame in order, in the network's present mode. Raises InputError."""
    for start in range(0, len(dataset.keys), batch):
        numbers = range(start, min(start + batch, len(dataset.keys)))
        labels = predicted(model, *views_of(model, dataset, numbers))
        yield from zip(numbers, labels, strict=True)


def views_of(model: MonoScene, dataset: SscDataset, numbers: Sequence[int]) -> tuple[Tensor, ...]:
    """What the network takes of some frames (VIEW, as far as it needs it), on its device. Raises InputError."""
    device = next(model.parameters()).device
    views = [dataset.view(number, None) for number in numbers]
    return tuple(torch.stack([view[name] for view in views]).to(device) for name in VIEW if name in views[0])


def settle_norms(model: MonoScene, dataset: SscDataset, numbers: Sequence[int], batch: int) -> None:
    """Batch norms' statistics of some frames' images, whose labels are not used. Raises InputError."""
    parts = (numbers[first : first + batch] for first in range(0, len(numbers), batch))
    reestimate_batch_norm(model, (views_of(model, dataset, part) for part in parts))


def predicted(model: MonoScene, *view: Tensor) -> UInt8[np.ndarray, "b x y z"]:
    """Every voxel's class, of what VIEW names: the most probable one, or as the network's `occupied_above` says."""
    with torch.no_grad():
        return labels_of(model(*view)[LOGITS], model.config.occupied_above).cpu().numpy()


def labels_of(logits: Float[Tensor, "b k x y z"], occupied_above: float | None) -> UInt8[Tensor, "b x y z"]:
    """Class ids from logits; occupied_above: see MonoSceneConfig."""
    if occupied_above is None:
        return logits.argmax(1).to(torch.uint8)
    occupied = logits.float().softmax(1)[:, EMPTY] < 1 - occupied_above
    return torch.where(occupied, logits[:, EMPTY + 1 :].argmax(1) + EMPTY + 1, EMPTY).to(torch.uint8)


def tally_network(model: MonoScene, dataset: SscDataset, batch: int) -> Tally:
    """Scores of a network on all frames of a dataset, in and out of view too; in eval mode, its mode stays.

    Raises InputError.
    """
    classes, mode = len(dataset.taxonomy.classes), model.training
    total = empty_tally(dataset.grid, classes, with_view=True)
    model.eval()
    for number, labels in predictions(model, dataset, batch):
        target = dataset.labels(number)
        total += tally_frame(target, labels, dataset.grid, classes, dataset.in_view(number))
    model.train(mode)
    return total


def opened(
    weights: Path, root: Path, split: str, labelled: bool, frames: int | None = None, image: ImageKind = "image"
) -> tuple[MonoScene, SscDataset]:
    """A trained network, on a GPU where there is one, and a split's frames as it takes them. Raises InputError."""
    model, card = load_ssc(weights)
    source = Source(root=root, split=split, frames=frames, image=image)
    dataset = SscDataset((source,), samples_config(weights, card), 0, model.config, labelled)
    check_fits(weights, card, dataset.roots[0])
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), dataset


def evaluate_network(
    weights: Path, root: Path, split: str, *, batch: int = 1, frames: int | None = None, image: ImageKind = "image"
) -> Tally:
    """Scores of saved weights on a labelled split; frames: a fixed choice of so many. Raises InputError."""
    return tally_network(*opened(weights, root, split, True, frames, image), batch)


def predict(
    weights: Path,
    root: Path,
    split: str,
    out: Path,
    batch: int = 1,
    *,
    image: ImageKind = "image",
    occupied_above: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write OUT/sequences/XX/predictions/NNNNNN.label, uint16 raw ids, of every frame of a split; OUT.

    OUT must be new or empty. occupied_above: in place of the network's own, see MonoSceneConfig. Raises InputError.
    """
    require_empty(out)
    model, dataset = opened(weights, root, split, False, image=image)
    if occupied_above is not None:
        if not 0 < occupied_above < 1:
            raise InputError("occupied_above", "a probability between 0 and 1", str(occupied_above))
        model.config = model.config.model_copy(update={"occupied_above": occupied_above})
    for number, labels in predictions(model, dataset, batch):
        _, sequence, frame = dataset.keys[number]
        write_prediction(out, (sequence, frame), labels, dataset.taxonomy)
        progress(number + 1, len(dataset.keys))
    return Path(out)
