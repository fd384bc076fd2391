"""One frame learnt by heart at the small recipe: an embedded one, and a real scan with a real image of another frame.

python -m tests.bench ssc_overfit      alone: python -m tests.bench.ssc_overfit [ROOT [FIELD=VALUE ...]]

ROOT: a town root on the comparison grid with photographs, data/runs/town_ssc otherwise; its first training frame.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from flows.ssc_recipes import ssc_recipe
from pipeline.datasets.semantic_kitti import open_root, write_frame, write_layout
from pipeline.datasets.voxel_files import read_points
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.grid import COMPARISON_GRID
from pipeline.scene.taxonomy import IGNORE, load_taxonomy
from renderers.ground_truth import ScanRecipe, frame_from_scans, labelled_scan
from ssc_eval.samples import Source
from ssc_eval.training import overfit_frame

TOWN = Path("data/runs/town_ssc")
BUDGET_S = 300.0


def kitti_root(shared: Path, root: Path) -> Path:
    """Labels and masks of the one labelled scan on the comparison grid; the image is of another drive."""
    kitti, taxonomy = shared / "data" / "kitti", load_taxonomy("semantic_kitti")
    scan_path = kitti / "semantickitti_points" / "000964.bin"
    raw = np.fromfile(scan_path.with_suffix(".label"), "<u4")
    scan = labelled_scan(read_points(scan_path), raw, taxonomy, ScanRecipe(), scan_path)
    truth = frame_from_scans([scan], np.eye(4)[None], COMPARISON_GRID, len(taxonomy.classes))
    labels = np.where(truth.invalid, np.uint8(IGNORE), truth.labels)
    frame = Frame("07", "000964", COMPARISON_GRID, taxonomy, labels, truth.invalid, truth.occluded, truth.occupancy)
    write_frame(root, frame)
    folder = root / "sequences" / "07"
    (folder / "image_2").mkdir()
    shutil.copy(kitti / "object" / "image_2" / "000000.png", folder / "image_2" / "000964.png")
    shutil.copy(kitti / "odometry" / "sequences" / "07" / "calib.txt", folder)
    write_layout(root, COMPARISON_GRID, {"train": ["07"]})
    return root


def report(name: str, root: Path, changes: tuple[str, ...]) -> None:
    """Overfit the first training frame and print what came of it."""
    frame = "/".join(open_root(root).frames("train")[0])
    found = overfit_frame(ssc_recipe("small", (Source(root=root),), changes), root, "train", frame)
    verdict = "reached" if found["reached"] else "NOT reached"
    print(
        f"{name} {frame}: IoU {found['iou']:.1%}, mIoU {found['miou']:.1%} of {len(found['classes'])} classes, "
        f"{found['voxels']:,} voxels in view; {found['steps']} steps, {found['seconds']:.0f} s of {BUDGET_S:.0f}, "
        f"{found['cpu_seconds']:.0f} s of CPU: 95 % {verdict}"
    )


def main() -> None:
    root, *changes = [*sys.argv[1:]] or [str(TOWN)]
    if (Path(root) / "sequences").is_dir():
        report("embedded", Path(root), tuple(changes))
    else:
        print(f"needs a town root with photographs at {root}")
    shared = Path(os.environ.get("OCCFACTORY_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    if (shared / "data" / "kitti").is_dir():
        with tempfile.TemporaryDirectory() as folder:
            report("real scan, another frame's image", kitti_root(shared, Path(folder)), tuple(changes))
    else:
        print(f"needs the shared KITTI frames at {shared}")


if __name__ == "__main__":
    main()
