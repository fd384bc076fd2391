"""`occfactory scene-sheet`: generated scenes beside real ones, three views each, the first ones as they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flows.scene_pictures import (
    FAINT,
    FRONT_PX,
    MARGIN_PX,
    beside,
    boxed,
    legend,
    scene_views,
    stacked,
    text_strip,
)
from flows.scene_sets import SceneSet, check_alike, folder_set, grid_of, split_set
from pipeline.datasets.image_files import write_image
from pipeline.scene.errors import InputError

ROW_PX = 144  # a scene's height
NUMBER_PX = 30  # of the column with the scene's number
OBLIQUE_PX = 256
HEADING_PX, SMALL_PX = 24, 15


def write_scene_sheet(folder: Path, out: Path, real: Path | None = None, first: int = 16) -> int:
    """Write the sheet as PNG or JPEG; how many generated scenes it shows. Raises InputError.

    real: a root whose val split is shown beside, as many scenes evenly spaced over it.
    """
    if out.suffix not in (".png", ".jpg"):
        raise InputError(out, "a name ending in .png or .jpg", repr(out.suffix))
    scenes = folder_set(folder)
    shown = scenes.part(range(min(first, len(scenes))))
    columns = [column(shown, f"{scenes.name}: scenes 0 to {len(shown) - 1} of {len(scenes)}, none left out")]
    if real is not None:
        split = split_set(real, "val")
        check_alike(scenes, split)
        spread = evenly(split, len(shown))
        columns.append(column(spread, f"real, held out: {len(spread)} of {len(split)} scenes, evenly spaced"))
    write_image(out, sheet(columns, scenes))
    return len(shown)


def evenly(scenes: SceneSet, count: int) -> SceneSet:
    """So many scenes, evenly spaced over the set."""
    places = np.unique(np.linspace(0, len(scenes) - 1, min(count, len(scenes))).round().astype(int))
    return scenes.part(places.tolist())


def column(scenes: SceneSet, heading: str) -> UInt8[np.ndarray, "h w 3"]:
    """A heading, and a row a scene: from above, oblique, from the vehicle."""
    front_px = round(FRONT_PX[0] * ROW_PX / FRONT_PX[1])
    rows = []
    for index in range(len(scenes)):
        views = scene_views(scenes.scene(index), ROW_PX)
        number = boxed(text_strip(str(index), NUMBER_PX, SMALL_PX, FAINT), NUMBER_PX)
        above = boxed(views.above, ROW_PX)
        rows.append(beside([number, above, boxed(views.oblique, OBLIQUE_PX), boxed(views.front, front_px)]))
    width = rows[0].shape[1]
    lines = text_strip(heading, width, HEADING_PX), text_strip(CAPTION, width, SMALL_PX, FAINT)
    return stacked([*lines, *rows])


CAPTION = "from above (ahead is up)   ·   oblique from behind   ·   vehicle camera.  Unseen voxels are empty"


def sheet(columns: list[UInt8[np.ndarray, "h w 3"]], scenes: SceneSet) -> UInt8[np.ndarray, "h w 3"]:
    """Columns beside each other, the classes' colours below, a margin around."""
    body = beside(columns, 3 * MARGIN_PX)
    whole = stacked([body, legend(grid_of(scenes)[1], body.shape[1])], MARGIN_PX)
    return np.pad(whole, ((MARGIN_PX,) * 2, (MARGIN_PX,) * 2, (0, 0)), constant_values=255)
