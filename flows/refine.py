"""The library behind `occfactory refine`: read a network's predictions, rebuild them, write a root, score both.

PREDICTIONS/sequences/XX/predictions/NNNNNN.label   raw ids, uint16, as the benchmark takes them; or
PREDICTIONS/sequences/XX/voxels/NNNNNN.{label,invalid}   any SemanticKITTI-layout root
PREDICTIONS/sequences/XX/confidence/NNNNNN.npy   where voxels are to be trusted: uint8 (X, Y, Z), 255 = certain
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from flows.edit import bar, chunks, note_of
from flows.edited import Edited, masked_frame, write_edited
from pipeline.datasets.checked_files import read_bounded
from pipeline.datasets.npy_arrays import parse_bytes_array
from pipeline.datasets.semantic_kitti import KittiRoot, frame_path, open_root
from pipeline.datasets.voxel_files import read_raw_labels
from pipeline.generators.protocol import Generator, Refiner
from pipeline.generators.refine import Gain, prediction_confusion, refine, trusted_voxels
from pipeline.scene.confusion import scores
from pipeline.scene.errors import InputError
from pipeline.scene.files import require_empty
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed

Read = Callable[[str, str], Scene]
_FILE = re.compile(r"sequences/(\w[\w.-]{0,99})/predictions/(\d{1,10})\.label", re.ASCII)


@dataclass(frozen=True)
class Predictions:
    """Where predictions lie, and which voxels of them are kept.

    trust: confidence from which a voxel keeps its predicted class (0..1), None for none; truth: the root of the ground
    truth, for the scores alone; count: the first so many frames.
    """

    root: Path
    trust: float | None = None
    truth: Path | None = None
    count: int | None = None


def refine_root(
    generator: Generator,
    predictions: Predictions,
    seed: int,
    out: Path,
    *,
    note: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> Gain | None:
    """Refine every prediction and write a root of dense scenes; the scores, where there is ground truth.

    Raises InputError.
    """
    require_empty(out)
    if not isinstance(generator, Refiner):
        raise InputError("weights", "a generator that refines predictions", type(generator).__name__)
    read, listed = _reader(predictions, generator)
    told = note_of("refine", seed, note, trust=predictions.trust)
    meter = None if predictions.truth is None else _Meter(open_root(predictions.truth))

    def edited() -> Iterator[Edited]:
        with bar("refine", quiet) as advance:
            for first, part in chunks(listed):
                old = [read(*key) for key in part]
                trusted = _trusted(predictions, part, old)
                seeds = [integer_seed(seed, "refine", first + k) for k in range(len(part))]
                for key, before, after in zip(part, old, refine(generator, old, seeds, trusted), strict=True):
                    truth = () if meter is None else (meter.add(key, before, after),)
                    frame = masked_frame(after, after.valid, *key, [0.0])
                    yield Edited("val", frame, (*truth, before))
                advance(first + len(part), len(listed))
        told["scores"] = [] if meter is None else meter.gain().lines()  # edit.json is written after the last scene

    write_edited(out, edited(), told)
    return None if meter is None else meter.gain()


class _Meter:
    """Confusions of predictions before and after, summed frame by frame."""

    def __init__(self, truth: KittiRoot):
        self.truth = truth
        self.frames = 0
        self.before = np.zeros((len(truth.taxonomy.classes),) * 2, np.int64)
        self.after = np.zeros_like(self.before)

    def add(self, key: tuple[str, str], before: Scene, after: Scene) -> Scene:
        """Count one frame; its true scene. Raises InputError."""
        truth = self.truth.scene(*key)
        self.before += prediction_confusion(before, truth)
        self.after += prediction_confusion(after, truth)
        self.frames += 1
        return truth

    def gain(self) -> Gain:
        return Gain(scores(self.before), scores(self.after), self.frames)


def _reader(predictions: Predictions, generator: Generator) -> tuple[Read, list[tuple[str, str]]]:
    """How a frame is read, and (sequence, frame) of all that are asked for. Raises InputError."""
    files = sorted(predictions.root.glob("sequences/*/predictions/*.label"))
    named = [_FILE.fullmatch(path.relative_to(predictions.root).as_posix()) for path in files]
    keys = [(match[1], match[2]) for match in named if match]
    if keys:
        return lambda sequence, frame: _benchmark_scene(predictions.root, sequence, frame, generator), keys[
            : predictions.count
        ]
    root = open_root(predictions.root)
    labelled = [(s, f) for s, sequence in root.sequences.items() for f in sequence.frames if f in sequence.labelled]
    if not labelled:
        raise InputError(predictions.root, "predictions/NNNNNN.label or voxels/NNNNNN.label in sequences", "none")
    return root.scene, labelled[: predictions.count]


def _benchmark_scene(root: Path, sequence: str, frame: str, generator: Generator) -> Scene:
    path = frame_path(root, sequence, "predictions", f"{frame}.label")
    labels = generator.taxonomy.from_raw(read_raw_labels(path, generator.grid), path)
    provenance = {"source": "predictions", "sequence": sequence, "frame": frame}
    return Scene(labels, generator.grid, generator.taxonomy, provenance)


def _trusted(
    predictions: Predictions, keys: Sequence[tuple[str, str]], scenes: Sequence[Scene]
) -> list[Bool[np.ndarray, "x y z"]] | None:
    """Each frame's voxels that keep their class, by the confidence beside it. Raises InputError."""
    if predictions.trust is None:
        return None
    masks = []
    for (sequence, frame), scene in zip(keys, scenes, strict=True):
        path = frame_path(predictions.root, sequence, "confidence", f"{frame}.npy")
        content = read_bounded(path, "confidence as a uint8 array (X, Y, Z)", scene.labels.size + 1000)
        confidence = parse_bytes_array(content, str(path)).astype(np.float32) / 255
        masks.append(trusted_voxels(scene, confidence, predictions.trust))
    return masks
