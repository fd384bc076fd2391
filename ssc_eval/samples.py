"""A dataset on disk -> training samples; several sources are mixed by weight, each a nested part of its frames.

A draw is a function of the seed and its position alone, so any step can be made again. An epoch has as many slots as
the sources have frames together, split among sources by weight; a source's slots go round its frames as often as they
fit in whole, and the rest are drawn at random. One source alone is thus a plain pass over its frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pipeline.datasets.kitti_root import KittiRoot, read_frame
from pipeline.datasets.monoscene_labels import downsample_majority
from pipeline.datasets.statistics import count, dataset_statistics
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import rng as seeded
from ssc_eval.augment import as_floats, flipped, jittered
from ssc_eval.monoscene import MonoSceneConfig
from ssc_eval.surface import first_surface
from ssc_eval.views import Cameras, ImageConfig, ImageKind, Projected, Projections, open_scenes, read_view

REPEAT_BELOW = 0.5  # share of frames below which a class makes its frames be drawn more often
Share = Annotated[float, Field(gt=0, le=1)]


class Source(BaseModel):
    """One dataset on disk as a source of training samples."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    root: Path
    split: str = "train"
    weight: Annotated[float, Field(gt=0)] = 1.0  # its share of the draws is weight / sum of weights
    fraction: Share = 1.0  # of its frames: the first ones of a seeded order, so 5 % lie inside 10 %
    frames: Annotated[int, Field(ge=1)] | None = None  # at most so many, of the same order
    image: ImageKind = "image"  # the photograph (or synthesised image), or the shaded render
    balanced: bool = False  # frames with classes that are in few frames are drawn more often


class SampleConfig(ImageConfig):
    """How a frame becomes a sample."""

    jitter: Annotated[float, Field(ge=0, le=1)] = 0.4  # of brightness, contrast and saturation; 0: none
    mirror: Annotated[float, Field(ge=0, le=1)] = 0.5  # probability of the flipped image and projection
    frustum: bool = True  # samples carry the tiles that the frustum loss needs


class Key(NamedTuple):
    """A frame: its source's number, its sequence and name."""

    source: int
    sequence: str
    frame: str


