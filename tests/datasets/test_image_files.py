"""Images and depth: round trips, the stored numbers, damaged and hostile files."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.image_files import (
    image_size,
    read_depth,
    read_image,
    read_label_image,
    write_depth,
    write_image,
    write_label_image,
)
from pipeline.scene.errors import InputError


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)


def test_png_round_trip_and_stable_bytes(tmp_path, picture) -> None:
    write_image(tmp_path / "a.png", picture)
    write_image(tmp_path / "b.png", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)
    assert image_size(tmp_path / "a.png") == (31, 23)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_jpeg_is_close(tmp_path) -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (32, 1, 3))
    write_image(tmp_path / "a.jpg", ramp)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - ramp).max() < 8
    with pytest.raises(InputError, match=r"\.png or \.jpg"):
        write_image(tmp_path / "a.bmp", ramp)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_other_modes_become_rgb(tmp_path, picture, mode: str) -> None:
    Image.fromarray(picture).convert(mode).save(tmp_path / "a.png")
    expected = np.asarray(Image.open(tmp_path / "a.png").convert("RGBA").convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_depth_is_metres_times_256(tmp_path) -> None:
    depth = np.array([[0.0, 1.0, 2.5], [255.99609375, 300.0, 0.003]], np.float32)
    write_depth(tmp_path / "d.png", depth)
    assert np.asarray(Image.open(tmp_path / "d.png")).tolist() == [[0, 256, 640], [65535, 0, 1]]
    np.testing.assert_array_equal(read_depth(tmp_path / "d.png"), [[0, 1, 2.5], [255.99609375, 0, 1 / 256]])


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 65535), min_size=6, max_size=6))
def test_depth_round_trip(tmp_path, steps: list[int]) -> None:
    depth = (np.array(steps, np.float32) / 256).reshape(2, 3)
    write_depth(tmp_path / "d.png", depth)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.png"), depth)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_impossible_depth_is_not_written(tmp_path, bad: float) -> None:
    with pytest.raises(InputError, match="finite depth"):
        write_depth(tmp_path / "d.png", np.array([[bad]], np.float32))


def encoded(picture: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, body: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


TEXT_BOMB = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found a file that starts with b''"),
        (b"GIF89a........", "expected a PNG or JPEG image"),
        (b"\x89PNG\r\n\x1a\n", "damage"),
        (b"\xff\xd8\xff", "damage"),
        (png(100_000, 100_000), "at most 33554432 pixels, found 100000x100000"),
        (png(2**31 - 1, 2**31 - 1), "found 2147483647x2147483647"),
        (png(8, 8), "damage"),
        (png(8, 8, TEXT_BOMB), "damage"),
    ],
)
def test_damaged_images(tmp_path, content: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_image(tmp_path / "a.png")
    assert str(caught.value).startswith(str(tmp_path / "a.png"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_truncation_is_reported(tmp_path, picture, kind: str) -> None:
    content, path = encoded(picture, kind), tmp_path / "a"
    for length in range(0, len(content) - 16, 37):
        path.write_bytes(content[:length])
        with pytest.raises(InputError):
            read_image(path)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["PNG", "JPEG"]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6))
def test_flipped_bytes_never_give_a_traceback(tmp_path, picture, kind: str, changes: list[tuple[float, int]]) -> None:
    content = bytearray(encoded(picture, kind))
    for where, value in changes:
        content[int(where * (len(content) - 1))] = value
    (tmp_path / "a").write_bytes(content)
    for read in (read_image, read_depth):
        with contextlib.suppress(InputError):
            read(tmp_path / "a")


def test_depth_wants_sixteen_bits(tmp_path, picture) -> None:
    write_image(tmp_path / "a.png", picture)
    with pytest.raises(InputError, match="16-bit grey PNG"):
        read_depth(tmp_path / "a.png")
    write_depth(tmp_path / "d.png", np.ones((2, 2), np.float32))
    with pytest.raises(InputError, match="8-bit RGB or grey"):
        read_image(tmp_path / "d.png")


def test_label_images(tmp_path, picture) -> None:
    write_label_image(tmp_path / "s.png", picture[..., 0])
    np.testing.assert_array_equal(read_label_image(tmp_path / "s.png"), picture[..., 0])
    write_image(tmp_path / "a.png", picture)
    with pytest.raises(InputError, match="8-bit grey PNG of class ids"):
        read_label_image(tmp_path / "a.png")


def test_a_missing_image_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="no regular file"):
        read_image(tmp_path)
