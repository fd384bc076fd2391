"""A report's figures on images beside photographs: FID and KID, and which samples show one scene.

Images lie as far from photographs as their renders do, or nearer; what photographs score among themselves is the floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flows.report_pictures import evenly
from flows.report_samples import Measured
from flows.viewing import has_image
from pipeline.datasets.formats import detect
from pipeline.datasets.image_files import read_image
from pipeline.datasets.semantic_kitti import KittiRoot, frame_path, open_root, read_frame_image
from pipeline.report.evaluation import Table

TRAIN, MOST = "train", 500  # the real root's split; images a set at most, evenly spaced
FEATURES, SMALLEST_PX = 48, 40  # of the offline encoder
Image = UInt8[np.ndarray, "h w 3"]


def photograph_table(root: KittiRoot, names: Sequence[str], rendered: bool, real: Path) -> Table | None:
    """FID and KID of a build's images, and of its renders, against a real root's photographs of split train.

    names: the build's samples; rendered: images are renders already. None where there are fewer than two photographs
    or samples, or the images are too small for the encoder. Raises InputError.
    """
    photographs = _photographed(real)
    count = min(len(names), len(photographs), MOST)
    if count < 2:
        return None
    chosen = [name.split("/") for name in evenly(names, count)]
    images = [read_frame_image(root, *key) for key in chosen]
    height, width = images[0].shape[:2]
    if min(height, width) < SMALLEST_PX:
        return None
    sets = {"render" if rendered else "generated": images}
    renders = [frame_path(root, sequence, "render_2", f"{frame}.png") for sequence, frame in chosen]
    if not rendered and all(path.exists() for path in renders):
        sets["render"] = [read_image(path) for path in renders]
    others = [read_frame_image(*photographs[place]) for place in _places(len(photographs), count)]
    return _table(sets, [_scaled(image, width, height) for image in others], f"{real.resolve().name}, split {TRAIN}")


def _table(sets: Mapping[str, Sequence[Image]], photographs: Sequence[Image], source: str) -> Table:
    from flows.image_distances import distances, encoded, too_few
    from flows.image_evaluation_report import distance_table
    from pipeline.metrics.encoder2d import RandomConvolutions

    encoder, (height, width) = RandomConvolutions(FEATURES), photographs[0].shape[:2]
    rows = distances(
        encoded(encoder, photographs), {name: encoded(encoder, images) for name, images in sets.items()}, seed=0
    )
    note = f"Photographs of {source}, scaled to {width}x{height} px. Encoder: {encoder.name}, {FEATURES} features."
    return distance_table([asdict(row) for row in rows], f"{note} {too_few(encoder, len(photographs))}".strip())


def _photographed(real: Path) -> list[tuple[KittiRoot, str, str]]:
    """Frames of the split with a photograph; none of a format without."""
    if detect(real).name != "semantic_kitti":
        return []
    root = open_root(real)
    return [(root, *key) for key in root.frames(TRAIN) if has_image(root, *key)] if TRAIN in root.splits else []


def _places(length: int, count: int) -> list[int]:
    return [int(name) for name in evenly([str(place) for place in range(length)], count)]


def _scaled(image: Image, width: int, height: int) -> Image:
    import cv2

    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def shown_scenes(samples: Sequence[Measured]) -> dict[str, list[str]]:
    """The first sample of every scene, and the others that show it too, where a build draws several of one."""
    first: dict[object, str] = {}
    found: dict[str, list[str]] = {}
    for sample in samples:
        several = "scene_image" in sample.image
        leader = first.setdefault(sample.image["scene"], sample.name) if several else sample.name
        found.setdefault(leader, []).extend([] if leader == sample.name else [sample.name])
    return found
