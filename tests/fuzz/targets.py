"""A small healthy root of every format, and what reads each of its files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets import carla_sc, craft3d, kitti_360, occ3d
from pipeline.datasets.image_files import read_depth, read_image, read_label_image
from pipeline.datasets.kitti_calibration import read_calibration, read_poses, read_times
from pipeline.datasets.manifest import MANIFEST_NAME, Manifest, read_manifest
from pipeline.datasets.semantic_kitti import open_root, read_frame, write_frame, write_layout
from pipeline.datasets.statistics import dataset_statistics, read_statistics
from pipeline.datasets.voxel_files import read_point_labels, read_points
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy

GRID = VoxelGrid((8, 8, 4), 0.4, (0.0, 0.0, 0.0))
P2, TR = b"P2: 7 0 5 4.5 0 7 3 0.1 0 0 1 0.003\n", b"Tr: 0 -1 0 0 0 0 -1 -0.1 1 0 0 -0.3\n"


@dataclass(frozen=True)
class Target:
    """A healthy file and what reads it."""

    name: str
    path: Path
    read: Callable[[], object]


def targets(root: Path) -> list[Target]:
    """Write a small healthy root with a file of every kind, and say how each is read."""
    kitti = [*_voxel_targets(root / "kitti"), *_kitti_360_targets(root / "360"), *_plain_targets(root / "plain")]
    return [*kitti, *_carla_targets(root / "carla"), *_occ3d_targets(root / "occ3d"), *_craft_targets(root / "craft")]


def _carla_targets(root: Path) -> list[Target]:
    labels = np.random.default_rng(0).integers(0, 11, (8, 8, 4), dtype=np.uint8)
    scene = Scene(labels, VoxelGrid((8, 8, 4), 0.4, (0.0, 0.0, 0.0)), load_taxonomy("carla_sc"))
    carla_sc.write_carla_frame(root, "train", "Town01_Light", "000000", scene)
    carla_sc.write_carla_params(root, "train", "Town01_Light", (8, 8, 4), ((0.0, 0.0, 0.0), (3.2, 3.2, 1.6)))
    folder = root / "Train/Town01_Light/cartesian/evaluation"

    def frame() -> object:
        return carla_sc.open_carla_sc(root).scene("Town01_Light", "000000")

    fine = Scene(
        labels.repeat(2, 0).repeat(2, 1).repeat(2, 2), VoxelGrid((16, 16, 8), 0.2, (0.0, 0.0, 0.0)), scene.taxonomy
    )
    carla_sc.write_carla_fine_frame(root, "train", "Town01_Light", "000000", fine)

    def fine_frame() -> object:
        return carla_sc.open_carla_sc(root, "evaluation_fine").scene("Town01_Light", "000000")

    return [
        *(Target(f"carla.{n}", folder / n, frame) for n in ("000000.label", "000000.bin", "params.json")),
        Target("carla.fine.label", folder.parent / "evaluation_fine/000000.label", fine_frame),
    ]


def _occ3d_targets(root: Path) -> list[Target]:
    shape = occ3d.OCC3D_GRID.shape
    semantics = np.full(shape, 17, np.uint8)
    semantics[:, :, 0] = 11
    masks = np.ones(shape, np.uint8)
    occ3d.write_occ3d_frame(root, "scene-0001", "aa", occ3d.Occ3dFrame(semantics, masks, masks))
    occ3d.write_occ3d_annotations(root, {"train": ("scene-0001",)}, {"scene-0001": {"aa": {"gt_path": "x"}}})

    def frame() -> object:
        return occ3d.open_occ3d(root).scene("scene-0001", "aa")

    names = ("gts/scene-0001/aa/labels.npz", "annotations.json")
    return [Target(f"occ3d.{name.split('/')[-1]}", root / name, frame) for name in names]


def _craft_targets(root: Path) -> list[Target]:
    steps = [craft3d.Action(t, "a", (t % 3, t % 2, t % 5), 1 + t, 0, t % 4 > 0) for t in range(12)]
    craft3d.write_house(root, craft3d.replay(steps, "one"), steps)
    craft3d.write_splits(root, {"train": ("one",)})

    def built() -> object:
        return craft3d.replay(craft3d.read_placed(root / "houses/one/placed.json"), "one").scene()

    craft3d.write_schematic(root / "bare/two.npy", craft3d.replay(steps, "two"))

    def bare() -> object:
        return craft3d.open_craft3d(root / "bare").house("two").scene()

    return [
        Target("craft.bare", root / "bare/two.npy", bare),
        Target(
            "craft.schematic",
            root / "houses/one/schematic.npy",
            lambda: craft3d.open_craft3d(root).house("one").scene(),
        ),
        Target("craft.placed", root / "houses/one/placed.json", built),
        Target("craft.splits", root / "splits.json", lambda: craft3d.open_craft3d(root)),
    ]


def _voxel_targets(root: Path) -> list[Target]:
    taxonomy = load_taxonomy("semantic_kitti")
    labels = np.random.default_rng(0).integers(0, 20, GRID.shape, dtype=np.uint8)
    write_layout(root, GRID, {"train": ["00"]})
    masks = {"invalid": labels > 17, "occluded": labels > 9, "scan": labels > 3}
    write_frame(root, Frame("00", "000000", GRID, taxonomy, labels=labels, **masks))
    dataset_statistics(open_root(root))
    folder = root / "sequences/00/voxels"

    def frame() -> object:
        return read_frame(open_root(root), "00", "000000")

    names = ("label", "invalid", "occluded", "bin")
    return [
        *(Target(f"voxels.{name}", folder / f"000000.{name}", frame) for name in names),
        Target("grid.json", root / "grid.json", frame),
        Target("splits.json", root / "splits.json", lambda: open_root(root)),
        Target("statistics.json", root / "statistics.json", lambda: read_statistics(root / "statistics.json")),
    ]


def _kitti_360_targets(root: Path) -> list[Target]:
    drive, taxonomy = kitti_360.drive_name(6), load_taxonomy("kitti_360")
    labels = np.random.default_rng(0).integers(0, 19, GRID.shape, dtype=np.uint8)
    kitti_360.write_layout(root, GRID)
    kitti_360.write_frame(root, Frame(drive, "000000", GRID, taxonomy, labels=labels, scan=labels > 3))
    pose = np.array([[0, 0, 1, 0.8], [-1, 0, 0, 0.3], [0, -1, 0, -0.2], [0, 0, 0, 1.0]])
    projection = np.array([[552.5, 0, 682, 0], [0, 552.5, 239, 0], [0, 0, 1, 0]])
    kitti_360.write_calibration(root, kitti_360.Calibration360(projection, np.eye(4), pose))
    folder = root / "data_2d_raw" / drive / "voxels"

    def frame() -> object:
        return kitti_360.read_frame(kitti_360.open_root(root), drive, "000000")

    def calibration() -> object:
        return kitti_360.read_calibration(root).camera((1408, 376))

    return [
        *(Target(f"360.{name}", folder / f"000000.{name}", frame) for name in ("label", "invalid", "bin")),
        *(
            Target(f"360.{n}", root / "calibration" / n, calibration)
            for n in ("perspective.txt", "calib_cam_to_velo.txt")
        ),
    ]


def _plain_targets(root: Path) -> list[Target]:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    object_form = P2 + b"R0_rect: 1 0 0 0 1 0 0 0 1\n" + TR.replace(b"Tr", b"Tr_velo_to_cam")
    manifest = Manifest(recipe={"a": 1}, recipe_digest="0", build_seed=1, samples=(), files=())
    taxonomy = load_taxonomy("semantic_kitti")
    contents: dict[str, tuple[bytes, Callable[[Path], object]]] = {
        "scan.bin": (rng.normal(size=(50, 4)).astype("<f4").tobytes(), read_points),
        "scan.label": (
            np.full(50, 10 | 3 << 16, "<u4").tobytes(),
            lambda path: read_point_labels(path, taxonomy, 50),
        ),
        "calib.txt": (P2 + TR, lambda path: read_calibration(path).camera((10, 6))),
        "object.txt": (object_form, lambda path: read_calibration(path).camera((10, 6))),
        "poses.txt": (b"1 0 0 0.5 0 1 0 0 0 0 1 0\n" * 5, read_poses),
        "times.txt": (b"0.0\n1.041284e-01\n", read_times),
        "image.png": (_encoded(picture, "PNG"), read_image),
        "image.jpg": (_encoded(picture, "JPEG"), read_image),
        "depth.png": (_encoded(picture[..., 0].astype(np.uint16) * 99, "PNG"), read_depth),
        "labels.png": (_encoded(picture[..., 0], "PNG"), read_label_image),
        MANIFEST_NAME: (
            json.dumps(manifest.model_dump(mode="json")).encode(),
            lambda path: read_manifest(path.parent),
        ),
    }
    root.mkdir(parents=True)
    found = []
    for name, (content, read) in contents.items():
        (root / name).write_bytes(content)
        found.append(Target(name, root / name, lambda path=root / name, read=read: read(path)))
    return found


def _encoded(picture: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()
