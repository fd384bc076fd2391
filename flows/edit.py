"""The library behind `occfactory inpaint`, `outpaint` and `tile`: read scenes, edit them, write a root.

Every function takes a Generator, so it runs with any method's weights. Scene k of a command draws from (seed, command,
k) of the seed tree, whatever chunks the scenes are worked in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, UInt8

from flows.edited import Edited, masked_frame, write_edited
from pipeline.datasets.semantic_kitti import KittiRoot, frame_path, open_root, read_sequence_calibration
from pipeline.datasets.voxel_frames import Frame
from pipeline.generators.edit import (
    box_mask,
    class_mask,
    default_overlap,
    foreground_known,
    known_outside,
    outpaint_all,
    outpainted,
    place_in,
    regenerate,
    tile,
)
from pipeline.generators.protocol import Generator, Known
from pipeline.generators.seams import SeamReport, seam_report, seam_report_all
from pipeline.generators.windows import larger_grid, overlap_voxels, seam_planes, starts
from pipeline.scene.errors import InputError
from pipeline.scene.files import require_empty
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import IGNORE, Taxonomy

Item = TypeVar("Item")
CHUNK = 32  # scenes in memory, and at most in one call of the generator


@dataclass(frozen=True)
class Frames:
    """Which frames of a root are edited: one of them, as `count` variants, or the first `count` of a split."""

    root: Path
    frame: str | None = None  # "sequence/frame"
    split: str | None = None
    count: int | None = None  # None: one variant, or the whole split

    def listed(self) -> tuple[KittiRoot, list[tuple[str, str, str]]]:
        """The opened root, and (sequence, frame, name to write) of every scene to make. Raises InputError."""
        if (self.frame is None) == (self.split is None):
            raise InputError("frames", "either --frame SEQUENCE/NAME or --split", "both or neither")
        root = open_root(self.root)
        if self.split is not None:
            found = [(s, f) for s, f in root.frames(self.split) if f in root.sequences[s].labelled]
            if not found:
                raise InputError(self.root, f"labelled frames in split {self.split}", "none")
            return root, [(s, f, f) for s, f in found[: self.count]]
        sequence, _, frame = (self.frame or "").partition("/")
        if not frame:
            raise InputError("--frame", "SEQUENCE/NAME, such as 00/000000", repr(self.frame))
        return root, [(sequence, frame, f"{k:06d}") for k in range(self.count or 1)]


@dataclass(frozen=True)
class Region:
    """What an inpainting regenerates: a box [m], classes and their surroundings, or all foreground.

    dilation: voxels around the classes; only: names of classes that new voxels may take beside empty, () for any.
    """

    box_m: tuple[float, float, float, float, float, float] | None = None
    classes: tuple[str, ...] = ()
    foreground: bool = False
    dilation: int = 1
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.box_m is not None) + bool(self.classes) + self.foreground != 1:
            raise InputError("region", "one of --box, --classes and --foreground", "none or several of them")

    def mask(self, scene: Scene) -> Bool[np.ndarray, "x y z"]:
        """What may change, True; where all foreground is made anew, that is everything. Raises InputError."""
        if self.foreground:
            return np.ones(scene.labels.shape, bool)
        if self.box_m is not None:
            return box_mask(scene.grid, self.box_m[:3], self.box_m[3:])
        return class_mask(scene, _ids(scene.taxonomy, self.classes), self.dilation)

    def known(self, scene: Scene) -> Known:
        """What of the scene is held. Raises InputError."""
        if self.foreground:
            return foreground_known(scene)
        return known_outside(scene, self.mask(scene), _ids(scene.taxonomy, self.only) if self.only else None)


def _ids(taxonomy: Taxonomy, names: tuple[str, ...]) -> list[int]:
    return [taxonomy.id_of(name) for name in names]


def inpaint_root(
    generator: Generator,
    frames: Frames,
    region: Region,
    seed: int,
    out: Path,
    *,
    note: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> int:
    """Inpaint frames and write them as a root; how many. Outside the region all stays, invalid voxels included.

    Raises InputError.
    """
    require_empty(out)
    root, listed = frames.listed()
    lanes = _lanes(root.grid, generator.grid)

    def edited() -> Iterator[Edited]:
        with bar("inpaint", quiet) as advance:
            for first, part in chunks(listed):
                scenes = [root.scene(s, f) for s, f, _ in part]
                known = [region.known(scene) for scene in scenes]
                seeds = [integer_seed(seed, "inpaint", first + k) for k in range(len(part))]
                done = regenerate(generator, scenes, known, seeds)
                for place, before, held, after in zip(part, scenes, known, done, strict=True):
                    changed = np.where(region.mask(before) | before.valid, after.labels, np.uint8(IGNORE))
                    result = replace(after, labels=changed)
                    frame = masked_frame(result, held.labels != IGNORE, place[0], place[2], lanes)
                    yield _edited(root, place, frame, (before, Scene(held.labels, before.grid, before.taxonomy)))
                advance(first + len(part), len(listed))

    return write_edited(out, edited(), note_of("inpaint", seed, note))


def outpaint_root(
    generator: Generator,
    frames: Frames,
    directions: tuple[str, ...],
    overlap_m: float | None,
    seed: int,
    out: Path,
    *,
    note: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> tuple[int, SeamReport]:
    """Outpaint frames in one direction after another and write them as a root; how many, and all their seams.

    Raises InputError.
    """
    require_empty(out)
    if not directions:
        raise InputError("directions", "at least one of +x, -x, +y, -y", "none")
    overlap_m = _overlap_m(generator.grid, overlap_m)
    root, listed = frames.listed()
    told = note_of("outpaint", seed, note, directions=directions, overlap_m=overlap_m)
    volumes: list[UInt8[np.ndarray, "x y z"]] = []

    def edited() -> Iterator[Edited]:
        with bar("outpaint", quiet) as advance:
            for first, part in chunks(listed):
                before = scenes = [root.scene(s, f) for s, f, _ in part]
                for step, direction in enumerate(directions):
                    seeds = [integer_seed(seed, "outpaint", first + k, step) for k in range(len(part))]
                    scenes = outpaint_all(generator, scenes, direction, overlap_m, seeds)
                for place, old, new in zip(part, before, scenes, strict=True):
                    lanes = _lanes(new.grid, generator.grid)
                    frame = masked_frame(new, _held_in(new.grid, old), place[0], place[2], lanes)
                    volumes.append(frame.scene().labels)
                    yield _edited(root, place, frame, (old,))
                advance(first + len(part), len(listed))
        told["seams"] = _figures(report())  # edit.json is written after the last scene

    def report() -> SeamReport:
        grid, planes = outpainted(root.grid, generator.grid, directions, overlap_voxels(generator.grid, overlap_m))
        return seam_report_all(volumes, grid, planes)

    return write_edited(out, edited(), told), report()


def tile_root(
    generator: Generator,
    size_m: tuple[float, float],
    overlap_m: float | None,
    seed: int,
    out: Path,
    *,
    start: Frames | None = None,
    note: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> SeamReport | None:
    """Generate one scene of `size_m` (x, y) [m] from overlapping windows and write it as a root of one frame.

    start: a frame to begin with, held where it is. The seams' report, or None where one window was enough.
    Raises InputError.
    """
    require_empty(out)
    own, overlap_m = generator.grid, _overlap_m(generator.grid, overlap_m)
    grid, overlap = larger_grid(own, size_m), overlap_voxels(own, overlap_m)
    first = None if start is None else _one(start)
    with bar("tile", quiet) as advance:
        scene = tile(generator, grid, seed, overlap_m, first, advance=advance)
    held = np.zeros(grid.shape, bool) if first is None else _held_in(grid, first)
    frame = masked_frame(scene, held, "00", "000000", _lanes(grid, own, overlap))
    planes = seam_planes(grid.shape[:2], own.shape[:2], overlap)
    report = seam_report(frame.scene().labels, grid, planes) if planes else None
    told = note_of("tile", seed, note, size_m=size_m, overlap_m=overlap_m, seams=_figures(report))
    write_edited(out, [Edited("train", frame)], told)
    return report


Bar = Callable[[int, int], None]  # (done, total)


@contextmanager
def bar(what: str, quiet: bool) -> Iterator[Bar]:
    """A progress bar where there is a terminal."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        row = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(row, completed=done, total=total)


