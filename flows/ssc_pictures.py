"""Input image, prediction and ground truth side by side, from the camera and oblique; a contact sheet and a page.

Everything is rendered on the CPU without a display. Predictions are shown whole; ground truth where it is scored, for
the rest of it is not known.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from flows.scene_pictures import FAINT, MARGIN_PX, beside, boxed, fitted, legend, stacked, text_strip
from flows.ssc_score import Scored, to_json
from pipeline.datasets.image_files import write_image
from pipeline.report.evaluation import Page, Table, write_page
from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_folder, require_empty, write_atomic, write_json
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import Taxonomy
from ssc_eval.metrics import ALL, markdown, scores, tally_frame
from ssc_eval.predictions import Key, Truth, open_truth, prediction_path, read_prediction

Image = UInt8[np.ndarray, "h w 3"]
ROW_PX, SMALL_PX, HEADING_PX = 176, 15, 24
OBLIQUE_PX = (1024, 576)  # drawn at, then shrunk
COLUMNS = ("input image", "prediction", "ground truth", "prediction, oblique", "ground truth, oblique")


@dataclass(frozen=True, eq=False)
class Compared:
    """A frame's five pictures, of one height, and its own scores in 0..1 (miou: over classes that occur)."""

    key: Key
    pictures: tuple[Image, ...]
    iou: float
    miou: float

    def caption(self) -> str:
        return f"{'/'.join(self.key)}    IoU {100 * self.iou:.1f}   mIoU of present {100 * self.miou:.1f}"


def compared_frames(predictions: Path, truth: Truth, count: int) -> list[Compared]:
    """So many frames of the split, evenly spaced. Raises InputError on a missing prediction, image or calibration."""
    places = np.unique(np.linspace(0, len(truth.keys) - 1, min(count, len(truth.keys))).round().astype(int))
    window = oblique_window(truth.grid, truth.taxonomy)
    return [compared(predictions, truth, truth.keys[place], window) for place in places]


def compared(predictions: Path, truth: Truth, key: Key, window: tuple[slice, slice]) -> Compared:
    """One frame's pictures. Raises InputError."""
    from renderers.bird_eye import oblique_image
    from renderers.shading import render

    if truth.form.image is None:
        raise InputError(truth.path, "a format with images", truth.form.name)
    scene = truth.dataset.scene(*key)
    labels = read_prediction(prediction_path(predictions, *key), scene.grid, scene.taxonomy)
    predicted = replace(scene, labels=labels)
    camera = truth.camera(key)
    scale = max(1, round(2 * ROW_PX / camera.height_px))  # drawn larger first, so that edges are smooth
    large = camera.resized(scale * camera.width_px, scale * camera.height_px)
    pictures = [
        truth.form.image(truth.path, *key),
        *(render(each, large).rgb for each in (predicted, scene)),
        *(oblique_image(each, OBLIQUE_PX)[window] for each in (predicted, scene)),
    ]
    found = scores(tally_frame(scene.labels, labels, scene.grid, len(scene.taxonomy.classes)), scene.taxonomy.classes)
    values = found["regions"][ALL]
    return Compared(key, tuple(_smooth(picture) for picture in pictures), values["iou"], values["miou_present"])


def _smooth(picture: Image) -> Image:
    """At a row's height; a small photograph grows without blocks."""
    import cv2

    if picture.shape[0] >= ROW_PX:
        return fitted(picture, ROW_PX)
    size = round(picture.shape[1] * ROW_PX / picture.shape[0]), ROW_PX
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))


