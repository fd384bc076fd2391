"""Files that are either whole or absent, paths that stay under their root, and digests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.scene.errors import InputError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed over `path`, on failure removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder beside `path`; on success its files are fsynced and it takes `path`'s place.

    A folder that stands at `path` is removed just before; the caller decides that it may go.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    temporary.mkdir()
    try:
        yield temporary
        for inner in [*temporary.rglob("*"), temporary]:
            _fsync(inner)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` (str as UTF-8) so that a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys and a final newline, atomically."""
    write_atomic(path, json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def safe_join(root: Path, relative: str | PurePosixPath) -> Path:
    """`root / relative`, refused if it would leave `root` by `..`, an absolute part or a symbolic link.

    Raises InputError.
    """
    root = Path(root)
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in str(relative) or "\0" in str(relative):
        raise InputError(root / "...", "a relative path inside it", repr(str(relative)))
    joined = root / pure
    try:
        os.stat(joined)
    except OSError as error:
        if error.errno == errno.ELOOP:  # links that go in a circle, which `resolve` reports in some Pythons only
            raise InputError(joined, f"a path inside {root}", str(error)) from None
    target = joined.resolve()
    if not target.is_relative_to(root.resolve()):
        raise InputError(joined, f"a path inside {root}", f"a link to {target}")
    return joined


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form (sorted keys, no spaces): the identity of recipes and shards."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def require_empty(directory: Path) -> None:
    """Refuse an output folder that already holds something. Raises InputError."""
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(
            directory, "a new or empty folder to write into", "something there", "choose another or remove it"
        )


def data_path(relative: str) -> Path:
    """A file that ships with the project: `pipeline/_data/` in a wheel, `data/` in a checkout. Raises InputError."""
    here = Path(__file__).resolve().parents[1]
    for root in (here / "_data", here.parent / "data"):
        if (root / relative).exists():
            return root / relative
    raise InputError(relative, "a file shipped with occfactory", "nothing", "reinstall the package")
