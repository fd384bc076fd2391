"""Ways to damage a file: blindly, or knowing its form so that the damage gets past the first check.

A mutation is a pure function of a healthy content and a generator. `place` puts the outcome on disk, now and then as
something that isn't a plain file at all.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]
TOKENS = [b"nan", b"inf", b"-1", b"1e400", b"0", b"9" * 40, b":", b"\n", b"..", b"\xff\xfe", b"\0", b"[", b"{", b'"']
NUMBERS = [b"nan", b"-inf", b"1e400", b"-1", b"0", b"1e30", b"0x10", b"1_0", "\u0663".encode(), b"9" * 5000, b"", b"x"]
VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 1e308, -1e308, 10**30, 10**400, "", "..", "../../etc/passwd", "/etc/passwd", "a\0b",
    "\ud800", [], {}, [[]], [0] * 100_000, "x" * 100_000, {"a": {"b": [1, 2, {"c": None}]}}, float("nan"), float("inf"),
]  # fmt: skip
BOMB = 1 << 28  # bytes that a bomb unpacks to


def scrambled(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four random changes: bytes, bits, cuts, repeats, insertions."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        where = int(rng.integers(0, len(data) + 1))
        end = where + int(rng.integers(0, 40))
        kind = rng.integers(0, 7)
        if kind == 0 and where < len(data):
            data[where] = rng.integers(0, 256)
        elif kind == 1 and where < len(data):
            data[where] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            del data[where:]
        elif kind == 3:
            del data[where:end]
        elif kind == 4:
            data[where:where] = data[where:end]
        elif kind == 5:
            data[where:where] = TOKENS[rng.integers(0, len(TOKENS))]
        else:
            data[where:end] = rng.bytes(end - where)
    return bytes(data)


def resized(content: bytes, rng: np.random.Generator) -> bytes:
    """Nothing, half, twice, one more or less, a few MB more."""
    choices = [b"", content[: len(content) // 2], content * 2, content[:-1], content + b"\0", content * 1000]
    return choices[rng.integers(0, len(choices))] + bytes(int(rng.integers(0, 2)) << 22)


def special_numbers(content: bytes, rng: np.random.Generator) -> bytes:
    """Not-a-number, infinity, or extremes of integers at aligned places."""
    data = bytearray(content)
    patterns = [b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\xff\xff", b"\xff\xff\x7f\x7f", b"\0\0\0\x80", b"\1\0\0\0"]
    for _ in range(rng.integers(1, 5)):
        where = 4 * int(rng.integers(0, max(len(data) // 4, 1)))
        data[where : where + 4] = patterns[rng.integers(0, len(patterns))]
    return bytes(data[: len(content)])


def json_tree(content: bytes, rng: np.random.Generator) -> bytes:
    """A value of a JSON tree replaced, dropped or repeated; sometimes nested beyond all reason."""
    if rng.random() < 0.1:
        depth = int(rng.integers(10, 200_000))
        return (b"[" if rng.random() < 0.5 else b'{"a":') * depth
    tree = {"root": json.loads(content)}
    holder, key = _node(tree, rng)
    kind = rng.integers(0, 4)
    if kind == 0 and (isinstance(holder, list) or holder is not tree):
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(int(key), holder[key])
    elif kind == 2 and isinstance(holder, dict) and holder is not tree:
        holder[str(VALUES[rng.integers(9, 14)])] = holder.pop(key)
    else:
        holder[key] = VALUES[rng.integers(0, len(VALUES))]
    return json.dumps(tree["root"]).encode()


def _node(tree: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """A random place in a tree: what holds it, and its key there."""
    holder, key = tree, "root"
    while isinstance(holder[key], list | dict) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = keys[rng.integers(0, len(keys))]
    return holder, key


def words(content: bytes, rng: np.random.Generator) -> bytes:
    """Words of a text table replaced, dropped, doubled; lines dropped or joined."""
    lines = [line.split(b" ") for line in content.split(b"\n")]
    for _ in range(rng.integers(1, 4)):
        line = lines[rng.integers(0, len(lines))]
        place, kind = int(rng.integers(0, len(line))), rng.integers(0, 5)
        if kind == 0:
            line[place : place + 1] = [line[place], line[place]]
        elif kind == 1:
            del line[place:]
            line.append(b"")
        elif kind == 2:
            line[place] = line[place][:70] * 30_000
        else:
            line[place] = NUMBERS[rng.integers(0, len(NUMBERS))]
    return b"\n".join(b" ".join(line) for line in lines)


def npy_header(content: bytes, rng: np.random.Generator) -> bytes:
    """A .npy file with another header: huge or odd shapes, other types, lengths and versions."""
    start = 10 + struct.unpack("<H", content[8:10])[0] if len(content) > 10 else len(content)
    shapes = [
        "(1,)",
        "()",
        "(-1, 2)",
        "(0, 2)",
        f"({10**12},)",
        f"({2**62}, 4)",
        "(2L, 2)",
        "(True, 2)",
        "(1e9,)",
        "9" * 5000,
    ]
    shapes += ["(1,) * 99", "[1, 2]", "(" * 300, "'x'", "None", "(200, 200, 16)", "(4096, 4096, 4096, 2)"]
    kinds = [
        "'|u1'",
        "'|O'",
        "'<f8'",
        "'|S4096'",
        "'V1000000000'",
        "[('a', 'u1')]",
        "('u1', (9, 9))",
        "'M8'",
        "u1",
        "'\\d'",
    ]
    order = ["False", "True", "None", "0"][rng.integers(0, 4) if rng.random() < 0.3 else 0]
    shape, kind = shapes[rng.integers(0, len(shapes))], kinds[rng.integers(0, len(kinds)) if rng.random() < 0.4 else 0]
    text = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}".encode() + b"\n"
    version = int(rng.choice([1, 1, 1, 2, 3, 9]))
    length = len(text) if rng.random() < 0.8 else int(rng.integers(0, 1 << 16))
    packed = (
        struct.pack("<H", min(length, 65535)) if version == 1 else struct.pack("<I", length * int(rng.integers(1, 999)))
    )
    return b"\x93NUMPY" + bytes([version, 0]) + packed + text + content[start:]


def zip_members(content: bytes, rng: np.random.Generator) -> bytes:
    """An archive with a member damaged, missing, nested, repeated, or a bomb."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = sorted(members)[rng.integers(0, len(members))]
    kind = int(rng.integers(0, 7))
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[name] = content
    elif kind == 2:
        members[name] = bytes(BOMB if rng.random() < 0.1 else 1 << 21)
    elif kind == 3:
        members[name] = npy_header(b"\x93NUMPY\1\0" + b"\0\0", rng) + bytes(BOMB if rng.random() < 0.05 else 999)
    elif kind == 4:
        members[f"../{name}"] = members.pop(name)
    else:
        members[name] = (npy_header, scrambled)[kind - 5](members[name], rng)
    method = int(rng.choice([8, 8, 8, 0, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    if sum(map(len, members.values())) > 1 << 24:
        method = zipfile.ZIP_DEFLATED
    return _zipped(members, method)


def _zipped(members: dict[str, bytes], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, method)
    return buffer.getvalue()


def zip_fields(content: bytes, rng: np.random.Generator) -> bytes:
    """Sizes, offsets, methods, flags and names in an archive's directory and local headers."""
    data = bytearray(content)
    places = [i for i in range(len(data) - 46) if data[i : i + 4] in (b"PK\1\2", b"PK\3\4", b"PK\5\6")]
    for _ in range(rng.integers(1, 4)):
        where = places[rng.integers(0, len(places))] + int(rng.integers(4, 46))
        width = int(rng.choice([1, 2, 4]))
        value = [0, 1, 8, 12, 14, 0x7FFFFFFF, 0xFFFFFFFF, len(data)][rng.integers(0, 8)] & ((1 << 8 * width) - 1)
        data[where : where + width] = value.to_bytes(width, "little")
    return bytes(data)


def png_chunks(content: bytes, rng: np.random.Generator) -> bytes:
    """A PNG with a chunk changed, dropped, doubled, moved or added, and sound checksums."""
    chunks = _png_chunks(content)
    place, kind = int(rng.integers(0, len(chunks))), int(rng.integers(0, 7))
    name, body = chunks[place]
    if kind == 0:
        del chunks[place]
    elif kind == 1:
        chunks.insert(place, chunks[place])
    elif kind == 2:
        chunks[place] = (name, scrambled(body, rng))
    elif kind == 3:
        header = [int(rng.choice([0, 1, 60, 30_000, 2**31 - 1, 2**32 - 1])) for _ in range(2)]
        chunks[0] = (b"IHDR", struct.pack(">2I", *header) + chunks[0][1][8:])
    elif kind == 4:
        chunks[0] = (b"IHDR", chunks[0][1][:8] + bytes(rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255], 5).astype(np.uint8)))
    elif kind == 5:
        bomb = zlib.compress(bytes(BOMB if rng.random() < 0.02 else 1 << 22), 1)
        extra = [b"iCCPx\0\0", b"zTXtx\0\0", b"iTXtx\0\1\0\0\0", b"IDAT", b"fcTL", b"PLTE", b"acTL"][rng.integers(0, 7)]
        chunks.insert(1, (extra[:4], extra[4:] + bomb))
    else:
        chunks[place], chunks[-1] = chunks[-1], chunks[place]
    return content[:8] + b"".join(_png_chunk(*chunk) for chunk in chunks)


def _png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 8 <= len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def jpeg_fields(content: bytes, rng: np.random.Generator) -> bytes:
    """A JPEG with other sizes, lengths or component tables in its segments."""
    data = bytearray(content)
    places = [i for i in range(len(data) - 12) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC4, 0xDA, 0xDB, 0xE0)]
    for _ in range(rng.integers(1, 4)):
        where = places[rng.integers(0, len(places))] + int(rng.integers(1, 12))
        data[where] = rng.choice([0, 1, 2, 4, 127, 255, 0xC2])
    return bytes(data)


