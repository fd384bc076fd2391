"""`occfactory view`: a path's scenes, with what their cameras saw, as one page to turn in a browser."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flows.scene_paths import Named, chosen_keys, is_single, key_of, named_frames, single_scene
from flows.viewing import KITTI_SIZE_PX
from pipeline.datasets import semantic_kitti
from pipeline.datasets.formats import detect
from pipeline.report.viewer import ViewedScene, viewed
from pipeline.scene.errors import InputError

PICTURE_PX = 900  # a picture's largest width in the page
PICTURE_QUALITY = 85


def scenes_at(
    source: Path,
    split: str | None = None,
    frames: int = 12,
    *,
    first: bool = False,
    names: tuple[str, ...] = (),
    like: Path | None = None,
    pictures: bool = True,
) -> list[ViewedScene]:
    """Scenes of a path, ready to view: `frames` of a split or root, or those of `names` alone. Raises InputError."""
    if is_single(source):
        found = [single_scene(source, like)]
    else:
        keys = tuple(key_of(source, name) for name in names) or chosen_keys(source, split, frames, first)
        found = named_frames(source, keys)
    return [viewed(item.scene, item.name, picture_of(item) if pictures else None) for item in found]


def picture_of(item: Named) -> bytes | None:
    """A frame's photograph, or where there is none its voxels through its own calibration; None without either."""
    if item.root is None or item.key is None or (form := detect(item.root)).image is None:
        return None
    try:
        return as_jpeg(form.image(item.root, *item.key))
    except InputError as error:
        if error.found != "no such file":
            raise
    if form.open is not semantic_kitti.open_root or not _calibrated(item.root, item.key[0]):
        return None
    from renderers.shading import render

    camera = semantic_kitti.read_camera(item.root, *item.key, size_px=KITTI_SIZE_PX)
    return as_jpeg(render(item.scene, camera).rgb)


def _calibrated(root: Path, sequence: str) -> bool:
    return semantic_kitti.frame_path(root, sequence, "", "calib.txt").exists()


def as_jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A picture small enough to lie in a page."""
    from PIL import Image

    picture, buffer = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((PICTURE_PX, PICTURE_PX))
    picture.save(buffer, "JPEG", quality=PICTURE_QUALITY)
    return buffer.getvalue()
