"""Scenes into training volumes, and seeds into batches of draws."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pipeline.diffusion.stage import Draws, Held
from pipeline.generators.protocol import Known
from pipeline.generators.tokens import placed
from pipeline.learning.fields import unwritten
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE

Count = Annotated[int, Field(ge=1)]
_CLIMB = 4.0  # when a label is borrowed from the nearest voxel, how much farther one step up counts than one aside


class SamplingConfig(BaseModel):
    """How scenes are drawn; part of a recipe's digest, since sums depend on batch and threads."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: Count = 50  # of T, at the coarse resolution (or the only one)
    fine_steps: Count = 25  # of T, of a stage that a coarse scene conditions
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0  # 0: exact; else classes this much less likely aren't drawn
    evidence: Annotated[float, Field(gt=0, le=1)] = (
        1.0  # 1: exact; else the share of a voxel's own evidence that counts
    )
    held_at: Annotated[float, Field(ge=0, le=1)] = 0.5  # 1: the paper's; less: no seams beside voxels that are held
    self_condition: bool = unwritten(True)  # the paper's; False: no network is fed its last estimate, see Draws
    batch: Count = 16  # scenes at once; a short batch is padded
    threads: Count = 2  # CPU threads
    device: Literal["auto", "cpu"] = "auto"  # auto: a GPU if there is one

    def draws(self) -> Draws:
        """What of this the sampler's loop needs."""
        return Draws(self.min_p, self.evidence, self.held_at, self.self_condition)

    def torch_device(self) -> torch.device:
        """Where the networks run."""
        return torch.device("cuda" if self.device == "auto" and torch.cuda.is_available() else "cpu")


def stack(dataset: Iterable[Scene], grid: VoxelGrid, taxonomy: str) -> UInt8[np.ndarray, "n x y z"]:
    """The labels of all scenes, which must lie on one grid and have one taxonomy. Raises InputError."""
    found = []
    for scene in dataset:
        if scene.grid != grid or scene.taxonomy.name != taxonomy:
            raise InputError("training scene", f"{grid}, {taxonomy}", f"{scene.grid}, {scene.taxonomy.name}")
        found.append(scene.labels)
    if not found:
        raise InputError("training", "at least one scene", "none")
    return np.stack(found)


def stack_placed(dataset: Iterable[Scene], grid: VoxelGrid, taxonomy: str) -> UInt8[np.ndarray, "n x y z"]:
    """The same of scenes that may be smaller than the grid: each in the middle of its floor. Raises InputError."""
    found = []
    for scene in dataset:
        if scene.taxonomy.name != taxonomy:
            raise InputError("training scene", f"taxonomy {taxonomy}", scene.taxonomy.name)
        found.append(placed(scene, grid))
    if not found:
        raise InputError("training", "at least one scene", "none")
    return np.stack(found)


def all_turns(labels: UInt8[np.ndarray, "n x y z"]) -> UInt8[np.ndarray, "m x y z"]:
    """All eight forms of each volume: turned by quarters about the vertical, and mirrored. Raises InputError."""
    if labels.shape[1] != labels.shape[2]:
        raise InputError("turning scenes", "a grid as long as wide", str(labels.shape[1:]))
    turned = [np.rot90(labels, quarters, (1, 2)) for quarters in range(4)]
    return np.concatenate([*turned, *[volume[:, ::-1] for volume in turned]])


def digest_of_labels(labels: UInt8[np.ndarray, "n x y z"]) -> str:
    """SHA-256 of shape and labels: which scenes a network was trained on."""
    return hashlib.sha256(str(labels.shape).encode() + np.ascontiguousarray(labels).tobytes()).hexdigest()


def label_counts(labels: UInt8[np.ndarray, "n x y z"], classes: int) -> Int64[np.ndarray, "k"]:
    """Voxels of each class, 255 left out."""
    return np.bincount(labels.ravel(), minlength=256)[:classes].astype(np.int64)


def filled(labels: UInt8[np.ndarray, "*shape x y z"]) -> UInt8[np.ndarray, "*shape x y z"]:
    """The same with every 255 replaced by the label of the nearest voxel that has one, sooner aside than above."""
    from scipy.ndimage import distance_transform_edt

    out = labels.copy()
    for volume in out.reshape(-1, *labels.shape[-3:]):
        unknown = volume == IGNORE
        if unknown.all():
            volume[:] = EMPTY
        elif unknown.any():
            nearest = distance_transform_edt(
                unknown, sampling=(1, 1, _CLIMB), return_distances=False, return_indices=True
            )
            volume[:] = volume[tuple(nearest)]
    return out


def batches_of(
    seeds: Sequence[int], known: Sequence[Known] | None, size: int
) -> Iterator[tuple[list[int], list[Known] | None, int]]:
    """(seeds, known, how many of them count): every batch has `size`, the last one padded with its last draw."""
    for first in range(0, len(seeds), size):
        part = list(seeds[first : first + size])
        held = list(known[first : first + size]) if known is not None else None
        short = size - len(part)
        yield part + part[-1:] * short, None if held is None else held + held[-1:] * short, len(part)


def check_draws(n: int, seeds: Sequence[int], known: Sequence[Known] | None, grid: VoxelGrid, classes: int) -> None:
    """Raises InputError unless there are n seeds, and n known scenes of the grid's shape and its K classes if any."""
    if len(seeds) != n or (known is not None and len(known) != n):
        raise InputError("sample", f"{n} seeds, and as many known scenes", f"{len(seeds)}, {len(known or ())}")
    for scene in known or ():
        if scene.labels.shape != grid.shape:
            raise InputError("known voxels", f"shape {grid.shape}", str(scene.labels.shape))
        named = [int(scene.labels[scene.labels != IGNORE].max(initial=0)), *(scene.classes or ())]
        if unknown := [label for label in named if not 0 <= label < classes]:
            raise InputError("known voxels", f"class ids of 0..{classes - 1}, or 255 to be generated", str(unknown[0]))


def allowed_classes(known: Sequence[Known], classes: int) -> Bool[np.ndarray, "b k"]:
    """What each scene's generated voxels may become: empty, and `Known.classes` or any of the K."""
    rows = np.ones((len(known), classes), bool)
    for row, scene in zip(rows, known, strict=True):
        if scene.classes is not None:
            row[1:] = False
            row[list(scene.classes)] = True
    return rows


def held_of(labels: UInt8[np.ndarray, "b x y z"], allowed: np.ndarray, device: torch.device) -> Held:
    """Known labels (255 = free) and the classes that free voxels may take, (B, K) bool, on the device."""
    return Held(tensor(labels, device), torch.from_numpy(allowed).to(device))


def tensor(labels: UInt8[np.ndarray, "b _x _y _z"], device: torch.device) -> Int64[Tensor, "b _x _y _z"]:
    """Labels as the networks take them."""
    return torch.from_numpy(np.ascontiguousarray(labels)).to(device, torch.int64)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch's CPU threads inside; sums depend on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
