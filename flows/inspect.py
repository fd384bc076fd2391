"""Look at what is there: verify a build against its manifest, tell what a dataset holds."""

from __future__ import annotations

import sys
from fnmatch import fnmatch
from pathlib import Path

from flows.shards import WORK
from pipeline.datasets.manifest import read_manifest, verify_files


def verify_dataset(directory: Path, quiet: bool = True) -> list[tuple[str, str]]:
    """(path, fault) of every file that is changed, missing or not in the manifest. Raises InputError."""
    manifest = read_manifest(directory)
    faults = []
    count = 0
    for path, fault in verify_files(directory, manifest, _may_be_unlisted):
        count += 1
        if fault is not None:
            faults.append((path, fault))
    if not quiet:
        state = "all sound" if not faults else f"{len(faults)} with a fault"
        print(f"{directory}: {count} files, {state}; {len(manifest.samples)} samples", file=sys.stderr)
    return faults


def _may_be_unlisted(path: str) -> bool:
    """Work files, and statistics that were counted after the build."""
    return path.startswith(f"{WORK}/") or fnmatch(path, "statistics_*.json")
