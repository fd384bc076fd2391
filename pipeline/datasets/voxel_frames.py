"""One frame's voxel files as a record, for every dataset that keeps SemanticKITTI's .bin .label .invalid .occluded.

The benchmark's rule: raw 0 is empty, a non-zero raw id without a class is ignored (255), and invalid voxels are 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from pipeline.datasets.voxel_files import (
    read_bits,
    read_mask,
    read_raw_labels,
    write_bits,
    write_bytes,
    write_raw_labels,
)
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, Taxonomy


@dataclass(frozen=True)
class VoxelRules:
    """Where a dataset's voxel files differ from SemanticKITTI's.

    invalid_bytes: .invalid is written as a byte a voxel, and masks are read in either form, told apart by size;
    occupied_is_valid: .invalid doesn't touch a voxel whose raw id isn't 0.
    """

    invalid_bytes: bool = False
    occupied_is_valid: bool = False


SEMANTIC_KITTI_RULES = VoxelRules()


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


def read_voxels(
    root: Path, folder: str, frame: Frame, labelled: bool, rules: VoxelRules = SEMANTIC_KITTI_RULES
) -> Frame:
    """Fill an empty `frame` from `root/folder/<name>.*`; .bin and .occluded are optional.

    labelled: .label and .invalid must be there; otherwise they aren't looked at. Raises InputError.
    """

    def path(suffix: str) -> Path:
        return safe_join(root, f"{folder}/{frame.name}{suffix}")

    def mask(suffix: str) -> Bool[np.ndarray, "x y z"]:
        return (read_mask if rules.invalid_bytes else read_bits)(path(suffix), frame.grid)

    labels = invalid = None
    if labelled:
        raw = read_raw_labels(path(".label"), frame.grid)
        labels, invalid = frame.taxonomy.from_raw(raw, path(".label")), mask(".invalid")
        hidden = invalid & (raw == 0) if rules.occupied_is_valid else invalid
        labels |= np.negative(hidden.view(np.uint8))  # hidden -> 255, without a branch a voxel
    return replace(
        frame,
        labels=labels,
        invalid=invalid,
        occluded=mask(".occluded") if labelled and path(".occluded").exists() else None,
        scan=mask(".bin") if path(".bin").exists() else None,
    )


def write_voxels(root: Path, folder: str, frame: Frame, rules: VoxelRules = SEMANTIC_KITTI_RULES) -> list[str]:
    """Write the files that `frame` has; the paths written, relative to `root`.

    Invalid voxels are written as raw 0 (unless occupied ones are valid); ignored but valid ones as the taxonomy's
    first ignored raw id, so labels and masks read back as they are. Raises InputError on labels that the taxonomy
    doesn't have.
    """
    written: list[str] = []

    def target(suffix: str) -> Path:
        written.append(f"{folder}/{frame.name}{suffix}")
        return safe_join(root, written[-1])

    if frame.labels is not None:
        invalid = frame.labels == IGNORE if frame.invalid is None else frame.invalid
        raw = _raw(frame, frame.labels, invalid, rules)
        write_raw_labels(target(".label"), raw)
        (write_bytes if rules.invalid_bytes else write_bits)(target(".invalid"), invalid)
    if frame.scan is not None:
        write_bits(target(".bin"), frame.scan)
    if frame.occluded is not None:
        write_bits(target(".occluded"), frame.occluded)
    return sorted(written)


def _raw(
    frame: Frame, labels: UInt8[np.ndarray, "x y z"], invalid: Bool[np.ndarray, "x y z"], rules: VoxelRules
) -> UInt16[np.ndarray, "x y z"]:
    classes = len(frame.taxonomy.classes)
    counts = np.bincount(labels.ravel(), minlength=256)
    if counts[classes:IGNORE].any():
        found = classes + int(np.flatnonzero(counts[classes:IGNORE])[0])
        raise InputError(f"frame {frame.key}", f"labels below {classes}, or 255", f"{found}")
    ignored = labels == IGNORE
    ignored_raw = min((raw for raw, label in frame.taxonomy.raw_to_class if label == IGNORE), default=None)
    if ignored_raw is None and (ignored & ~invalid).any():
        raise InputError(f"frame {frame.key}", "255 only where invalid: the taxonomy has no ignored raw id", "others")
    raw = frame.taxonomy.to_raw(labels, ignore_raw=ignored_raw or 0)
    raw[invalid & ignored if rules.occupied_is_valid else invalid] = 0
    return raw
