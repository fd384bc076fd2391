"""Ground truth a frame: 71 scans of 120,000 points, and a surface. `python -m tests.bench voxelize`.

The scans are simulated along a drive through the embedded world. Reading files isn't in the figures. The plain twin
(tests/renderers/plain_visibility.py) walks every ray voxel by voxel, compiled and on all cores, in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from pipeline.scene.grid import DEFAULT_GRID, SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.records import Surface
from pipeline.town.plan import plan_town
from pipeline.town.surface import pose, surface_at
from renderers.ground_truth import ScanRecipe, frame_from_scans
from renderers.lidar import hdl64e, scan
from renderers.meshes import SurfaceCaster
from renderers.visibility import invalid_and_occluded
from renderers.voxelize import LabelledScan, voxelize_scans, voxelize_surface
from tests.renderers.plain_visibility import plain_masks

SCANS, POINTS, REPEATS = 71, 120_000, 4


def best_s(action: Callable[[], object], repeats: int = REPEATS) -> float:
    """The quickest of several runs [s], after one that compiles."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def drive() -> tuple[list[LabelledScan], np.ndarray, Surface]:
    """Scans of exactly POINTS points, their poses in the first one's frame, and the surface of the first frame."""
    town = plan_town("train", 3)
    surface = surface_at(town, 0)
    caster, lidar = SurfaceCaster(surface), hdl64e(np.random.default_rng(0))
    poses = np.linalg.inv(pose(town, 0)) @ np.stack([pose(town, n) for n in range(SCANS)])
    scans = []
    for n, one in enumerate(poses):
        generator = np.random.default_rng(n)
        cloud = scan(caster, lidar, one, generator)
        chosen = generator.choice(len(cloud.points), POINTS, replace=len(cloud.points) < POINTS)
        scans.append(LabelledScan(cloud.points[chosen], cloud.class_id[chosen]))
    return scans, poses, surface


def report_scans(scans: list[LabelledScan], poses: np.ndarray, grid: VoxelGrid, classes: int) -> None:
    ranges_m = ScanRecipe().ranges_m
    binning = best_s(lambda: voxelize_scans(scans, poses, grid, classes, ranges_m))
    whole = best_s(lambda: frame_from_scans(scans, poses, grid, classes))
    truth = frame_from_scans(scans, poses, grid, classes)
    touched = voxelize_scans(scans, poses, grid, classes, ranges_m)[1]
    sensors = grid.coordinates(poses[:, :3, 3])
    fast, plain = (
        best_s(lambda: invalid_and_occluded(touched, grid, poses)),
        best_s(lambda: plain_masks(touched, sensors), 1),
    )
    equal = all((a == b).all() for a, b in zip(truth[2:], plain_masks(touched, sensors), strict=True))
    print(
        f"{'x'.join(map(str, grid.shape))}: frame {whole:.2f} s (binning {binning:.2f}, visibility {fast:.2f}); "
        f"plain visibility {plain:.2f} s, {plain / fast:.1f} times; equal: {equal}; "
        f"valid {1 - truth.invalid.mean():.3f}, occupied of valid {touched.mean() / (1 - truth.invalid.mean()):.3f}",
        flush=True,
    )


def main() -> None:
    scans, poses, surface = drive()
    classes = len(surface.taxonomy.classes)
    print(f"{len(scans)} scans of {POINTS} points, {len(surface.triangles)} triangles", flush=True)
    for grid in (DEFAULT_GRID, SEMANTIC_KITTI_GRID):
        report_scans(scans, poses, grid, classes)
        seconds = best_s(lambda grid=grid: voxelize_surface(surface, grid))
        print(f"{'x'.join(map(str, grid.shape))}: surface to labels {seconds:.3f} s", flush=True)
    caster, lidar = SurfaceCaster(surface), hdl64e(np.random.default_rng(0))
    turn = best_s(lambda: scan(caster, lidar, np.eye(4), np.random.default_rng(0)))
    print(f"one lidar turn {turn:.3f} s; building the ray structure {best_s(lambda: SurfaceCaster(surface), 2):.3f} s")


if __name__ == "__main__":
    main()
