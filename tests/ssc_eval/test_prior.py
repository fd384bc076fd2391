"""The constant prior: hand-worked voxels, ties and voxels without a vote, equal scores to a network that says so."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from pipeline.scene.errors import InputError
from ssc_eval.metrics import ALL, IN_VIEW, OUT_OF_VIEW, tally_frame
from ssc_eval.monoscene import MonoSceneConfig
from ssc_eval.prior import SPREAD, constant_prior, location_counts, location_logits, prior_of, tally_prior
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


def test_location_logits_are_blurred_shares_with_the_whole_volumes_as_one_more_frame() -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 3, (6, 4, 4, 4), dtype=np.uint8)
    counts = location_counts(frames, 4)
    assert counts.sum() == frames.size
    reach = np.arange(-4, 5)
    kernel = np.exp(-0.5 * (reach / SPREAD) ** 2) * (abs(reach) <= round(4 * SPREAD))
    kernel /= kernel.sum()
    at, mass = (1, 2, 3), np.zeros(4)
    for offset in itertools.product(reach, repeat=3):
        neighbour = tuple(_reflected(a + d, 4) for a, d in zip(at, offset, strict=True))
        mass += np.prod([kernel[d + 4] for d in offset]) * counts[(slice(None), *neighbour)]
    shares = counts.sum((1, 2, 3)) + 1.0
    mass += shares / shares.sum()
    found = location_logits(counts)
    np.testing.assert_allclose(found[(slice(None), *at)], np.log(mass / mass.sum()), rtol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(0), 1, rtol=1e-5)
    assert np.isfinite(found).all()  # class 3 never occurs


def _reflected(place: int, size: int) -> int:
    place %= 2 * size
    return place if place < size else 2 * size - 1 - place


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


def test_frames_count_by_their_weights() -> None:
    frames = [np.full((1, 1, 2), k, np.uint8) for k in (1, 1, 2)]
    plain, weighed = location_counts(frames, 3), location_counts(frames, 3, [0.5, 0.25, 3.0])
    assert plain[:, 0, 0, 0].tolist() == [0, 2, 1]
    assert weighed[:, 0, 0, 1].tolist() == [0, 0.75, 3.0]
    np.testing.assert_array_equal(location_logits(location_counts(frames, 3, [1.0] * 3)), location_logits(plain))
