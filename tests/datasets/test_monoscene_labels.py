"""The arrays that MonoScene's loader reads, against a plain loop."""

import numpy as np
import pytest

from pipeline.datasets.monoscene_labels import downsample_majority, write_monoscene_labels
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import load_taxonomy


def plain(labels: np.ndarray, block: int) -> np.ndarray:
    out = np.zeros([n // block for n in labels.shape], np.uint8)
    for place in np.ndindex(out.shape):
        cube = labels[tuple(slice(i * block, (i + 1) * block) for i in place)].ravel().tolist()
        zeros, ignored = cube.count(0), cube.count(255)
        if zeros + ignored > 0.95 * block**3:
            out[place] = 0 if zeros > ignored else 255
        else:
            solid = [v for v in cube if v not in (0, 255)]
            out[place] = min(set(solid), key=lambda v: (-solid.count(v), v))
    return out


@pytest.mark.parametrize("share", [0.0, 0.03, 0.05, 0.06, 0.5, 1.0])
def test_equals_a_plain_loop(share: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 255], np.uint8), (32, 16, 16))
    solid = rng.random(labels.shape) < share
    labels[solid] = rng.integers(1, 20, labels.shape, dtype=np.uint8)[solid]
    np.testing.assert_array_equal(downsample_majority(labels), plain(labels, 8))


def test_ties_and_the_threshold() -> None:
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[:4] = 255
    assert downsample_majority(labels) == 255  # a tie of empty and ignored
    labels.ravel()[:25] = 7  # 25 of 512: 487 others are above 486.4
    assert downsample_majority(labels) == 0
    labels.ravel()[:26] = 7
    assert downsample_majority(labels) == 7
    labels.ravel()[:13] = 5  # 13 and 13: the lower id
    assert downsample_majority(labels) == 5


def test_files(tmp_path) -> None:
    grid = VoxelGrid((16, 8, 8), 0.4, (0.0, 0.0, 0.0))
    labels = np.random.default_rng(0).integers(0, 20, grid.shape, dtype=np.uint8)
    frame = Frame("08", "000005", grid, load_taxonomy("semantic_kitti"), labels=labels)
    assert write_monoscene_labels(tmp_path, frame) == ["labels/08/000005_1_1.npy", "labels/08/000005_1_8.npy"]
    full, coarse = (np.load(tmp_path / f"labels/08/000005_{scale}.npy") for scale in ("1_1", "1_8"))
    np.testing.assert_array_equal(full, labels)
    assert (full.dtype, coarse.dtype, coarse.shape) == (np.uint8, np.uint8, (2, 1, 1))
    with pytest.raises(InputError, match="divisible by 8"):
        downsample_majority(labels[:15])
