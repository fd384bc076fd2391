"""What scoring a frame of 256x256x32 costs beside the numpy class loop of public trainers, in one run, and the losses.

python -m tests.bench ssc_metrics      alone: python -m tests.bench.ssc_metrics [repeats]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline.scene.confusion import confusion, scores
from pipeline.scene.grid import COMPARISON_GRID, SEMANTIC_KITTI_GRID
from pipeline.scene.taxonomy import load_taxonomy
from ssc_eval.losses import TILES, monoscene_losses
from ssc_eval.metrics import tally_frame
from tests.ssc_eval.slow_scores import loop_counts, loop_scores, official_confusion

BUDGET = 20.0  # times quicker than the loop


def best_ms(action: Callable[[], object], repeats: int) -> float:
    """The quickest of several runs, in CPU time [ms]: everything here is one thread, and others may be working."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times) * 1e3


def street(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A ground with boxes on it, 255 below and behind; the prediction is a voxel off, with stray voxels near surfaces.

    About SemanticKITTI's shares: 72 % scored, 7 % of them occupied.
    """
    rng = np.random.default_rng(0)
    x, y, z = shape
    ground = z // 4
    solid = np.zeros(shape, np.uint8)
    solid[:, :, ground : ground + 1] = rng.choice([9, 11, 17], (x // 16, y // 16, 1)).repeat(16, 0).repeat(16, 1)
    for _ in range(35):
        i, j = rng.integers(0, x - 8), rng.integers(0, y - 8)
        solid[i : i + rng.integers(4, x // 6), j : j + 8, ground : rng.integers(ground + 3, z)] = rng.integers(1, 20)
    target = solid.copy()
    target[:, :, :ground] = 255
    target[x // 2 :, : y // 8] = 255
    prediction = np.roll(solid, 1, axis=1)
    stray = (rng.random(shape) < 0.2) & ((np.roll(solid, 2, axis=2) > 0) | (np.roll(solid, -2, axis=1) > 0))
    return target, np.where(stray, 15, prediction).astype(np.uint8)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    torch.set_num_threads(1)
    classes, grid = len(load_taxonomy("semantic_kitti").classes), SEMANTIC_KITTI_GRID
    target, prediction = street(grid.shape)
    noise = np.random.default_rng(2).integers(0, classes, grid.shape, dtype=np.uint8)
    ahead, aside, _ = np.ogrid[: grid.shape[0], : grid.shape[1], : grid.shape[2]]
    in_view = np.broadcast_to((abs(aside - grid.shape[1] // 2) < ahead), grid.shape)
    ours = scores(confusion(target, prediction, classes))
    same = np.allclose(
        loop_scores(loop_counts(target, prediction, classes)),
        [ours.iou, ours.precision, ours.recall, ours.miou, *ours.class_iou],
        rtol=0,
        atol=1e-12,
    )
    scored = target != 255
    print(f"{scored.mean():.1%} scored, {(target[scored] > 0).mean():.1%} of them occupied; one thread, CPU time")
    wide = prediction.astype(np.int64)  # what argmax returns, and trainers pass on
    loops = {
        "class loop, int64 argmax": best_ms(lambda: loop_counts(target, wide, classes), 3),
        "class loop, uint8": best_ms(lambda: loop_counts(target, prediction, classes), 3),
    }
    for name, slow in loops.items():
        print(f"{name:26s} {slow:8.2f} ms a frame; scores {'equal' if same else 'DIFFER'}")
    actions: dict[str, Callable[[], object]] = {
        "one confusion": lambda: confusion(target, prediction, classes),
        "+ ranges": lambda: tally_frame(target, prediction, grid, classes),
        "+ in and out of view": lambda: tally_frame(target, prediction, grid, classes, in_view),
        "one confusion of noise": lambda: confusion(target, noise, classes),
        "np.add.at": lambda: official_confusion(target, prediction, classes),
    }
    for name, action in actions.items():
        found = best_ms(action, repeats)
        limit = f" (at least {BUDGET:.0f})" if name == "one confusion" else ""  # the loops count the whole grid alone
        ratios = " and ".join(f"{slow / found:.1f}" for slow in loops.values())
        print(f"{name:26s} {found:8.2f} ms; {ratios} times as quick as the loops{limit}")
    _losses(classes, repeats)


def _losses(classes: int, repeats: int) -> None:
    """All voxel terms, forward and backward, on the comparison grid."""
    shape = COMPARISON_GRID.shape
    labels = torch.from_numpy(street(shape)[0])[None]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, classes, *shape, generator=generator, requires_grad=True)
    tiles = torch.randint(-1, TILES * TILES, labels.shape, generator=generator).short()

    def step() -> None:
        sum(monoscene_losses(logits, labels, torch.ones(classes), tiles).values(), torch.zeros(())).backward()

    print(f"voxel losses, forward and backward, {shape}: {best_ms(step, repeats):.1f} ms a sample, one thread")


if __name__ == "__main__":
    main()
