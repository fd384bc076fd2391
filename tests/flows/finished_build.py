"""A finished build in miniature, through the same writers and manifest as `occfactory build`, without its renderers.

Six samples of three towns in two sequences, the middle town in both. Two cameras, one calibration a sequence.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.export_sample import camera_table
from pipeline.datasets.image_files import write_depth, write_image, write_label_image
from pipeline.datasets.kitti_calibration import calibration_of, write_calibration, write_poses, write_times
from pipeline.datasets.manifest import Manifest, SampleRecord, record_files, write_manifest
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.camera import Camera
from pipeline.scene.files import digest_of, write_json
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import load_taxonomy
from renderers.viewpoints import kitti_front

GRID = VoxelGrid((32, 32, 8), 0.8, (0.0, -12.8, -2.0))
SIZE_PX = (48, 16)
SCENES = (7, 7, 8, 8, 9, 9)  # a sample's town
NAMES = ("00/000000", "00/000001", "00/000002", "01/000000", "01/000001", "01/000002")


def cameras(sequence: str) -> dict[str, Camera]:
    """Camera 2 and a left one; each sequence has its own."""
    front = kitti_front(size_px=SIZE_PX)
    shift = np.eye(4)
    shift[0, 3] = 0.01 * int(sequence)
    front = replace(front, camera_from_world=shift @ front.camera_from_world)
    turn = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
    return {"2": front, "left": replace(front, camera_from_world=turn @ front.camera_from_world)}


def frame(index: int) -> Frame:
    """A sample's voxels: every class, valid and invalid ones."""
    rng = np.random.default_rng(index)
    labels = rng.integers(0, 20, GRID.shape, dtype=np.uint8)
    labels[rng.random(GRID.shape) < 0.6] = 0
    invalid = rng.random(GRID.shape) < 0.2
    labels[invalid] = 255
    masks = [rng.random(GRID.shape) < share for share in (0.4, 0.05)]
    sequence, name = NAMES[index].split("/")
    return Frame(sequence, name, GRID, load_taxonomy("semantic_kitti"), labels, invalid, *masks)


def pictures(index: int) -> dict[str, np.ndarray]:
    """A sample's pictures by folder; depth [m] is exact in steps of 1/256 m."""
    rng = np.random.default_rng(100 + index)
    height, shapes = SIZE_PX[1], {}
    for suffix in ("2", "left"):
        shapes[f"image_{suffix}"] = rng.integers(0, 256, (height, SIZE_PX[0], 3), dtype=np.uint8)
        shapes[f"depth_{suffix}"] = (rng.integers(0, 20_000, (height, SIZE_PX[0])) / 256).astype(np.float32)
        shapes[f"semantics_{suffix}"] = rng.integers(0, 20, (height, SIZE_PX[0]), dtype=np.uint8)
    return shapes


def provenance(index: int) -> dict[str, Any]:
    note = {"source": "town", "split": "train", "town_seed": SCENES[index], "frame": index}
    return {**note, "image": {"prompt": f"a street, {index}", "accepted": index != 3, "edges": 0.25 * index}}


def write_finished_build(root: Path) -> Path:
    """Write it; the same bytes each time."""
    files: list[str] = []
    writers = {"image": write_image, "depth": write_depth, "semantics": write_label_image}
    for index, name in enumerate(NAMES):
        files += write_frame(root, frame(index))
        for folder, picture in pictures(index).items():
            files.append(f"sequences/{name.split('/')[0]}/{folder}/{name.split('/')[1]}.png")
            writers[folder.split("_")[0]](root / files[-1], picture)
    for sequence in ("00", "01"):
        files += _write_sequence(root, sequence)
    files += write_layout(root, GRID, {"train": ("00", "01")})
    recipe = {"name": "miniature", "description": "Six | samples.", "source": {"kind": "town"}, "seed": 3}
    samples = tuple(SampleRecord(name=n, shard=k // 2, provenance=provenance(k)) for k, n in enumerate(NAMES))
    listed = record_files(root, files)
    inputs = {"source": digest_of([sample.provenance for sample in samples])}
    write_manifest(
        root,
        Manifest(
            recipe=recipe,
            recipe_digest=digest_of(recipe),
            build_seed=3,
            inputs=inputs,
            versions={"occfactory": "0.1.0"},
            samples=samples,
            files=listed,
        ),
    )
    return root


def _write_sequence(root: Path, sequence: str) -> list[str]:
    folder = f"sequences/{sequence}"
    found = cameras(sequence)
    write_calibration(root / folder / "calib.txt", calibration_of(found["2"]))
    table = {"front": camera_table(found["2"]), "left": camera_table(found["left"])}
    write_json(root / folder / "cameras.json", table)
    write_poses(root / folder / "poses.txt", np.tile(np.eye(4), (3, 1, 1)))
    write_times(root / folder / "times.txt", np.arange(3.0))
    return [f"{folder}/{name}" for name in ("calib.txt", "cameras.json", "poses.txt", "times.txt")]
