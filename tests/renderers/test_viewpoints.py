"""Viewpoints, bird's eye and oblique view: where cameras stand and what they look at."""

import numpy as np
import pytest

from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import DEFAULT_GRID, SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy
from renderers.bird_eye import PAPER, bird_eye_image, bird_eye_map, oblique_camera, oblique_image
from renderers.viewpoints import Jitter, fitted, intrinsics, jittered, kitti_front, kitti_rig, lens, mounted, rig

TAXONOMY = load_taxonomy("semantic_kitti")


def looks_along(camera: Camera) -> np.ndarray:
    return camera.world_from_camera[:3, 2]


def test_kitti_looks_forward_from_the_car():
    camera = kitti_front()
    assert (camera.width_px, camera.height_px, camera.K[0, 0]) == (1220, 370, 707.0912)
    np.testing.assert_allclose(looks_along(camera), [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(camera.centre, [0.30, 0.06, -0.07], atol=1e-12)
    assert kitti_front("03").K[0, 2] == 609.5593
    with pytest.raises(InputError, match="KITTI lens"):
        kitti_front("99")


def test_yaw_pitch_and_roll_turn_as_they_say():
    K = intrinsics(10, 1, 1)
    np.testing.assert_allclose(looks_along(mounted(K, (3, 3), (0, 0, 0), (90, 0, 0))), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(looks_along(mounted(K, (3, 3), (0, 0, 0), (0, 90, 0))), [0, 0, 1], atol=1e-12)
    rolled = mounted(K, (3, 3), (0, 0, 0), (0, 0, 90))
    np.testing.assert_allclose(rolled.world_from_camera[:3, 0], [0, 0, -1], atol=1e-12)  # its right is down


def test_a_lens_sees_its_angle_from_edge_to_edge():
    camera = mounted(lens((200, 100), 90), (200, 100), (0, 0, 0))
    edge = camera.unproject(np.array([-0.5, 49.5]), np.array(1.0))
    np.testing.assert_allclose(edge, [1, 1, 0], atol=1e-12)
    with pytest.raises(InputError, match="field of view"):
        lens((200, 100), 180)


@pytest.mark.parametrize("size", [(384, 128), (1280, 384), (610, 185), (128, 128), (1220, 370)])
def test_fitting_keeps_square_pixels_and_cuts_centrally(size: tuple[int, int]):
    native = kitti_front()
    camera = fitted(native, size)
    assert (camera.width_px, camera.height_px) == size
    assert camera.K[0, 0] == pytest.approx(camera.K[1, 1], rel=0.01)  # whole pixels
    middle = native.unproject(np.array([609.5, 184.5]), np.array(10.0))
    pixel, _ = camera.project(middle)
    np.testing.assert_allclose(pixel, [(size[0] - 1) / 2, (size[1] - 1) / 2], atol=0.51)
    corners = camera.unproject(np.array([[0, 0], [size[0] - 1.0, size[1] - 1.0]]), np.ones(2))
    assert native.sees(*native.project(corners)).all()  # nothing that the native picture doesn't show


def test_jitter_is_seeded_small_and_about_the_camera():
    camera, jitter = kitti_front(), Jitter(0.03, 0.3)
    one, same = (jittered(camera, jitter, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.camera_from_world, same.camera_from_world)
    generator = np.random.default_rng(6)
    many = [jittered(camera, jitter, generator) for _ in range(400)]
    moved = np.array([c.centre - camera.centre for c in many])
    np.testing.assert_allclose(moved.std(0), 0.03, rtol=0.15)
    aside = np.degrees([np.arcsin(looks_along(c)[1]) for c in many])
    assert np.std(aside) == pytest.approx(0.3, rel=0.15)
    none = jittered(camera, Jitter(0, 0), generator)
    np.testing.assert_allclose(none.camera_from_world, camera.camera_from_world, atol=1e-15)


def test_a_rig_looks_to_all_sides():
    cameras = kitti_rig(("front", "left", "right", "rear"), (384, 128))
    axes = {name: looks_along(c).round(9).tolist() for name, c in cameras.items()}
    assert axes == {"front": [1, 0, 0], "left": [0, 1, 0], "right": [0, -1, 0], "rear": [-1, 0, 0]}
    np.testing.assert_allclose(cameras["left"].centre, [-0.06, 0.30, -0.07], atol=1e-12)
    np.testing.assert_allclose(cameras["rear"].world_from_camera[:3, 1], [0, 0, -1], atol=1e-12)
    with pytest.raises(InputError, match="camera rig"):
        kitti_rig(("front", "up"))
    front = kitti_front(size_px=(384, 128))
    two, four = (rig(front, yaws, Jitter(), np.random.default_rng(3)) for yaws in ((0, 90), (0, 90, 180, 270)))
    for a, b in zip(two, four[:2], strict=True):
        np.testing.assert_array_equal(a.camera_from_world, b.camera_from_world)


# --- from above ------------------------------------------------------------------------------------------------------


def corner_scene() -> Scene:
    grid = VoxelGrid((4, 6, 3), 0.4, (0.0, -1.2, -0.4))
    labels = np.zeros(grid.shape, np.uint8)
    labels[3, 5, :2], labels[3, 5, 2], labels[0, 0, 0], labels[1, 1, 1] = 13, 15, 9, 255
    return Scene(labels, grid, TAXONOMY)


def test_the_map_takes_the_topmost_scored_voxel():
    label, height = bird_eye_map(corner_scene())
    assert {(int(x), int(y)): int(label[x, y]) for x, y in np.argwhere(label)} == {(3, 5): 15, (0, 0): 9}
    np.testing.assert_allclose([height[3, 5], height[0, 0], height[2, 2]], [0.8, 0.0, -0.4], atol=1e-6)


def test_the_picture_has_forward_up_and_left_left():
    image = bird_eye_image(corner_scene())
    assert image.shape == (8, 12, 3)  # 1.6 x 2.4 m at 0.2 m
    drawn = (image != PAPER).any(-1)
    assert drawn[:2, :2].all()  # the far left column
    assert drawn[-2:, -2:].all()  # the near right one
    assert drawn.sum() == 8
    assert image[0, 0, 1] > image[0, 0, 0] + 100  # vegetation's green
    assert bird_eye_image(corner_scene(), 0.4).shape == (4, 6, 3)
    with pytest.raises(InputError, match="m a pixel"):
        bird_eye_image(corner_scene(), 0)


@pytest.mark.parametrize("grid", [SEMANTIC_KITTI_GRID, DEFAULT_GRID, VoxelGrid((32, 32, 32), 1.0, (0.0, 0.0, 0.0))])
def test_the_oblique_view_shows_the_whole_box(grid: VoxelGrid):
    camera = oblique_camera(grid)
    corners = np.array(np.meshgrid(*zip(grid.origin_m, grid.upper_m, strict=True))).reshape(3, -1).T
    assert camera.sees(*camera.project(corners)).all()
    if grid.extent_m[0] == pytest.approx(51.2):
        np.testing.assert_allclose(camera.centre, [-38.4, 0, 36.4], atol=1e-9)


def test_the_oblique_picture_draws_on_paper():
    image = oblique_image(corner_scene())
    assert image.shape == (288, 512, 3)
    assert image[0, 0].tolist() == list(PAPER)
    assert (image != PAPER).any(-1).sum() > 200
