"""Look at what is there: verify a build against its manifest, tell what a dataset holds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from flows.consistency import contradictions
from flows.shards import WORK
from pipeline.datasets.formats import detect
from pipeline.datasets.manifest import Manifest, read_manifest, verify_files
from pipeline.datasets.statistics import Statistics, dataset_statistics
from pipeline.report.report import FOLDER as REPORT
from pipeline.scene.taxonomy import EMPTY, Taxonomy

REFERENCE = "semantic_kitti"  # the dataset whose valid and occupied shares are known


def verify_dataset(directory: Path, quiet: bool = True, views: bool = True) -> list[tuple[str, str]]:
    """(path, fault) of every file that is changed, missing or not in the manifest. Raises InputError.

    views: if all files are sound, hold every sample's depth, semantics and render against its voxels and calibration.
    """
    manifest = read_manifest(directory)
    found = list(verify_files(directory, manifest, _may_be_unlisted))
    faults = [(path, fault) for path, fault in found if fault is not None]
    views = views and not faults and (directory / "sequences").is_dir() and "views" in manifest.recipe
    if views:
        faults = _view_faults(directory, manifest, quiet)
    if not quiet:
        state = "all sound" if not faults else f"{len(faults)} with a fault"
        samples = f"{len(manifest.samples)} samples" + (", views as their voxels say" if views and not faults else "")
        print(f"{directory}: {len(found)} files, {state}; {samples}", file=sys.stderr)
    return faults


def _view_faults(directory: Path, manifest: Manifest, quiet: bool) -> list[tuple[str, str]]:
    faults = []
    with _bar("samples against their views", quiet) as progress:
        for number, (name, fault) in enumerate(contradictions(directory, manifest), 1):
            progress(number, len(manifest.samples))
            if fault is not None:
                faults.append((name, fault))
    return faults


def _may_be_unlisted(path: str) -> bool:
    """Work files, the report, and statistics that were counted after the build."""
    return path.startswith((f"{WORK}/", f"{REPORT}/")) or fnmatch(path, "statistics_*.json")


def describe_root(root: Path, split: str | None = None, quiet: bool = True) -> str:
    """What a dataset holds, as text: format, frames a split, and grid and class table of each labelled split.

    Shares are of occupied valid voxels, beside the published ones. Raises InputError.
    """
    form = detect(root)
    dataset = form.open(root)
    counts = ", ".join(f"{name} {len(dataset.frames(name))}" for name in dataset.splits)
    lines = [f"{root}: {form.name}", f"frames: {counts}"]
    for name in (split,) if split else dataset.splits:
        labelled = [key for key in dataset.frames(name) if dataset.label_files(*key)[0].exists()]
        if not labelled:
            continue
        grid = dataset.scene(*labelled[0]).grid
        with _bar(f"counting {name}", quiet) as progress:
            found = dataset_statistics(dataset, name, progress=progress)
        x, y, z = grid.shape
        lines += ["", f"{name}: {found.frames} frames, the first {x} x {y} x {z} voxels of {grid.voxel_size_m} m"]
        lines += _table(dataset.taxonomy, found)
    return "\n".join(lines)


def _table(taxonomy: Taxonomy, found: Statistics) -> list[str]:
    published = np.array(taxonomy.voxel_counts, float)
    published[:1] = 0
    recorded = taxonomy.name == REFERENCE
    lines = [
        f"valid voxels    {100 * found.valid_share:6.2f} % of the grid" + recorded * "          (published: 72.4 %)",
        f"occupied voxels {100 * found.occupied_share:6.2f} % of the valid ones" + recorded * "    (published: 6.93 %)",
        f"{'class':16}{'share here':>12}{'published':>12}{'ratio':>8}{'frames with it':>17}",
    ]
    for k in range(EMPTY + 1, len(taxonomy.classes)):
        here = 100 * found.occupied_frequencies[k]
        if len(taxonomy.classes) > 50 and not here:
            continue  # of hundreds of blocks, those that occur
        share = 100 * published[k] / published.sum() if len(published) else 0.0
        beside = f"{share:10.3f} %{here / share:8.2f}" if share else f"{'-':>12}{'-':>8}"
        lines.append(f"{taxonomy.classes[k]:16}{here:10.3f} %{beside}{100 * found.frame_shares[k]:15.1f} %")
    return lines


@contextmanager
def _bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar where there is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=quiet or not console.is_terminal, transient=True) as bars:
        row = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(row, completed=done, total=total)
