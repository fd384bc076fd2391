"""Refinement: trusted voxels stay, scores before and after are those of a hand-made case."""

import numpy as np
import pytest

from pipeline.generators.refine import gain, refine, trusted_voxels
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy
from tests.generators.toy_generator import ToyGenerator

GRID = VoxelGrid((2, 2, 2), 0.5, (0.0, 0.0, 0.0))


def scene(*labels: int) -> Scene:
    return Scene(np.array(labels, np.uint8).reshape(2, 2, 2), GRID, load_taxonomy("semantic_kitti"), {"frame": "f"})


PREDICTION = scene(1, 1, 9, 9, 255, 0, 13, 0)


def test_the_generator_rebuilds_and_trusted_voxels_stay() -> None:
    (free,) = refine(ToyGenerator(), [PREDICTION], [3])
    assert free.labels.ravel().tolist() == [0, 0, 9, 9, 0, 0, 13, 0]
    assert free.provenance == {"frame": "f", "refined": {"seed": 3}}
    confidence = np.array([0.9, 0.2, 0.1, 0.1, 0.99, 0.5, 0.5, 0.5]).reshape(2, 2, 2)
    trusted = trusted_voxels(PREDICTION, confidence, 0.8)
    assert trusted.ravel().tolist() == [True] + 7 * [False]  # 255 can't be trusted
    (kept,) = refine(ToyGenerator(), [PREDICTION], [3], [trusted])
    assert kept.labels.ravel().tolist() == [1, 0, 9, 9, 0, 0, 13, 0]


def test_gain_by_hand() -> None:
    truth = scene(0, 1, 9, 9, 9, 255, 255, 0)
    report = gain([PREDICTION], [scene(0, 1, 9, 9, 9, 0, 0, 0)], [truth])
    # before: truth occupied 1 9 9 9 of six valid; hit 3, missed 1 (255 counts as empty), invented 1
    assert report.before.iou == pytest.approx(3 / 5)
    assert report.before.miou == pytest.approx((1 / 2 + 2 / 3) / 19)
    assert report.after.iou == 1
    assert report.after.miou == pytest.approx(2 / 19)
    assert report.frames == 1
    assert report.lines()[1] == "mIoU        6.14 % ->  10.53 %"


def test_faults() -> None:
    with pytest.raises(InputError, match="1 seeds, and as many masks"):
        refine(ToyGenerator(), [PREDICTION], [1, 2])
    with pytest.raises(InputError, match="refine"):
        refine(ToyGenerator(), [PREDICTION], [1], [np.ones((1, 2, 2), bool)])
    with pytest.raises(InputError, match=r"a threshold in 0\.\.1"):
        trusted_voxels(PREDICTION, np.zeros((2, 2, 2)), 1.5)
    with pytest.raises(InputError, match="gain"):
        gain([PREDICTION], [], [PREDICTION])
