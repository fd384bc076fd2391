"""Scenes to turn in a browser: one HTML page that holds everything, opens from disk and asks nothing of any network.

It draws with WebGL2: faces between unlike occupancies only, shaded by the light that reaches them. Several scenes lie
side by side under one camera; a scene of several frames (a draw's steps) has a slider; a legend counts and hides
classes. A 256x256x32 street scene takes some 70 kB: zlib of labels, each frame as its difference from the one before.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.files import write_atomic
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, Taxonomy

LARGEST_EDGE = 1024  # voxels: a coordinate has ten bits in the page
LARGEST_BESIDE = 16
FLAT = 0.35  # a grid lower than this share of its longer side is looked at from higher up
SCRIPTS = ("viewer_voxels.js", "viewer_draw.js", "viewer.js")
_PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True, eq=False)
class ViewedScene:
    """One scene of the page.

    frames: labels of its steps, the last one is the scene itself; 255 is "not known", shown where there are several.
    picture: what its camera saw, PNG or JPEG; captions: a line a frame, () = "step 3 of 12".
    """

    name: str
    frames: UInt8[np.ndarray, "t x y z"]
    grid: VoxelGrid
    taxonomy: Taxonomy
    picture: bytes | None = None
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        frames, classes = self.frames, len(self.taxonomy.classes)
        if frames.ndim != 4 or not len(frames) or frames.shape[1:] != self.grid.shape or frames.dtype != np.uint8:
            raise InputError(
                self.name, f"uint8 frames of shape (T, {self.grid.shape})", f"{frames.dtype} {frames.shape}"
            )
        if max(self.grid.shape) > LARGEST_EDGE:
            raise InputError(self.name, f"edges of at most {LARGEST_EDGE} voxels", f"{self.grid.shape}")
        if len(self.captions) not in (0, len(frames)):
            raise InputError(self.name, f"{len(frames)} captions or none", str(len(self.captions)))
        strange = np.bincount(frames.ravel(), minlength=256)[classes:IGNORE]
        if strange.any():
            raise InputError(
                self.name, f"labels below {classes}, or 255", str(classes + int(np.flatnonzero(strange)[0]))
            )


def viewed(scene: Scene, name: str, picture: bytes | None = None) -> ViewedScene:
    """A scene of one frame, to view."""
    return ViewedScene(name, scene.labels[None], scene.grid, scene.taxonomy, picture)


def write_viewer(path: Path, scenes: Sequence[ViewedScene], title: str, beside: int = 1) -> None:
    """Write the page; see `viewer_page`."""
    write_atomic(path, viewer_page(scenes, title, beside))


def viewer_page(scenes: Sequence[ViewedScene], title: str, beside: int = 1) -> str:
    """The page; `beside` scenes are shown side by side at first. Raises InputError unless all share one taxonomy."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    if not scenes or not 1 <= beside <= LARGEST_BESIDE:
        raise InputError("viewer", f"scenes, 1 to {LARGEST_BESIDE} side by side", f"{len(scenes)}, {beside}")
    taxonomy = scenes[0].taxonomy
    for scene in scenes:
        if scene.taxonomy != taxonomy:
            raise InputError(scene.name, f"the first scene's taxonomy, {taxonomy.name}", scene.taxonomy.name)
    here = Path(__file__).parent
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string((here / "viewer.html").read_text())
    script = "".join((here / name).read_text() for name in SCRIPTS)
    style = (here / "viewer.css").read_text()
    return template.render(title=title, config=_config(scenes, beside), style=Markup(style), script=Markup(script))


def _config(scenes: Sequence[ViewedScene], beside: int) -> dict[str, Any]:
    x, y, z = scenes[0].grid.shape
    taxonomy = scenes[0].taxonomy
    return {
        "beside": beside,
        "flat": z < FLAT * max(x, y),
        "classes": taxonomy.plain,
        "colors": taxonomy.colors,
        "scenes": [_scene(scene) for scene in scenes],
    }


def _scene(scene: ViewedScene) -> dict[str, Any]:
    return {
        "name": scene.name,
        "shape": scene.grid.shape,
        "voxel_m": scene.grid.voxel_size_m,
        "origin_m": scene.grid.origin_m,
        "frames": len(scene.frames),
        "captions": scene.captions,
        "data": packed(scene.frames),
        "picture": None if scene.picture is None else _data_url(scene.name, scene.picture),
    }


def packed(frames: UInt8[np.ndarray, "t x y z"]) -> str:
    """Base64 of zlib of each frame's difference (modulo 256) from the one before, the first from zeros."""
    changes = np.diff(frames, axis=0, prepend=np.zeros_like(frames[:1]))
    return base64.b64encode(zlib.compress(changes.tobytes(), 9)).decode("ascii")


def _data_url(name: str, picture: bytes) -> str:
    kind = next((kind for magic, kind in _PICTURES.items() if picture.startswith(magic)), None)
    if kind is None:
        raise InputError(name, "a picture in PNG or JPEG", f"bytes that start with {picture[:8]!r}")
    return f"data:{kind};base64,{base64.b64encode(picture).decode('ascii')}"
