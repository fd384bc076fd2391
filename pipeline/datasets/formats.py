"""Which formats there are: how a root is recognised and opened, and how scenes are written. The rest of the house
speaks to a DatasetRoot and never asks for a dataset's name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from pipeline.datasets import carla_sc, craft3d, kitti_360, occ3d, semantic_kitti
from pipeline.datasets.statistics import Countable
from pipeline.datasets.voxel_frames import frame_of
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene


class DatasetRoot(Countable, Protocol):
    """An opened dataset: what statistics count, and its splits."""

    @property
    def splits(self) -> Mapping[str, tuple[str, ...]]: ...


@dataclass(frozen=True)
class Format:
    """A format by name. marks: one of these (globs) lies in its root; grid: the one it is bound to, None = any.

    origin_height_m: its frame's origin above the road [m]; numbered: frames are called by up to ten digits; notes:
    what its reader can't keep, in words; camera(root, sequence, frame) and image(...): of a frame, None where there
    are no images to go with the voxels.
    write_scene(root, split, sequence, frame, scene) and write_root(root, grid, {split: sequences}) return the paths
    written; None where the format can't be written from scenes.
    """

    name: str
    taxonomy: str
    marks: tuple[str, ...]
    open: Callable[[Path], DatasetRoot]
    grid: VoxelGrid | None = None
    origin_height_m: float = 0.0
    numbered: bool = True
    notes: tuple[str, ...] = ()
    camera: Callable[[Path, str, str], Camera] | None = None
    image: Callable[[Path, str, str], UInt8[np.ndarray, "h w 3"]] | None = None
    write_scene: Callable[[Path, str, str, str, Scene], Sequence[str]] | None = None
    write_root: Callable[[Path, VoxelGrid, Mapping[str, Sequence[str]]], Sequence[str]] | None = None


def _kitti_scene(root: Path, split: str, sequence: str, frame: str, scene: Scene) -> Sequence[str]:
    return semantic_kitti.write_frame(root, frame_of(scene, sequence, frame))


def _kitti_360_scene(root: Path, split: str, sequence: str, frame: str, scene: Scene) -> Sequence[str]:
    return kitti_360.write_frame(root, frame_of(scene, sequence, frame))


def _carla_root(root: Path, grid: VoxelGrid, splits: Mapping[str, Sequence[str]]) -> Sequence[str]:
    low, high = grid.origin_m, grid.upper_m
    return [
        carla_sc.write_carla_params(root, split, s, grid.shape, (low, high)) for split, ss in splits.items() for s in ss
    ]


def _carla_scene(root: Path, split: str, sequence: str, frame: str, scene: Scene) -> Sequence[str]:
    if split not in carla_sc.SPLITS:
        raise InputError("carla_sc", f"a split of {', '.join(carla_sc.SPLITS)}", repr(split))
    return carla_sc.write_carla_frame(root, split, sequence, frame, scene)


def _occ3d_scene(root: Path, split: str, sequence: str, frame: str, scene: Scene) -> Sequence[str]:
    if split not in ("train", "val"):
        raise InputError("occ3d", "a split of train, val", repr(split))
    return [occ3d.write_occ3d_frame(root, sequence, frame, occ3d.occ3d_frame(scene))]


def _occ3d_root(root: Path, grid: VoxelGrid, splits: Mapping[str, Sequence[str]]) -> Sequence[str]:
    infos = {s: occ3d.frame_records(s, frames) for s, frames in occ3d.open_occ3d(root).sequences.items()}
    return [occ3d.write_occ3d_annotations(root, {name: tuple(found) for name, found in splits.items()}, infos)]


def written_names(form: Format, frames: Sequence[tuple[str, str, str]]) -> list[str]:
    """What frames (split, sequence, frame), sequence by sequence in order, are called in a format.

    Names that it has no place for, such as Occ3D's tokens, become numbers from 000000 in each sequence.
    """
    strange = {s for _, s, frame in frames if form.numbered and not re.fullmatch(r"\d{1,10}", frame, re.ASCII)}
    counts = {s: itertools.count() for s in strange}
    return [f"{next(counts[s]):06d}" if s in strange else frame for _, s, frame in frames]


FORMATS: Mapping[str, Format] = {
    form.name: form
    for form in (
        Format(
            "semantic_kitti",
            "semantic_kitti",
            ("sequences",),
            semantic_kitti.open_root,
            origin_height_m=1.73,
            camera=semantic_kitti.read_camera,
            image=semantic_kitti.read_frame_image,
            write_scene=_kitti_scene,
            write_root=semantic_kitti.write_layout,
        ),
        Format(
            "kitti_360",
            "kitti_360",
            ("data_2d_raw",),
            kitti_360.open_root,
            origin_height_m=1.73,
            camera=kitti_360.read_camera,
            image=kitti_360.read_frame_image,
            write_scene=_kitti_360_scene,
            write_root=kitti_360.write_layout,
        ),
        Format(
            "carla_sc",
            "carla_sc",
            ("Train", "Val", "Test"),
            carla_sc.open_carla_sc,
            origin_height_m=1.8,
            notes=("cells that are 0.375 m high are taken as cubes of 0.4 m",),
            write_scene=_carla_scene,
            write_root=_carla_root,
        ),
        Format(
            "occ3d",
            "occ3d",
            ("gts",),
            occ3d.open_occ3d,
            grid=occ3d.OCC3D_GRID,
            numbered=False,
            write_scene=_occ3d_scene,
            write_root=_occ3d_root,
        ),
        Format("craft3d", "minecraft", ("houses", "*.npy"), craft3d.open_craft3d, numbered=False),
    )
}


def detect(root: Path) -> Format:
    """The format of a root, by what lies in it. Raises InputError."""
    for form in FORMATS.values():
        if any(found for mark in form.marks for found in Path(root).glob(mark)):
            return form
    marks = "; ".join(f"{form.name}: {' or '.join(form.marks)}" for form in FORMATS.values())
    raise InputError(root, f"a dataset's root, which holds ({marks})", "none of them")
