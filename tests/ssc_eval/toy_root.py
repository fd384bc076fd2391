"""A small SemanticKITTI-layout root: a ground with boxes on it, and images that show both in their colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.datasets.image_files import write_image
from pipeline.datasets.kitti_calibration import calibration_of, write_calibration
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.camera import Camera, look_at
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import IGNORE, load_taxonomy

GRID = VoxelGrid((16, 16, 8), 0.4, (0.0, -3.2, -2.0))
SIZE = (64, 32)


def toy_camera(shift_m: float = 0.0, size: tuple[int, int] = SIZE) -> Camera:
    """At the grid's rear face, looking ahead."""
    width, height = size
    K = np.array([[0.6 * width, 0, width / 2 - 0.5], [0, 0.6 * width, height / 2 - 0.5], [0, 0, 1]])
    pose = look_at(np.array([-0.5, shift_m, 0.0]), np.array([5.0, shift_m, -0.6]), np.array([0.0, 0, 1]))
    return Camera(K, pose, width, height)


def toy_labels(rng: np.random.Generator, grid: VoxelGrid = GRID) -> np.ndarray:
    """A road, a sidewalk, two buildings and sometimes a car; below and far behind 255."""
    x, y, z = grid.shape
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, :, 1], labels[:, : y // 4, 1] = 9, 11
    for side in (0, y - 2):
        start = int(rng.integers(0, x // 2))
        labels[start : start + x // 3, side : side + 2, 2 : int(rng.integers(4, z))] = 13
    if rng.random() < 0.2:
        place = int(rng.integers(2, x - 4))
        labels[place : place + 3, y // 2 : y // 2 + 2, 2:4] = 1
    labels[:, :, 0] = IGNORE
    return labels


def toy_image(labels: np.ndarray, camera: Camera, grid: VoxelGrid = GRID) -> np.ndarray:
    """Occupied voxels' centres painted far to near, in their class's colour."""
    taxonomy = load_taxonomy("semantic_kitti")
    image = np.full((camera.height_px, camera.width_px, 3), 200, np.uint8)
    solid = (labels > 0) & (labels != IGNORE)
    pixels, depth = camera.project(grid.centres()[solid])
    seen = camera.sees(pixels, depth)
    for (u, v), label in sorted(
        zip(np.rint(pixels[seen]).astype(int).tolist(), labels[solid][seen], strict=True), key=lambda item: item[0][1]
    ):
        image[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2] = taxonomy.colors[label]
    return image


def write_toy_root(
    root: Path,
    frames: dict[str, int],
    splits: dict[str, list[str]],
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    grid: VoxelGrid = GRID,
    folder: str = "image_2",
) -> Path:
    """`frames` of every sequence; sequences of split "test" have images and .bin alone."""
    taxonomy = load_taxonomy("semantic_kitti")
    for number, (sequence, count) in enumerate(frames.items()):
        camera = toy_camera(0.1 * number, size)
        write_calibration(root / "sequences" / sequence / "calib.txt", calibration_of(camera))
        for frame in range(count):
            labels = toy_labels(np.random.default_rng([seed, number, frame]), grid)
            solid = (labels > 0) & (labels != IGNORE)
            hidden = sequence in splits.get("test", [])
            masks = {} if hidden else {"labels": labels, "invalid": labels == IGNORE}
            write_frame(root, Frame(sequence, f"{frame:06d}", grid, taxonomy, scan=solid, **masks))
            image = toy_image(labels, camera, grid)
            write_image(root / "sequences" / sequence / folder / f"{frame:06d}.png", image)
    write_layout(root, grid, splits)
    return root
