"""Are the seams of a tiled scene visible? Neighbouring voxels across a seam, measured against neighbours elsewhere.

Of pairs of face neighbours along an axis, those count that are both valid and not both empty: empty air agrees with
itself everywhere and would drown the rest. A pair *changes* when its labels differ; its classes *agree* when both are
solid and of one class. The interior is all other planes across the same axes, weighed by the pairs that the seams have
along each axis, since streets run along x and change less along it. A ratio of 1 is a seam that cannot be found.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY, IGNORE


class SeamReport(NamedTuple):
    """Shares in 0..1; ratio: change at the seams over change in the interior; nan where nothing could be counted.

    interior_high: the change that 95 % of the interior's planes stay under, so an ordinary seam does too; agreement: of
    pairs that are both solid, those of one class; seam_pairs: how many pairs the seams' figures rest on.
    """

    seam_change: float
    interior_change: float
    ratio: float
    seam_agreement: float
    interior_agreement: float
    interior_high: float
    seam_pairs: int


class _Planes(NamedTuple):
    """Counts of pairs plane by plane along one axis: plane n lies between voxels n - 1 and n; 0 is no plane."""

    counted: Int64[np.ndarray, "n"]
    changed: Int64[np.ndarray, "n"]
    solid: Int64[np.ndarray, "n"]
    agreeing: Int64[np.ndarray, "n"]


def seam_report(
    labels: UInt8[np.ndarray, "x y z"], grid: VoxelGrid, seam_planes: Iterable[tuple[int, int]]
) -> SeamReport:
    """The seams' figures beside the interior's.

    seam_planes: (axis, index), between voxels index - 1 and index along axis 0 or 1 (`windows.seam_planes`). Raises
    InputError when there is none, or one lies at or past the grid's faces.
    """
    return seam_report_all([labels], grid, seam_planes)


def seam_report_all(
    volumes: Iterable[UInt8[np.ndarray, "x y z"]], grid: VoxelGrid, seam_planes: Iterable[tuple[int, int]]
) -> SeamReport:
    """One report of many scenes that have their seams in the same places: their pairs are counted together."""
    planes = sorted(set(seam_planes))
    wrong = [plane for plane in planes if plane[0] not in (0, 1, 2) or not 0 < plane[1] < grid.shape[plane[0]]]
    if wrong or not planes:
        raise InputError("seams", f"at least one (axis, index), inside {grid.shape}", f"{wrong[:1] or planes}")
    axes = sorted({axis for axis, _ in planes})
    counts = {axis: np.zeros((4, grid.shape[axis]), np.int64) for axis in axes}
    for labels in volumes:
        if labels.shape != grid.shape:
            raise InputError("seams", f"labels of shape {grid.shape}", f"{labels.shape}")
        for axis in axes:
            counts[axis] += _count(labels, axis)
    at_seam = {axis: np.isin(np.arange(grid.shape[axis]), [n for a, n in planes if a == axis]) for axis in axes}
    return _report([(_Planes(*counts[axis]), at_seam[axis]) for axis in axes])


def _count(labels: UInt8[np.ndarray, "x y z"], axis: int) -> Int64[np.ndarray, "4 n"]:
    """The rows of _Planes."""
    lines = np.moveaxis(labels, axis, 0)
    a, b = lines[:-1], lines[1:]
    valid = (a != IGNORE) & (b != IGNORE)
    counted = valid & ((a != EMPTY) | (b != EMPTY))
    solid = valid & (a != EMPTY) & (b != EMPTY)
    kinds = (counted, counted & (a != b), solid, solid & (a == b))
    return np.stack([np.concatenate([[0], kind.sum(axis=(1, 2))]) for kind in kinds])


def _report(axes: list[tuple[_Planes, Bool[np.ndarray, "n"]]]) -> SeamReport:
    seam = [int(planes.counted[at].sum()) for planes, at in axes]
    seam_change = _share(sum(int(p.changed[at].sum()) for p, at in axes), sum(seam))
    interior_change = _weighed([_share(int(p.changed[~at].sum()), int(p.counted[~at].sum())) for p, at in axes], seam)
    seam_solid = [int(planes.solid[at].sum()) for planes, at in axes]
    agreeing = [_share(int(p.agreeing[~at].sum()), int(p.solid[~at].sum())) for p, at in axes]
    rates = [_rates(planes)[~at & (planes.counted > 0)] for planes, at in axes]
    return SeamReport(
        seam_change=seam_change,
        interior_change=interior_change,
        ratio=seam_change / interior_change if interior_change else float("nan"),
        seam_agreement=_share(sum(int(p.agreeing[at].sum()) for p, at in axes), sum(seam_solid)),
        interior_agreement=_weighed(agreeing, seam_solid),
        interior_high=_weighed([float(np.quantile(r, 0.95)) if r.size else float("nan") for r in rates], seam),
        seam_pairs=sum(seam),
    )


def _rates(planes: _Planes) -> Float[np.ndarray, "n"]:
    return planes.changed / np.maximum(planes.counted, 1)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _weighed(values: list[float], weights: list[int]) -> float:
    """The mean of values by weights; values without weight don't count."""
    used = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight]
    total = sum(weight for _, weight in used)
    return sum(value * weight for value, weight in used) / total if total else float("nan")