KNOWING: dict[str, tuple[Mutation, ...]] = {
    ".json": (json_tree, json_tree),
    ".txt": (words, words),
    ".npy": (npy_header, npy_header),
    ".npz": (zip_members, zip_members, zip_fields),
    ".png": (png_chunks, png_chunks),
    ".jpg": (jpeg_fields,),
    ".bin": (special_numbers,),
    ".label": (special_numbers,),
}


def mutated(content: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    """A damaged copy of a file with that suffix; one in four by a blind mutation of a knowing one's outcome."""
    choices: tuple[Mutation, ...] = (scrambled, scrambled, resized, *KNOWING.get(suffix, ()) * 2)
    found = choices[rng.integers(0, len(choices))](content, rng)
    return scrambled(found, rng) if rng.random() < 0.25 and len(found) < 1 << 22 else found


def place(path: Path, content: bytes, rng: np.random.Generator) -> None:
    """Put `content` at `path`; once in 25 a folder, a pipe, a link out or in a circle, or 1 TB of zeros."""
    kind = int(rng.integers(0, 150))
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to("/etc/hostname")
    elif kind == 3:
        path.symlink_to(path.name)
    elif kind == 4:
        path.write_bytes(content)
        os.truncate(path, 1 << 40)
    elif kind == 5:
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(content)


def clear(path: Path) -> None:
    """Remove whatever stands at `path`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
