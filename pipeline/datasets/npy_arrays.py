"""Arrays in .npy form from bytes that someone else made: the header is judged before anything is allocated, and only
plain uint8 arrays are read, so that nothing is ever unpickled.
"""

from __future__ import annotations

import ast
import io
import struct
import warnings
from math import prod

import numpy as np
from jaxtyping import UInt8

from pipeline.scene.errors import InputError

LARGEST_HEADER = 1000  # bytes; a plain array's has 118
_LENGTH = {1: "<H", 2: "<I", 3: "<I"}  # of the header, by major version


def parse_bytes_array(content: bytes, subject: str, largest_edge: int = 1 << 20) -> UInt8[np.ndarray, "*n"]:
    """The uint8 array, in C order, that a .npy file's `content` holds. Raises InputError."""
    shape, start = _header(content, subject)
    if not all(1 <= n <= largest_edge for n in shape):
        raise InputError(subject, f"edges of 1 to {largest_edge}", f"{shape}"[:200])
    if len(content) - start != prod(shape):
        raise InputError(subject, f"{prod(shape)} bytes of {shape}"[:200], f"{len(content) - start} bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _header(content: bytes, subject: str) -> tuple[tuple[int, ...], int]:
    if content[:6] != b"\x93NUMPY" or len(content) < 12 or content[6] not in _LENGTH:
        raise InputError(subject, "an array in .npy form", f"a start of {content[:8]!r}")
    size = struct.calcsize(_LENGTH[content[6]])
    start = 8 + size + struct.unpack(_LENGTH[content[6]], content[8 : 8 + size])[0]
    if start > min(len(content), LARGEST_HEADER):
        raise InputError(subject, f"a .npy header of at most {LARGEST_HEADER} bytes", f"{start}")
    table = _literal(content[8 + size : start], subject)
    if not isinstance(table, dict) or set(table) != {"descr", "fortran_order", "shape"}:
        raise InputError(subject, "a .npy header of descr, fortran_order and shape", f"{table!r}"[:200])
    shape = table["shape"]
    plain = isinstance(shape, tuple) and 1 <= len(shape) <= 8 and all(type(n) is int for n in shape)
    if table["descr"] not in ("|u1", "<u1", "u1") or table["fortran_order"] is not False or not plain:
        raise InputError(subject, "a uint8 array in C order", f"{table!r}"[:200])
    return shape, start


def _literal(text: bytes, subject: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in damaged text
            return ast.literal_eval(text.decode("latin-1").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        found = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(subject, "a .npy header", found[:200]) from None


def bytes_array(array: UInt8[np.ndarray, "*n"]) -> bytes:
    """An array in .npy form; the same array gives the same bytes."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, np.uint8), allow_pickle=False)
    return buffer.getvalue()
