"""Does an image show what its voxels say? A critic's prediction against the rendered condition; accept, redraw, drop.

    miou            over classes in view (nothing, 0, aside; labels of 255 left out), pixels counted over the image
    recall          share of a foreground class's pixels that the critic finds
    depth_error     sqrt(mean d^2 - (mean d)^2),  d = predicted - rendered log depth where something is hit: Eigen's
                    scale-invariant error (Depth map prediction from a single image, 2014, eq. 1 to 3), its root

The critic errs on photographs, too, so thresholds are quantiles of its agreement with held-out photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8
from pydantic import TypeAdapter, ValidationError

from pipeline.images.config import FidelityConfig
from pipeline.images.critic import Judge, Prediction, check_classes
from pipeline.learning.order import Indexed
from pipeline.scene.confusion import class_ious, confusion
from pipeline.scene.errors import InputError
from pipeline.scene.files import write_json
from pipeline.scene.taxonomy import Taxonomy

Image = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, eq=False)
class Agreement:
    """One image's, or `summed` ones'. recall: by foreground class in view; in_view: names of classes that count.

    miou is None where no class counts, depth_error where nothing is hit. matrix: pixels by (condition, critic).
    """

    miou: float | None
    recall: Mapping[str, float]
    depth_error: float | None
    in_view: tuple[str, ...]
    matrix: Int64[np.ndarray, "k k"]

    def figures(self) -> dict[str, Any]:
        """For a manifest, in JSON values."""
        return {"miou": self.miou, "recall": dict(self.recall), "depth_error": self.depth_error}


@dataclass(frozen=True)
class Thresholds:
    """Bounds: at least miou, at least recall (by class), at most depth_error.

    photographs, passed: how many they come from, and how many of these would be accepted.
    """

    miou: float
    recall: Mapping[str, float]
    depth_error: float
    quantile: float
    photographs: int
    passed: int


@dataclass(frozen=True)
class Verdict:
    """reason: "" if accepted; blamed: names of the classes whose recall is too low."""

    accepted: bool
    reason: str = ""
    blamed: tuple[str, ...] = ()


def agreement(
    labels: UInt8[np.ndarray, "h w"],
    depth: Float32[np.ndarray, "h w"],
    found: Prediction,
    taxonomy: Taxonomy,
    config: FidelityConfig,
) -> Agreement:
    """A prediction against the condition's labels and depth [m] (0 = no hit). Raises InputError."""
    if not labels.shape == depth.shape == found.labels.shape == found.log_depth.shape:
        what = f"a prediction of the condition's size {labels.shape}"
        raise InputError("structure check", what, f"{found.labels.shape}")
    matrix = confusion(labels, found.labels, len(taxonomy.classes))
    error = scale_invariant_error(found.log_depth, depth) if (depth > 0).any() else None
    return _agreement(matrix, error, taxonomy, config.min_share * labels.size)


def _agreement(matrix: Int64[np.ndarray, "k k"], error: float | None, taxonomy: Taxonomy, pixels: float) -> Agreement:
    """Scores of classes with at least so many pixels."""
    counts = matrix.sum(1)
    counted = [k for k in range(1, len(counts)) if counts[k] and counts[k] >= pixels]
    names = tuple(taxonomy.classes[k] for k in counted)
    recall = {taxonomy.classes[k]: float(matrix[k, k] / counts[k]) for k in counted if k in taxonomy.foreground}
    miou = float(class_ious(matrix)[counted].mean()) if counted else None
    return Agreement(miou, recall, error, names, matrix)


def summed(found: Sequence[Agreement], taxonomy: Taxonomy) -> Agreement:
    """All images' pixels in one count, every class that occurs; depth_error: the mean. Raises InputError on none."""
    if not found:
        raise InputError("structure check", "at least one image", "none")
    errors = [one.depth_error for one in found if one.depth_error is not None]
    matrix = np.sum([one.matrix for one in found], axis=0)
    return _agreement(matrix, float(np.mean(errors)) if errors else None, taxonomy, 1)


def scale_invariant_error(log_depth: Float[np.ndarray, "h w"], depth: Float[np.ndarray, "h w"]) -> float:
    """Eigen's error of predicted log depth, where depth > 0 [m]; 0 if all is right but for one factor."""
    hit = depth > 0
    return float(np.std(log_depth[hit].astype(np.float64) - np.log(depth[hit].astype(np.float64))))


def agreements(critic: Judge, pairs: Indexed, taxonomy: Taxonomy, config: FidelityConfig) -> list[Agreement]:
    """The critic on every pair {"image", "labels", "depth"}, as in critic_training. Raises InputError."""
    check_classes(critic, taxonomy.classes)
    return [
        agreement(pair["labels"], pair["depth"], critic.predict(pair["image"]), taxonomy, config)
        for pair in (pairs[index] for index in range(len(pairs)))
    ]


def thresholds(photographs: Sequence[Agreement], config: FidelityConfig) -> Thresholds:
    """Quantiles of agreement with held-out photographs. Raises InputError: too few.

    A foreground class that too few of them show has no bound of its own; it still counts in mIoU.
    """
    mious = [one.miou for one in photographs if one.miou is not None]
    errors = [one.depth_error for one in photographs if one.depth_error is not None]
    if min(len(mious), len(errors)) < config.min_photographs:
        what = f"{config.min_photographs} held-out photographs that show something"
        raise InputError("thresholds", what, str(min(len(mious), len(errors))), "give more, or lower min_photographs")
    recalls: dict[str, list[float]] = {}
    for one in photographs:
        for name, value in one.recall.items():
            recalls.setdefault(name, []).append(value)
    strict = Thresholds(
        miou=float(np.quantile(mious, config.quantile)),
        recall={
            name: float(np.quantile(values, config.quantile))
            for name, values in sorted(recalls.items())
            if len(values) >= config.min_photographs
        },
        depth_error=float(np.quantile(errors, 1 - config.quantile)),
        quantile=config.quantile,
        photographs=len(photographs),
        passed=0,
    )
    found = loosened(strict, config.slack)
    return replace(found, passed=sum(accept(one, found).accepted for one in photographs))


