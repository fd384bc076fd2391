"""A small SemanticKITTI-layout root: a road, a car or a house on it, and photographs that are renders with noise."""

from pathlib import Path

import numpy as np

from pipeline.datasets.image_files import write_image
from pipeline.datasets.kitti_calibration import calibration_of, write_calibration
from pipeline.datasets.semantic_kitti import frame_path, write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.scene.camera import Camera, look_at
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy
from renderers.shading import render

GRID, KITTI = VoxelGrid((32, 32, 8), 0.4, (0.0, -6.4, -2.0)), load_taxonomy("semantic_kitti")
WIDTH, HEIGHT = 40, 20
CAR, ROAD, BUILDING = 1, 9, 13


def street_camera() -> Camera:
    K = np.array([[20.0, 0, 19.5], [0, 20.0, 9.5], [0, 0, 1]])
    return Camera(K, look_at(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 0, 1.0])), WIDTH, HEIGHT)


def street(number: int) -> Scene:
    draw = np.random.default_rng(number)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[..., 0] = ROAD
    x, y, kind = int(draw.integers(12, 26)), int(draw.integers(8, 22)), int(draw.choice([CAR, BUILDING]))
    labels[x : x + 5, y : y + 4, 1:6] = kind
    return Scene(labels, GRID, KITTI)


def write_street_root(root: Path, train: int = 4, val: int = 3, photographs: bool = True) -> Path:
    """Sequence 00 is the training split, 08 the held-out one."""
    write_layout(root, GRID, {"train": ["00"], "val": ["08"]})
    for sequence, count in (("00", train), ("08", val)):
        write_calibration(root / "sequences" / sequence / "calib.txt", calibration_of(street_camera()))
        for place in range(count):
            scene = street(place + 1000 * (sequence == "08"))
            write_frame(root, frame_of(scene, sequence, f"{place:06d}"))
            if photographs:
                noise = np.random.default_rng(place).normal(0, 5, (HEIGHT, WIDTH, 3))
                image = np.clip(render(scene, street_camera()).rgb + noise, 0, 255).astype(np.uint8)
                write_image(frame_path(root, sequence, "image_2", f"{place:06d}.png"), image)
    return root
