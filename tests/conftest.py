"""Shared real data, where it lies beside the checkout, and a SemanticKITTI root assembled from it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared real data; skips visibly where there is none (OCCFACTORY_SHARED, else ../shared)."""
    shared = Path(os.environ.get("OCCFACTORY_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (shared / "data").is_dir():
        pytest.skip(f"no shared data at {shared}; set OCCFACTORY_SHARED")
    return shared / "data"


@pytest.fixture(scope="session")
def real_kitti_root(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real calibration of all 22 sequences, real poses of 04, and in 07 the real labelled scan 000964.

    Its voxels are binned here by plain numpy: .bin all points, .label the single scan's majority (raw 0 and 1 joined),
    .invalid none. The image is a real one, but of another drive with nearly the same camera. Sequence 11 has a .bin
    only, as test sequences do. The copy is shared by the session: don't write into it.
    """
    kitti, root = shared_data / "kitti", tmp_path_factory.mktemp("kitti")
    shutil.copytree(kitti / "odometry" / "sequences", root / "sequences")
    folder = root / "sequences" / "07"
    for kind, name in (("velodyne", "000964.bin"), ("labels", "000964.label")):
        (folder / kind).mkdir()
        shutil.copy(kitti / "semantickitti_points" / name, folder / kind)
    (folder / "image_2").mkdir()
    shutil.copy(kitti / "object" / "image_2" / "000000.png", folder / "image_2" / "000964.png")
    scan, label = _binned(folder / "velodyne" / "000964.bin", folder / "labels" / "000964.label")
    (folder / "voxels").mkdir()
    np.packbits(scan).tofile(folder / "voxels" / "000964.bin")
    label.tofile(folder / "voxels" / "000964.label")
    np.zeros(scan.size // 8, np.uint8).tofile(folder / "voxels" / "000964.invalid")
    (root / "sequences" / "11" / "voxels").mkdir()
    np.packbits(scan).tofile(root / "sequences" / "11" / "voxels" / "000000.bin")
    return root


def _binned(points_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    points = np.fromfile(points_path, "<f4").reshape(-1, 4)[:, :3].astype(float)
    raw = np.fromfile(labels_path, "<u4") & 0xFFFF
    index = np.floor((points - [0.0, -25.6, -2.0]) / 0.2).astype(int)
    inside = ((index >= 0) & (index < [256, 256, 32])).all(axis=1)
    flat = index[inside] @ [8192, 32, 1]
    voxel, position = np.unique(flat, return_inverse=True)
    counts = np.zeros((len(voxel), 300), int)
    np.add.at(counts, (position, np.where(raw[inside] == 1, 0, raw[inside])), 1)
    scan, label = np.zeros(256 * 256 * 32, bool), np.zeros(256 * 256 * 32, "<u2")
    scan[voxel], label[voxel] = True, counts.argmax(axis=1)
    return scan, label
