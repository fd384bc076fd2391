"""Figures of structures against counts by hand."""

import numpy as np
import pytest

from pipeline.metrics.structures import structure
from pipeline.scene.taxonomy import IGNORE


def test_by_hand() -> None:
    """Four blocks of which three are of one class; four pairs of neighbours, two alike; an unknown voxel."""
    labels = np.zeros((3, 3, 2), np.uint8)
    labels[0, 0, 0] = labels[0, 1, 0] = labels[0, 1, 1] = 5
    labels[0, 0, 1] = 9
    labels[1, 0, 0] = IGNORE
    found = structure(labels)
    assert (found.occupied, found.classes) == (4, 2)
    assert found.alike == 2 / 4
    assert found.entropy == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))


def test_every_axis_counts() -> None:
    for axis in range(3):
        labels = np.zeros((2, 2, 2), np.uint8)
        place = [0, 0, 0]
        labels[tuple(place)] = 3
        place[axis] = 1
        labels[tuple(place)] = 3
        assert structure(labels).alike == 1


def test_air_alone() -> None:
    found = structure(np.zeros((2, 2, 2), np.uint8))
    assert (found.occupied, found.classes, found.entropy) == (0, 0, 0)
    assert np.isnan(found.alike)
