"""What a report knows of each sample: its counted voxels, what the build noted of its image; and which fare worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from pipeline.datasets.manifest import Manifest
from pipeline.datasets.semantic_kitti import KittiRoot, read_frame
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import IGNORE


@dataclass(frozen=True, eq=False)
class Measured:
    """One sample. counts: voxels by class id, 255 aside; voxels: all; image: what the manifest says of its image."""

    name: str
    counts: Int64[np.ndarray, "k"]
    voxels: int
    image: Mapping[str, Any]

    @property
    def valid_share(self) -> float:
        return float(self.counts.sum() / max(self.voxels, 1))

    @property
    def occupied_share(self) -> float:
        """Of the valid voxels."""
        return float(self.counts[1:].sum() / max(self.counts.sum(), 1))

    @property
    def classes(self) -> int:
        """How many occur."""
        return int((self.counts[1:] > 0).sum())

    def figure(self, name: str) -> float | None:
        """A number of its image, None where there is none."""
        value = self.image.get(name)
        return float(value) if isinstance(value, int | float) else None


def measured(
    root: KittiRoot, manifest: Manifest, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Measured]:
    """Every sample of the manifest, in its order. Raises InputError on unreadable voxels."""
    classes = len(root.taxonomy.classes)
    found = []
    for number, sample in enumerate(manifest.samples, 1):
        sequence, _, frame = sample.name.partition("/")
        labels = read_frame(root, sequence, frame).scene().labels
        counts = np.bincount(labels.ravel(), minlength=256).astype(np.int64)
        if counts[classes:IGNORE].any():
            raise InputError(sample.name, f"labels below {classes}, or 255", "others")
        found.append(Measured(sample.name, counts[:classes], labels.size, image_note(sample.provenance)))
        progress(number, len(manifest.samples))
    return found


def image_note(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What a sample's provenance says of its image, whether in a table of its own or beside the rest."""
    own = provenance.get("image")
    return {**provenance, **(own if isinstance(own, Mapping) else {})}


@dataclass(frozen=True)
class Check:
    """An order of samples. value: what they are sorted by, None: not among them; told: how it is written."""

    title: str
    value: Callable[[Measured], float | None]
    told: Callable[[float], str]
    highest: bool = False  # the worst are the highest


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _plain(value: float) -> str:
    return f"{value:.3g}"


CHECKS = (
    Check("Image least as its voxels say: the critic's mIoU", lambda s: s.figure("miou"), _share),
    Check("Image's depth furthest off, by the critic", lambda s: s.figure("depth_error"), _plain, True),
    Check("Drawn most often", lambda s: _redrawn(s), lambda n: f"{n:.0f} draws", True),
    Check("Emptiest: occupied of the valid voxels", lambda s: s.occupied_share, _share),
    Check("Fewest valid voxels", lambda s: s.valid_share, _share),
    Check("Fewest classes", lambda s: float(s.classes), lambda n: f"{n:.0f} classes"),
)


def _redrawn(sample: Measured) -> float | None:
    """Attempts, where there was more than one."""
    attempts = sample.figure("attempts")
    return attempts if attempts and attempts > 1 else None


def worst(samples: Sequence[Measured], count: int) -> list[tuple[Check, list[Measured]]]:
    """The `count` worst samples of every check that says something, worst first; equals in the build's order."""
    found = []
    for check in CHECKS:
        known = [(value, sample) for sample in samples if (value := check.value(sample)) is not None]
        known.sort(key=lambda pair: -pair[0] if check.highest else pair[0])
        if known:
            found.append((check, [sample for _, sample in known[:count]]))
    return found