def loosened(bounds: Thresholds, slack: float) -> Thresholds:
    """Bounds that may be missed by this part: shares and recalls lower, the error higher. slack: 0 to below 1."""
    keep = 1 - slack
    recall = {name: keep * bound for name, bound in bounds.recall.items()}
    return replace(bounds, miou=keep * bounds.miou, recall=recall, depth_error=bounds.depth_error / keep)


def write_thresholds(bounds: Thresholds, path: Path) -> None:
    """As JSON."""
    write_json(path, asdict(bounds))


def read_thresholds(path: Path) -> Thresholds:
    """What `write_thresholds` wrote. Raises InputError."""
    try:
        return TypeAdapter(Thresholds).validate_json(Path(path).read_bytes())
    except (OSError, ValidationError) as error:
        found = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InputError(path, "a critic's thresholds (JSON)", found) from None


def accept(scores: Agreement, bounds: Thresholds) -> Verdict:
    """Whether an image keeps its structure, and if not, everything that falls short."""
    low = {name: bound for name, bound in bounds.recall.items() if scores.recall.get(name, 1.0) < bound}
    reasons = [f"recall of {name} {scores.recall[name]:.2f} below {bound:.2f}" for name, bound in low.items()]
    if scores.miou is not None and scores.miou < bounds.miou:
        reasons.insert(0, f"mIoU {scores.miou:.2f} below {bounds.miou:.2f}")
    if scores.depth_error is not None and scores.depth_error > bounds.depth_error:
        reasons.append(f"depth error {scores.depth_error:.2f} above {bounds.depth_error:.2f}")
    return Verdict(not reasons, "; ".join(reasons), tuple(low))


@dataclass(frozen=True)
class Outcome:
    """What counts of a draw in reject rates. in_view, blamed: names of classes, as in Agreement and Verdict."""

    in_view: tuple[str, ...]
    accepted: bool
    blamed: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Attempt:
    """One draw's scores and what came of it."""

    scores: Agreement
    verdict: Verdict

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.scores.in_view, self.verdict.accepted, self.verdict.blamed)


@dataclass(frozen=True, eq=False)
class Drawn:
    """image: the first accepted one, else the last; attempts: all draws, in order."""

    image: Image
    attempts: tuple[Attempt, ...]

    @property
    def dropped(self) -> bool:
        """No attempt was accepted."""
        return not self.attempts[-1].verdict.accepted

    def figures(self) -> dict[str, Any]:
        """For a manifest, in JSON values: the last attempt's scores, and why each one before was redrawn."""
        last = self.attempts[-1]
        reasons = [attempt.verdict.reason for attempt in self.attempts if not attempt.verdict.accepted]
        return {
            "accepted": not self.dropped,
            "attempts": len(self.attempts),
            "rejected": reasons,
            "outcomes": [asdict(attempt.outcome) for attempt in self.attempts],
        } | last.scores.figures()


def draw_until_accepted(
    draw: Callable[[Sequence[int], int], Iterable[Image]], checks: Sequence[Callable[[Image], Attempt]], retries: int
) -> list[Drawn]:
    """Draw one image for each check with attempt = 0, then those rejected anew with 1, ... `retries`.

    draw(numbers, attempt): images for these of the checks, in order; each one's seed is its node of the tree,
    seeds.integer_seed(build, stage, sample, attempt).
    """
    found: dict[int, Drawn] = {}
    pending = list(range(len(checks)))
    for attempt in range(retries + 1):
        for number, image in zip(pending, draw(pending, attempt), strict=True):
            before = found[number].attempts if number in found else ()
            found[number] = Drawn(image, (*before, checks[number](image)))
        pending = [number for number in pending if found[number].dropped]
        if not pending:
            break
    return [found[number] for number in range(len(checks))]


def checker(
    critic: Judge,
    labels: UInt8[np.ndarray, "h w"],
    depth: Float32[np.ndarray, "h w"],
    taxonomy: Taxonomy,
    config: FidelityConfig,
    bounds: Thresholds,
) -> Callable[[Image], Attempt]:
    """The check of images of one condition. Raises InputError."""
    check_classes(critic, taxonomy.classes)

    def check(image: Image) -> Attempt:
        scores = agreement(labels, depth, critic.predict(image), taxonomy, config)
        return Attempt(scores, accept(scores, bounds))

    return check


@dataclass(frozen=True)
class RejectRate:
    """attempts: draws with the class in view; rejected: of them, not accepted; blamed: for this class's recall."""

    attempts: int
    rejected: int
    blamed: int


def reject_rates(outcomes: Sequence[Outcome]) -> dict[str, RejectRate]:
    """Of all samples' draws, by class in view, in order of first appearance, and over all draws under ""."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.in_view)
    rates = {"": _rate(outcomes, "")}
    return rates | {name: _rate([o for o in outcomes if name in o.in_view], name) for name in names}


def _rate(outcomes: Sequence[Outcome], name: str) -> RejectRate:
    rejected = [outcome for outcome in outcomes if not outcome.accepted]
    return RejectRate(len(outcomes), len(rejected), sum(name in outcome.blamed for outcome in rejected))
