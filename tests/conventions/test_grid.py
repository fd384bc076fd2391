"""Voxel conventions, worked by hand: axis order, centre, half-open boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, DEFAULT_GRID, SEMANTIC_KITTI_GRID, VoxelGrid


def test_first_and_last_voxel_of_semantic_kitti() -> None:
    grid = SEMANTIC_KITTI_GRID
    np.testing.assert_allclose(grid.centre(np.array([0, 0, 0])), [0.1, -25.5, -1.9])
    np.testing.assert_allclose(grid.centre(np.array([255, 255, 31])), [51.1, 25.5, 4.3])
    np.testing.assert_allclose(grid.upper_m, [51.2, 25.6, 4.4])


def test_axes_are_forward_left_up() -> None:
    index = SEMANTIC_KITTI_GRID.index(np.array([[10.0, 0.1, -1.73], [10.0, 5.1, -1.73], [10.0, 0.1, 1.0]]))
    assert index.tolist() == [[50, 128, 1], [50, 153, 1], [50, 128, 15]]


def test_a_voxel_holds_its_lower_face_and_not_its_upper() -> None:
    grid = VoxelGrid((2, 2, 2), 0.5, (0.0, 0.0, 0.0))
    assert grid.index(np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.4999, 0.0, 0.0]])).tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [0, 0, 0],
    ]
    assert grid.contains(grid.index(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-1e-9, 0.0, 0.0]]))).tolist() == [
        True,
        False,
        False,
    ]


def test_the_default_grid_nests_in_semantic_kitti_and_holds_the_comparison_grid() -> None:
    assert DEFAULT_GRID.extent_m == pytest.approx(SEMANTIC_KITTI_GRID.extent_m)
    assert DEFAULT_GRID.origin_m == SEMANTIC_KITTI_GRID.origin_m
    offset = DEFAULT_GRID.coordinates(np.array(COMPARISON_GRID.origin_m))
    np.testing.assert_allclose(offset, [0, 32, 0], atol=1e-9)


@given(st.tuples(*[st.integers(-50, 300)] * 3))
def test_the_centre_lies_in_its_voxel(index: tuple[int, int, int]) -> None:
    for grid in (SEMANTIC_KITTI_GRID, DEFAULT_GRID):
        assert tuple(grid.index(grid.centre(np.array(index)))) == index


def test_centres_agree_with_centre() -> None:
    grid = VoxelGrid((3, 4, 5), 0.3, (1.0, -2.0, 0.5))
    np.testing.assert_allclose(grid.centres()[2, 1, 4], grid.centre(np.array([2, 1, 4])))
    assert grid.centres().shape == (3, 4, 5, 3)


ZERO = (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "bad", [((0, 1, 1), 0.2, ZERO), ((1, 1, 1), 0.0, ZERO), ((1, 1, 1), 1.0, (0.0, 0.0, float("nan")))]
)
def test_impossible_grids_are_refused(bad) -> None:
    with pytest.raises(InputError):
        VoxelGrid(*bad)
