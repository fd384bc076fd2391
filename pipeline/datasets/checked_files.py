"""Reading files that someone else made: kind and size are checked before a byte is read; every fault is one line."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from pipeline.scene.errors import InputError


def read_bounded(path: Path, expected: str, limit: int) -> bytes:
    """A regular file's bytes. Raises InputError when it is missing, unreadable, no file, or above `limit` bytes."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise InputError(path, expected, "no regular file")
        if status.st_size > limit:
            raise InputError(path, f"{expected} of at most {limit} bytes", f"{status.st_size} bytes")
        with open(path, "rb") as handle:
            return handle.read(limit)
    except FileNotFoundError:
        raise InputError(path, expected, "no such file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path, expected, str(error)) from None


def read_exact(path: Path, expected: str, size: int) -> bytes:
    """A file of exactly `size` bytes. Raises InputError."""
    content = read_bounded(path, expected, limit=max(size * 4, 1 << 20))
    if len(content) != size:
        raise InputError(path, f"{expected} of {size} bytes", f"{len(content)} bytes")
    return content


def read_text(path: Path, expected: str, limit: int = 1 << 20) -> str:
    """A small UTF-8 text file. Raises InputError."""
    try:
        return read_bounded(path, expected, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(path, f"{expected} in UTF-8", f"byte {error.object[error.start]:#04x}") from None


def read_json(path: Path, expected: str, limit: int = 1 << 20) -> Any:
    """A small JSON file. Raises InputError."""
    try:
        return json.loads(read_text(path, expected, limit))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(path, f"{expected} in JSON", str(error)) from None
    except ValueError as error:  # an integer of thousands of digits
        if isinstance(error, InputError):
            raise
        raise InputError(path, f"{expected} in JSON", str(error)) from None


def parse_row(text: str, columns: int, subject: str, largest: float) -> list[float]:
    """`columns` finite numbers of magnitude up to `largest`, separated by blanks. Raises InputError on `subject`."""
    words = text.split()
    if len(words) != columns:
        raise InputError(subject, f"{columns} numbers", f"{len(words)}")
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise InputError(subject, "numbers", str(error)) from None
    for value in values:
        if not math.isfinite(value) or abs(value) > largest:
            raise InputError(subject, f"finite numbers up to {largest:g}", f"{value}")
    return values


def read_table(path: Path, expected: str, columns: int, largest: float) -> Float64[np.ndarray, "n c"]:
    """A text file of rows of `columns` numbers; empty lines at the end are allowed. Raises InputError with the line.

    At most 1 MiB a column is read: fifty thousand rows of full precision, parsed in under 300 MB.
    """
    lines = read_text(path, expected, limit=columns << 20).rstrip().splitlines()
    rows = [np.array(parse_row(line, columns, f"{path} line {i}", largest)) for i, line in enumerate(lines, 1)]
    return np.array(rows, np.float64).reshape(len(rows), columns)


def exact_number(value: float) -> str:
    """The shortest text that reads back as exactly the same double."""
    return repr(float(value))