class SscDataset:
    """Samples of several sources, as pipeline.learning wants them.

    A sample: image (3, H, W) float32 RGB in 0..1; pixels (x, y, z, 2) int16 of the lifted voxels; tiles (X, Y, Z)
    int16; labels (X, Y, Z) uint8, 255 where not scored; coarse (x, y, z) uint8, if the network has a relation prior;
    sight (X, Y, Z, 3) int16, depth (h, w) int16 and surface (h, w) uint8, if it predicts surfaces (surface.py);
    key: number in `keys`. `dataset[i]` is the i-th key unaugmented; `draw(slot, rng)` one of the epoch's draws.
    labelled: frames with labels alone; otherwise all, of which those without have a `view` but no sample.
    Raises InputError, on sources of different grids or classes too.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: SampleConfig,
        seed: int,
        network: MonoSceneConfig,
        labelled: bool = True,
    ):
        if not sources:
            raise InputError("sources", "one dataset or more", "none")
        self.sources, self.config, self.network = tuple(sources), config, network
        self._made_with = (self.sources, config, seed, network, labelled)
        self.roots: list[KittiRoot] = []
        self.cameras: list[Cameras] = []
        for source in sources:
            root, cameras = open_scenes(source.root)
            self.roots.append(root)
            self.cameras.append(cameras)
        self._check_alike()
        self.grid, self.taxonomy = self.roots[0].grid, self.roots[0].taxonomy
        self.chosen = [
            chosen_frames(root, source, seed, labelled) for root, source in zip(self.roots, sources, strict=True)
        ]
        self.keys = [Key(n, *frame) for n, frames in enumerate(self.chosen) for frame in frames]
        self.first = np.cumsum([0, *map(len, self.chosen)])  # a source's first key
        self.slots = slots([source.weight for source in sources], len(self.keys))
        self._projections = Projections(self.grid, network.project_scale, network.depth_bins)

    def _check_alike(self) -> None:
        first = self.roots[0]
        for root in self.roots[1:]:
            if root.grid != first.grid:
                raise InputError(
                    root.path, f"the grid of {first.path.name}, {first.grid}", str(root.grid), "convert it"
                )
            if root.taxonomy != first.taxonomy:
                found = root.taxonomy.name
                raise InputError(root.path, f"the classes of {first.path.name}, {first.taxonomy.name}", found)

    def __reduce__(self) -> tuple[type[SscDataset], tuple[Any, ...]]:
        return SscDataset, self._made_with  # a loader's process opens the roots itself

    def __len__(self) -> int:
        return int(self.slots.sum())

    def draw(self, slot: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """The sample of an epoch's slot, augmented."""
        return self.sample(self.key_of(slot, rng), rng)

    def __getitem__(self, index: int, /) -> dict[str, Tensor]:
        return self.sample(index, None)

    def key_of(self, slot: int, rng: np.random.Generator) -> int:
        """Which frame a slot draws, as a number in `keys`."""
        ends = np.cumsum(self.slots)
        source = int(np.searchsorted(ends, slot, side="right"))
        place = slot - int(ends[source] - self.slots[source])
        frames, first = len(self.chosen[source]), int(self.first[source])
        if self.sources[source].balanced:
            return first + int(rng.choice(frames, p=self._chances[source]))
        whole = self.slots[source] // frames * frames
        return first + (place % frames if place < whole else int(rng.integers(frames)))

    def draw_weights(self) -> Float64[np.ndarray, "n"]:
        """How often each key is drawn, on average, where the mean over keys is 1."""
        drawn = [
            np.full(len(frames), count / len(frames)) if chances is None else count * chances
            for frames, count, chances in zip(self.chosen, self.slots, self._chances, strict=True)
        ]
        return np.concatenate(drawn) * (len(self.keys) / len(self))

    @cached_property
    def _chances(self) -> list[Float64[np.ndarray, "n"] | None]:
        return [
            draw_chances(self._presence(number)) if source.balanced else None
            for number, source in enumerate(self.sources)
        ]

    def _presence(self, source: int) -> Bool[np.ndarray, "n k"]:
        """Which classes occur in a source's frames."""
        root, classes = self.roots[source], len(self.taxonomy.classes)
        counts = [np.bincount(root.scene(*frame).labels.ravel(), minlength=256) for frame in self.chosen[source]]
        return np.stack(counts)[:, :classes] > 0

    def sample(self, number: int, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """A frame as tensors; rng: of its augmentations, None for none. Raises InputError."""
        labels = self.labels(number)
        sample, projected, side = self._view(number, rng)
        sample["labels"] = torch.from_numpy(labels)
        if self.network.relation_prior:
            sample["coarse"] = torch.from_numpy(downsample_majority(labels, self.network.divisor // 2))
        if projected.sight is not None and projected.lines is not None:
            bin_of, bins = projected.sight[0, ..., 2].numpy(), self.network.depth_bins
            depth, class_id = first_surface(labels, projected.lines[side], bin_of, bins)
            sample |= {"depth": torch.from_numpy(depth), "surface": torch.from_numpy(class_id)}
        return sample

    def labels(self, number: int) -> UInt8[np.ndarray, "x y z"]:
        """A frame's labels. Raises InputError."""
        source, sequence, frame = self.keys[number]
        return read_frame(self.roots[source], sequence, frame).scene().labels

    def view(self, number: int, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """The same without what needs labels. Raises InputError."""
        return self._view(number, rng)[0]

    def _view(self, number: int, rng: np.random.Generator | None) -> tuple[dict[str, Tensor], Projected, int]:
        """The view, its camera's projection, and which side of that: 1 for an image flipped left to right."""
        pixels, projected = self._seen(number)
        image, side = as_floats(pixels), 0
        if rng is not None:
            image, side = jittered(image, self.config.jitter, rng), int(rng.random() < self.config.mirror)
        image = flipped(image) if side else image
        sample = {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "pixels": projected.pixels[side],
            "key": torch.tensor(number),
        }
        if self.config.frustum:
            sample["tiles"] = projected.tiles[side]
        if projected.sight is not None:
            sample["sight"] = projected.sight[side]
        return sample, projected, side

    def in_view(self, number: int) -> Bool[np.ndarray, "x y z"]:
        """Which of a frame's voxels the camera sees the centres of. Raises InputError."""
        return self._seen(number)[1].in_view

    def camera(self, number: int) -> Camera:
        """A frame's camera, of the image as the network is fed it. Raises InputError."""
        return self._read(number)[1]

    def _seen(self, number: int) -> tuple[np.ndarray, Projected]:
        image, camera = self._read(number)
        return image, self._projections(camera)

    def _read(self, number: int) -> tuple[UInt8[np.ndarray, "h w 3"], Camera]:
        source, sequence, frame = self.keys[number]
        root, cameras, kind = self.roots[source], self.cameras[source], self.sources[source].image
        return read_view(root, cameras, sequence, frame, kind, self.config)

    def class_voxels(self) -> Float64[np.ndarray, "k"]:
        """Voxels of each class in the chosen frames; of several sources, as in draws by their weights."""
        counts = np.stack([self._counted(number) for number in range(len(self.sources))])  # (sources, K)
        if len(counts) == 1:
            return counts[0]
        shares = self.slots / self.slots.sum()
        return (shares[:, None] * counts / np.maximum(counts.sum(1, keepdims=True), 1)).sum(0) * counts.sum()

    def _counted(self, number: int) -> Float64[np.ndarray, "k"]:
        root, source, frames = self.roots[number], self.sources[number], self.chosen[number]
        if len(frames) == len(root.frames(source.split)):
            return np.array(dataset_statistics(root, source.split, thorough=False).class_voxels, np.float64)
        found = count((root.scene(*frame) for frame in frames), self.taxonomy)
        return np.array(found.class_voxels, np.float64)


def chosen_frames(root: KittiRoot, source: Source, seed: int, labelled: bool = True) -> tuple[tuple[str, str], ...]:
    """(sequence, frame) of the frames that a source takes, in file order. Raises InputError where there is none."""
    found = [(s, f) for s, f in root.frames(source.split) if not labelled or f in root.sequences[s].labelled]
    if not found:
        raise InputError(root.path, f"{'labelled ' if labelled else ''}frames in split {source.split}", "none")
    wanted = max(1, math.ceil(source.fraction * len(found) - 1e-9))
    wanted = min(wanted, source.frames or wanted)
    order = seeded(seed, "ssc subset", 0).permutation(len(found))
    return tuple(found[i] for i in sorted(order[:wanted]))


def slots(weights: Sequence[float], frames: int) -> Int64[np.ndarray, "s"]:
    """How many of an epoch's draws each source gets: in proportion to the weights, by largest remainders, 1 or more."""
    shares = np.array(weights) / sum(weights)
    total = max(frames, math.ceil(1 / shares.min() - 1e-9))
    exact = shares * total
    whole = np.floor(exact + 1e-9).astype(np.int64)
    late = np.argsort(whole - exact, kind="stable")[: total - whole.sum()]
    whole[late] += 1
    return whole


def draw_chances(presence: Bool[np.ndarray, "n k"]) -> Float64[np.ndarray, "n"]:
    """Chances of frames such that rare classes come oftener, from which classes occur in which frame.

    Repeat factors of LVIS (Gupta et al., CVPR 2019): class c in a share f_c of frames asks for max(1, sqrt(t / f_c)), a
    frame takes the largest factor of its classes; t = REPEAT_BELOW. Chances are in proportion.
    """
    shares = presence.mean(0)
    factors = np.sqrt(np.maximum(1.0, REPEAT_BELOW / np.maximum(shares, 1 / len(presence))))
    repeats = np.maximum((presence * factors).max(1), 1.0)
    return repeats / repeats.sum()
