"""The learning rate's factor at a step. Steps count from 0; the factor of step s applies to the update number s + 1.

    warm-up      (s + 1) / w                              for s < w
    constant     1
    cosine       f + (1 - f) (1 + cos(pi p)) / 2          p = (s - w) / (total - w)
    multistep    gamma ** (milestones reached)            at s steps, or at floor(s * batch / samples) epochs

(cosine: Loshchilov and Hutter, SGDR, 2017, eq. 5, without restarts)
"""

from __future__ import annotations

import bisect
import math

from pipeline.learning.config import Schedule, TrainConfig


def rate_factor(config: TrainConfig, step: int, samples: int) -> float:
    """The factor on config.learning_rate for the update at `step`, over a data set of `samples`."""
    schedule = config.schedule
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if schedule.kind == "cosine":
        return _cosine(schedule, step, config.total_steps(samples))
    if schedule.kind == "multistep":
        reached = step if schedule.unit == "step" else step * config.batch_size // samples
        return schedule.gamma ** bisect.bisect_right(schedule.milestones, reached)
    return 1.0


def _cosine(schedule: Schedule, step: int, total: int) -> float:
    progress = (step - schedule.warmup_steps) / max(total - schedule.warmup_steps, 1)
    return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
