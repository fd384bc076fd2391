"""The structure check: scores by plain loops, thresholds of photographs, verdicts, redraws, and rates."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.images.config import FidelityConfig
from pipeline.images.critic import Prediction
from pipeline.images.fidelity import (
    Agreement,
    Attempt,
    Thresholds,
    Verdict,
    accept,
    agreement,
    agreements,
    checker,
    draw_until_accepted,
    read_thresholds,
    reject_rates,
    scale_invariant_error,
    summed,
    thresholds,
    write_thresholds,
)
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import rng
from tests.images.toy_photographs import BUILDING, CAR, KITTI, ROAD, ToyPhotographs

CONFIG = FidelityConfig(min_photographs=3)
BOUNDS = Thresholds(miou=0.5, recall={"car": 0.6}, depth_error=0.3, quantile=0.05, photographs=10, passed=9)


class Painter:
    """A critic that reads the class off the colour (100 + class id in red), right by construction; depth by green."""

    classes = KITTI.classes

    def predict(self, image):
        labels = np.where(image[..., 0] >= 100, image[..., 0] - 100, 0).astype(np.uint8)
        return Prediction(labels, np.log(np.maximum(image[..., 1], 1) / 10).astype(np.float32))


def painted(labels, depth):
    image = np.zeros((*labels.shape, 3), np.uint8)
    image[..., 0], image[..., 1] = 100 + labels, np.round(depth * 10)
    return image


def condition():
    """Road below; a car of 4 x 4 px; one pixel each of a pole and of nothing known."""
    labels, depth = np.zeros((16, 32), np.uint8), np.zeros((16, 32), np.float32)
    labels[8:], depth[8:] = ROAD, 10
    labels[6:10, 4:8], depth[6:10, 4:8] = CAR, 8
    labels[0, 0], depth[0, 0] = KITTI.id_of("pole"), 5
    labels[0, 1], depth[0, 1] = 255, 5
    return labels, depth


def random_case(seed):
    draw = np.random.default_rng(seed)
    labels = draw.choice([0, CAR, ROAD, BUILDING, 255], (9, 11)).astype(np.uint8)
    found = np.where(draw.random((9, 11)) < 0.6, np.minimum(labels, 19), draw.integers(0, 20, (9, 11))).astype(np.uint8)
    depth = np.where(labels > 0, draw.uniform(1, 60, (9, 11)), 0).astype(np.float32)
    return labels, depth, Prediction(found, draw.normal(2, 1, (9, 11)).astype(np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_scores_by_plain_loops(seed):
    labels, depth, found = random_case(seed)
    scores = agreement(labels, depth, found, KITTI, FidelityConfig(min_share=0))
    pairs = [(int(t), int(p)) for t, p in zip(labels.ravel(), found.labels.ravel(), strict=True) if t != 255]
    ious = {}
    for k in sorted({t for t, _ in pairs} - {0}):
        both = sum(t == k and p == k for t, p in pairs)
        ious[k] = both / sum(t == k or p == k for t, p in pairs)
    assert scores.in_view == tuple(KITTI.classes[k] for k in ious)
    assert scores.miou == pytest.approx(sum(ious.values()) / len(ious))
    cars = [p == CAR for t, p in pairs if t == CAR]
    assert scores.recall == {"car": pytest.approx(sum(cars) / len(cars))}


@pytest.mark.parametrize("seed", range(5))
def test_depth_error_by_plain_loops(seed):
    """Eigen's eq. 2: 1 / (2 n^2) times the sum over all pairs of ((y_i - y_j) - (y*_i - y*_j))^2, in logs."""
    _, depth, found = random_case(seed)
    y = [float(v) for v, z in zip(found.log_depth.ravel(), depth.ravel(), strict=True) if z > 0]
    truth = [float(np.log(float(z))) for z in depth.ravel() if z > 0]
    total = sum(((y[i] - y[j]) - (truth[i] - truth[j])) ** 2 for i in range(len(y)) for j in range(len(y)))
    assert scale_invariant_error(found.log_depth, depth) ** 2 == pytest.approx(total / (2 * len(y) ** 2))


