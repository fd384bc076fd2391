"""What one image can tell: bounds on a toy root whose surfaces are known, and their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.scene.errors import InputError
from ssc_eval.bounds import bounds, seen
from ssc_eval.metrics import ALL, IN_VIEW, region_scores
from ssc_eval.prior import prior_of
from ssc_eval.samples import SampleConfig, Source, SscDataset
from tests.ssc_eval.test_training import NETWORK
from tests.ssc_eval.toy_root import SIZE, write_toy_root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": ["00"], "val": ["08"], "test": ["11"]}
    return write_toy_root(tmp_path_factory.mktemp("toy"), {"00": 6, "08": 3, "11": 1}, splits)


def dataset(root: Path, split: str) -> SscDataset:
    config = SampleConfig(width_px=SIZE[0], height_px=SIZE[1])
    return SscDataset((Source(root=root, split=split),), config, 0, NETWORK)


def test_what_lies_before_the_surface_is_seen_and_what_lies_behind_is_not() -> None:
    labels = np.array([0, 0, 13, 13, 0, 0, 0, 255], np.uint8).reshape(8, 1, 1)
    lines = np.array([[-1, 4], [0, 4], [0, 5], [1, 6], [2, 7], [2, 7], [3, -1], [3, -1]], np.int32)[
        :, None
    ]  # two lines
    assert seen(labels, lines, 0).ravel().tolist() == [True, True, True, False, True, True, True, True]
    assert seen(labels, lines, 2).ravel().tolist() == [True, True, True, True, True, True, True, True]
    alone = lines[:, :, :1]  # the first of the two lines
    assert seen(labels, alone, 0).ravel().tolist() == [True, True, True, False, False, False, False, False]
    assert seen(labels, alone, 1).ravel().tolist() == seen(labels, alone, 0).ravel().tolist()  # still the same voxel
    assert seen(np.zeros_like(labels), lines, 0).all()


def test_more_known_scores_higher_and_all_in_view_is_perfect_there(root: Path) -> None:
    val = dataset(root, "val")
    found = bounds(prior_of(dataset(root, "train")), val)
    scores = [region_scores(tally.of(ALL), val.taxonomy.classes)["iou"] for tally in found[:4]]
    assert scores == sorted(scores)
    assert scores[0] < scores[1] < scores[3]
    assert region_scores(found.view.of(IN_VIEW), val.taxonomy.classes)["iou"] == 1.0
    assert all(tally.frames == 3 for tally in found[:4])
    assert sum(found[4:]) == pytest.approx(1.0)
    assert min(found[4:]) > 0


def test_a_command_prints_the_table(root: Path) -> None:
    from flows.ssc_bounds import bounds_of

    told: list[tuple[int, int]] = []
    with pytest.raises(InputError):
        bounds_of(root / "nothing", "val", None, lambda *at: told.append(at))
    text = bounds_of(root, "val", 2, lambda *at: told.append(at))
    assert "2 frames" in text
    assert told == [(1, 2), (2, 2)]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")][2:]
    assert np.diff([float(row[2]) for row in rows]).min() >= 0
