"""The zip that SemanticKITTI's completion benchmark takes, written and checked.

    sequences/   sequences/11/   sequences/11/predictions/   sequences/11/predictions/NNNNNN.label   ... 21

Its validator wants the folders as entries of their own, a uint16 label a voxel for every .bin of sequences 11 to 21,
and no other file but description.txt. Ours wants, beyond that, raw ids that the server's script can score: one that
it maps to 255 stops it. The same predictions give the same bytes (with the same zlib).
"""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from pipeline.datasets.semantic_kitti import PUBLISHED_SPLITS, KittiRoot, frame_path, open_root
from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_path
from pipeline.scene.grid import SEMANTIC_KITTI_GRID
from pipeline.scene.taxonomy import IGNORE
from ssc_eval.predictions import FOLDER, SUFFIX, Key, Progress, check_files, prediction_path

SEQUENCES = PUBLISHED_SPLITS["test"]
OPTIONAL = "description.txt"  # the validator doesn't count it
LEVEL = 6  # of compression
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # zip's first moment, so that bytes don't depend on the clock
_IS_FOLDER = 0x10  # MS-DOS's bit
_ENCRYPTED = 0x1


def write_submission(
    predictions: Path, root: Path, out: Path, progress: Progress = lambda done, total: None
) -> tuple[int, int]:
    """Pack a folder of predictions of ROOT's sequences 11 to 21; (files, bytes) of the zip. Raises InputError.

    Every file is checked before it is packed: there, of the right size, ids known and scored.
    """
    if out.suffix != ".zip":
        raise InputError(out, "a name ending in .zip", repr(out.name), "the validator looks at it")
    dataset = open_root(root)
    keys = required(dataset)
    check_files(predictions, keys)
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", compresslevel=LEVEL) as archive:
        for name in folders():
            archive.writestr(_entry(name), b"")
        for done, key in enumerate(keys, 1):
            archive.writestr(_entry(member(key)), _checked(predictions, dataset, key))
            progress(done, len(keys))
    return len(keys), out.stat().st_size


def required(root: KittiRoot) -> tuple[Key, ...]:
    """(sequence, frame) of every .bin of sequences 11 to 21. Raises InputError if a sequence has none."""
    found = []
    for sequence in SEQUENCES:
        names = root.sequences[sequence].frames if sequence in root.sequences else ()
        keys = [(sequence, name) for name in names if frame_path(root, sequence, "voxels", f"{name}.bin").exists()]
        if not keys:
            expected = f"voxels/NNNNNN.bin in sequences {SEQUENCES[0]} to {SEQUENCES[-1]}"
            raise InputError(root.path, expected, f"none in {sequence}", "the benchmark scores all of them")
        found += keys
    return tuple(found)


def strange_grid(root: Path) -> str:
    """Why the benchmark's server won't score predictions of ROOT's grid, "" if it will."""
    grid = open_root(root).grid
    return "" if grid == SEMANTIC_KITTI_GRID else f"of another grid than the benchmark's: {grid.shape}"


def folders() -> list[str]:
    """The folder entries, in order."""
    return ["sequences/", *(f"sequences/{s}/{inner}" for s in SEQUENCES for inner in ("", f"{FOLDER}/"))]


def member(key: Key) -> str:
    """A prediction's name in the zip."""
    return f"sequences/{key[0]}/{FOLDER}/{key[1]}{SUFFIX}"


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EARLIEST)
    info.create_system = 3  # Unix, on any system
    folder = name.endswith("/")
    info.external_attr = (0o40755 << 16) | _IS_FOLDER if folder else 0o100644 << 16
    info.compress_type = zipfile.ZIP_STORED if folder else zipfile.ZIP_DEFLATED
    return info


def _checked(predictions: Path, root: KittiRoot, key: Key) -> bytes:
    path = prediction_path(predictions, *key)
    size = path.stat().st_size
    if size != 2 * prod(root.grid.shape):
        raise InputError(path, f"{2 * prod(root.grid.shape)} bytes, uint16 a voxel", f"{size}")
    content = path.read_bytes()
    if fault := _fault_of_ids(content, root):
        raise InputError(path, "raw ids that can be scored", fault)
    return content


def _fault_of_ids(content: bytes, root: KittiRoot) -> str:
    try:
        labels = root.taxonomy.from_raw(np.frombuffer(content, "<u2"), "labels")
    except InputError as error:
        return error.found
    return "a raw id that isn't scored" if (labels == IGNORE).any() else ""


def submission_faults(path: Path, root: Path, progress: Progress = lambda done, total: None) -> Iterator[str]:
    """Everything that is wrong with a submission, a line each; nothing if the benchmark will take it.

    Reads every file in it. Raises InputError if ROOT doesn't hold the benchmark's test sequences.
    """
    dataset = open_root(root)
    keys = required(dataset)
    if path.suffix != ".zip":
        yield f"{path.name}: the name must end in .zip"
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _structure(archive, keys)
            for done, key in enumerate(keys, 1):
                yield from _member_faults(archive, dataset, key)
                progress(done, len(keys))
    except (OSError, zipfile.BadZipFile) as error:
        yield f"{path}: no zip that can be read ({error})"


def _structure(archive: zipfile.ZipFile, keys: tuple[Key, ...]) -> Iterator[str]:
    names = Counter(info.filename for info in archive.infolist())
    yield from (f"{folder}: no entry of its own" for folder in folders() if folder not in names)
    yield from (f"{name}: there {count} times" for name, count in names.items() if count > 1)
    wanted = {member(key) for key in keys} | {OPTIONAL}
    yield from (f"{name}: nothing asks for it" for name in sorted(set(names) - wanted) if not name.endswith("/"))


def _member_faults(archive: zipfile.ZipFile, root: KittiRoot, key: Key) -> Iterator[str]:
    name, size = member(key), 2 * prod(root.grid.shape)
    try:
        info = archive.getinfo(name)
    except KeyError:
        yield f"{name}: missing"
        return
    if info.flag_bits & _ENCRYPTED:
        yield f"{name}: encrypted"
    elif info.file_size != size:
        yield f"{name}: {info.file_size} bytes, {size} expected (uint16 a voxel)"
    else:
        yield from (f"{name}: {fault}" for fault in [_read_fault(archive, info, root)] if fault)


def _read_fault(archive: zipfile.ZipFile, info: zipfile.ZipInfo, root: KittiRoot) -> str:
    try:
        with archive.open(info) as stream:
            content = stream.read(info.file_size)
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        return f"can't be read ({error})"
    return _fault_of_ids(content, root) if len(content) == info.file_size else "shorter than its entry says"