def oblique_window(grid: VoxelGrid, taxonomy: Taxonomy) -> tuple[slice, slice]:
    """Rows and columns of the oblique picture that a grid can reach, the same for every scene on it."""
    from renderers.bird_eye import PAPER, oblique_image

    solid = oblique_image(Scene(np.ones(grid.shape, np.uint8), grid, taxonomy), OBLIQUE_PX)
    inked = (solid != PAPER).any(axis=2)
    rows, columns = (np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def row(frame: Compared) -> Image:
    """A frame's line: its name and scores, its pictures below."""
    pictures = beside(frame.pictures)
    return stacked([text_strip(frame.caption(), pictures.shape[1], SMALL_PX, FAINT), pictures], 2)


def title_row(frame: Compared) -> Image:
    """What each column shows."""
    return beside(
        [
            boxed(text_strip(name, p.shape[1], SMALL_PX), p.shape[1])
            for name, p in zip(COLUMNS, frame.pictures, strict=True)
        ]
    )


def sheet(frames: Sequence[Compared], taxonomy: Taxonomy, heading: str) -> Image:
    """A contact sheet: heading, columns' titles, a row a frame, the classes' colours."""
    rows = [row(frame) for frame in frames]
    width = max(line.shape[1] for line in rows)
    lines = [text_strip(heading, width, HEADING_PX), text_strip(NOTE, width, SMALL_PX, FAINT), title_row(frames[0])]
    whole = stacked([*lines, *rows, legend(taxonomy, width)])
    return np.pad(whole, ((MARGIN_PX,) * 2, (MARGIN_PX,) * 2, (0, 0)), constant_values=255)


NOTE = "frames evenly spaced over the split, none left out  ·  predictions whole, ground truth where it is scored"


def write_pictures(predictions: Path, root: Path, split: str, count: int, out: Path) -> int:
    """Write the contact sheet as PNG or JPEG; how many frames it shows. Raises InputError."""
    if out.suffix not in (".png", ".jpg"):
        raise InputError(out, "a name ending in .png or .jpg", repr(out.suffix))
    truth = open_truth(root, split)
    frames = compared_frames(predictions, truth, count)
    write_image(out, sheet(frames, truth.taxonomy, _title(predictions, root, split)))
    return len(frames)


def write_report(scored: Scored, count: int, out: Path, command: str = "") -> int:
    """Write OUT/index.html (scores and pictures), scores.json, scores.md and sheet.jpg; how many frames it shows.

    OUT must be new or empty. Raises InputError.
    """
    require_empty(out)
    frames = compared_frames(scored.predictions, open_truth(scored.root, scored.split), count)
    found = to_json(scored, command)
    with atomic_folder(out) as folder:
        write_json(folder / "scores.json", found)
        write_atomic(folder / "scores.md", markdown(found))
        title = _title(scored.predictions, scored.root, scored.split)
        write_image(folder / "sheet.jpg", sheet(frames, scored.taxonomy, title), quality=88)
        write_page(folder / "index.html", _page(title, found, frames, scored.taxonomy))
    return len(frames)


def _title(predictions: Path, root: Path, split: str) -> str:
    return f"{predictions.resolve().name} against {root.resolve().name}, split {split}"


def _page(title: str, found: Mapping[str, Any], frames: Sequence[Compared], taxonomy: Taxonomy) -> Page:
    facts = [
        *([f"Command: {found['command']}"] if found["command"] else []),
        f"{found['frames']} frames, in percent, as SemanticKITTI's evaluation defines the scores.",
        *([f"Not split into in and out of view: {found['note']}"] if found["note"] else []),
    ]
    width = frames[0].pictures[0].shape[1] * 4
    pictures = [
        (f"{NOTE}. From left: {', '.join(COLUMNS)}", legend(taxonomy, width)),
        *((frame.caption(), beside(frame.pictures)) for frame in frames),
    ]
    return Page(title, facts, tables(found), [(text, "image/jpeg", _jpeg(picture)) for text, picture in pictures])


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Scores by region, and classes by region."""
    regions = found["regions"]
    keys = {
        "iou": "IoU",
        "precision": "precision",
        "recall": "recall",
        "miou": "mIoU",
        "miou_present": "mIoU of present",
    }
    rows = [[name, f"{v['voxels']:,}", *(_percent(v[key]) for key in keys)] for name, v in regions.items()]
    whole = regions[ALL]
    classes = [
        [
            name + ("" if name in whole["present"] else " (absent)"),
            *(_percent(v["classes"][name]) for v in regions.values()),
        ]
        for name in whole["classes"]
    ]
    return [
        Table(
            "Scores",
            "A class in neither target nor prediction counts 0 in mIoU.",
            ["region", "voxels", *keys.values()],
            rows,
        ),
        Table("Classes", "IoU by region.", ["class", *regions], classes),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _jpeg(picture: Image) -> bytes:
    from PIL import Image as Pillow

    content = io.BytesIO()
    Pillow.fromarray(picture).save(content, "JPEG", quality=88)
    return content.getvalue()
