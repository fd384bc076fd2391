"""Predictions on disk as the benchmark takes them, and a folder of them scored against any labelled dataset.

    PREDICTIONS/sequences/XX/predictions/NNNNNN.label     uint16 little endian, raw ids, C order over (x, y, z)

A raw id that a taxonomy reads as ignored (1, 52, 99 in SemanticKITTI) is no answer: the official script fails on it
where a voxel is scored, so it is refused there. Other raw ids of a class (252, a moving car) count as that class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from pipeline.datasets.formats import DatasetRoot, Format, detect
from pipeline.datasets.voxel_files import read_raw_labels, write_raw_labels
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import IGNORE, Taxonomy
from ssc_eval.lifting import projection
from ssc_eval.metrics import Tally, empty_tally, tally_frame

FOLDER, SUFFIX = "predictions", ".label"
NAMED = 3  # files that a fault names before it counts the rest
Key = tuple[str, str]  # sequence, frame
Progress = Callable[[int, int], None]


def prediction_path(folder: Path, sequence: str, frame: str) -> Path:
    """Where a frame's prediction lies, kept inside `folder`. Raises InputError."""
    return safe_join(folder, f"sequences/{sequence}/{FOLDER}/{frame}{SUFFIX}")


def write_prediction(folder: Path, key: Key, labels: UInt8[np.ndarray, "x y z"], taxonomy: Taxonomy) -> Path:
    """Write class ids as the taxonomy's raw ids; the path. Raises InputError on anything but a class, 255 included."""
    path = prediction_path(folder, *key)
    if labels.max(initial=0) >= len(taxonomy.classes):
        raise InputError(path, f"class ids below {len(taxonomy.classes)}, no voxel ignored", str(int(labels.max())))
    write_raw_labels(path, taxonomy.to_raw(labels))
    return path


def read_prediction(path: Path, grid: VoxelGrid, taxonomy: Taxonomy) -> UInt8[np.ndarray, "x y z"]:
    """Class ids, 255 where a raw id is one that isn't scored. Raises InputError on wrong sizes and unknown ids."""
    return taxonomy.from_raw(read_raw_labels(path, grid), path)


@dataclass(frozen=True, eq=False)
class Truth:
    """What predictions are scored against: a dataset's labelled frames of a split, in order."""

    path: Path
    split: str
    form: Format
    dataset: DatasetRoot
    keys: tuple[Key, ...]

    @functools.cached_property
    def grid(self) -> VoxelGrid:
        """The first frame's grid."""
        return self.dataset.scene(*self.keys[0]).grid

    @property
    def taxonomy(self) -> Taxonomy:
        return self.dataset.taxonomy

    def camera(self, key: Key) -> Camera:
        """The frame's camera; its size is the image file's. Raises InputError where the format has none."""
        if self.form.camera is None:
            raise InputError(self.path, "a format with cameras", self.form.name)
        return self.form.camera(self.path, *key)


def open_truth(root: Path, split: str) -> Truth:
    """The labelled frames of a split of a dataset of any known format. Raises InputError."""
    form = detect(root)
    dataset = form.open(root)
    keys = tuple(key for key in dataset.frames(split) if dataset.label_files(*key)[0].exists())
    if not keys:
        raise InputError(root, f"labelled frames in split {split}", "none", "only labelled frames can be scored")
    return Truth(Path(root), split, form, dataset, keys)


def why_no_view(truth: Truth) -> str:
    """Why voxels in view can't be told from those out of view, judged by the first frame; "" if they can."""
    try:
        truth.camera(truth.keys[0])
    except InputError as error:
        return str(error)
    return ""


def check_files(folder: Path, keys: Sequence[Key], allow_extra: bool = False) -> None:
    """Raises InputError unless `folder` has a prediction for every key and, in their sequences, no other file."""
    folder = Path(folder)
    if not (folder / "sequences").is_dir():
        expected = f"sequences/XX/{FOLDER}/NNNNNN{SUFFIX} in it"
        raise InputError(folder, expected, "no sequences/", "give the folder above sequences")
    wanted = {prediction_path(folder, *key) for key in keys}
    places = sorted({path.parent for path in wanted})
    there = {path for place in places if place.is_dir() for path in place.iterdir()}
    if missing := wanted - there:
        found = f"{len(missing)} missing: {_some(missing, folder)}"
        raise InputError(folder, f"a prediction for each of {len(wanted)} frames", found)
    if (extra := there - wanted) and not allow_extra:
        found = f"{len(extra)} others: {_some(extra, folder)}"
        raise InputError(folder, f"the {len(wanted)} labelled frames of these sequences alone", found, "--allow-extra")


def _some(paths: Iterable[Path], folder: Path) -> str:
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def score_frames(
    folder: Path,
    truth: Truth,
    keys: Sequence[Key],
    with_view: bool,
    progress: Progress = lambda done, total: None,
) -> Tally:
    """The tally of some of the truth's frames; sums over any parts of the keys are the same. Raises InputError."""
    total = empty_tally(truth.grid, len(truth.taxonomy.classes), with_view)
    for done, key in enumerate(keys, 1):
        total = total + score_frame(folder, truth, key, with_view)
        progress(done, len(keys))
    return total


def score_frame(folder: Path, truth: Truth, key: Key, with_view: bool) -> Tally:
    """One frame's tally. Raises InputError on a file that can't be scored, and on a frame of another grid."""
    scene = truth.dataset.scene(*key)
    if scene.grid != truth.grid:
        raise InputError(f"{truth.path} frame {'/'.join(key)}", f"the first frame's grid {truth.grid}", f"{scene.grid}")
    path = prediction_path(folder, *key)
    prediction = read_prediction(path, scene.grid, scene.taxonomy)
    if ((prediction == IGNORE) & scene.valid).any():
        raise InputError(path, "a class or empty in every scored voxel", "a raw id that isn't scored")
    seen = in_view(truth.camera(key), scene.grid) if with_view else None
    return tally_frame(scene.labels, prediction, scene.grid, len(scene.taxonomy.classes), seen)


def in_view(camera: Camera, grid: VoxelGrid) -> Bool[np.ndarray, "x y z"]:
    """Whether each voxel's centre is on the image; the last few calibrations' answers are kept: don't write there."""
    size = (camera.width_px, camera.height_px)
    return _in_view(camera.K.astype(float).tobytes(), camera.camera_from_world.astype(float).tobytes(), size, grid)


@functools.lru_cache(maxsize=4)
def _in_view(K: bytes, pose: bytes, size: tuple[int, int], grid: VoxelGrid) -> Bool[np.ndarray, "x y z"]:
    matrices = np.frombuffer(K).reshape(3, 3), np.frombuffer(pose).reshape(4, 4)
    return projection(Camera(*matrices, *size), grid).in_view
