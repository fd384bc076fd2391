"""What F3D answers to: real-against-real floors, and four graded corruptions of held-out scenes.

python -m tests.bench.encoder3d [WEIGHTS ROOT]      released weights and data/runs/town_small otherwise
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from pipeline.datasets.semantic_kitti import open_root, read_frame
from pipeline.metrics.distances import frechet_distance, kernel_distance
from pipeline.metrics.encoder3d import SceneEncoder
from tests.metrics.corruptions import CORRUPTIONS

WEIGHTS, ROOT = Path("data/weights/encoder3d_comparison"), Path("data/runs/town_small")
SHARES = (0.05, 0.1, 0.2, 0.4)


def main() -> None:
    torch.set_num_threads(1)
    given = [Path(argument) for argument in sys.argv[1:3]]
    weights, data = given if len(given) == 2 else (WEIGHTS, ROOT)
    if not (weights.is_dir() and data.is_dir()):
        print(f"needs an encoder at {weights} and scenes at {data}")
        return
    encoder, root = SceneEncoder.load(weights), open_root(data)
    train, val = (np.stack([read_frame(root, *key).labels for key in root.frames(split)]) for split in ("train", "val"))
    real, held_out = encoder.features(train), encoder.features(val)
    print(f"{encoder.name}; train {len(train)}, val {len(val)}, D {real.shape[1]}")
    floors(real, held_out)
    order = np.random.default_rng(0).permutation(len(val))
    clean, chosen = order[: len(val) // 2], np.sort(order[len(val) // 2 :])
    for name, corrupt in CORRUPTIONS.items():
        spoiled = [corrupt(val[chosen], root.taxonomy, share, np.random.default_rng(1)) for share in SHARES]
        graded = [held_out[chosen], *map(encoder.features, spoiled)]
        for reference, features in (("train", real), ("other val half", held_out[clean])):
            found = [frechet_distance(features, spoilt) for spoilt in graded]
            rises = "rises" if found == sorted(found) else "DOES NOT RISE"
            figures = " ".join(f"{x:.3f}" for x in found)
            print(f"{name:20s} against {reference:14s} at 0, {', '.join(map(str, SHARES))}: {figures}  {rises}")


def floors(real: np.ndarray, held_out: np.ndarray) -> None:
    """Training against held-out scenes, and halves of the held-out ones, shuffled and by street."""
    rng = np.random.default_rng(0)
    mixed, size = rng.permutation(len(held_out)), len(held_out) // 2
    pairs = {
        "train, val": (real, held_out),
        "val halves, shuffled": (held_out[mixed[:size]], held_out[mixed[size:]]),
        "val halves, by street": (held_out[:size], held_out[size:]),
    }
    for name, (a, b) in pairs.items():
        mean, std = kernel_distance(a, b, np.random.default_rng(0), subsets=100, subset_size=min(100, size))
        print(f"{name:22s} N {len(a)}, {len(b)}: F3D {frechet_distance(a, b):.3f}, K3D {mean:.4f} +- {std:.4f}")


if __name__ == "__main__":
    main()
