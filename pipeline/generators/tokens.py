"""Scenes as token sequences, an occupied voxel a token, and where occupancy maps come from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8

from pipeline.generators.protocol import Known
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import rng
from pipeline.scene.taxonomy import EMPTY, IGNORE

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Tokens:
    """A sequence. classes: token ids, a class id less one, so that empty has none; positions: voxel indices."""

    classes: Int64[np.ndarray, "n"]
    positions: Int64[np.ndarray, "n 3"]

    def at(self, index: Int64[np.ndarray, "m"]) -> Tokens:
        """Some of them."""
        return Tokens(self.classes[index], self.positions[index])


def placed(scene: Scene, grid: VoxelGrid) -> UInt8[np.ndarray, "x y z"]:
    """A scene's labels on the grid; a smaller scene in the middle of its floor. Raises InputError."""
    free = [n - m for n, m in zip(grid.shape, scene.labels.shape, strict=True)]
    if min(free) < 0 or scene.grid.voxel_size_m != grid.voxel_size_m:
        expected = f"at most {grid.shape} voxels of {grid.voxel_size_m} m"
        raise InputError("scene", expected, f"{scene.labels.shape}, {scene.grid.voxel_size_m} m")
    low = (free[0] // 2, free[1] // 2, 0)
    labels = np.zeros(grid.shape, np.uint8)
    labels[tuple(slice(a, a + n) for a, n in zip(low, scene.labels.shape, strict=True))] = scene.labels
    return labels


def occupied(labels: UInt8[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
    """Voxels of a known class that isn't empty."""
    return (labels != EMPTY) & (labels != IGNORE)


def tokens_of(labels: UInt8[np.ndarray, "x y z"]) -> Tokens:
    """The occupied voxels in C order; 255 is left out. Raises InputError if there is none."""
    positions = np.argwhere(occupied(labels))
    if not len(positions):
        raise InputError("scene", "an occupied voxel", "none")
    return Tokens(labels[tuple(positions.T)].astype(np.int64) - 1, positions)


def digest_of_tokens(sequences: Sequence[Tokens]) -> str:
    """SHA-256 of all of them: which scenes a network was trained on."""
    digest = hashlib.sha256()
    for tokens in sequences:
        digest.update(str(len(tokens.classes)).encode() + tokens.classes.tobytes() + tokens.positions.tobytes())
    return digest.hexdigest()


def nearest(positions: Int64[np.ndarray, "n 3"], anchor: int, count: int) -> Int64[np.ndarray, "count"]:
    """The `count` voxels nearest to one of them, from near to far; equally far ones in order."""
    distance = np.square(positions - positions[anchor]).sum(1)
    return np.argsort(distance, kind="stable")[:count]


@dataclass(frozen=True, eq=False)
class TokenData:
    """Training sequences; see pipeline.learning.order.Indexed.

    Of more than `limit` voxels the nearest to a random one are taken. turn, shift, wear: see ScaffoldConfig; the grid
    must be square in x and y to be turned.
    """

    sequences: Sequence[Tokens]
    shape: Shape
    limit: int
    turn: bool = False
    shift: bool = False
    wear: float = 0.0

    def __post_init__(self) -> None:
        if self.turn and self.shape[0] != self.shape[1]:
            raise InputError("turning scenes", "a grid as long as wide", str(self.shape))

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int, /) -> Tokens:
        return self.sequences[index]

    def draw(self, index: int, random: np.random.Generator) -> Tokens:
        """A sequence as training sees it this time."""
        tokens = self.sequences[index]
        if len(tokens.classes) > self.limit:
            tokens = tokens.at(nearest(tokens.positions, int(random.integers(len(tokens.classes))), self.limit))
        if self.wear and random.integers(2):
            tokens = worn(tokens, self.wear, random)
        positions = tokens.positions
        if self.turn:
            positions = turned(positions, self.shape[0], int(random.integers(4)), bool(random.integers(2)))
        if self.shift:
            low, high = positions.min(0), positions.max(0)
            aside = random.integers(-low, np.asarray(self.shape) - high)
            positions = positions + aside * [1, 1, 0]  # floors stay floors
        return Tokens(tokens.classes, positions)


def worn(tokens: Tokens, share: float, random: np.random.Generator) -> Tokens:
    """A sequence without some of its voxels: each goes with probability share^n, n its occupied neighbours by face.

    One voxel stays at least.
    """
    low = tokens.positions.min(0) - 1
    there = np.zeros(tokens.positions.max(0) - low + 2, bool)
    there[tuple((tokens.positions - low).T)] = True
    steps = np.concatenate([np.eye(3, dtype=np.int64), -np.eye(3, dtype=np.int64)])
    around = there[tuple((tokens.positions[:, None] - low + steps).transpose(2, 0, 1))].sum(1)  # n
    stays = random.random(len(around)) >= share**around
    stays[random.integers(len(stays))] = True
    return tokens.at(np.flatnonzero(stays))


def turned(positions: Int64[np.ndarray, "n 3"], edge: int, quarters: int, mirror: bool) -> Int64[np.ndarray, "n 3"]:
    """Positions turned about the vertical by quarters of a turn within a square of `edge` voxels, perhaps mirrored."""
    x, y, z = positions.T
    for _ in range(quarters):
        x, y = edge - 1 - y, x
    return np.stack([edge - 1 - x if mirror else x, y, z], 1)


def collate(batch: list[Tokens]) -> dict[str, Any]:
    """Sequences packed one after the other: classes (N,), positions (N, 3), and their lengths."""
    return {
        "classes": torch.from_numpy(np.concatenate([tokens.classes for tokens in batch])),
        "positions": torch.from_numpy(np.concatenate([tokens.positions for tokens in batch])),
        "lengths": [len(tokens.classes) for tokens in batch],
    }


class OccupancySource(Protocol):
    """Where maps come from if scenes are to be made from nothing."""

    def maps(self, seeds: Sequence[int], known: Sequence[Known] | None) -> list[Bool[np.ndarray, "x y z"]]:
        """Which voxels are occupied, a map a seed, each of its seed (and known[i]) alone. Known labels prevail."""
        ...


@dataclass(frozen=True, eq=False)
class GivenMaps:
    """A source that hands out given maps, each seed's by chance."""

    given: Sequence[Bool[np.ndarray, "x y z"]]

    @classmethod
    def of(cls, scenes: Iterable[Scene], grid: VoxelGrid) -> Self:
        """The maps of scenes, placed on the grid as in training. Raises InputError."""
        found = [occupied(placed(scene, grid)) for scene in scenes]
        if not found:
            raise InputError("occupancy maps", "at least one scene", "none")
        return cls(found)

    def maps(self, seeds: Sequence[int], known: Sequence[Known] | None) -> list[Bool[np.ndarray, "x y z"]]:
        """See OccupancySource."""
        return [self.given[int(rng(seed, "given map", 0).integers(len(self.given)))] for seed in seeds]


def map_of(known: Known, drawn: Bool[np.ndarray, "x y z"] | None) -> Bool[np.ndarray, "x y z"]:
    """Occupied voxels: those of a known class, and of the others (255) the drawn map's, or all without one."""
    free = known.labels == IGNORE
    return occupied(known.labels) | (free if drawn is None else free & drawn)
