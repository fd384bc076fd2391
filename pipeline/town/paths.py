"""A smooth plan curve by arc length: place and heading at (s along, n to the left), and the time law of driving it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Path:
    """A curve in plan. points [m]; s: arc length at the points [m]; heading: unwrapped, at the points [rad]."""

    points: Float[np.ndarray, "p 2"]
    s: Float[np.ndarray, "p"]
    heading: Float[np.ndarray, "p"]

    @property
    def length_m(self) -> float:
        return float(self.s[-1])


def path_through(points: np.ndarray, step_m: float = 1.0) -> Path:
    """A path through dense points, resampled at about `step_m`; headings from neighbours, so corners are rounded."""
    points = np.asarray(points, float)
    gaps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    points = points[np.concatenate([[True], gaps > 1e-6])]
    s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    even = np.linspace(0, s[-1], max(int(np.ceil(s[-1] / step_m)), 2) + 1)
    points = np.stack([np.interp(even, s, points[:, k]) for k in range(2)], 1)
    slope = np.gradient(points, even, axis=0)
    return Path(points, even, np.unwrap(np.arctan2(slope[:, 1], slope[:, 0])))


def at(path: Path, s: np.ndarray | float, n: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Places (..., 2) [m] and headings (...) [rad] at arc lengths s, n metres to the left; straight past the ends."""
    s = np.asarray(s, float)
    heading = np.interp(s, path.s, path.heading)
    over = s - np.clip(s, 0, path.length_m)
    along = np.stack([np.cos(heading), np.sin(heading)], -1)
    left = np.stack([-along[..., 1], along[..., 0]], -1)
    middle = np.stack([np.interp(s, path.s, path.points[:, k]) for k in range(2)], -1)
    return middle + over[..., None] * along + np.asarray(n, float)[..., None] * left, heading


def curvature(path: Path, window_m: float = 6.0) -> Float[np.ndarray, "p"]:
    """Absolute curvature at the path's points [1/m], averaged over a window."""
    raw = np.abs(np.gradient(path.heading, path.s))
    width = max(int(window_m / (path.s[1] - path.s[0])), 1)
    padded = np.pad(raw, width, mode="edge")
    return np.convolve(padded, np.ones(2 * width + 1) / (2 * width + 1), mode="valid")


def time_law(path: Path, cruise_mps: float, sideways_mps2: float = 2.2, along_mps2: float = 1.6) -> np.ndarray:
    """Time at each of the path's points [s] for a driver who slows for bends and accelerates gently."""
    limit = np.minimum(cruise_mps, np.sqrt(sideways_mps2 / np.maximum(curvature(path), 1e-6)))
    limit = np.maximum(limit, 4.0)
    step = np.diff(path.s)
    speed = limit.copy()
    for k in range(1, len(speed)):
        speed[k] = min(speed[k], np.sqrt(speed[k - 1] ** 2 + 2 * along_mps2 * step[k - 1]))
    for k in range(len(speed) - 2, -1, -1):
        speed[k] = min(speed[k], np.sqrt(speed[k + 1] ** 2 + 2 * along_mps2 * step[k]))
    return np.concatenate([[0.0], np.cumsum(2 * step / (speed[1:] + speed[:-1]))])


def eased(path: Path, over_m: float = 8.0) -> Path:
    """The same curve with its heading averaged along it: steering is turned gradually, as a driver does."""
    width = max(int(over_m / (path.s[1] - path.s[0]) / 2), 1)
    padded = np.pad(path.heading, width, mode="edge")
    return Path(path.points, path.s, np.convolve(padded, np.ones(2 * width + 1) / (2 * width + 1), mode="valid"))


def reversed_path(path: Path) -> Path:
    """The same curve driven the other way."""
    return Path(path.points[::-1].copy(), path.length_m - path.s[::-1], path.heading[::-1] + np.pi)
