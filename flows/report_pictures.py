"""A report's pictures of samples: image as exported; render, depth, semantics, a map made for the page; 3D scenes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flows.scene_pictures import above_image
from flows.show import depth_picture, semantics_picture
from flows.view import as_jpeg
from pipeline.datasets.image_files import read_depth, read_image, read_label_image, write_image
from pipeline.datasets.semantic_kitti import KittiRoot, frame_path, image_path, read_camera, read_frame
from pipeline.report.report import VIEWER, Picture, Shown, Worst, WorstSample
from pipeline.report.viewer import viewed, write_viewer
from pipeline.scene.errors import InputError
from pipeline.scene.records import Scene

Image = UInt8[np.ndarray, "h w 3"]
PICTURES = "pictures"
QUALITY = 88


class Album:
    """Writes pictures into FOLDER/pictures, each once; FOLDER lies in the dataset's root once it is whole."""

    def __init__(self, root: KittiRoot, folder: Path, rendered: bool):
        self.root, self.folder, self.rendered = root, folder, rendered  # rendered: images are renders already
        self.scene = functools.lru_cache(maxsize=2)(self._scene)

    def _scene(self, name: str) -> Scene:
        return read_frame(self.root, *_key(name)).scene()

    def shown(self, name: str, number: int, note: str, others: Sequence[str] = ()) -> Shown:
        """A sample of the gallery; others: samples that show the same scene. Raises InputError."""
        strips = [self.image(name), *(replace(self.image(other), caption=f"image, {other}") for other in others)]
        if not self.rendered:
            strips += self._render(name)
        for kind, picture in self._views(name):
            strips.append(self._written(name, kind, picture, self._dataset_file(name, kind)))
        if len(strips) % 2:  # one more, so that rows are full
            strips.append(self._written(name, "oblique", self._oblique(name, strips[0].width / strips[0].height)))
        return Shown(name, note, tuple(strips), self.above(name), number)

    def image(self, name: str) -> Picture:
        """The dataset's own file. Raises InputError."""
        path = image_path(self.root, *_key(name))
        height, width = read_image(path).shape[:2]
        href = self._relative(path)
        return Picture("image, the shaded render" if self.rendered else "image", href, href, width, height)

    def above(self, name: str) -> Picture:
        """The map."""
        return self._written(name, "from above", above_image(self.scene(name)))

    def _views(self, name: str) -> list[tuple[str, Image]]:
        """Depth and semantics, where the dataset has them."""
        depth, semantics = (frame_path(self.root, *_folder(name, kind)) for kind in ("depth", "semantics"))
        found = [("depth", depth_picture(read_depth(depth)))] if depth.exists() else []
        if semantics.exists():
            found.append(("semantics", semantics_picture(read_label_image(semantics), self.root.taxonomy)))
        return found

    def _dataset_file(self, name: str, kind: str) -> str:
        return self._relative(frame_path(self.root, *_folder(name, kind)))

    def _render(self, name: str) -> list[Picture]:
        """The render that led the image: the dataset's own, else the voxels through their calibration."""
        from renderers.shading import render

        path = frame_path(self.root, *_folder(name, "render"))
        if path.exists():
            height, width = read_image(path).shape[:2]
            return [Picture("render", self._relative(path), self._relative(path), width, height)]
        try:
            camera = read_camera(self.root, *_key(name))
        except InputError:
            return []
        return [self._written(name, "render", render(self.scene(name), camera).rgb)]

    def _oblique(self, name: str, ratio: float) -> Image:
        """The published view, cut to a strip's shape around the scene."""
        from renderers.bird_eye import PAPER, oblique_image

        whole = oblique_image(self.scene(name), (1024, 576))
        rows, columns = (np.flatnonzero((whole != PAPER).any(axis=(2, axis))) for axis in (1, 0))
        if not rows.size:
            return whole
        whole = whole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        wide, high = max(whole.shape[1], round(ratio * whole.shape[0])), whole.shape[0]
        high = max(high, round(wide / ratio))
        canvas = np.full((high, wide, 3), PAPER, np.uint8)
        top, left = (high - whole.shape[0]) // 2, (wide - whole.shape[1]) // 2
        canvas[top : top + whole.shape[0], left : left + whole.shape[1]] = whole
        return canvas

    def _written(self, name: str, kind: str, picture: Image, href: str = "") -> Picture:
        flat = kind in ("semantics", "from above")  # few colours: PNG is small and sharp
        file = f"{name.replace('/', '_')}_{kind.replace(' ', '_')}.{'png' if flat else 'jpg'}"
        src = f"{PICTURES}/{file}"
        if not (self.folder / src).exists():
            write_image(self.folder / src, picture, quality=QUALITY)
        return Picture(kind, src, href or src, picture.shape[1], picture.shape[0])

    def _relative(self, path: Path) -> str:
        return f"../{path.relative_to(self.root.path).as_posix()}"

    def write_viewer(self, names: Sequence[str], title: str) -> None:
        """The 3D viewer's page of these samples, each with its image."""
        scenes = [
            viewed(self.scene(name), name, as_jpeg(read_image(image_path(self.root, *_key(name))))) for name in names
        ]
        write_viewer(self.folder / VIEWER, scenes, title)

    def worst(self, title: str, samples: Sequence[tuple[str, str]]) -> Worst:
        """(name, value) of the worst samples, with image and map."""
        found = [WorstSample(name, value, (self.image(name), self.above(name))) for name, value in samples]
        return Worst(title, found)


def evenly(names: Sequence[str], count: int) -> list[str]:
    """So many of them, evenly spaced, first and last among them."""
    if count >= len(names):
        return list(names)
    return [names[round(k * (len(names) - 1) / max(count - 1, 1))] for k in range(count)]


def _key(name: str) -> tuple[str, str]:
    sequence, _, frame = name.partition("/")
    return sequence, frame


def _folder(name: str, kind: str) -> tuple[str, str, str]:
    sequence, frame = _key(name)
    return sequence, f"{kind}_2", f"{frame}.png"
