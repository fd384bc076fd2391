"""SemanticKITTI's flat voxel files: headerless, C order over (x, y, z), z fastest: index = (x * Y + y) * Z + z.

Bits are packed eight to a byte, most significant first; labels are uint16 little endian, in the benchmark's raw ids.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt16

from pipeline.datasets.checked_files import read_bounded, read_exact
from pipeline.scene.errors import InputError
from pipeline.scene.files import write_atomic
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import Taxonomy

LARGEST_SCAN_BYTES = 1 << 26  # four million points; a real scan has 130,000


def read_bits(path: Path, grid: VoxelGrid) -> Bool[np.ndarray, "x y z"]:
    """A .bin, .invalid or .occluded file. Raises InputError."""
    count = prod(grid.shape)
    packed = np.frombuffer(read_exact(path, f"bits of a {_times(grid)} grid", (count + 7) // 8), np.uint8)
    return np.unpackbits(packed, count=count).view(bool).reshape(grid.shape)


def write_bits(path: Path, bits: Bool[np.ndarray, "x y z"]) -> None:
    write_atomic(path, np.packbits(bits).tobytes())


def read_mask(path: Path, grid: VoxelGrid) -> Bool[np.ndarray, "x y z"]:
    """A mask of bits, or of a byte (0 or 1) a voxel; the file's size tells which. Raises InputError."""
    count = prod(grid.shape)
    expected = f"a mask of a {_times(grid)} grid, {count} bytes or {(count + 7) // 8} bytes of bits"
    content = np.frombuffer(read_bounded(path, expected, max(count, 1 << 20)), np.uint8)
    if len(content) == (count + 7) // 8:
        return np.unpackbits(content, count=count).view(bool).reshape(grid.shape)
    if len(content) != count:
        raise InputError(path, expected, f"{len(content)} bytes")
    if content.max() > 1:
        raise InputError(path, f"{expected}, each 0 or 1", f"{content.max()}")
    return content.astype(bool).reshape(grid.shape)


def write_bytes(path: Path, mask: Bool[np.ndarray, "x y z"]) -> None:
    """Write a mask as a byte a voxel."""
    write_atomic(path, mask.astype(np.uint8).tobytes())


def read_raw_labels(path: Path, grid: VoxelGrid) -> UInt16[np.ndarray, "x y z"]:
    """A .label file's raw ids, unconverted. Raises InputError."""
    content = read_exact(path, f"uint16 labels of a {_times(grid)} grid", 2 * prod(grid.shape))
    return np.frombuffer(content, "<u2").reshape(grid.shape)


def write_raw_labels(path: Path, raw: UInt16[np.ndarray, "x y z"]) -> None:
    write_atomic(path, raw.astype("<u2").tobytes())


def read_points(path: Path) -> Float32[np.ndarray, "n 4"]:
    """A scan (velodyne/*.bin): x, y, z [m, velodyne frame] and reflectance. Raises InputError."""
    content = _records(path, "a scan of float32 x 4", 16)
    points = np.frombuffer(content, "<f4").astype(np.float32).reshape(-1, 4)  # a copy that may be written to
    if not np.isfinite(points).all():
        raise InputError(path, "finite coordinates", f"{points[~np.isfinite(points).all(axis=1)][0].tolist()}")
    return points


def write_points(path: Path, points: Float32[np.ndarray, "n 4"]) -> None:
    write_atomic(path, points.astype("<f4").tobytes())


def read_point_labels(
    path: Path, taxonomy: Taxonomy, points: int | None = None
) -> tuple[UInt16[np.ndarray, "n"], UInt16[np.ndarray, "n"]]:
    """A scan's labels (labels/*.label): raw ids, known to the taxonomy, and instance numbers (the upper 16 bits).

    Raw ids stay raw because majority votes are taken over them; `points` is the scan's length. Raises InputError.
    """
    packed = np.frombuffer(_records(path, "uint32 point labels", 4), "<u4")
    if points is not None and len(packed) != points:
        raise InputError(path, f"a label for each of {points} points", f"{len(packed)}")
    raw = (packed & 0xFFFF).astype(np.uint16)
    taxonomy.from_raw(raw, path)
    return raw, (packed >> 16).astype(np.uint16)


def write_point_labels(path: Path, raw: UInt16[np.ndarray, "n"], instance: UInt16[np.ndarray, "n"]) -> None:
    packed = raw.astype(np.uint32) | (instance.astype(np.uint32) << 16)
    write_atomic(path, packed.astype("<u4").tobytes())


def _records(path: Path, expected: str, size: int) -> bytes:
    content = read_bounded(path, expected, LARGEST_SCAN_BYTES)
    if len(content) % size:
        raise InputError(path, f"{expected}, a multiple of {size} bytes", f"{len(content)} bytes")
    return content


def _times(grid: VoxelGrid) -> str:
    return "x".join(str(n) for n in grid.shape)
