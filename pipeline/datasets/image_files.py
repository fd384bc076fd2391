"""Images on disk: RGB as PNG or JPEG, depth as 16-bit PNG (metres x 256, 0 = none), labels as 8-bit grey PNG.

Only Pillow's PNG and JPEG decoders are opened, and the header's size is checked before pixels are decoded.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from pipeline.datasets.checked_files import read_bounded
from pipeline.scene.errors import InputError
from pipeline.scene.files import write_atomic

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

LARGEST_IMAGE_BYTES = 1 << 26
LARGEST_IMAGE_PX = 1 << 25  # decoded at most 32 Mpx: 100 MB of RGB
DEPTH_STEPS_PER_M = 256
_EXPECTED = "a PNG or JPEG image"


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) [px] from the file's header. Raises InputError."""
    return _opened(path).size


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An RGB image. Raises InputError."""
    image = _opened(path)
    if image.mode not in ("RGB", "L", "RGBA", "P"):
        raise InputError(path, "an 8-bit RGB or grey image", f"Pillow mode {image.mode}")
    try:
        plain = image if image.mode in ("RGB", "L") else image.convert("RGBA")  # P may carry transparency
        return np.array(plain.convert("RGB"))  # a copy that may be written to
    except Exception as error:
        raise InputError(path, _EXPECTED, f"damage ({error})") from None


def read_depth(path: Path) -> Float32[np.ndarray, "h w"]:
    """Depth [m], 0 where there is none. Raises InputError."""
    image = _opened(path)
    if not image.mode.startswith("I;16"):
        raise InputError(path, "a 16-bit grey PNG (metres x 256)", f"Pillow mode {image.mode}")
    try:
        return np.asarray(image).astype(np.float32) / DEPTH_STEPS_PER_M
    except Exception as error:
        raise InputError(path, _EXPECTED, f"damage ({error})") from None


def read_label_image(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Class ids of pixels from an 8-bit grey PNG. Raises InputError."""
    image = _opened(path)
    if image.mode != "L":
        raise InputError(path, "an 8-bit grey PNG of class ids", f"Pillow mode {image.mode}")
    try:
        return np.array(image)
    except Exception as error:
        raise InputError(path, _EXPECTED, f"damage ({error})") from None


def _opened(path: Path) -> ImageFile:
    """The image with its header parsed and its size checked."""
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    content = read_bounded(path, _EXPECTED, LARGEST_IMAGE_BYTES)
    kinds = {b"\x89PNG\r\n\x1a\n": PngImageFile, b"\xff\xd8\xff": JpegImageFile}
    opener = next((kind for magic, kind in kinds.items() if content.startswith(magic)), None)
    if opener is None:
        raise InputError(path, _EXPECTED, f"a file that starts with {content[:8]!r}")
    try:
        image: ImageFile = opener(io.BytesIO(content))
    except Exception as error:  # on damaged headers Pillow raises anything from SyntaxError to struct.error
        raise InputError(path, _EXPECTED, f"damage ({error})") from None
    if image.width * image.height > LARGEST_IMAGE_PX:
        raise InputError(path, f"an image of at most {LARGEST_IMAGE_PX} pixels", f"{image.width}x{image.height}")
    return image


def write_image(path: Path, image: UInt8[np.ndarray, "h w 3"], quality: int = 95) -> None:
    """Write PNG or JPEG by the path's suffix; the same pixels give the same bytes. `quality` is JPEG's."""
    if path.suffix == ".png":
        _write_png(path, image)
    elif path.suffix in (".jpg", ".jpeg"):
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        write_atomic(path, buffer.getvalue())
    else:
        raise InputError(path, "a name ending in .png or .jpg", repr(path.suffix))


def write_depth(path: Path, depth: Float32[np.ndarray, "h w"]) -> None:
    """Write depth [m]; above 255.99 m the format has no number, so it becomes 0 (none). Raises InputError."""
    if not np.isfinite(depth).all() or depth.min(initial=0.0) < 0:
        raise InputError(path, "finite depth >= 0", "another")
    steps = np.rint(depth * np.float32(DEPTH_STEPS_PER_M))
    steps[steps > 0xFFFF] = 0
    _write_png(path, steps.astype(np.uint16))


def write_label_image(path: Path, labels: UInt8[np.ndarray, "h w"]) -> None:
    """Write class ids of pixels as an 8-bit grey PNG."""
    _write_png(path, labels)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    write_atomic(path, buffer.getvalue())
