"""Depth and class ids as colours, for people."""

from __future__ import annotations

import numpy as np

from pipeline.scene.taxonomy import Taxonomy

FARTHEST_M = 60.0  # depth pictures' darkest


def depth_picture(depth: np.ndarray) -> np.ndarray:
    """Depth [m] as colours, near yellow to far violet on a logarithmic scale; black where there is none."""
    import cv2

    near = np.clip(np.log(FARTHEST_M / np.clip(depth, 2, FARTHEST_M)) / np.log(FARTHEST_M / 2), 0, 1)
    colours = cv2.applyColorMap((near * 255).astype(np.uint8), cv2.COLORMAP_PLASMA)[..., ::-1]
    return np.where(depth[..., None] > 0, colours, 0).astype(np.uint8)


def semantics_picture(semantics: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Class ids as the taxonomy's flat colours."""
    return taxonomy.color_table()[semantics]
