"""`occfactory town`: a SemanticKITTI-layout root of the embedded world, which all else reads as if it were recorded.

One shard is one drive: voxels, a simulated scan's .bin, masks, photographs, calibration, poses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flows.drives import Drive, drives
from flows.engine import Engine, run_plan
from flows.progress import PlanProgress
from flows.recipes import TownRecipe
from flows.shards import Plan, Stage
from pipeline.datasets.image_files import write_image
from pipeline.datasets.kitti_calibration import (
    calibration_of,
    camera_poses,
    write_calibration,
    write_poses,
    write_times,
)
from pipeline.datasets.semantic_kitti import open_root, write_layout
from pipeline.datasets.statistics import dataset_statistics
from pipeline.scene.camera import Camera
from pipeline.scene.seeds import rng
from pipeline.town.plan import Town, plan_town
from pipeline.town.surface import frame_time_s, pose, surface_at


def make_town(recipe: TownRecipe, out: Path, engine: Engine = "none", workers: int = 1, quiet: bool = True) -> Path:
    """Write, or go on writing, a town root; its path. The bytes depend on the recipe alone. Raises InputError."""
    plan = Plan("town", (Stage("drives", 1, drive_stage, keep=True),), recipe, Path(out), len(drives(recipe)))
    with PlanProgress(plan, quiet) as progress:
        run_plan(plan, engine, workers, progress, finish=lambda: _finish(recipe, plan.out))
    rate = recipe.frames / max(progress.elapsed_s, 1e-9)
    progress.report(f"{plan.out}: {recipe.frames} frames, {rate:.2f} frames/s")
    return plan.out


def _finish(recipe: TownRecipe, out: Path) -> None:
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for drive in drives(recipe):
        splits[drive.split].append(drive.sequence)
    write_layout(out, recipe.grid.grid(), splits)
    for split in ("train", "val"):
        dataset_statistics(open_root(out), split)


def drive_stage(recipe: TownRecipe, out: Path, shard: int) -> list[str]:
    """Make one drive: every labelled frame's voxels and photograph, and the sequence's text files."""
    drive = drives(recipe)[shard]
    town = plan_town(drive.split, drive.seed, frames=scans_of(recipe, drive))
    written = _write_sequence(recipe, out, drive, town)
    for number in range(drive.frames):
        frame = number * recipe.frame_step
        written += _write_voxels(recipe, out, drive, town, frame)
        written.append(_write_photograph(recipe, out, drive, town, frame))
    return written


def scans_of(recipe: TownRecipe, drive: Drive) -> int:
    """Scans of a drive: up to the last pose from which its last labelled frame is seen."""
    return (drive.frames - 1) * recipe.frame_step + recipe.poses * recipe.pose_step + 1


def drive_camera(recipe: TownRecipe, drive: Drive) -> Camera:
    """KITTI's camera 2 at the recipe's size, its mount a little different in every drive."""
    from renderers.viewpoints import Jitter, jittered, kitti_rig

    camera = kitti_rig(("front",), (recipe.width_px, recipe.height_px))["front"]
    return jittered(camera, Jitter(0.01, 0.2), rng(drive.seed, "camera", 0))


def _write_sequence(recipe: TownRecipe, out: Path, drive: Drive, town: Town) -> list[str]:
    names = {name: f"sequences/{drive.sequence}/{name}" for name in ("calib.txt", "poses.txt", "times.txt")}
    scans = range(scans_of(recipe, drive))
    calibration = calibration_of(drive_camera(recipe, drive))
    world_from_vehicle = np.stack([pose(town, scan) for scan in scans])
    first = np.linalg.inv(world_from_vehicle[0])
    write_calibration(out / names["calib.txt"], calibration)
    write_poses(out / names["poses.txt"], camera_poses(calibration, first @ world_from_vehicle))
    write_times(out / names["times.txt"], np.array([frame_time_s(town, scan) for scan in scans]))
    return list(names.values())


def _write_voxels(recipe: TownRecipe, out: Path, drive: Drive, town: Town, frame: int) -> list[str]:
    raise NotImplementedError


def _write_photograph(recipe: TownRecipe, out: Path, drive: Drive, town: Town, frame: int) -> str:
    from renderers.photo import photograph
    from renderers.photo_conditions import at_frame, draw_conditions

    light = at_frame(draw_conditions(rng(drive.seed, "weather", 0)), frame)
    noise = rng(drive.seed, "photograph", frame)
    image = photograph(surface_at(town, frame), drive_camera(recipe, drive), light, noise, pose(town, frame))
    path = f"sequences/{drive.sequence}/image_2/{frame:06d}.png"
    write_image(out / path, image)
    return path
