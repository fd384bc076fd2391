"""A scene's foreground and background, and the two put together again.

Both keep 255 where the scene has it. In the foreground the background's voxels are empty. In the background the
foreground's voxels are 255: what would be there without the object is not known.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from pipeline.scene.taxonomy import EMPTY, IGNORE

Labels = UInt8[np.ndarray, "*n"]


def split(labels: Labels, is_foreground: Bool[np.ndarray, "256"]) -> tuple[Labels, Labels]:
    """(foreground, background) of labels; is_foreground: look-up table by label (Taxonomy.is_foreground)."""
    things = is_foreground[labels]
    foreground = np.where(things | (labels == IGNORE), labels, np.uint8(EMPTY))
    return foreground, np.where(things, np.uint8(IGNORE), labels)


def merge(foreground: Labels, background: Labels) -> Labels:
    """The scene that `split` took apart: foreground where there is any, else background."""
    things = (foreground != EMPTY) & (foreground != IGNORE)
    return np.where(things, foreground, background)


def foreground_table(foreground: frozenset[int] | set[int]) -> Bool[np.ndarray, "256"]:
    """The look-up table of another foreground set than the taxonomy's own, such as classes 1-8 alone."""
    table = np.zeros(256, bool)
    table[sorted(foreground)] = True
    return table
