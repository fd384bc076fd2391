"""One frame's voxel files as a record, for every dataset that keeps SemanticKITTI's .bin .label .invalid .occluded.

The benchmark's rule: raw 0 is empty, a non-zero raw id without a class is ignored (255), and invalid voxels are 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from pipeline.datasets.voxel_files import read_bits, read_raw_labels, write_bits, write_raw_labels
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, Taxonomy


@dataclass(frozen=True, eq=False)
class Frame:
    """What a frame's voxel files say; None where there is no such file.

    labels: class ids, 255 where not scored; invalid: never seen and not occupied; occluded: not seen from the first
    pose; scan: occupied in the single input scan (.bin).
    """

    sequence: str
    name: str
    grid: VoxelGrid
    taxonomy: Taxonomy
    labels: UInt8[np.ndarray, "x y z"] | None = None
    invalid: Bool[np.ndarray, "x y z"] | None = None
    occluded: Bool[np.ndarray, "x y z"] | None = None
    scan: Bool[np.ndarray, "x y z"] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for array in (self.labels, self.invalid, self.occluded, self.scan):
            if array is not None and array.shape != self.grid.shape:
                raise InputError(f"frame {self.key}", f"arrays of shape {self.grid.shape}", f"{array.shape}")

    @property
    def key(self) -> str:
        """sequence/name, as samples are called in a manifest."""
        return f"{self.sequence}/{self.name}"

    @property
    def valid(self) -> Bool[np.ndarray, "x y z"]:
        """True where a voxel is scored. Raises InputError on a frame without labels."""
        return self._labels() != IGNORE

    def scene(self) -> Scene:
        """The frame as a Scene. Raises InputError on a frame without labels."""
        return Scene(self._labels(), self.grid, self.taxonomy, self.provenance)

    def _labels(self) -> UInt8[np.ndarray, "x y z"]:
        if self.labels is None:
            raise InputError(f"frame {self.key}", "a labelled frame", "no .label file", "use a train or val sequence")
        return self.labels


def frame_of(scene: Scene, sequence: str, name: str, **masks: Bool[np.ndarray, "x y z"]) -> Frame:
    """A frame to write from a scene; masks may be invalid, occluded and scan.

    Without `invalid` every voxel labelled 255 is written as invalid.
    """
    return Frame(
        sequence, name, scene.grid, scene.taxonomy, scene.labels, provenance=scene.provenance, **_checked(masks)
    )


def _checked(masks: dict[str, Bool[np.ndarray, "x y z"]]) -> dict[str, Any]:
    unknown = set(masks) - {"invalid", "occluded", "scan"}
    if unknown:
        raise InputError("frame_of", "masks invalid, occluded, scan", f"{', '.join(sorted(unknown))}")
    return masks


def read_voxels(root: Path, folder: str, frame: Frame, labelled: bool) -> Frame:
    """Fill an empty `frame` from `root/folder/<name>.*`; .bin and .occluded are optional.

    labelled: .label and .invalid must be there; otherwise they aren't looked at. Raises InputError.
    """

    def path(suffix: str) -> Path:
        return safe_join(root, f"{folder}/{frame.name}{suffix}")

    def optional(suffix: str) -> Bool[np.ndarray, "x y z"] | None:
        return read_bits(path(suffix), frame.grid) if path(suffix).exists() else None

    labels = invalid = None
    if labelled:
        raw = read_raw_labels(path(".label"), frame.grid)
        labels, invalid = frame.taxonomy.from_raw(raw, path(".label")), read_bits(path(".invalid"), frame.grid)
        labels |= np.negative(invalid.view(np.uint8))  # invalid -> 255, without a branch a voxel
    return Frame(
        frame.sequence,
        frame.name,
        frame.grid,
        frame.taxonomy,
        labels=labels,
        invalid=invalid,
        occluded=optional(".occluded") if labelled else None,
        scan=optional(".bin"),
        provenance=frame.provenance,
    )


def write_voxels(root: Path, folder: str, frame: Frame) -> list[str]:
    """Write the files that `frame` has; the paths written, relative to `root`.

    Invalid voxels are written as raw 0; ignored but valid ones as the taxonomy's first ignored raw id, so labels and
    masks read back as they are. Raises InputError on labels that the taxonomy doesn't have.
    """
    written: list[str] = []

    def target(suffix: str) -> Path:
        written.append(f"{folder}/{frame.name}{suffix}")
        return safe_join(root, written[-1])

    if frame.scan is not None:
        write_bits(target(".bin"), frame.scan)
    if frame.labels is not None:
        invalid = frame.labels == IGNORE if frame.invalid is None else frame.invalid
        write_raw_labels(target(".label"), _raw(frame, invalid))
        write_bits(target(".invalid"), invalid)
    if frame.occluded is not None:
        write_bits(target(".occluded"), frame.occluded)
    return written


def _raw(frame: Frame, invalid: Bool[np.ndarray, "x y z"]) -> np.ndarray:
    assert frame.labels is not None
    classes = len(frame.taxonomy.classes)
    counts = np.bincount(frame.labels.ravel(), minlength=256)
    if counts[classes:IGNORE].any():
        found = classes + int(np.flatnonzero(counts[classes:IGNORE])[0])
        raise InputError(f"frame {frame.key}", f"labels below {classes}, or 255", f"{found}")
    ignored = [raw for raw, label in frame.taxonomy.raw_to_class if label == IGNORE]
    raw = frame.taxonomy.to_raw(frame.labels, ignore_raw=min(ignored, default=0))
    if not ignored and (counts[IGNORE] > int((frame.labels[invalid] == IGNORE).sum())):
        raise InputError(f"frame {frame.key}", "255 only where invalid: the taxonomy has no ignored raw id", "others")
    np.putmask(raw, invalid, np.uint16(frame.taxonomy.raw_ids[0]))
    return raw
