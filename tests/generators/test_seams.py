"""The seam measure on scenes whose answers can be counted by hand."""

import math

import numpy as np
import pytest

from pipeline.generators.seams import seam_report, seam_report_all
from pipeline.generators.windows import seam_planes
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid


def grid(*shape: int) -> VoxelGrid:
    return VoxelGrid((shape[0], shape[1], shape[2]), 1.0, (0.0, 0.0, 0.0))


def test_one_row_by_hand() -> None:
    labels = np.array([9, 9, 9, 1, 1, 0, 0, 9], np.uint8).reshape(8, 1, 1)
    report = seam_report(labels, grid(8, 1, 1), [(0, 3)])  # between the third 9 and the first 1
    assert report.seam_change == 1
    assert report.seam_agreement == 0
    assert report.seam_pairs == 1
    # elsewhere: 99 same, 99 same, 11 same, 10 changed, 00 not counted, 09 changed
    assert report.interior_change == pytest.approx(2 / 5)
    assert report.interior_agreement == 1
    assert report.ratio == pytest.approx(2.5)


def test_a_uniform_floor_has_no_seam() -> None:
    labels = np.zeros((12, 6, 4), np.uint8)
    labels[:, :, 0] = 9
    report = seam_report(labels, grid(12, 6, 4), seam_planes((12, 6), (6, 6), 0))
    assert (report.seam_change, report.interior_change, report.seam_agreement) == (0, 0, 1)
    assert math.isnan(report.ratio)  # nothing changes anywhere
    assert report.seam_pairs == 6


def test_a_checkerboard_changes_everywhere() -> None:
    labels = (1 + np.indices((6, 6, 2)).sum(axis=0) % 2).astype(np.uint8)
    report = seam_report(labels, grid(6, 6, 2), [(0, 3), (1, 2)])
    assert (report.seam_change, report.interior_change, report.ratio, report.seam_agreement) == (1, 1, 1, 0)
    assert report.interior_high == 1


def test_random_halves_glued_together_show() -> None:
    """Columns of constant class along x, drawn anew at the seam: inside none changes, at the seam 15/16 of them."""
    rng = np.random.default_rng(0)
    halves = [np.broadcast_to(rng.integers(1, 17, (1, 60, 40)), (10, 60, 40)) for _ in range(2)]
    labels = np.concatenate(halves).astype(np.uint8)
    report = seam_report(labels, grid(20, 60, 40), [(0, 10)])
    assert report.interior_change == 0
    assert report.seam_change == pytest.approx(15 / 16, abs=0.02)
    assert seam_report(labels, grid(20, 60, 40), [(0, 9)]).ratio == 0


def test_invalid_voxels_and_empty_pairs_do_not_count() -> None:
    labels = np.array([[9, 255], [0, 0], [9, 1]], np.uint8).T.reshape(2, 3, 1)  # three rows along x: 9? 00 91
    report = seam_report(labels, grid(2, 3, 1), [(0, 1)])
    assert report.seam_pairs == 1
    assert report.seam_change == 1
    assert math.isnan(report.interior_change)


def test_the_interior_is_weighed_by_the_axes_of_the_seams() -> None:
    """Stripes along x: nothing changes along x, all along y; two seams across x and one across y."""
    labels = np.broadcast_to((1 + np.arange(6) % 2)[None, :, None], (6, 6, 1)).astype(np.uint8)
    report = seam_report(labels, grid(6, 6, 1), [(0, 2), (0, 4), (1, 3)])
    assert report.seam_change == report.interior_change == pytest.approx(1 / 3)
    assert report.ratio == 1


def test_scenes_are_counted_together() -> None:
    same, other = np.full((4, 1, 1), 9, np.uint8), np.array([9, 9, 1, 1], np.uint8).reshape(4, 1, 1)
    report = seam_report_all([same, other, other], grid(4, 1, 1), [(0, 2)])
    assert report.seam_change == pytest.approx(2 / 3)
    assert report.interior_change == 0
    assert report.seam_pairs == 3


@pytest.mark.parametrize("planes", [[], [(0, 0)], [(0, 6)], [(3, 1)]])
def test_planes_outside_are_refused(planes: list[tuple[int, int]]) -> None:
    with pytest.raises(InputError, match="seams"):
        seam_report(np.ones((6, 6, 2), np.uint8), grid(6, 6, 2), planes)
