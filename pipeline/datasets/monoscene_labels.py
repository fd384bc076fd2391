"""What MonoScene's loader reads beside SemanticKITTI's own files: labels/XX/NNNNNN_1_1.npy and NNNNNN_1_8.npy, uint8.

_1_1 is the full grid with 255 where not scored; _1_8 one label a block of 8x8x8: if empty and ignored voxels fill more
than 95 % of a block, the more frequent of those two (ignored on a tie), else the most frequent class (the lowest id on
a tie).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join, write_atomic
from pipeline.scene.taxonomy import EMPTY, IGNORE

BLOCK = 8
EMPTY_SHARE = 0.95


def downsample_majority(labels: UInt8[np.ndarray, "x y z"], block: int = BLOCK) -> UInt8[np.ndarray, "bx by bz"]:
    """One label a cube of `block` voxels, by MonoScene's rule. Raises InputError on a grid that isn't a multiple."""
    if any(n % block for n in labels.shape):
        raise InputError("labels", f"a grid divisible by {block}", f"{labels.shape}")
    shape = tuple(n // block for n in labels.shape)
    x, y, z = shape
    blocks = labels.reshape(x, block, y, block, z, block).transpose(0, 2, 4, 1, 3, 5).reshape(-1, block**3)
    counts = _counts(blocks)  # (blocks, 256)
    empty, ignored = counts[:, EMPTY].copy(), counts[:, IGNORE].copy()
    counts[:, [EMPTY, IGNORE]] = 0
    hollow = empty + ignored > EMPTY_SHARE * block**3
    filler = np.where(empty > ignored, EMPTY, IGNORE)
    return np.where(hollow, filler, counts.argmax(axis=1)).astype(np.uint8).reshape(shape)


def _counts(blocks: UInt8[np.ndarray, "b n"]) -> np.ndarray:
    keys = np.arange(len(blocks), dtype=np.int64)[:, None] * 256 + blocks
    return np.bincount(keys.ravel(), minlength=256 * len(blocks)).reshape(-1, 256)


def write_monoscene_labels(root: Path, frame: Frame) -> list[str]:
    """Write both arrays of a labelled frame under ROOT/labels; the paths written, relative to ROOT."""
    labels = frame.scene().labels
    arrays = {"1_1": labels, "1_8": downsample_majority(labels)}
    paths = {scale: f"labels/{frame.sequence}/{frame.name}_{scale}.npy" for scale in arrays}
    for scale, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_atomic(safe_join(root, paths[scale]), buffer.getvalue())
    return list(paths.values())
