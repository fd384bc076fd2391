"""Pictures of a scene: from above, oblique, and as the vehicle's camera sees it; side by side, with labels.

The first two are also what the 2D metrics look at, as they come from `renderers.bird_eye`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, Taxonomy

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Image = UInt8[np.ndarray, "h w 3"]
GAP_PX, MARGIN_PX = 6, 16
FRONT_PX = (424, 128)  # width, height of the vehicle camera's picture
TEXT, FAINT, WHITE = (28, 30, 34), (96, 100, 108), (255, 255, 255)


@dataclass(frozen=True, eq=False)
class SceneViews:
    """above: forward is up; oblique: the published camera; front: KITTI's camera, at `height_px` all."""

    above: Image
    oblique: Image
    front: Image


def scene_views(scene: Scene, height_px: int) -> SceneViews:
    """The three views, scaled to one height; drawn at twice the size first, so that edges are smooth."""
    from renderers.bird_eye import oblique_image
    from renderers.shading import render
    from renderers.viewpoints import kitti_rig

    width = round(FRONT_PX[0] * height_px / FRONT_PX[1])
    camera = kitti_rig(("front",), (2 * width, 2 * height_px))["front"]
    return SceneViews(
        above=fitted(above_image(scene), height_px),
        oblique=fitted(trimmed(oblique_image(scene, (1024, 576))), height_px),
        front=fitted(render(scene, camera).rgb, height_px),
    )


def above_image(scene: Scene) -> Image:
    """The map at a whole number of pixels a voxel, at least 256 px along its longer side where that is possible."""
    from renderers.bird_eye import bird_eye_image

    pixels = max(1, -(-256 // max(scene.grid.shape[:2])))
    return bird_eye_image(scene, scene.grid.voxel_size_m / pixels)


def trimmed(picture: Image) -> Image:
    """A studio picture without most of the paper around the scene; 4:3, or wider where the scene is."""
    from renderers.bird_eye import PAPER

    inked = (picture != PAPER).any(axis=2)
    if not inked.any():
        return picture
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    height = max(rows[-1] + 1 - rows[0], 1)
    width = max(columns[-1] + 1 - columns[0], 4 * height // 3)
    left = max(0, min((columns[0] + columns[-1] - width) // 2, picture.shape[1] - width))
    return picture[rows[0] : rows[0] + height, left : left + width]


def fitted(picture: Image, height_px: int) -> Image:
    """The picture at another height; small ones grow without blur."""
    import cv2

    height, width = picture.shape[:2]
    size = (max(1, round(width * height_px / height)), height_px)
    way = cv2.INTER_AREA if height_px <= height else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, size, interpolation=way))


def boxed(picture: Image, width_px: int) -> Image:
    """The picture centred on white, or cut alike on both sides, at a given width."""
    surplus = picture.shape[1] - width_px
    if surplus >= 0:
        return picture[:, surplus // 2 : surplus // 2 + width_px]
    left = -surplus // 2
    return np.pad(picture, ((0, 0), (left, -surplus - left), (0, 0)), constant_values=255)


def beside(pictures: Sequence[Image], gap_px: int = GAP_PX) -> Image:
    """Pictures in a row, aligned at the top, white between them."""
    height = max(picture.shape[0] for picture in pictures)
    last = len(pictures) - 1
    padded = [
        np.pad(p, ((0, height - p.shape[0]), (0, gap_px if k < last else 0), (0, 0)), constant_values=255)
        for k, p in enumerate(pictures)
    ]
    return np.concatenate(padded, axis=1)


def stacked(pictures: Sequence[Image], gap_px: int = GAP_PX) -> Image:
    """Pictures below each other, aligned at the left, white between them."""
    return np.ascontiguousarray(beside([np.swapaxes(p, 0, 1) for p in pictures], gap_px).swapaxes(0, 1))


def text_strip(text: str, width_px: int, size_px: int, colour: tuple[int, int, int] = TEXT) -> Image:
    """A line of text on white, cut at the width."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    strip = Pillow.new("RGB", (width_px, round(1.5 * size_px)), WHITE)
    ImageDraw.Draw(strip).text((0, round(0.2 * size_px)), text, colour, font=font(size_px))
    return np.array(strip)


def font(size_px: int) -> FreeTypeFont:
    """Pillow's own font, so that pictures don't depend on the machine's."""
    from typing import cast

    from PIL import ImageFont

    return cast("FreeTypeFont", ImageFont.load_default(size_px))


def legend(taxonomy: Taxonomy, width_px: int, size_px: int = 15) -> Image:
    """Colour and name of every class, in as many rows as they need."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    places, x, y = [], 0.0, 0
    for k in range(EMPTY + 1, len(taxonomy.classes)):
        length = 1.5 * size_px + font(size_px).getlength(taxonomy.classes[k]) + 1.4 * size_px
        if x + length > width_px and x > 0:
            x, y = 0.0, y + round(1.6 * size_px)
        places.append((k, round(x), y))
        x += length
    strip = Pillow.new("RGB", (width_px, y + round(1.6 * size_px)), WHITE)
    draw = ImageDraw.Draw(strip)
    for k, left, top in places:
        draw.rectangle((left, top + 3, left + size_px, top + 3 + size_px), taxonomy.colors[k], outline=FAINT)
        draw.text((left + round(1.5 * size_px), top + 2), taxonomy.classes[k], TEXT, font=font(size_px))
    return np.array(strip)
