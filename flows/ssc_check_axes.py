"""Whether voxels and photographs show the same world: measured over turned and mirrored labels, and drawn.

Measured is the mutual information between a pixel's colour and the class that the calibrated camera would see there:
how much one tells of the other. Labels whose axes are right have more of it than any turned or mirrored copy, and more
with their own photograph than with another frame's. No colours of classes need be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from flows.scene_pictures import FAINT, MARGIN_PX, beside, fitted, legend, stacked, text_strip
from flows.ssc_check_files import Finding
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from ssc_eval.predictions import Key, Truth

Image = UInt8[np.ndarray, "h w 3"]
WIDTH_PX = 400  # of the photographs that are measured
LEVELS = 5  # of each colour channel
DECISIVE = 2.0  # standard errors between two mean agreements
FEWEST = 3  # frames that a verdict needs
OVERLAY_PX = 224  # a row's height


@dataclass(frozen=True)
class Turn:
    """Another way to hold the labels: x and y swapped first, then axes reversed."""

    swapped: bool = False
    reversed: tuple[bool, bool, bool] = (False, False, False)

    def of(self, labels: UInt8[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x2 y2 z2"]:
        """The labels held so."""
        held = labels.transpose(1, 0, 2) if self.swapped else labels
        return np.ascontiguousarray(held[tuple(slice(None, None, -1 if back else 1) for back in self.reversed)])

    def code(self) -> str:
        """What to do to the labels, in numpy."""
        back = ", ".join("::-1" if back else ":" for back in self.reversed)
        return "labels" + self.swapped * ".transpose(1, 0, 2)" + any(self.reversed) * f"[{back}]"


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame with its photograph, both as small as they are measured."""

    key: Key
    scene: Scene
    camera: Camera
    photograph: Image


def turns(grid: VoxelGrid) -> list[Turn]:
    """All ways to mirror and turn a grid about its vertical, and upside down; none first."""
    swaps = (False, True) if grid.shape[0] == grid.shape[1] else (False,)
    level = [Turn(swap, (x, y, False)) for swap in swaps for x in (False, True) for y in (False, True)]
    return [*level, Turn(False, (False, False, True))]


def shown_frames(truth: Truth, count: int) -> list[Shown]:
    """So many frames of the split, evenly spaced. Raises InputError."""
    places = np.unique(np.linspace(0, len(truth.keys) - 1, min(count, len(truth.keys))).round().astype(int))
    return [_shown(truth, truth.keys[place]) for place in places]


def _shown(truth: Truth, key: Key) -> Shown:
    if truth.form.image is None:
        raise InputError(truth.path, "a format with images", truth.form.name)
    camera, photograph = truth.camera(key), truth.form.image(truth.path, *key)
    return Shown(key, truth.dataset.scene(*key), camera, photograph)


def check_axes(frames: Sequence[Shown]) -> list[Finding]:
    """Axes, and whether photographs are of their frames, by agreement over all the frames."""
    if len(frames) < FEWEST:
        few = f"{len(frames)} frames are too few to tell axes by photographs"
        return [Finding("axes", "note", few, "look at the picture")]
    found = agreements(frames)
    codes = [turn.code() for turn in turns(frames[0].scene.grid)]
    return [_axes(found[:, : len(codes)], codes), _pairing(found[:, 0], found[:, -1])]