def test_depth_error_knows_no_scale():
    depth = np.random.default_rng(0).uniform(1, 50, (5, 6))
    assert scale_invariant_error(np.log(3 * depth), depth) == pytest.approx(0, abs=1e-9)
    assert scale_invariant_error(2 * np.log(depth), depth) > 0.1


def test_right_image_scores_one():
    labels, depth = condition()
    scores = agreement(labels, depth, Painter().predict(painted(np.minimum(labels, 20), depth)), KITTI, CONFIG)
    assert scores.in_view == ("car", "road")  # the pole is a pixel: too small to count
    assert (scores.miou, dict(scores.recall)) == (1, {"car": 1})
    assert scores.depth_error == pytest.approx(0, abs=1e-6)


def test_what_is_painted_into_the_sky_costs():
    labels, depth = condition()
    more = labels.copy()
    more[1:6, 10:30] = CAR
    scores = agreement(labels, depth, Painter().predict(painted(np.minimum(more, 20), depth)), KITTI, CONFIG)
    assert scores.recall["car"] == 1
    assert scores.miou == pytest.approx((16 / 116 + 1) / 2)


def test_empty_condition():
    blank = np.zeros((4, 4), np.uint8)
    found = Prediction(blank, np.zeros((4, 4), np.float32))
    scores = agreement(blank, np.zeros((4, 4), np.float32), found, KITTI, CONFIG)
    assert (scores.miou, scores.recall, scores.depth_error, scores.in_view) == (None, {}, None, ())
    assert accept(scores, BOUNDS).accepted  # nothing to keep


def test_sizes_must_agree():
    labels, depth = condition()
    with pytest.raises(InputError, match="a prediction of the condition's size"):
        agreement(labels, depth, Painter().predict(np.zeros((8, 8, 3), np.uint8)), KITTI, CONFIG)


def test_summed_counts_pixels():
    cases = [random_case(seed) for seed in range(3)]
    found = [agreement(*case, KITTI, CONFIG) for case in cases]
    joined = agreement(
        *(np.concatenate([case[k] for case in cases]) for k in (0, 1)),
        Prediction(*(np.concatenate([case[2][k] for case in cases]) for k in (0, 1))),
        KITTI,
        FidelityConfig(min_share=0),
    )
    total = summed(found, KITTI)
    assert total.miou == pytest.approx(joined.miou)
    assert total.recall == joined.recall
    assert total.depth_error == pytest.approx(np.mean([one.depth_error for one in found]))


def scored(miou, car=None, error=0.1):
    return Agreement(
        miou, {} if car is None else {"car": car}, error, ("road", *(["car"] if car else [])), np.zeros((2, 2))
    )


def test_thresholds_are_quantiles():
    photographs = [scored(k / 100, car=k / 200, error=k / 1000) for k in range(101)]
    found = thresholds(photographs, FidelityConfig(quantile=0.1))
    assert found.miou == pytest.approx(0.10)
    assert found.recall == {"car": pytest.approx(0.05)}
    assert found.depth_error == pytest.approx(0.09)
    assert (found.photographs, found.passed) == (101, 81)  # the lowest ten and the ten of largest error fail
    slack = thresholds(photographs, FidelityConfig(quantile=0.1, slack=0.5))
    assert (slack.miou, slack.recall["car"], slack.depth_error) == pytest.approx((0.05, 0.025, 0.18))


def test_rare_classes_have_no_threshold():
    photographs = [scored(0.8)] * 8 + [scored(0.8, car=0.9)] * 2
    found = thresholds(photographs, CONFIG)
    assert found.recall == {}
    assert found.passed == 10
    with pytest.raises(InputError, match="3 held-out photographs that show something, found 2"):
        thresholds(photographs[:2], CONFIG)


def test_thresholds_come_back_from_disk(tmp_path):
    write_thresholds(BOUNDS, tmp_path / "t.json")
    assert read_thresholds(tmp_path / "t.json") == BOUNDS
    (tmp_path / "bad.json").write_text('{"miou": "high"}')
    for name in ("none.json", "bad.json"):
        with pytest.raises(InputError, match="a critic's thresholds"):
            read_thresholds(tmp_path / name)


