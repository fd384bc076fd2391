"""How fast photographs are, and how far colour alone gets: `python -m tests.bench.photo [frames] [repeats]`.

The classifiers are the best ones that see a single pixel's colour: for every cell of a 16x16x16 RGB histogram the class
that training photographs show there most often, by pixels or by share of the class's own pixels (which favours rare
classes). They are fitted on train sequences and scored on val sequences. Photographs that were a recolouring of the
labels would let them score near 1.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from pipeline.scene.camera import Camera
from pipeline.scene.confusion import class_ious, confusion
from pipeline.town.plan import Split, plan_town
from pipeline.town.surface import pose, surface_at
from renderers.photo import photograph
from renderers.photo_conditions import at_frame, draw_conditions
from renderers.photo_rays import stage

BINS = 16
CLASSES = 20
LIMIT = 0.35


def kitti_like(width_px: int, height_px: int) -> Camera:
    """KITTI's camera 2 in the velodyne frame, to a centimetre, at another size."""
    K = np.array([[707.0912, 0, 601.8873], [0, 707.0912, 183.1104], [0, 0, 1]])
    axes = np.array([[0, -1, 0, -0.06], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1.0]])
    return Camera(K, axes, 1220, 370).resized(width_px, height_px)


def labelled_photographs(split: Split, sequences: int, frames: int, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, 3) colours and (pixels,) class ids, 0 the sky; every sequence has its own conditions."""
    colours, labels = [], []
    for seed in range(sequences):
        town = plan_town(split, seed, 20 * frames)
        sequence = draw_conditions(np.random.default_rng([seed, split == "train"]))
        for frame in range(0, 20 * frames, 20):
            surface = surface_at(town, frame)
            world = stage(surface, pose(town, frame))
            picture = photograph(world, camera, at_frame(sequence, frame), np.random.default_rng([seed, frame]))
            directions = camera.ray_directions().reshape(-1, 3)
            _, triangle = world.cast(np.broadcast_to(camera.centre, directions.shape), directions)
            colours.append(picture.reshape(-1, 3))
            labels.append(np.where(triangle >= 0, surface.class_id[triangle], 0).astype(np.uint8))
    return np.concatenate(colours), np.concatenate(labels)


def cell(colours: np.ndarray) -> np.ndarray:
    q = colours.astype(np.int64) * BINS // 256
    return (q[:, 0] * BINS + q[:, 1]) * BINS + q[:, 2]


def colour_only_ious(frames: int = 3, sequences: int = 8) -> dict[str, np.ndarray]:
    """IoU by class id (0: sky) on val of both classifiers; NaN where val shows less than 50 pixels of a class."""
    camera = kitti_like(384, 128)
    colours, labels = labelled_photographs("train", sequences, frames, camera)
    votes = np.zeros((BINS**3, CLASSES), np.int64)
    np.add.at(votes, (cell(colours), labels), 1)
    colours, labels = labelled_photographs("val", max(sequences // 2, 1), frames, camera)
    ious = {}
    for name, score in (("by pixels", votes), ("by class share", votes / np.maximum(votes.sum(0), 1))):
        matrix = confusion(labels, score.argmax(1)[cell(colours)].astype(np.uint8), CLASSES)
        ious[name] = np.where(matrix.sum(1) >= 50, class_ious(matrix), np.nan)
    return ious


def seconds(width_px: int, height_px: int, repeats: int) -> tuple[float, float]:
    """Wall and processor time of the fastest of `repeats` photographs of one frame, the Stage's building left out."""
    town = plan_town("train", 1, 100)
    world = stage(surface_at(town, 40), pose(town, 40))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter(), time.process_time()
        photograph(
            world, kitti_like(width_px, height_px), draw_conditions(np.random.default_rng(2)), np.random.default_rng(0)
        )
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return min(times[1:])


def main(frames: int = 3, repeats: int = 3) -> None:
    for size, limit in (((384, 128), 0.5), ((1220, 370), 3.0)):
        wall, cpu = seconds(*size, repeats)
        print(f"photograph {size[0]}x{size[1]}: {wall:.2f} s, {cpu:.2f} s of processor time (at most {limit})")
    for name, ious in colour_only_ious(frames).items():
        shown = ious[1:][~np.isnan(ious[1:])]
        print(f"colour alone, {name}: mIoU {shown.mean():.3f} over {len(shown)} classes in val (at most {LIMIT})")
        print("  IoU by class id, 0 the sky:", " ".join(f"{i}:{v:.2f}" for i, v in enumerate(ious) if not np.isnan(v)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
