"""Four ways to spoil scenes by a known amount: what F3D must answer to. labels: (n, x, y, z) uint8."""

from collections.abc import Callable

import numpy as np

from pipeline.scene.taxonomy import EMPTY, IGNORE, Taxonomy

Corruption = Callable[[np.ndarray, Taxonomy, float, np.random.Generator], np.ndarray]
BLOCK = 8  # voxels along x and y of a shuffled block


def relabelled(labels: np.ndarray, taxonomy: Taxonomy, share: float, rng: np.random.Generator) -> np.ndarray:
    """This share of the foreground's voxels takes a random foreground class."""
    hit = taxonomy.is_foreground()[labels] & (rng.random(labels.shape) < share)
    out = labels.copy()
    out[hit] = rng.choice(sorted(taxonomy.foreground), hit.sum())
    return out


def deleted(labels: np.ndarray, taxonomy: Taxonomy, share: float, rng: np.random.Generator) -> np.ndarray:
    """This share of the foreground's instances (connected voxels of a class) is empty."""
    from scipy import ndimage

    out = labels.copy()
    for scene in out:
        for k in np.intersect1d(scene, sorted(taxonomy.foreground)):
            instances, n = ndimage.label(scene == k, np.ones((3, 3, 3)))
            gone = np.append(False, rng.random(n) < share)
            scene[gone[instances]] = EMPTY
    return out


def shuffled(labels: np.ndarray, taxonomy: Taxonomy, share: float, rng: np.random.Generator) -> np.ndarray:
    """This share of the ground's blocks of 8 x 8 columns changes places within the scene."""
    n, x, y, z = labels.shape
    grid = labels.reshape(n, x // BLOCK, BLOCK, y // BLOCK, BLOCK, z).swapaxes(2, 3)
    blocks = grid.reshape(n, -1, BLOCK, BLOCK, z).copy()
    for scene in blocks:
        moved = np.flatnonzero(rng.random(len(scene)) < share)
        scene[moved] = scene[rng.permutation(moved)]
    return blocks.reshape(grid.shape).swapaxes(2, 3).reshape(labels.shape)


def invaded(labels: np.ndarray, taxonomy: Taxonomy, share: float, rng: np.random.Generator) -> np.ndarray:
    """This share of the foreground's voxels takes the nearest background class."""
    from scipy import ndimage

    foreground = taxonomy.is_foreground()[labels]
    out = labels.copy()
    for scene, own in zip(out, foreground, strict=True):
        background = ~own & (scene != EMPTY) & (scene != IGNORE)
        if background.any():
            nearest = ndimage.distance_transform_edt(~background, return_distances=False, return_indices=True)
            hit = own & (rng.random(own.shape) < share)
            scene[hit] = scene[tuple(nearest)][hit]
    return out


CORRUPTIONS: dict[str, Corruption] = {
    "label noise": relabelled,
    "deleted objects": deleted,
    "shuffled blocks": shuffled,
    "background invasion": invaded,
}
