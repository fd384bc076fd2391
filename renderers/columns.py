"""Occupied voxels as bits: a column along z is one or more 64-bit words, and 8x8 columns are united to a block."""

# mypy: allow-untyped-decorators

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Bool, UInt64

BLOCK_BITS = 3
BLOCK = 1 << BLOCK_BITS
# For functions that allocate nothing: compiled without reference counts. Counting each array handed from function to
# function is an atomic operation, and those were half of all time here. (Numba's cache watches the file of a function,
# not those of the functions it calls: after an edit here or in grid_ray.py, remove renderers/__pycache__.)
lean = numba.njit(cache=True, _nrt=False)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def pack_columns(occupied: Bool[np.ndarray, "x y z"]) -> UInt64[np.ndarray, "x y w"]:
    """Bit z % 64 of word z // 64 is set where voxel (x, y, z) is occupied."""
    x, y, z = occupied.shape
    padded = np.zeros((x, y, -(-z // 64) * 64), np.uint8)
    padded[..., :z] = occupied
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64)


def pack_blocks(columns: UInt64[np.ndarray, "x y w"]) -> UInt64[np.ndarray, "bx by w"]:
    """The union of each 8x8 columns; the last block of an axis may be narrower."""
    x, y, w = columns.shape
    padded = np.zeros((-(-x // BLOCK) * BLOCK, -(-y // BLOCK) * BLOCK, w), np.uint64)
    padded[:x, :y] = columns
    blocks = padded.reshape(len(padded) // BLOCK, BLOCK, -1, BLOCK, w)
    return np.bitwise_or.reduce(np.bitwise_or.reduce(blocks, axis=3), axis=1)


@lean
def any_between(words: UInt64[np.ndarray, "a b w"], a: int, b: int, low: int, high: int) -> bool:
    """Whether any bit low..high (both included) is set in words[a, b]; nothing is where low > high."""
    for w in range(low >> 6, (high >> 6) + 1):
        bits = words[a, b, w]
        if w == low >> 6:
            bits &= _ALL << np.uint64(low & 63)
        if w == high >> 6:
            bits &= _ALL >> np.uint64(63 - (high & 63))
        if bits != 0:
            return True
    return False
