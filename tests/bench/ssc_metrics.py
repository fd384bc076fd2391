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
    """The quickest of several runs [ms]."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def labelled(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A target and a prediction in lumps of 4x4x4, with SemanticKITTI's shares: 72 % scored, 7 % of them occupied."""
    rng = np.random.default_rng(0)
    coarse = tuple(n // 4 for n in shape)

    def lumps() -> np.ndarray:
        found = np.where(rng.random(coarse) < 0.07, rng.integers(1, 20, coarse), 0).astype(np.uint8)
        return found.repeat(4, 0).repeat(4, 1).repeat(4, 2)

    target = np.where(rng.random(coarse).repeat(4, 0).repeat(4, 1).repeat(4, 2) < 0.276, 255, lumps())
    return target.astype(np.uint8), lumps()


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.set_num_threads(1)
    classes, grid = len(load_taxonomy("semantic_kitti").classes), SEMANTIC_KITTI_GRID
    target, prediction = labelled(grid.shape)
    in_view = np.random.default_rng(1).random(grid.shape) < 0.4
    loop = scores(confusion(target, prediction, classes))
    same = np.allclose(
        loop_scores(loop_counts(target, prediction, classes))[:4], [loop.iou, loop.precision, loop.recall, loop.miou]
    )
    slow = best_ms(lambda: loop_counts(target, prediction, classes), max(repeats // 2, 2))
    print(f"numpy class loop       {slow:8.1f} ms a frame; scores {'equal' if same else 'DIFFER'}")
    actions: dict[str, Callable[[], object]] = {
        "one confusion": lambda: confusion(target, prediction, classes),
        "+ ranges": lambda: tally_frame(target, prediction, grid, classes),
        "+ in and out of view": lambda: tally_frame(target, prediction, grid, classes, in_view),
        "np.add.at": lambda: official_confusion(target, prediction, classes),
    }
    for name, action in actions.items():
        found = best_ms(action, repeats)
        print(
            f"{name:22s} {found:8.1f} ms, {slow / found:.1f} times as quick"
            + (f" (at least {BUDGET:.0f})" if name == "one confusion" else "")
        )
    _losses(classes, repeats)


def _losses(classes: int, repeats: int) -> None:
    """All voxel terms, forward and backward, on the comparison grid."""
    shape = COMPARISON_GRID.shape
    labels = torch.from_numpy(labelled(shape)[0])[None]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, classes, *shape, generator=generator, requires_grad=True)
    tiles = torch.randint(-1, TILES * TILES, labels.shape, generator=generator).short()

    def step() -> None:
        sum(monoscene_losses(logits, labels, torch.ones(classes), tiles).values(), torch.zeros(())).backward()

    print(f"voxel losses, forward and backward, {shape}: {best_ms(step, repeats):.1f} ms a sample, one thread")


if __name__ == "__main__":
    main()
