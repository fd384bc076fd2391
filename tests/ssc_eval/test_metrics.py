"""The benchmark's scores: equal to two independent slow implementations, exact in any order and over processes."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, DEFAULT_GRID, SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.taxonomy import load_taxonomy
from ssc_eval import metrics
from tests.ssc_eval.slow_scores import loop_counts, loop_scores, official_confusion, official_scores

NAMES = load_taxonomy("semantic_kitti").classes
K = len(NAMES)
SMALL = VoxelGrid((16, 32, 4), 1.6, (0.0, -25.6, -2.0))  # reaches 25.6 m


def frame(seed: int, shape: tuple[int, ...] = SMALL.shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target with 255s, a prediction that is right on half of it, and what is in view."""
    rng = np.random.default_rng(seed)
    target = rng.choice(np.arange(K, dtype=np.uint8), shape, p=[0.5] + [0.5 / (K - 1)] * (K - 1))
    prediction = np.where(rng.random(shape) < 0.5, target, rng.integers(0, K, shape)).astype(np.uint8)
    target[rng.random(shape) < 0.3] = 255
    return target, prediction, rng.random(shape) < 0.4


def adversarial() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    target, prediction, _ = frame(9)
    blank = np.zeros_like(target)
    return {
        "random": (target, prediction),
        "all empty predicted": (target, blank),
        "nothing empty predicted": (target, blank + 3),
        "nothing scored": (blank + 255, prediction),
        "only empty": (blank, prediction),
        "perfect": (np.where(target == 255, 0, target), np.where(target == 255, 0, target)),
        "one class swapped": (blank + 5, blank + 6),
        "last class": (blank + K - 1, blank + K - 1),
    }


@pytest.mark.parametrize("case", list(adversarial()))
def test_confusion_and_scores_equal_the_official_definitions(case: str) -> None:
    target, prediction = adversarial()[case]
    tally = metrics.tally_frame(target, prediction, SMALL, K)
    assert np.array_equal(
        tally.of(metrics.ALL), official_confusion(target, prediction, K).T
    )  # theirs: (prediction, target)
    found = metrics.scores(tally, NAMES)["regions"][metrics.ALL]
    for expected in (
        official_scores(official_confusion(target, prediction, K)),
        loop_scores(loop_counts(target, prediction, K)),
    ):
        ious = list(found["classes"].values())
        assert [found["iou"], found["precision"], found["recall"], found["miou"], *ious] == pytest.approx(
            expected, abs=1e-12
        )


def test_the_class_loop_counts_what_the_official_confusion_counts() -> None:
    target, prediction, _ = frame(4)
    counts, matrix = loop_counts(target, prediction, K), official_confusion(target, prediction, K)
    hits = np.diag(matrix)
    assert np.array_equal(counts[1:], np.stack([hits, matrix.sum(1) - hits, matrix.sum(0) - hits], axis=1)[1:])


def test_scores_by_hand() -> None:
    grid = VoxelGrid((1, 1, 8), 1.0, (0.0, 0.0, 0.0))
    target = np.array([0, 0, 1, 1, 2, 2, 255, 255], np.uint8).reshape(grid.shape)
    prediction = np.array([0, 1, 1, 2, 2, 0, 1, 2], np.uint8).reshape(grid.shape)
    found = metrics.scores(metrics.tally_frame(target, prediction, grid, 4), ("empty", "a", "b", "c"))
    values = found["regions"][metrics.ALL]
    assert values["iou"] == 3 / 5
    assert values["precision"] == values["recall"] == 3 / 4
    assert values["classes"] == {"a": 1 / 3, "b": 1 / 3, "c": 0.0}
    assert values["miou"] == pytest.approx(2 / 9)
    assert values["miou_present"] == pytest.approx(1 / 3)
    assert values["present"] == ["a", "b"]
    assert values["voxels"] == 6


def test_regions_are_counted_on_their_voxels_alone() -> None:
    target, prediction, in_view = frame(1)
    tally = metrics.tally_frame(target, prediction, SMALL, K, in_view)
    assert tally.regions == ("all", "12.8 m", "25.6 m", "in view", "out of view") == metrics.regions(SMALL, True)
    x, y, _ = np.moveaxis(SMALL.centres(), -1, 0)
    inside = {
        "12.8 m": (x < 12.8) & (abs(y) < 6.4),
        "25.6 m": (x < 25.6) & (abs(y) < 12.8),
        "in view": in_view,
        "out of view": ~in_view,
    }
    for name, mask in inside.items():
        expected = official_confusion(np.where(mask, target, 255), prediction, K).T
        assert np.array_equal(tally.of(name), expected), name


