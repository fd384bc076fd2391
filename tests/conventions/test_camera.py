"""The camera's conventions, worked by hand: pixel centres, axes, depth against distance, sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scene.camera import Camera, kitti_camera, look_at
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from renderers.traversal import trace

K = np.array([[100.0, 0, 2], [0, 50, 1], [0, 0, 1]])
FORWARD = np.array([[0, -1.0, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # x = -Y, y = -Z, z = X
CAMERA = Camera(K, FORWARD, 5, 3)


def test_forward_is_depth_left_is_left_and_up_is_up():
    pixels, depth = CAMERA.project(np.array([[10.0, 0, 0], [10, 0.2, 0], [10, 0, 0.2], [-1, 0, 0]]))
    np.testing.assert_allclose(pixels[:3], [[2, 1], [0, 1], [2, 0]])
    np.testing.assert_array_equal(depth, [10, 10, 10, -1])
    assert np.isnan(pixels[3]).all()  # behind


def test_the_first_pixels_centre_is_zero_and_its_edge_minus_half():
    corner = CAMERA.unproject(np.array([0.0, 0.0]), np.array(10.0))
    np.testing.assert_allclose(corner, [10, 0.2, 0.2])
    np.testing.assert_allclose(CAMERA.ray_directions()[0, 0], corner / 10)
    seen = CAMERA.sees(np.array([[-0.5, 0], [-0.51, 0], [4.49, 0], [4.5, 0], [0, 2.49], [0, 2.5]]), np.ones(6))
    assert seen.tolist() == [True, False, True, False, True, False]


def test_depth_is_along_the_axis_and_distance_along_the_ray():
    camera = Camera(np.array([[4.0, 0, 0], [0, 4, 0], [0, 0, 1]]), FORWARD, 4, 4)
    point = camera.unproject(np.array([3.0, 0.0]), np.array(8.0))
    np.testing.assert_allclose(point, [8, -6, 0])
    assert np.linalg.norm(point) == pytest.approx(10)
    assert camera.distance_over_depth()[0, 3] == pytest.approx(10 / 8)


def test_one_voxel_stands_in_one_pixel():
    """Voxel (20, 31, 24) of 0.1 m from (0, -3, -2) spans y 0.1 to 0.2 and z 0.4 to 0.5; its near face lies at x = 2.0.

    With f = 20 px and c = (2.25, 5.25): u = 2.25 - 20 y / 2 and v = 5.25 - 20 z / 2 both run from 0.25 to 1.25.
    """
    grid = VoxelGrid((40, 60, 40), 0.1, (0.0, -3.0, -2.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[20, 31, 24] = 13
    camera = Camera(np.array([[20.0, 0, 2.25], [0, 20, 5.25], [0, 0, 1]]), FORWARD, 4, 4)
    hits = trace(labels, grid, camera)
    want = np.zeros((4, 4), np.uint8)
    want[1, 1] = 13  # the only centre within
    np.testing.assert_array_equal(hits.label, want)
    assert hits.depth[1, 1] == pytest.approx(2.0, abs=1e-6)
    assert (hits.face[1, 1], hits.voxel[1, 1]) == (-1, (20 * 60 + 31) * 40 + 24)


def test_image_rows_go_down_and_columns_go_right():
    """Left is label 1, right 2, up 3, down 4; the world's Y is left and Z is up."""
    grid = VoxelGrid((1, 3, 3), 1.0, (2.0, -1.5, -1.5))
    labels = np.zeros(grid.shape, np.uint8)
    labels[0, 2, 1], labels[0, 0, 1], labels[0, 1, 2], labels[0, 1, 0] = 1, 2, 3, 4
    camera = Camera(np.array([[2.0, 0, 1], [0, 2, 1], [0, 0, 1]]), FORWARD, 3, 3)
    assert trace(labels, grid, camera).label.tolist() == [[0, 3, 0], [1, 0, 2], [0, 4, 0]]


def test_resizing_keeps_pixel_edges_and_cropping_keeps_pixels():
    half = Camera(K, FORWARD, 4, 2).resized(2, 1)
    assert (half.width_px, half.height_px) == (2, 1)
    point = np.array([[7.0, 0.31, -0.12]])
    (u, v), (u2, v2) = CAMERA.project(point)[0][0], half.project(point)[0][0]
    assert (u2 + 0.5) * 2 == pytest.approx(u + 0.5)
    assert (v2 + 0.5) * 2 == pytest.approx(v + 0.5)
    np.testing.assert_array_equal(CAMERA.cropped(2, 2).project(point)[0], CAMERA.project(point)[0])


def test_the_fourth_column_moves_the_camera():
    """P = K [I | t]: K t = (50, 0, 0) with f = 100 puts the camera 0.5 m to the left of rectified camera 0."""
    P = np.concatenate([K, [[50.0], [0], [0]]], axis=1)
    np.testing.assert_allclose(kitti_camera(P, FORWARD, (5, 3)).centre, [0, 0.5, 0])
    np.testing.assert_allclose(kitti_camera(P, FORWARD, (5, 3), full_projection=False).centre, 0)


def test_look_at_points_the_axis_and_keeps_up_up():
    pose = look_at(np.array([1.0, 2, 3]), np.array([1.0, 12, 3]), np.array([0.0, 0, 1]))
    camera = Camera(K, pose, 5, 3)
    pixels, depth = camera.project(np.array([[1.0, 12, 3], [1.1, 12, 3], [1, 12, 3.1]]))
    np.testing.assert_allclose(pixels, [[2, 1], [3, 1], [2, 0.5]])
    np.testing.assert_allclose(depth, 10)
    np.testing.assert_allclose(camera.centre, [1, 2, 3])


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(*[st.floats(-40, 40)] * 3),
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda a: np.linalg.norm(np.cross(a, (0, 0, 1))) > 0.05),
    st.floats(0.05, 200),
    st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000)),
)
def test_unproject_undoes_project(eye: tuple, ahead: tuple, depth: float, pixel: tuple):
    pose = look_at(np.array(eye), np.array(eye) + ahead, np.array([0.0, 0, 1]))
    camera = Camera(np.array([[700.0, 1.5, 601], [0, 710, 180], [0, 0, 1]]), pose, 1220, 370)
    pixels, back = camera.project(camera.unproject(np.array(pixel), np.array(depth)))
    np.testing.assert_allclose(pixels, pixel, rtol=1e-9, atol=1e-5)
    assert back == pytest.approx(depth, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("bad", [{"width_px": 0}, {"K": np.full((3, 3), np.nan)}, {"K": -K}])
def test_impossible_cameras_are_refused(bad: dict):
    with pytest.raises(InputError, match="Camera: expected"):
        Camera(**{"K": K, "camera_from_world": FORWARD, "width_px": 5, "height_px": 3, **bad})
