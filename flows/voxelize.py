"""`occfactory voxelize`: .bin .label .invalid .occluded from one's own labelled scans and poses.

ROOT/sequences/XX/{velodyne/NNNNNN.bin, labels/NNNNNN.label, calib.txt, poses.txt} -> OUT/sequences/XX/voxels, by the
algorithm of SemanticKITTI's benchmark (see renderers/ground_truth.py). One shard is a run of frames of one sequence.
"""

from __future__ import annotations

import functools
from itertools import islice
from pathlib import Path

import numpy as np

from flows.engine import Engine, run_plan
from flows.progress import PlanProgress
from flows.recipes import VoxelizeRecipe
from flows.shards import Plan, Stage
from pipeline.datasets.kitti_calibration import read_poses, velodyne_poses
from pipeline.datasets.semantic_kitti import frame_path, read_sequence_calibration, write_frame, write_layout
from pipeline.datasets.voxel_files import read_point_labels, read_points
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join
from pipeline.scene.taxonomy import IGNORE, load_taxonomy
from renderers.ground_truth import ScanRecipe, frames_from_sequence, labelled_scan
from renderers.voxelize import LabelledScan


def voxelize_root(
    recipe: VoxelizeRecipe, out: Path, engine: Engine = "none", workers: int = 1, quiet: bool = True
) -> Path:
    """Write, or go on writing, the voxel files of a root's scans into `out`. Raises InputError, JobError."""
    blocks = _blocks(recipe)
    plan = Plan("voxelize", (Stage("voxels", 1, voxels_stage, keep=True),), recipe, Path(out), len(blocks))
    with PlanProgress(plan, quiet) as progress:
        run_plan(plan, engine, workers, progress, finish=lambda: _finish(recipe, plan.out))
    progress.report(f"{plan.out}: {sum(len(frames) for _, frames in blocks)} frames")
    return plan.out


def voxels_stage(recipe: VoxelizeRecipe, out: Path, shard: int) -> list[str]:
    """Make one run of frames."""
    sequence, frames = _blocks(recipe)[shard]
    how = _how(recipe)
    last = min(frames[-1] + recipe.scans_ahead + 1, len(_scan_names(recipe, sequence)))
    scans = StoredScans(recipe, sequence, frames[0], last)
    poses = _poses(recipe, sequence)[frames[0] : last]
    taxonomy = load_taxonomy(recipe.taxonomy)
    written = []
    truths = frames_from_sequence(scans, poses, recipe.grid.grid(), taxonomy, how)
    for index, truth in islice(truths, len(frames)):
        name = _scan_names(recipe, sequence)[frames[0] + index]
        labels = np.where(truth.invalid, np.uint8(IGNORE), truth.labels)
        frame = Frame(
            sequence, name, recipe.grid.grid(), taxonomy, labels, truth.invalid, truth.occluded, truth.occupancy
        )
        written += write_frame(out, frame)
    return written


class StoredScans:
    """Scans first..last-1 of a sequence, read from disk when asked for."""

    def __init__(self, recipe: VoxelizeRecipe, sequence: str, first: int, last: int):
        self.recipe, self.sequence, self.first, self.last = recipe, sequence, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int, /) -> LabelledScan:
        recipe, name = self.recipe, _scan_names(self.recipe, self.sequence)[self.first + index]
        taxonomy = load_taxonomy(recipe.taxonomy)
        points = read_points(frame_path(recipe.root, self.sequence, "velodyne", f"{name}.bin"))
        labels = frame_path(recipe.root, self.sequence, "labels", f"{name}.label")
        raw, _ = read_point_labels(labels, taxonomy, len(points))
        return labelled_scan(points, raw, taxonomy, _how(recipe), labels)


def _how(recipe: VoxelizeRecipe) -> ScanRecipe:
    return ScanRecipe(recipe.scans_ahead, recipe.stride, (recipe.nearest_m, recipe.farthest_m))


@functools.lru_cache(maxsize=4)
def _blocks(recipe: VoxelizeRecipe) -> list[tuple[str, range]]:
    """(sequence, scan numbers of its frames) of every shard. Raises InputError."""
    folder = safe_join(recipe.root, "sequences")
    names = recipe.sequences or tuple(sorted(p.name for p in folder.glob("*") if (p / "labels").is_dir()))
    if not names:
        raise InputError(folder, "sequences with velodyne/ and labels/", "none")
    found = []
    for name in names:
        _poses(recipe, name)
        frames = range(0, len(_scan_names(recipe, name)), recipe.stride)
        found += [(name, frames[k : k + recipe.shard_frames]) for k in range(0, len(frames), recipe.shard_frames)]
    return found


@functools.lru_cache(maxsize=64)
def _scan_names(recipe: VoxelizeRecipe, sequence: str) -> tuple[str, ...]:
    names = tuple(sorted(p.stem for p in frame_path(recipe.root, sequence, "velodyne", "").glob("*.bin")))
    if not names:
        raise InputError(frame_path(recipe.root, sequence, "velodyne", ""), "scans NNNNNN.bin", "none")
    return names


@functools.lru_cache(maxsize=64)
def _poses(recipe: VoxelizeRecipe, sequence: str) -> np.ndarray:
    """first_velodyne_from_velodyne of every scan. Raises InputError unless there is one a scan."""
    calibration = read_sequence_calibration(recipe.root, sequence)
    path = frame_path(recipe.root, sequence, "", "poses.txt")
    poses = velodyne_poses(calibration, read_poses(path))
    if len(poses) != len(_scan_names(recipe, sequence)):
        raise InputError(path, f"a pose for each of {len(_scan_names(recipe, sequence))} scans", f"{len(poses)}")
    return poses


def _finish(recipe: VoxelizeRecipe, out: Path) -> None:
    names = list(dict.fromkeys(name for name, _ in _blocks(recipe)))
    write_layout(out, recipe.grid.grid(), {"train": names}, load_taxonomy(recipe.taxonomy))
