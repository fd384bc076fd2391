"""Seconds to plan a town, to make its first surface and each later one, and triangles: python tests/bench/town.py."""

from __future__ import annotations

import argparse
import time

import numpy as np

from pipeline.town.geometry import geometry_of
from pipeline.town.plan import Split, plan_town
from pipeline.town.surface import surface_at

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--towns", type=int, default=3, help="towns a split")
    parser.add_argument("--frames", type=int, default=20, help="labelled frames a town, 5 scans apart")
    arguments = parser.parse_args()
    for split in SPLITS:
        for seed in range(arguments.towns):
            print(f"{split} {seed}: " + _measure(split, seed, arguments.frames))


def _measure(split: Split, seed: int, frames: int) -> str:
    started = time.perf_counter()
    town = plan_town(split, seed, 5 * frames)
    planned = time.perf_counter() - started
    geometry_of.cache_clear()
    seconds, triangles = [], []
    for frame in range(0, 5 * frames, 5):
        started = time.perf_counter()
        triangles.append(len(surface_at(town, frame).triangles))
        seconds.append(time.perf_counter() - started)
    later = np.array(seconds[1:])
    return (
        f"plan {planned:.2f} s, first surface {seconds[0]:.2f} s, later ones mean {later.mean():.3f} s min "
        f"{later.min():.3f} s, {min(triangles):,}-{max(triangles):,} triangles"
    )


if __name__ == "__main__":
    main()