def agreements(frames: Sequence[Shown]) -> Float64[np.ndarray, "n t"]:
    """A row a frame: mutual information [nats] for every turn, and with the photograph of another of the frames."""
    colours = [_colours(frame.photograph) for frame in frames]
    rows = []
    for number, frame in enumerate(frames):
        seen = [_seen(frame, turn, colours[number].shape) for turn in turns(frame.scene.grid)]
        other = colours[(number + len(frames) // 2) % len(frames)]
        row = [mutual_information(classes, colours[number]) for classes in seen]
        rows.append([*row, mutual_information(seen[0], other) if other.shape == seen[0].shape else 0.0])
    return np.array(rows)


def _colours(photograph: Image) -> UInt8[np.ndarray, "h w"]:
    small = _measured_size(photograph.shape[1], photograph.shape[0])
    levels = (fitted(photograph, small[1])[:, : small[0]].astype(np.int64) * LEVELS) // 256
    return (levels @ (LEVELS * LEVELS, LEVELS, 1)).astype(np.uint8)


def _measured_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, WIDTH_PX / width)
    small = max(1, round(height * scale))
    return max(1, round(width * small / height)), small


def _seen(frame: Shown, turn: Turn, shape: tuple[int, ...]) -> UInt8[np.ndarray, "h w"]:
    from renderers.traversal import trace

    camera = frame.camera.resized(shape[1], shape[0])
    return trace(turn.of(frame.scene.labels), frame.scene.grid, camera).label


def mutual_information(first: UInt8[np.ndarray, "h w"], second: UInt8[np.ndarray, "h w"]) -> float:
    """Of two maps of small numbers, pixel by pixel [nats]; 0 if neither tells anything of the other."""
    joint = np.bincount(first.ravel().astype(np.int64) * 256 + second.ravel(), minlength=1 << 16).reshape(256, 256)
    share = joint / joint.sum()
    apart = share.sum(1, keepdims=True) * share.sum(0, keepdims=True)
    busy = share > 0
    return float((share[busy] * np.log(share[busy] / apart[busy])).sum())


def _axes(found: Float64[np.ndarray, "n t"], codes: Sequence[str]) -> Finding:
    means, lead = found.mean(0), leads(found)
    best = 1 + int(np.argmax(means[1:]))
    beaten = int((found[:, 0] > found[:, best]).sum())
    text = f"colour and class agree by {means[0]:.2f}, turned or mirrored by {means[best]:.2f} at most"
    if lead.min() >= DECISIVE:
        return Finding("axes", "ok", f"{text} ({codes[best]}), better in {beaten} of {len(found)} frames")
    if lead[best - 1] <= -DECISIVE:
        return Finding("axes", "FAULT", f"{text}, better in {len(found) - beaten} of {len(found)} frames", codes[best])
    return Finding("axes", "note", f"{text}: photographs don't decide", "look at the picture, or give more --frames")


def leads(found: Float64[np.ndarray, "n t"]) -> Float64[np.ndarray, "t1"]:
    """By how many standard errors the first column leads each other one, frame by frame."""
    ahead = found[:, :1] - found[:, 1:]
    error = ahead.std(axis=0, ddof=1) / np.sqrt(len(ahead))
    return ahead.mean(0) / np.maximum(error, 1e-9)


def _pairing(own: Float64[np.ndarray, "n"], other: Float64[np.ndarray, "n"]) -> Finding:
    lead = float(leads(np.stack([own, other], axis=1))[0])
    text = f"voxels agree with their own by {own.mean():.2f}, with another frame's by {other.mean():.2f}"
    if lead >= DECISIVE:
        return Finding("photographs", "ok", text)
    return Finding("photographs", "note", text, "do images and voxels of one name belong together?")


def overlay_sheet(frames: Sequence[Shown], heading: str) -> Image:
    """A row a frame: the photograph, and its visible voxels as dots of their class's colour on it."""
    rows = []
    for frame in frames:
        pictures = [fitted(picture, OVERLAY_PX) for picture in (frame.photograph, overlay(frame))]
        rows += [text_strip("/".join(frame.key), pictures[0].shape[1], 15, FAINT), beside(pictures)]
    width = max(row.shape[1] for row in rows)
    lines = text_strip(heading, width, 22), text_strip(CAPTION, width, 15, FAINT)
    whole = stacked([*lines, *rows, legend(frames[0].scene.taxonomy, width)])
    return np.pad(whole, ((MARGIN_PX,) * 2, (MARGIN_PX,) * 2, (0, 0)), constant_values=255)


CAPTION = (
    "photograph   ·   with the centres of visible voxels: dots should lie on what they are, road on road, car on car"
)


def overlay(frame: Shown) -> Image:
    """The photograph, twice a row's height, with a dot for each voxel that is seen; dots cover a third of a voxel."""
    import cv2

    from renderers.traversal import trace

    height = 2 * OVERLAY_PX
    size = round(frame.camera.width_px * height / frame.camera.height_px), height
    scene, camera = frame.scene, frame.camera.resized(*size)
    picture = (np.asarray(cv2.resize(frame.photograph, size, interpolation=cv2.INTER_AREA)) * 0.75).astype(np.uint8)
    hits = trace(scene.labels, scene.grid, frame.camera)
    index = np.stack(np.unravel_index(np.unique(hits.voxel[hits.voxel >= 0]), scene.grid.shape), axis=-1)
    pixels, depth = camera.project(scene.grid.centre(index))
    colours = scene.taxonomy.color_table()[scene.labels[tuple(index.T)]].tolist()
    inside = camera.sees(pixels, depth)
    for k in sorted(np.flatnonzero(inside), key=lambda k: -depth[k]):  # far ones first
        radius = np.clip(camera.K[0, 0] * scene.grid.voxel_size_m / depth[k] / 6, 1.5, height / 40)
        u, v, r = (round(16 * float(length)) for length in (*pixels[k], radius))
        cv2.circle(picture, (u, v), r, colours[k], -1, cv2.LINE_AA, shift=4)
    return picture
