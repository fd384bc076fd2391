"""The benchmark's scores from integer confusions, over the whole grid, by range, and in and out of view.

As SemanticKITTI's official evaluation defines them (Behley et al., ICCV 2019), over voxels whose target isn't 255:
completion IoU, precision and recall treat every label above 0 as occupied; mIoU is the mean over classes 1.., a class
in neither target nor prediction counts 0. Confusions are summed over all frames first: averages of frames' or
processes' scores are something else. Integers add up to the same in any order and on any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8

from pipeline.scene import confusion as matrices
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import IGNORE

RANGES_M = (12.8, 25.6, 51.2)
ALL, IN_VIEW, OUT_OF_VIEW = "all", "in view", "out of view"


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts so far, to be added up: confusions by (region, target, prediction), and how many frames they are of."""

    regions: tuple[str, ...]
    confusions: Int64[np.ndarray, "r k k"]
    frames: int

    def __add__(self, other: Self) -> Tally:
        """Both together. Raises InputError if they count different regions or classes."""
        if self.regions != other.regions or self.confusions.shape != other.confusions.shape:
            found = f"{other.regions} of {other.confusions.shape[1]} classes"
            raise InputError("Tally", f"{self.regions} of {self.confusions.shape[1]} classes", found)
        return Tally(self.regions, self.confusions + other.confusions, self.frames + other.frames)

    def of(self, region: str) -> Int64[np.ndarray, "k k"]:
        """A region's confusion."""
        return self.confusions[self.regions.index(region)]


def regions(grid: VoxelGrid, with_view: bool) -> tuple[str, ...]:
    """What is scored: all, the ranges the grid reaches, and in and out of view."""
    near = (range_name(r) for r in RANGES_M if range_slices(grid, r) is not None)
    return (ALL, *near, *((IN_VIEW, OUT_OF_VIEW) if with_view else ()))


def empty_tally(grid: VoxelGrid, classes: int, with_view: bool) -> Tally:
    """No frames yet; where a sum begins, also on a process that gets none."""
    names = regions(grid, with_view)
    return Tally(names, np.zeros((len(names), classes, classes), np.int64), 0)


def range_name(range_m: float) -> str:
    """A range variant's name in tables."""
    return f"{range_m:g} m"


def range_slices(grid: VoxelGrid, range_m: float) -> tuple[slice, slice] | None:
    """The x and y voxels of a range variant: 0..r ahead, -r/2..r/2 aside [m]; None if the grid doesn't reach so far.

    SemanticKITTI: 12.8 m is x < 64, y 96..159; 25.6 m is x < 128, y 64..191; 51.2 m is the grid.
    """
    bounds = ((0.0, range_m), (-range_m / 2, range_m / 2))
    found = []
    for axis, (low_m, high_m) in enumerate(bounds):
        origin, size = grid.origin_m[axis], grid.voxel_size_m
        low, high = round((low_m - origin) / size), round((high_m - origin) / size)
        if low < 0 or high > grid.shape[axis] or high <= low:
            return None
        found.append(slice(low, high))
    return (found[0], found[1])


def tally_frame(
    target: UInt8[np.ndarray, "x y z"],
    prediction: UInt8[np.ndarray, "x y z"],
    grid: VoxelGrid,
    classes: int,
    in_view: Bool[np.ndarray, "x y z"] | None = None,
) -> Tally:
    """Count one frame. Labels are class ids; a target of 255 isn't scored, whatever is predicted there.

    in_view: whether a voxel's centre projects onto the image (lifting.projection at scale 1); without it those two
    regions are not there. Raises InputError on shapes that don't fit, or class ids not below `classes`.
    """
    given = {"target": target, "prediction": prediction} | ({} if in_view is None else {"in_view": in_view})
    for name, volume in given.items():
        if volume.shape != grid.shape:
            raise InputError(name, f"the grid's shape {grid.shape}", str(volume.shape))
    found: dict[str, np.ndarray] = {}
    whole = found[ALL] = matrices.confusion(target, prediction, classes)
    for range_m in RANGES_M:
        part = range_slices(grid, range_m)
        if part is not None:
            covers = all(s == slice(0, n) for s, n in zip(part, grid.shape[:2], strict=True))
            near = whole if covers else matrices.confusion(target[part], prediction[part], classes)
            found[range_name(range_m)] = near
    if in_view is not None:
        found[IN_VIEW] = matrices.confusion(np.where(in_view, target, np.uint8(IGNORE)), prediction, classes)
        found[OUT_OF_VIEW] = whole - found[IN_VIEW]
    return Tally(tuple(found), np.stack(list(found.values())), 1)


def over_processes(tally: Tally, device: torch.device | str = "cpu") -> Tally:
    """The sum over all processes of torch.distributed's default group; the tally itself where there is none.

    device: where the group reduces (the process's GPU with NCCL). Compare `frames` with the data set's length: a
    sampler that pads the last batch counts frames twice.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tally
    flat = np.append(tally.confusions.ravel(), tally.frames)
    total = torch.from_numpy(flat).to(device)
    torch.distributed.all_reduce(total)
    summed = total.cpu().numpy()
    return Tally(tally.regions, summed[:-1].reshape(tally.confusions.shape), int(summed[-1]))


def scores(tally: Tally, classes: Sequence[str]) -> dict[str, Any]:
    """Plain numbers for JSON: {"frames", "regions": {region: `region_scores`}}. classes: names by id, empty first."""
    if len(classes) != tally.confusions.shape[1]:
        raise InputError("class names", f"{tally.confusions.shape[1]} names", str(len(classes)))
    return {
        "frames": tally.frames,
        "regions": {name: region_scores(tally.of(name), classes) for name in tally.regions},
    }


def region_scores(matrix: Int64[np.ndarray, "k k"], classes: Sequence[str]) -> dict[str, Any]:
    """iou, precision, recall, miou in 0..1; classes {name: IoU}; voxels scored; present: names among the targets.

    miou is the official mean over all classes; miou_present the mean over classes that occur in the targets, for worlds
    and frames that lack some.
    """
    official = matrices.scores(matrix)
    occurs = matrix[1:].sum(1) > 0
    ious = dict(zip(classes[1:], official.class_iou, strict=True))
    present = [name for name, found in zip(classes[1:], occurs, strict=True) if found]
    return {
        "iou": official.iou,
        "precision": official.precision,
        "recall": official.recall,
        "miou": official.miou,
        "miou_present": sum(ious[name] for name in present) / max(len(present), 1),
        "classes": ious,
        "present": present,
        "voxels": int(matrix.sum()),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """`scores` as two Markdown tables in percent: every region, and every class over the whole grid."""
    head = ("region", "voxels", "IoU", "precision", "recall", "mIoU", "mIoU of present")
    keys = ("iou", "precision", "recall", "miou", "miou_present")
    rows = [
        (name, f"{values['voxels']:,}", *(_percent(values[key]) for key in keys))
        for name, values in found["regions"].items()
    ]
    whole = found["regions"][ALL]
    by_class = [
        (name, _percent(iou) + ("" if name in whole["present"] else " (absent)"))
        for name, iou in whole["classes"].items()
    ]
    return f"{found['frames']} frames, in percent\n\n{_table(head, rows)}\n{_table(('class', 'IoU'), by_class)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))
