"""Voxels to pixels: hand-worked places, Camera.project, and FLoSP against a loop over voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.scene.camera import Camera, look_at
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, VoxelGrid
from ssc_eval.lifting import check_pixels, coarser, lift, mirrored, projection

FORWARD = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # camera_from_world: looks along +X


def camera(cx: float, cy: float, width: int = 8, height: int = 4, focal: float = 2.0) -> Camera:
    return Camera(np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]]), FORWARD, width, height)


def one_voxel(x: float, y: float, z: float) -> VoxelGrid:
    """A grid of one voxel of 1 m with its centre at this point."""
    return VoxelGrid((1, 1, 1), 1.0, (x - 0.5, y - 0.5, z - 0.5))


def test_left_is_a_smaller_column_and_up_a_smaller_row() -> None:
    # a voxel 4 m ahead, 2 m left, 1 m up; u = 4 - 2*2/4 = 3, v = 2 - 2*1/4 = 1.5 -> row 2 (an edge belongs below)
    found = projection(camera(4.0, 2.0), one_voxel(4.0, 2.0, 1.0))
    assert found.pixels.tolist() == [[[[3, 2]]]]
    assert found.in_view.all()


@pytest.mark.parametrize(
    ("cx", "column"), [(-0.5, 0), (-0.51, -1), (0.49, 0), (0.5, 1), (7.0, 7), (7.49, 7), (7.5, -1)]
)
def test_the_image_reaches_half_a_pixel_beyond_the_outer_centres(cx: float, column: int) -> None:
    found = projection(camera(cx, 1.0), one_voxel(4.0, 0.0, 0.0))  # on the axis, so u = cx
    assert found.pixels[0, 0, 0].tolist() == ([column, 1] if column >= 0 else [-1, -1])
    assert bool(found.in_view[0, 0, 0]) == (column >= 0)


def test_the_last_representable_place_before_the_edge_stays_on_the_image() -> None:
    found = projection(camera(float(np.nextafter(7.5, 0)), 1.0), one_voxel(4.0, 0.0, 0.0))
    assert found.pixels[0, 0, 0].tolist() == [7, 1]


def test_what_lies_behind_the_camera_is_out_of_view() -> None:
    assert projection(camera(4.0, 2.0), one_voxel(-4.0, 0.0, 0.0)).pixels.tolist() == [[[[-1, -1]]]]


def test_scale_two_projects_the_centres_of_blocks_of_eight() -> None:
    eye = look_at(np.array([-3.0, 1.0, 1.0]), np.array([10.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0]))
    view = Camera(np.array([[200.0, 0, 191.5], [0, 200.0, 63.5], [0, 0, 1]]), eye, 384, 128)
    found = projection(view, COMPARISON_GRID, 2)
    blocks = COMPARISON_GRID.centres().reshape(32, 2, 32, 2, 8, 2, 3).mean(axis=(1, 3, 5))
    points, depth = view.project(blocks)
    assert 0.2 < found.in_view.mean() < 0.9
    assert (found.in_view == view.sees(points, depth)).mean() > 0.999  # the two means differ in the last bit
    both = found.in_view & view.sees(points, depth)
    assert np.abs(found.pixels[both] - points[both]).max() <= 0.5 + 1e-9  # the nearest pixel's centre
    assert (found.pixels[~found.in_view] == -1).all()


def test_cells_of_smaller_features_are_those_of_the_resized_camera() -> None:
    """Edges, not centres, are scaled: pixel // s is the pixel of the camera resized by 1/s."""
    view = camera(190.3, 64.2, 384, 128, focal=150.0)
    whole = projection(view, COMPARISON_GRID)
    for scale in (2, 4, 8, 16):
        small = projection(view.resized(384 // scale, 128 // scale), COMPARISON_GRID)
        same = np.where(whole.in_view[..., None], whole.pixels // scale, -1) == small.pixels
        assert same.mean() > 0.9999  # rounding at edges


def test_lift_equals_a_loop_over_voxels() -> None:
    noise = torch.Generator().manual_seed(0)
    features = {s: torch.randn(2, 3, 16 // s, 32 // s, generator=noise, requires_grad=True) for s in (1, 2, 4)}
    u = torch.randint(0, 32, (2, 4, 3, 2), generator=noise)
    v = torch.randint(0, 16, (2, 4, 3, 2), generator=noise)
    pixels = torch.stack([u, v], -1)
    pixels[torch.rand(2, 4, 3, 2, generator=noise) < 0.3] = -1
    expected = torch.zeros(2, 3, 4, 3, 2)
    for b, x, y, z in np.ndindex(2, 4, 3, 2):
        column, row = pixels[b, x, y, z].tolist()
        if column >= 0:
            expected[b, :, x, y, z] = sum(f[b, :, row // s, column // s] for s, f in features.items())
    found = lift(features, pixels.int())
    assert torch.allclose(found, expected, atol=1e-6)
    weight = torch.randn(found.shape, generator=noise)
    leaves = list(features.values())
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves, weight), torch.autograd.grad(expected, leaves, weight), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_mirrored_projection_finds_the_same_features_on_the_flipped_image() -> None:
    features = torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(1))
    pixels = torch.tensor([[0, 0], [7, 3], [3, 1], [-1, -1]], dtype=torch.int32).view(1, 4, 1, 1, 2)
    flipped = mirrored(pixels, 8)
    assert flipped[0, :, 0, 0].tolist() == [[7, 0], [0, 3], [4, 1], [-1, -1]]
    assert torch.equal(lift({1: features.flip(3)}, flipped), lift({1: features}, pixels))


def test_what_is_outside_is_refused_in_one_line() -> None:
    pixels = torch.tensor([[5, 3], [-1, -1]])
    check_pixels(pixels, 6, 4)
    check_pixels(torch.zeros(0, 2, dtype=torch.int64), 6, 4)
    for bad, size in ((pixels, (5, 4)), (pixels, (6, 3)), (pixels - 1, (6, 4)), (pixels.float(), (6, 4))):
        with pytest.raises(InputError, match="projection"):
            check_pixels(bad, *size)
    with pytest.raises(InputError, match="divisible by 3"):
        coarser(COMPARISON_GRID, 3)
    with pytest.raises(InputError, match="one scale"):
        lift({}, pixels.view(1, 2, 1, 1, 2))
