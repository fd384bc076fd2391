"""The hashed list of a build: what was made, from what, and every file's SHA-256. Verify finds any difference.

The manifest holds no times and no machine paths, so the same recipe and seed give the same manifest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.datasets.checked_files import read_json
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join, sha256_file, write_json

MANIFEST_NAME = "manifest.json"
LARGEST_MANIFEST = 1 << 28  # bytes; a sample has some 1,500


class FileRecord(BaseModel):
    """One file: its path relative to the dataset's root (posix), size [bytes] and hex SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    bytes: int
    sha256: str


class SampleRecord(BaseModel):
    """One sample: where it lies, and everything needed to make it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str  # "sequence/frame", such as "00/000005"
    shard: int
    provenance: dict[str, Any]  # source of the scene, seeds, camera jitter, prompt, accept scores


class Manifest(BaseModel):
    """A finished build. recipe: the whole frozen run config; recipe_digest: SHA-256 of its canonical JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["occfactory-manifest-1"] = "occfactory-manifest-1"
    recipe: dict[str, Any]
    recipe_digest: str
    build_seed: int
    inputs: dict[str, str] = {}  # SHA-256 of weights and source datasets, by role
    versions: dict[str, str] = {}  # occfactory, python and the packages that shape bytes
    samples: tuple[SampleRecord, ...]
    dropped: tuple[SampleRecord, ...] = ()  # drawn and left out: a structure check rejected their images
    files: tuple[FileRecord, ...]


def record_files(root: Path, relative: Iterable[str]) -> tuple[FileRecord, ...]:
    """Size and SHA-256 of files under `root`, sorted by path."""
    paths = sorted(set(relative))
    return tuple(FileRecord(path=p, bytes=(root / p).stat().st_size, sha256=sha256_file(root / p)) for p in paths)


def write_manifest(root: Path, manifest: Manifest) -> None:
    write_json(root / MANIFEST_NAME, manifest.model_dump(mode="json"))


def read_manifest(root: Path) -> Manifest:
    """Read and check `root/manifest.json`. Raises InputError."""
    path = Path(root) / MANIFEST_NAME
    if not os.path.lexists(path):
        raise InputError(path, "the manifest of a finished build", "nothing", "finish it with `occfactory build`")
    table = read_json(path, "an occfactory manifest", LARGEST_MANIFEST)
    try:
        return Manifest.model_validate(table)
    except (ValidationError, RecursionError) as error:
        raise InputError(path, "an occfactory manifest", str(error).splitlines()[0]) from None


def verify_files(
    root: Path, manifest: Manifest, unlisted_ok: Callable[[str], bool] = lambda path: False
) -> Iterator[tuple[str, str | None]]:
    """Yield (path, fault) for every file of the manifest and every file that isn't in it; fault None means sound.

    `unlisted_ok` names files that may lie beside the dataset without being listed.
    """
    for record in manifest.files:
        yield record.path, _file_fault(root, record)
    listed = {record.path for record in manifest.files} | {MANIFEST_NAME}
    for path in sorted(Path(root).rglob("*")):
        relative = path.relative_to(root).as_posix()
        if not path.is_dir() and relative not in listed and not unlisted_ok(relative):
            yield relative, "not in the manifest"


def _file_fault(root: Path, record: FileRecord) -> str | None:
    try:
        path = safe_join(root, record.path)
    except InputError as error:
        return str(error)
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size != record.bytes:
        return f"expected {record.bytes} bytes, found {size}"
    return None if sha256_file(path) == record.sha256 else "content differs from its SHA-256"
