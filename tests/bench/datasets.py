"""How long a SemanticKITTI frame takes to write and to read: `python -m tests.bench.datasets [repeats]`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.datasets.image_files import read_depth, read_image, write_depth, write_image
from pipeline.datasets.semantic_kitti import open_root, read_frame, write_frame
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.grid import SEMANTIC_KITTI_GRID
from pipeline.scene.taxonomy import load_taxonomy


def best_ms(action: Callable[[], object], repeats: int) -> float:
    """The quickest of several runs [ms]."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, SEMANTIC_KITTI_GRID.shape, dtype=np.uint8)
    masks = {name: rng.random(labels.shape) < 0.3 for name in ("invalid", "occluded", "scan")}
    frame = Frame("00", "000000", SEMANTIC_KITTI_GRID, load_taxonomy("semantic_kitti"), labels=labels, **masks)
    image = np.repeat(np.repeat(rng.integers(0, 256, (37, 122, 3), dtype=np.uint8), 10, 0), 10, 1)
    depth = np.tile(np.linspace(2, 80, 1220, dtype=np.float32), (370, 1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_frame(folder, frame)
        root = open_root(folder)
        actions: dict[str, Callable[[], object]] = {
            "write a frame's four voxel files": lambda: write_frame(folder, frame),
            "read them": lambda: read_frame(root, "00", "000000"),
            "write a 1220x370 image (PNG)": lambda: write_image(folder / "a.png", image),
            "read it": lambda: read_image(folder / "a.png"),
            "write 1220x370 depth": lambda: write_depth(folder / "d.png", depth),
            "read it ": lambda: read_depth(folder / "d.png"),
        }
        for label, action in actions.items():
            print(f"{label:36s} {best_ms(action, repeats):7.2f} ms")


if __name__ == "__main__":
    main()