@pytest.mark.parametrize(
    ("scores", "reason", "blamed"),
    [
        (scored(0.5, 0.6, 0.3), "", ()),
        (scored(0.4), "mIoU 0.40 below 0.50", ()),
        (scored(0.7, 0.5), "recall of car 0.50 below 0.60", ("car",)),
        (scored(0.7, error=0.4), "depth error 0.40 above 0.30", ()),
        (
            scored(0.1, 0.2, 0.9),
            "mIoU 0.10 below 0.50; recall of car 0.20 below 0.60; depth error 0.90 above 0.30",
            ("car",),
        ),
        (scored(0.7), "", ()),  # no car in view: no recall to keep
    ],
)
def test_verdicts(scores, reason, blamed):
    assert accept(scores, BOUNDS) == Verdict(not reason, reason, blamed)


def noise_drawer(right_at):
    """Draws noise from the seed tree until attempt `right_at`, which shows the condition; and what was asked for."""
    labels, depth = condition()
    asked = []

    def draw(attempt):
        asked.append(attempt)
        right = painted(np.minimum(labels, 20), depth)
        noise = rng(7, "image noise", 3, attempt).integers(0, 255, right.shape).astype(np.uint8) % 119
        return right if attempt == right_at else noise

    return draw, checker(Painter(), labels, depth, KITTI, CONFIG, BOUNDS), asked


def test_redraws_until_accepted():
    draw, check, asked = noise_drawer(right_at=2)
    (drawn,) = draw_until_accepted(lambda numbers, attempt: [draw(attempt)], [check], retries=5)
    assert asked == [0, 1, 2]
    assert [attempt.verdict.accepted for attempt in drawn.attempts] == [False, False, True]
    assert drawn.attempts[-1].scores.miou == 1
    np.testing.assert_array_equal(drawn.image, draw(2))
    figures = json.loads(json.dumps(drawn.figures()))
    assert (figures["accepted"], figures["attempts"], figures["miou"]) == (True, 3, 1)
    assert all("mIoU" in reason for reason in figures["rejected"])


@pytest.mark.parametrize("retries", [0, 2])
def test_drops_after_the_last_retry(retries):
    draw, check, asked = noise_drawer(right_at=retries + 1)
    (drawn,) = draw_until_accepted(lambda numbers, attempt: [draw(attempt)], [check], retries)
    assert drawn.dropped
    np.testing.assert_array_equal(drawn.image, draw(retries))
    asked.pop()
    assert asked == list(range(retries + 1))


def test_only_rejected_samples_are_drawn_anew():
    late, check, _ = noise_drawer(right_at=2)
    once, _, _ = noise_drawer(right_at=0)
    asked = []

    def draw(numbers, attempt):
        asked.append((list(numbers), attempt))
        return [(late, once)[number](attempt) for number in numbers]

    drawn = draw_until_accepted(draw, [check, check], retries=3)
    assert asked == [([0, 1], 0), ([0], 1), ([0], 2)]
    assert [len(one.attempts) for one in drawn] == [3, 1]
    assert not any(one.dropped for one in drawn)


def test_reject_rates():
    good = Attempt(scored(0.9, 0.9), Verdict(True)).outcome
    no_car = Attempt(scored(0.9, 0.1), Verdict(False, "recall", ("car",))).outcome
    shallow = Attempt(replace(scored(0.9), in_view=("road",)), Verdict(False, "depth")).outcome
    rates = reject_rates([no_car, good, shallow, no_car, good])
    counts = {name: (rate.attempts, rate.rejected, rate.blamed) for name, rate in rates.items()}
    assert counts == {"": (5, 3, 0), "road": (5, 3, 0), "car": (4, 2, 2)}


def test_agreements_over_pairs():
    pairs = ToyPhotographs(3)
    found = agreements(
        Painter(),
        [dict(pair, image=painted(pair["labels"], pair["depth"])) for pair in map(pairs.__getitem__, range(3))],
        KITTI,
        CONFIG,
    )
    assert [scores.miou for scores in found] == [1, 1, 1]

    class Other(Painter):
        classes = ("empty", "car")

    with pytest.raises(InputError, match="critic: expected the views' classes"):
        agreements(Other(), pairs, KITTI, CONFIG)
    with pytest.raises(InputError, match="at least one image"):
        summed([], KITTI)
