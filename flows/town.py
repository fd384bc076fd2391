"""`occfactory town`: a SemanticKITTI-layout root of the embedded world, which all else reads as if it were recorded.

One shard is one drive: voxels, a simulated scan's .bin, masks, photographs, calibration, poses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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
from pipeline.datasets.semantic_kitti import open_root, write_frame, write_layout
from pipeline.datasets.statistics import dataset_statistics
from pipeline.datasets.voxel_files import write_point_labels, write_points
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.camera import Camera
from pipeline.scene.seeds import rng
from pipeline.scene.taxonomy import IGNORE, load_taxonomy
from pipeline.town.plan import Town, plan_town
from pipeline.town.surface import frame_time_s, pose, surface_at
from renderers.ground_truth import GroundTruth, ScanRecipe, frame_from_surface, frames_from_sequence
from renderers.lidar import LidarScan, hdl64e, scan
from renderers.meshes import SurfaceCaster
from renderers.voxelize import LabelledScan


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
    truths = _truths_by_scans(recipe, drive, town) if recipe.truth == "scans" else None
    for frame in labelled_frames(recipe, drive):
        world = SurfaceCaster(surface_at(town, frame), threads=1)
        truth = next(truths) if truths else _truth_by_surface(recipe, drive, town, frame, world)
        written += _write_voxels(recipe, out, drive, frame, truth)
        if recipe.photographs:
            written.append(_write_photograph(recipe, out, drive, town, frame, world))
    if recipe.scans:
        for index in range(scans_of(recipe, drive)):
            written += _write_scan(out, drive, town, index)
    return written


def labelled_frames(recipe: TownRecipe, drive: Drive) -> range:
    """Scan numbers of a drive's labelled frames."""
    return range(0, drive.frames * recipe.frame_step, recipe.frame_step)


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


def _write_voxels(recipe: TownRecipe, out: Path, drive: Drive, frame: int, truth: GroundTruth) -> list[str]:
    """Test sequences have .bin alone, as in the benchmark."""
    name = f"{frame:06d}"
    record = Frame(drive.sequence, name, recipe.grid.grid(), load_taxonomy("semantic_kitti"), scan=truth.occupancy)
    if drive.split != "test":
        labels = np.where(truth.invalid, np.uint8(IGNORE), truth.labels)
        record = replace(record, labels=labels, invalid=truth.invalid, occluded=truth.occluded)
    return write_frame(out, record)


def _truth_by_surface(recipe: TownRecipe, drive: Drive, town: Town, frame: int, world: SurfaceCaster) -> GroundTruth:
    """The geometry's shell at the instant, the current scan, and masks over the poses of the drive."""
    scan = simulated_scan(drive, frame, world)
    vehicle_from_world = np.linalg.inv(pose(town, frame))
    ahead = range(frame, frame + recipe.poses * recipe.pose_step + 1, recipe.pose_step)
    poses = np.stack([vehicle_from_world @ pose(town, k) for k in ahead])
    return frame_from_surface(world.surface, recipe.grid.grid(), scan.points, poses, drop_unseen=True)


def _truths_by_scans(recipe: TownRecipe, drive: Drive, town: Town) -> Iterator[GroundTruth]:
    """SemanticKITTI's way: the current scan and those ahead, aggregated; what moves leaves a smear."""
    ahead = ScanRecipe(scans_ahead=recipe.poses * recipe.pose_step, stride=recipe.frame_step)
    poses = np.stack([pose(town, k) for k in range(scans_of(recipe, drive))])
    scans = SimulatedScans(drive, town, len(poses))
    truths = frames_from_sequence(scans, poses, recipe.grid.grid(), load_taxonomy("semantic_kitti"), ahead)
    return (truth for _, truth in truths)


class SimulatedScans:
    """A drive's scans, simulated when asked for."""

    def __init__(self, drive: Drive, town: Town, count: int):
        self.drive, self.town, self.count = drive, town, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> LabelledScan:
        scan = simulated_scan(self.drive, index, SurfaceCaster(surface_at(self.town, index), threads=1))
        return LabelledScan(scan.points, scan.class_id)


def simulated_scan(drive: Drive, index: int, world: SurfaceCaster) -> LidarScan:
    """One turn of the drive's sensor, in the vehicle frame."""
    sensor = hdl64e(rng(drive.seed, "sensor", 0))
    return scan(world, sensor, np.eye(4), rng(drive.seed, "scan", index))


def _write_scan(out: Path, drive: Drive, town: Town, index: int) -> list[str]:
    """velodyne/ and, but for test drives, labels/ in raw ids."""
    turn = simulated_scan(drive, index, SurfaceCaster(surface_at(town, index), threads=1))
    paths = [f"sequences/{drive.sequence}/velodyne/{index:06d}.bin"]
    write_points(out / paths[0], turn.points)
    if drive.split != "test":
        paths.append(f"sequences/{drive.sequence}/labels/{index:06d}.label")
        raw = load_taxonomy("semantic_kitti").to_raw(turn.class_id)
        write_point_labels(out / paths[1], raw, turn.instance.astype(np.uint16))
    return paths


def _write_photograph(recipe: TownRecipe, out: Path, drive: Drive, town: Town, frame: int, world: SurfaceCaster) -> str:
    from renderers.photo import photograph
    from renderers.photo_conditions import at_frame, draw_conditions

    light = at_frame(draw_conditions(rng(drive.seed, "weather", 0)), frame)
    noise = rng(drive.seed, "photograph", frame)
    image = photograph(world, drive_camera(recipe, drive), light, noise, pose(town, frame))
    path = f"sequences/{drive.sequence}/image_2/{frame:06d}.png"
    write_image(out / path, image)
    return path
