"""The frames of a build that its structure check accepted, as a dataset of their own.

A build that checks its images marks every sample in the manifest: provenance `accepted`, true or false.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from pipeline.datasets.kitti_root import SPLITS_NAME, KittiRoot
from pipeline.datasets.manifest import MANIFEST_NAME, Manifest, read_manifest, record_files, write_manifest
from pipeline.scene.files import atomic_folder, safe_join, write_json

MARK = "accepted"  # in a sample's provenance


def accepted_frames(root: KittiRoot) -> frozenset[str] | None:
    """Names ("sequence/frame") of the samples marked as accepted; None where nothing is marked. Raises InputError."""
    if not (root.path / MANIFEST_NAME).exists():
        return None
    marked = [sample for sample in read_manifest(root.path).samples if MARK in sample.provenance]
    kept = frozenset(sample.name for sample in marked if sample.provenance[MARK] is True)
    return kept if marked else None


def write_accepted(root: KittiRoot, kept: frozenset[str], out: Path) -> Path:
    """The build without its other samples, in `out`: files are hard links, copies across disks. Raises InputError."""
    manifest = read_manifest(root.path)
    dropped = frozenset(sample.name for sample in manifest.samples) - kept
    with atomic_folder(out) as folder:
        for record in manifest.files:
            if record.path != SPLITS_NAME and not _is_of(record.path, dropped):
                _link(safe_join(root.path, record.path), folder / record.path)
        sequences = {name.partition("/")[0] for name in kept}
        splits = {split: [s for s in members if s in sequences] for split, members in root.splits.items()}
        write_json(folder / SPLITS_NAME, splits)
        write_manifest(folder, _part(manifest, kept, folder))
    return out


def _is_of(path: str, samples: frozenset[str]) -> bool:
    """Whether a dataset's file belongs to one of these: sequences/00/voxels/000005.label to 00/000005."""
    *folders, name = PurePosixPath(path).parts
    frame = name.partition(".")[0].partition("_")[0]  # MonoScene's arrays are called 000005_1_1.npy
    return any(f"{folder}/{frame}" in samples for folder in folders)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _part(manifest: Manifest, kept: frozenset[str], folder: Path) -> Manifest:
    samples = tuple(sample for sample in manifest.samples if sample.name in kept)
    files = [record for record in manifest.files if (folder / record.path).exists() and record.path != SPLITS_NAME]
    files += record_files(folder, [SPLITS_NAME])
    return manifest.model_copy(update={"samples": samples, "files": tuple(sorted(files, key=lambda r: r.path))})
