"""`occfactory sheet`: a contact sheet of a dataset, a row a frame: image, render, depth, semantics, from above."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flows.recipes import SplitSource
from flows.show import depth_picture, semantics_picture
from flows.sources import split_frames
from flows.viewing import has_image, own_camera
from pipeline.datasets.image_files import write_image
from pipeline.datasets.semantic_kitti import KittiRoot, open_root, read_frame, read_frame_image
from pipeline.scene.errors import InputError

ROW_PX = 128  # a row's height
GAP_PX = 4


def write_sheet(root: Path, split: str, frames: int, out: Path, first: bool = False) -> None:
    """Write a picture of `frames` frames, the first ones or spread over a split; see above for what a row shows.

    Raises InputError.
    """
    if out.suffix not in (".png", ".jpg"):
        raise InputError(out, "a name ending in .png or .jpg", repr(out.suffix))
    source, dataset = SplitSource(root=root, split=split), open_root(root)
    available = len(split_frames(source))
    count = min(frames, available)
    chosen = np.arange(count) if first else np.unique(np.linspace(0, available - 1, count).round().astype(int))
    rows = [_row(source, dataset, int(index)) for index in chosen]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, GAP_PX), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    write_image(out, np.concatenate(padded))


def _row(source: SplitSource, root: KittiRoot, index: int) -> UInt8[np.ndarray, "h w 3"]:
    from renderers.bird_eye import bird_eye_image
    from renderers.shading import render

    sequence, frame = split_frames(source)[index]
    scene = read_frame(root, sequence, frame).scene()
    view = render(scene, own_camera(source, index))
    pictures = [
        *_photograph(root, sequence, frame),
        view.rgb,
        depth_picture(view.depth),
        semantics_picture(view.semantics, root.taxonomy),
        bird_eye_image(scene),
    ]
    gap = np.full((ROW_PX, GAP_PX, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (_fitted(picture), gap)][:-1], axis=1)


def _photograph(root: KittiRoot, sequence: str, frame: str) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The frame's photograph, where there is one: generated roots have none."""
    return [read_frame_image(root, sequence, frame)] if has_image(root, sequence, frame) else []


def _fitted(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    import cv2

    height, width = picture.shape[:2]
    return np.asarray(cv2.resize(picture, (round(width * ROW_PX / height), ROW_PX), interpolation=cv2.INTER_AREA))
