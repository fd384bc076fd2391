"""Training pairs of images: a root's photographs beside the renders of their voxels through their own calibration.

A pair is {"image", "control", "prompt", "labels", "depth"}: what ControlNet, the critic and their validation learn
from. Renders are kept on disk, each under the digest of what it was made from: labels, camera and renderer.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8
from pydantic import Field

from flows.recipes import Config, SplitSource
from flows.sources import open_source, split_frames
from flows.viewing import has_image, own_camera
from pipeline.datasets.semantic_kitti import image_path, read_frame_image
from pipeline.images.conditioning import control_image, regions
from pipeline.images.config import ControlConfig
from pipeline.images.palettes import Palettes, mean_colours, whole_palettes
from pipeline.images.prompts import PromptConfig, prompt
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of, sha256_file, write_atomic
from pipeline.scene.records import View
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import Taxonomy

KEPT_BYTES = 1 << 30  # in memory
RENDER_VERSION = 1  # raise it when renderers.shading draws something else
Fit = Literal["scale", "pad"]


class PairsConfig(Config):
    """How pairs are made of a split's frames."""

    width_px: Annotated[int, Field(ge=16, le=8192)]  # of images and control images
    height_px: Annotated[int, Field(ge=16, le=8192)]
    fit: Fit = "scale"  # photographs to this size: by resampling, or, where it is larger, by more at right and bottom
    control: ControlConfig = ControlConfig()
    prompt: PromptConfig = PromptConfig()
    seed: Annotated[int, Field(ge=0)] = 0  # of the prompts where none is drawn anew


