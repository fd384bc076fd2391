"""A SemanticKITTI reader written from the byte facts alone: it imports nothing of the project, and no numpy.

Bits are packed most significant first; labels are uint16 little endian; both are in C order over (x, y, z).
"""

import struct
from pathlib import Path

# learning_map: raw id -> class; raw ids that map to 0 but aren't 0 are ignored (255)
CLASS_OF = {0: 0, 1: 255, 52: 255, 99: 255, 10: 1, 252: 1, 11: 2, 15: 3, 18: 4, 258: 4, 13: 5, 16: 5, 20: 5, 256: 5}
CLASS_OF |= {257: 5, 259: 5, 30: 6, 254: 6, 31: 7, 253: 7, 32: 8, 255: 8, 40: 9, 60: 9, 44: 10, 48: 11, 49: 12, 50: 13}
CLASS_OF |= {51: 14, 70: 15, 71: 16, 72: 17, 80: 18, 81: 19}


def bits(path: Path) -> list[bool]:
    return [bool(byte >> (7 - position) & 1) for byte in path.read_bytes() for position in range(8)]


def raw_labels(path: Path) -> list[int]:
    content = path.read_bytes()
    return list(struct.unpack(f"<{len(content) // 2}H", content))


def labels(folder: Path, frame: str) -> list[int]:
    """Class ids under the benchmark's rule, invalid voxels 255."""
    raw, invalid = raw_labels(folder / f"{frame}.label"), bits(folder / f"{frame}.invalid")
    return [255 if hidden else CLASS_OF[value] for value, hidden in zip(raw, invalid, strict=True)]