def chunks(listed: Sequence[Item]) -> Iterator[tuple[int, Sequence[Item]]]:
    """(index of the first, the next few) over a list."""
    for first in range(0, len(listed), CHUNK):
        yield first, listed[first : first + CHUNK]


def note_of(edit: str, seed: int, note: Mapping[str, Any] | None, **more: Any) -> dict[str, Any]:
    """What edit.json says beside the scenes' provenance."""
    return {"edit": edit, "seed": seed, **more, **(note or {})}


def _edited(root: KittiRoot, place: tuple[str, str, str], frame: Frame, steps: tuple[Scene, ...]) -> Edited:
    """The frame with its source's split and calibration."""
    sequence, name, _ = place
    has_own = frame_path(root, sequence, "", "calib.txt").exists()
    calibration = read_sequence_calibration(root, sequence, name) if has_own else None
    return Edited(root.split_of(sequence) or "train", frame, steps, calibration)


def _figures(report: SeamReport | None) -> dict[str, str] | None:
    return None if report is None else {name: f"{value:.4g}" for name, value in report._asdict().items()}


def _held_in(grid: VoxelGrid, old: Scene) -> Bool[np.ndarray, "x y z"]:
    """Where the old scene's valid voxels lie in the larger grid."""
    held = np.zeros(grid.shape, bool)
    held[place_in(old.grid, grid)] = old.valid
    return held


def _one(frames: Frames) -> Scene:
    root, listed = frames.listed()
    return root.scene(*listed[0][:2])


def _overlap_m(own: VoxelGrid, overlap_m: float | None) -> float:
    return default_overlap(own) * own.voxel_size_m if overlap_m is None else overlap_m


def _lanes(grid: VoxelGrid, own: VoxelGrid, overlap: int | None = None) -> list[float]:
    """y of the middle of each row of windows [m]: where the generator puts its roads."""
    rows = starts(grid.shape[1], own.shape[1], default_overlap(own) if overlap is None else overlap)
    return [grid.origin_m[1] + (row + own.shape[1] / 2) * own.voxel_size_m for row in rows]
