"""Statistics: counts worked by hand, staleness, progress, damaged files."""

import json
import shutil

import numpy as np
import pytest

from pipeline.datasets.semantic_kitti import open_root, write_frame, write_layout
from pipeline.datasets.statistics import STATISTICS_NAME, class_weights, dataset_statistics
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy("semantic_kitti")
GRID = VoxelGrid((4, 2, 2), 0.4, (0.0, 0.0, 0.0))


def add(root, name: str, labels: list[int], sequence: str = "00") -> None:
    grid = np.array(labels + [0] * (16 - len(labels)), np.uint8).reshape(GRID.shape)
    write_frame(root, Frame(sequence, name, GRID, TAXONOMY, labels=grid))


@pytest.fixture
def root(tmp_path):
    write_layout(tmp_path, GRID)
    add(tmp_path, "000000", [1, 1, 9, 255, 255])
    add(tmp_path, "000005", [9, 255])
    add(tmp_path, "000000", [19] * 16, sequence="08")
    return tmp_path


def test_counts_by_hand(root) -> None:
    statistics = dataset_statistics(open_root(root))
    assert (statistics.frames, statistics.voxels, statistics.valid_voxels) == (2, 32, 29)
    assert statistics.class_voxels == (25, 2, *[0] * 7, 2, *[0] * 10)
    assert statistics.class_frames == (2, 1, *[0] * 7, 2, *[0] * 10)
    assert statistics.valid_share == 29 / 32
    assert statistics.occupied_share == 4 / 29
    np.testing.assert_allclose(statistics.frequencies[[0, 1, 9]], np.array([25, 2, 2]) / 29)
    np.testing.assert_allclose(statistics.occupied_frequencies[[0, 1, 9]], [0, 0.5, 0.5])
    np.testing.assert_allclose(statistics.frame_shares[[0, 1, 9, 19]], [1, 0.5, 1, 0])
    assert statistics.class_weights[0] == pytest.approx(1 / np.log(25.001))


def test_other_splits_lie_beside(root) -> None:
    assert dataset_statistics(open_root(root), "val").class_voxels[19] == 16
    assert sorted(p.name for p in root.glob("stat*")) == ["statistics_val.json"]
    with pytest.raises(InputError, match="frames in split test, found none"):
        dataset_statistics(open_root(root), "test")


def test_weights_of_the_published_counts() -> None:
    weights = class_weights(np.array([5.41773033e9, 125136, 1, 0]))
    np.testing.assert_allclose(weights[:2], [1 / np.log(5.41773033e9), 1 / np.log(125136.001)])
    assert (weights > 0).all()
    assert weights[2] == weights[3] == pytest.approx(1 / np.log(2.001))


def test_stored_ones_are_read_back_and_the_same_bytes(root, tmp_path_factory) -> None:
    first = dataset_statistics(open_root(root))
    content = (root / STATISTICS_NAME).read_bytes()
    steps: list[tuple[int, int]] = []
    again = dataset_statistics(open_root(root), progress=lambda done, total: steps.append((done, total)))
    assert again == first
    assert steps == [(1, 2), (2, 2)]  # hashed only
    copy = tmp_path_factory.mktemp("copy") / "x"
    shutil.copytree(root, copy)
    (copy / STATISTICS_NAME).unlink()
    steps.clear()
    dataset_statistics(open_root(copy), progress=lambda done, total: steps.append((done, total)))
    assert steps == [(n, 4) for n in (1, 2, 3, 4)]  # hashed and counted
    assert (copy / STATISTICS_NAME).read_bytes() == content


def test_a_changed_file_is_counted_anew(root) -> None:
    first = dataset_statistics(open_root(root))
    add(root, "000005", [11, 11, 11])
    assert dataset_statistics(open_root(root), thorough=False) == first  # same paths and sizes
    fresh = dataset_statistics(open_root(root))
    assert fresh.class_voxels[11] == 3
    assert json.loads((root / STATISTICS_NAME).read_text())["source_digest"] == fresh.source_digest


def test_a_new_frame_is_counted_even_in_haste(root) -> None:
    dataset_statistics(open_root(root))
    add(root, "000010", [11])
    assert dataset_statistics(open_root(root), thorough=False).frames == 3


@pytest.mark.parametrize("text", ["{}", "[1", '{"format": "occfactory-statistics-1", "frames": "x"}'])
def test_damaged_statistics(root, text: str) -> None:
    (root / STATISTICS_NAME).write_text(text)
    with pytest.raises(InputError, match=r"statistics\.json: expected occfactory statistics"):
        dataset_statistics(open_root(root))


def test_real_frame(real_kitti_root, tmp_path) -> None:
    shutil.copytree(real_kitti_root, tmp_path / "root")
    statistics = dataset_statistics(open_root(tmp_path / "root"))
    assert statistics.frames == 1
    assert statistics.voxels == 256 * 256 * 32
    assert 8000 < sum(statistics.class_voxels[1:]) < 8293