class ImagePairs:
    """An Indexed data set. cache: a folder for renders, made when needed; None keeps none.

    keep: hold views, control images and photographs in memory from their first use, KEPT_BYTES at most of each kind:
    for training, which asks for each many times. They are not to be written to.
    Only frames with labels and a photograph are pairs. Raises InputError: no such frames in the split.
    """

    def __init__(self, source: SplitSource, config: PairsConfig, cache: Path | None = None, keep: bool = False):
        self.source, self.config, self.cache, self.keep = source, config, cache, keep
        self.kept: dict[int, tuple[View, Float32[np.ndarray, "c h w"]]] = {}
        self.photographs: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
        self.root = open_source(source.root)
        frames = split_frames(source)
        self.places = [place for place, key in enumerate(frames) if has_image(self.root, *key)]
        self.frames = [frames[place] for place in self.places]
        if not self.frames:
            raise InputError(source.root, f"photographs (image_2) in split {source.split}", "none")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def taxonomy(self) -> Taxonomy:
        """Of the labels."""
        return self.root.taxonomy

    @functools.cached_property
    def palettes(self) -> Palettes:
        """Of all photographs; reads them all. Raises InputError."""
        names, control = self.taxonomy.classes, self.config.control
        places = (regions(self.view(index), control, len(names)) for index in range(len(self)))
        measured = (mean_colours(place, self.photograph(k), len(names) + 1) for k, place in enumerate(places))
        return whole_palettes(names, measured)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A pair with the prompt of its own seed, never dropped. Raises InputError."""
        whole = self.config.prompt.model_copy(update={"dropout": 0.0})
        return self._pair(index, whole, integer_seed(self.config.seed, "pair prompt", index))

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """A pair with a prompt drawn anew, dropped now and then, as training asks for it."""
        return self._pair(index, self.config.prompt, int(rng.integers(1 << 62)))

    def _pair(self, index: int, config: PromptConfig, seed: int) -> dict[str, Any]:
        view, control = self._conditions(index)
        return {
            "image": self.photograph(index),
            "control": control,
            "prompt": prompt(view, self.taxonomy, config, seed).text,
            "labels": view.semantics,
            "depth": view.depth,
        }

    def _conditions(self, index: int) -> tuple[View, Float32[np.ndarray, "c h w"]]:
        if index in self.kept:
            return self.kept[index]
        view = self.view(index)
        palette = self.palettes.colours[index] if "palette" in self.config.control.parts else None
        made = view, control_image(view, self.config.control, palette)
        size = sum(array.nbytes for array in (view.rgb, view.depth, view.semantics, view.normals, made[1]))
        if self._keeps(len(self.kept), size):
            self.kept[index] = made
        return made

    def _keeps(self, held: int, size: int) -> bool:
        return self.keep and (held + 1) * size <= KEPT_BYTES

    def photograph(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The frame's photograph at the pairs' size. Raises InputError."""
        if index in self.photographs:
            return self.photographs[index]
        image = self._fitted(read_frame_image(self.root, *self.frames[index]))
        if self._keeps(len(self.photographs), image.nbytes):
            self.photographs[index] = image
        return image

    def _fitted(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        width, height = self.config.width_px, self.config.height_px
        if image.shape[:2] == (height, width):
            return image
        if self.config.fit == "pad":
            rows, columns = height - image.shape[0], width - image.shape[1]
            return np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="edge")  # `camera` has checked the size
        import cv2

        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)

    def camera(self, index: int) -> Camera:
        """The photograph's camera at the pairs' size. Raises InputError."""
        camera = own_camera(self.source, self.places[index])
        width, height = self.config.width_px, self.config.height_px
        if self.config.fit == "scale":
            return camera.resized(width, height)
        if width < camera.width_px or height < camera.height_px:
            subject, found = image_path(self.root, *self.frames[index]), f"{camera.width_px}x{camera.height_px}"
            raise InputError(subject, f"at most {width}x{height} px, to be padded", found, "pairs of a larger size")
        return camera.cropped(width, height)

    def view(self, index: int) -> View:
        """The render of the frame's voxels, from the cache where it is there and sound. Raises InputError."""
        camera = self.camera(index)
        path = None if self.cache is None else self.cache / f"{self._render_digest(index, camera)}.npz"
        found = _read_view(path, camera) if path is not None else None
        if found is None:
            found = self._render(index, camera)
            if path is not None:
                write_atomic(path, _packed(found))
        return found

    def _render(self, index: int, camera: Camera) -> View:
        from renderers.shading import render

        return render(self.root.scene(*self.frames[index]), camera)

    def _render_digest(self, index: int, camera: Camera) -> str:
        """Of all that the render depends on."""
        files = [sha256_file(path) for path in self.root.label_files(*self.frames[index])]
        grid = [list(self.root.grid.shape), self.root.grid.voxel_size_m, list(self.root.grid.origin_m)]
        pose = [camera.K.tolist(), camera.camera_from_world.tolist(), camera.width_px, camera.height_px]
        return digest_of([RENDER_VERSION, files, grid, pose, [list(color) for color in self.taxonomy.colors]])

    def photographs_digest(self) -> str:
        """SHA-256 of every frame's photograph and of how it is fitted: what an autoencoder learned from."""
        found = hashlib.sha256(f"{self.config.width_px} {self.config.height_px} {self.config.fit}".encode())
        for key in self.frames:
            found.update(f"{key} {sha256_file(image_path(self.root, *key))}".encode())
        return found.hexdigest()

    def digest(self) -> str:
        """SHA-256 of the config and of every frame's labels, camera and photograph: what a run learned from."""
        found = hashlib.sha256(self.config.digest().encode())
        for index, key in enumerate(self.frames):
            image = sha256_file(image_path(self.root, *key))
            found.update(f"{key} {self._render_digest(index, self.camera(index))} {image}".encode())
        return found.hexdigest()


def _packed(view: View) -> bytes:
    """The view's arrays as .npz; voxels' normals are along axes."""
    buffer = io.BytesIO()
    normals = np.rint(view.normals).astype(np.int8)
    np.savez_compressed(buffer, rgb=view.rgb, depth=view.depth, semantics=view.semantics, normals=normals)
    return buffer.getvalue()


def _read_view(path: Path, camera: Camera) -> View | None:
    """What `_packed` wrote; None where there is nothing sound, which is then rendered anew."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            normals = stored["normals"].astype(np.float32)
            return View(camera, stored["rgb"], stored["depth"], stored["semantics"], normals)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