def test_ranges_are_the_benchmarks() -> None:
    assert metrics.range_slices(SEMANTIC_KITTI_GRID, 12.8) == (slice(0, 64), slice(96, 160))
    assert metrics.range_slices(SEMANTIC_KITTI_GRID, 25.6) == (slice(0, 128), slice(64, 192))
    assert metrics.range_slices(SEMANTIC_KITTI_GRID, 51.2) == (slice(0, 256), slice(0, 256))
    assert metrics.range_slices(DEFAULT_GRID, 25.6) == (slice(0, 64), slice(32, 96))
    assert metrics.regions(COMPARISON_GRID, False) == ("all", "12.8 m", "25.6 m")


def test_any_split_of_the_frames_adds_up_to_the_same() -> None:
    frames = [frame(seed) for seed in range(5)]
    tallies = [metrics.tally_frame(t, p, SMALL, K, v) for t, p, v in frames]
    start = metrics.empty_tally(SMALL, K, True)
    forward, backward = sum(tallies, start), sum(reversed(tallies), start)
    halves = sum(tallies[:2], start) + sum(tallies[2:], start)
    for total in (backward, halves):
        assert np.array_equal(total.confusions, forward.confusions)
        assert total.frames == 5
    everything = official_confusion(np.stack([t for t, _, _ in frames]), np.stack([p for _, p, _ in frames]), K)
    assert np.array_equal(forward.of("all"), everything.T)
    assert start.frames == 0  # adding leaves the parts as they were
    assert not start.confusions.any()


def _one_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    group = {"init_method": f"file://{folder}/store", "rank": rank, "world_size": 2}
    torch.distributed.init_process_group("gloo", **group)
    mine = [metrics.tally_frame(*frame(seed)[:2], SMALL, K) for seed in range(rank, 3, 2)]  # two frames and one
    total = metrics.over_processes(sum(mine, metrics.empty_tally(SMALL, K, False)))
    np.savez(f"{folder}/{rank}.npz", confusions=total.confusions, frames=total.frames)
    torch.distributed.destroy_process_group()


def test_two_processes_with_unequal_shares_sum_exactly(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_one_process, args=(rank, str(tmp_path))) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    alone = sum((metrics.tally_frame(*frame(s)[:2], SMALL, K) for s in range(3)), metrics.empty_tally(SMALL, K, False))
    for rank in range(2):
        found = np.load(tmp_path / f"{rank}.npz")
        assert np.array_equal(found["confusions"], alone.confusions)
        assert found["frames"] == 3


def test_a_single_process_is_its_own_sum() -> None:
    tally = metrics.tally_frame(*frame(0)[:2], SMALL, K)
    assert metrics.over_processes(tally) is tally


def test_scores_go_into_json_and_markdown() -> None:
    target, prediction, in_view = frame(2)
    target[target == 19] = 0
    found = metrics.scores(metrics.tally_frame(target, prediction, SMALL, K, in_view), NAMES)
    assert json.loads(json.dumps(found)) == found
    text = metrics.markdown(found)
    assert "1 frames, in percent" in text
    assert f"| all | {found['regions']['all']['voxels']:,} | {100 * found['regions']['all']['iou']:.2f} |" in text
    assert f"| {NAMES[19]} | 0.00 (absent) |" in text
    assert text.count("\n| ") == 2 + 2 * 1 + 5 + 19  # headers, rules, regions, classes


def test_what_does_not_fit_is_refused_in_a_line() -> None:
    target, prediction, in_view = frame(0)
    with pytest.raises(InputError, match="prediction: expected the grid's shape"):
        metrics.tally_frame(target, prediction[1:], SMALL, K)
    with pytest.raises(InputError, match="in_view: expected"):
        metrics.tally_frame(target, prediction, SMALL, K, in_view[1:])
    with pytest.raises(InputError, match="labels below 20"):
        metrics.tally_frame(np.zeros_like(target), prediction * 0 + 255, SMALL, K)
    with pytest.raises(InputError, match="Tally"):
        metrics.tally_frame(target, prediction, SMALL, K) + metrics.tally_frame(target, prediction, SMALL, K, in_view)
    with pytest.raises(InputError, match="class names"):
        metrics.scores(metrics.empty_tally(SMALL, K, False), NAMES[1:])
