"""Class-aware pooling (Comp-D3PM, eq. 6): blocks of voxels to one label each, such that rare classes survive.

Per block j: if the share of empty or invalid voxels exceeds a threshold, the block is empty, or invalid where more of
its voxels are invalid than empty; else it is argmax_k Count_j^k / cbrt(F^k), F^k the class's frequency in the data set.
A lone pole fills 1/16 of a block of 4x4x2 voxels, so the threshold is chosen a branch.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY, IGNORE

Block = tuple[int, int, int]


def block_of(grid: VoxelGrid, block_m: tuple[float, float, float]) -> Block:
    """A block's size in voxels from metres. Raises InputError unless it divides the grid."""
    sizes = [round(edge / grid.voxel_size_m) for edge in block_m]
    exact = all(abs(n * grid.voxel_size_m - edge) < 1e-6 for n, edge in zip(sizes, block_m, strict=True))
    if not exact or min(sizes) < 1 or any(n % size for n, size in zip(grid.shape, sizes, strict=True)):
        expected = f"edges in whole voxels of {grid.voxel_size_m} m that divide the grid {grid.shape}"
        raise InputError("pooling block", expected, f"{block_m} m")
    return (sizes[0], sizes[1], sizes[2])


def coarse_grid(grid: VoxelGrid, block: Block) -> tuple[int, int, int]:
    """How many blocks there are along each axis."""
    x, y, z = (n // size for n, size in zip(grid.shape, block, strict=True))
    return (x, y, z)


def class_frequency(counts: Int[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    """F^k: each class's share of all counted voxels, at least one voxel's; counts by class id, empty included."""
    return np.maximum(counts, 1) / max(counts.sum(), 1)


def pool(
    labels: UInt8[np.ndarray, "x y z"], block: Block, frequency: Float[np.ndarray, "k"], threshold: float
) -> UInt8[np.ndarray, "a b c"]:
    """Labels of blocks (eq. 6). threshold: largest share of empty or invalid voxels of a block that is not empty."""
    coarse = tuple(n // size for n, size in zip(labels.shape, block, strict=True))
    a, b, c = block
    cells = labels.reshape(coarse[0], a, coarse[1], b, coarse[2], c).transpose(0, 2, 4, 1, 3, 5)
    cells = cells.reshape(-1, a * b * c)
    counts = _counts(cells, len(frequency))
    solid = counts[:, 1:-1]
    nothing = counts[:, EMPTY] + counts[:, -1]
    likely = (solid / np.cbrt(frequency[1:])).argmax(axis=1).astype(np.uint8) + np.uint8(1)
    hollow = np.where(counts[:, -1] > counts[:, EMPTY], np.uint8(IGNORE), np.uint8(EMPTY))
    is_hollow = (nothing > threshold * cells.shape[1]) | (nothing == cells.shape[1])
    return np.where(is_hollow, hollow, likely).reshape(coarse)


def _counts(cells: UInt8[np.ndarray, "n v"], classes: int) -> Int[np.ndarray, "n k_plus_1"]:
    """Voxels of each class in each cell; the last column counts 255."""
    columns = np.where(cells == IGNORE, classes, cells).astype(np.int64)
    flat = columns + np.arange(len(cells))[:, None] * (classes + 1)
    return np.bincount(flat.ravel(), minlength=len(cells) * (classes + 1)).reshape(len(cells), classes + 1)


def enlarge(labels: UInt8[np.ndarray, "a b c"], block: Block) -> UInt8[np.ndarray, "x y z"]:
    """Every block's label on all its voxels."""
    for axis, size in enumerate(block):
        labels = labels.repeat(size, axis=axis)
    return labels


def share_in_block(voxels: Bool[np.ndarray, "x y z"], block: Block) -> Float[np.ndarray, "a b c"]:
    """The share of a block's voxels that are set."""
    (x, y, z), (a, b, c) = voxels.shape, block
    return np.asarray(voxels.reshape(x // a, a, y // b, b, z // c, c).mean((1, 3, 5)))
