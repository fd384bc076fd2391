"""How much of x_0 is left at time t: alpha_bar_0 = 1 ... alpha_bar_T, in float64.

"cosine" is alpha_bar_t = cos(u_t) / cos(u_0) with u_t = (t/T + s) / (1 + s) * pi/2: what D3PM's code and Lee et al.
have in effect. "cosine_squared" is Nichol and Dhariwal's, with cos^2. "linear" has linear beta_t (Ho et al., rescaled
to T).
A step keeps at least a thousandth, as is usual: beta_t <= 0.999.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float64

from pipeline.scene.errors import InputError

AnyFloat = TypeVar("AnyFloat", float, Float64[np.ndarray, "n"])
ScheduleKind = Literal["cosine", "cosine_squared", "linear"]
_OFFSET = 0.008  # s of the cosine schedules
_LARGEST_BETA = 0.999


def alpha_bars(kind: ScheduleKind, steps: int) -> Float64[np.ndarray, "t_plus_1"]:
    """alpha_bar_t for t = 0..T; strictly falling, positive. steps: T."""
    if kind == "linear":
        scale = 1000 / steps
        betas = np.linspace(1e-4 * scale, 0.02 * scale, steps)
    else:
        u = _angle(np.arange(steps + 1) / steps)
        left = np.cos(u) ** (1 if kind == "cosine" else 2)
        betas = 1 - left[1:] / left[:-1]
    return np.concatenate([[1.0], np.cumprod(1 - np.clip(betas, 0, _LARGEST_BETA))])


def clock(alpha_bar: Float64[np.ndarray, "t_plus_1"]) -> Float64[np.ndarray, "t_plus_1"]:
    """What a network is told of each time t = 0..T: the time, in steps, at which "cosine" leaves as much of x_0.

    Told how much is left, rather than at which step it is, one network serves every schedule.
    """
    steps = len(alpha_bar) - 1
    share = np.arccos(alpha_bar * np.cos(_angle(0))) / _angle(1)
    return ((share * (1 + _OFFSET) - _OFFSET) * steps).clip(0)


def _angle(share: AnyFloat) -> AnyFloat:
    """u_t at t/T = share; pi/2 at 1."""
    return (share + _OFFSET) / (1 + _OFFSET) * np.pi / 2


def respaced(steps: int, samples: int) -> list[int]:
    """The times a sampler visits: `samples` + 1 integers from T down to 0, as even as can be. Raises InputError."""
    if not 1 <= samples <= steps:
        raise InputError("sampling steps", f"1 to {steps} (T of the trained process)", str(samples))
    return [round(steps * (samples - k) / samples) for k in range(samples + 1)]


def pairs(times: Sequence[int]) -> list[tuple[int, int]]:
    """(t, s) of every step of a sampler, s < t."""
    return list(pairwise(times))
