"""Windows: cover, last one at the edge, fronts are anti-diagonals and independent."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.generators.windows import (
    fronts,
    larger_grid,
    lay_windows,
    overlap_voxels,
    owners,
    seam_planes,
    starts,
)
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, VoxelGrid


def test_starts_by_hand() -> None:
    assert starts(8, 8, 2) == [0]
    assert starts(20, 8, 2) == [0, 6, 12]
    assert starts(21, 8, 2) == [0, 6, 12, 13]
    assert starts(16, 8, 0) == [0, 8]
    for length, window, overlap in ((7, 8, 2), (16, 8, 8), (16, 8, -1)):
        with pytest.raises(InputError, match="overlap"):
            starts(length, window, overlap)


def test_fronts_of_a_regular_layout_are_anti_diagonals() -> None:
    windows = lay_windows((20, 20), (8, 8), 2)
    places = [[window.place for window in front] for front in fronts((20, 20), windows)]
    assert places == [
        [(0, 0)],
        [(0, 1), (1, 0)],
        [(0, 2), (1, 1), (2, 0)],
        [(1, 2), (2, 1)],
        [(2, 2)],
    ]


sizes = st.tuples(st.integers(5, 24), st.integers(4, 24))


@settings(max_examples=40)
@given(size=sizes, overlap=st.integers(0, 3))
def test_windows_cover_and_fronts_share_only_what_is_done(size: tuple[int, int], overlap: int) -> None:
    windows = lay_windows(size, (5, 4), overlap)
    owner = owners(size, windows)
    assert owner.min() >= 0
    groups = fronts(size, windows)
    assert sorted(w.place for group in groups for w in group) == sorted(w.place for w in windows)
    done = np.zeros(size, bool)
    for group in groups:
        for a, b in itertools.combinations(group, 2):
            both = np.zeros((2, *size), bool)
            both[0][a.slices] = both[1][b.slices] = True
            assert done[both.all(axis=0)].all()
        for window in group:
            number = windows.index(window)
            earlier = owner[window.slices] < number
            assert done[window.slices][earlier].all()  # it sees all that raster order would have shown it
            assert not (done[window.slices] & (owner[window.slices] > number)).any()  # and nothing else
        for window in group:
            done[window.slices] = True
    assert done.all()


def test_seams_are_where_ownership_changes() -> None:
    size, window = (21, 12), (8, 6)
    owner = owners(size, lay_windows(size, window, 2))
    found = {(0, x) for x in range(1, 21) if (owner[x] != owner[x - 1]).all()}
    found |= {(1, y) for y in range(1, 12) if (owner[:, y] != owner[:, y - 1]).all()}
    assert set(seam_planes(size, window, 2)) == found == {(0, 8), (0, 14), (0, 20), (1, 6), (1, 10)}


def test_metres_become_voxels() -> None:
    assert overlap_voxels(COMPARISON_GRID, 6.4) == 16
    assert larger_grid(COMPARISON_GRID, (51.2, 25.6)) == VoxelGrid((128, 64, 16), 0.4, (0.0, -12.8, -2.0))
    for overlap_m in (25.6, -0.4, float("nan")):
        with pytest.raises(InputError, match="overlap"):
            overlap_voxels(COMPARISON_GRID, overlap_m)
    with pytest.raises(InputError, match=r"at least the generator's 25\.6 x 25\.6 m"):
        larger_grid(COMPARISON_GRID, (51.2, 10))
