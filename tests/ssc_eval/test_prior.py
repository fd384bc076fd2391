"""The constant prior: hand-worked voxels, ties and voxels without a vote, equal scores to a network that says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.scene.errors import InputError
from ssc_eval.metrics import ALL, IN_VIEW, OUT_OF_VIEW, tally_frame
from ssc_eval.monoscene import MonoSceneConfig
from ssc_eval.prior import constant_prior, prior_of, tally_prior
from ssc_eval.samples import SampleConfig, Source, SscDataset
from tests.ssc_eval.toy_root import write_toy_root


def columns(*frames: list[int]) -> list[np.ndarray]:
    return [np.array(frame, np.uint8).reshape(1, 1, -1) for frame in frames]


def test_each_voxel_takes_its_most_frequent_class_and_ignored_labels_have_no_vote() -> None:
    frames = columns([0, 2, 255, 1, 255], [0, 2, 255, 2, 3], [1, 1, 3, 255, 255])
    assert constant_prior(frames, 4).ravel().tolist() == [0, 2, 3, 1, 3]  # the fourth is a tie of 1 and 2


def test_a_voxel_that_no_frame_scores_is_empty() -> None:
    assert constant_prior(columns([255, 2]), 3).ravel().tolist() == [0, 2]


def test_it_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 5, (7, 3, 4, 5), dtype=np.uint8)
    frames[rng.random(frames.shape) < 0.3] = 255
    expected = np.zeros((3, 4, 5), np.uint8)
    for voxel in np.ndindex(3, 4, 5):
        votes = [int(frame[voxel]) for frame in frames if frame[voxel] != 255]
        expected[voxel] = min(set(votes), key=lambda c: (-votes.count(c), c)) if votes else 0
    np.testing.assert_array_equal(constant_prior(frames, 5), expected)


def test_faults_are_one_line() -> None:
    for frames, words in [([], "none"), (columns([0], [0, 1]), "shape"), (columns([7]), "below 5")]:
        with pytest.raises(InputError, match=words):
            constant_prior(frames, 5)


def test_it_is_scored_like_a_network(tmp_path: Path) -> None:
    toy = write_toy_root(tmp_path, {"00": 5, "08": 3}, {"train": ["00"], "val": ["08"]})
    network = MonoSceneConfig(encoder="tiny", decoder=32, feature=8, depth=1, dilations=(1,))
    samples = SampleConfig(width_px=64, height_px=32)
    train, val = (SscDataset((Source(root=toy, split=s),), samples, 0, network) for s in ("train", "val"))
    prior = prior_of(train)
    tally = tally_prior(prior, val)
    targets = np.concatenate([val.labels(n) for n in range(len(val.keys))])  # along x: one frame after the other
    repeated = np.concatenate([prior] * len(val.keys))
    expected = np.zeros((20, 20), np.int64)
    np.add.at(expected, (targets[targets != 255], repeated[targets != 255]), 1)
    np.testing.assert_array_equal(tally.of(ALL), expected)
    seen = sum(tally_frame(val.labels(n), prior, val.grid, 20, val.in_view(n)).of(IN_VIEW) for n in range(3))
    np.testing.assert_array_equal(tally.of(IN_VIEW), seen)
    np.testing.assert_array_equal(tally.of(IN_VIEW) + tally.of(OUT_OF_VIEW), expected)
    assert tally.frames == 3
