"""Views: colours, sky, instances, threads, a golden one; what conditioning wants of them."""

import hashlib

import numba
import numpy as np
import pytest

from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene, View
from pipeline.scene.taxonomy import load_taxonomy
from renderers.meshes import voxel_surface
from renderers.shading import Look, render, render_surface
from renderers.smoothing import render_smoothed, smoothed_surface, with_horizon
from renderers.viewpoints import intrinsics, mounted

TAXONOMY = load_taxonomy("semantic_kitti")
GRID = VoxelGrid((32, 32, 12), 0.5, (0.0, -8.0, -2.0))
CAMERA = mounted(intrinsics(32, 31.75, 19.75), (64, 48), (-0.25, 0.125, 0.25))  # exact in binary
GOLDEN = "baaff9997a3c1a47"


def scene() -> Scene:
    """A road between a wall and a hedge, with a car and a pole on it."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, 0], labels[:, :8, 0] = 9, 11
    labels[:, 28:, :8], labels[:, :3, 1:4] = 13, 15
    labels[10:16, 18:21, 1:4], labels[12, 10, 1:9] = 1, 18
    return Scene(labels, GRID, TAXONOMY)


def images(view: View) -> list[bytes]:
    return [a.tobytes() for a in (view.rgb, view.depth, view.semantics, view.normals)]


def test_a_face_has_its_class_colour_under_the_light():
    view = render(scene(), CAMERA, Look(grain=0, haze_m=1e9))
    v, u = np.argwhere((view.semantics == 1) & (view.normals[..., 0] == -1))[0]
    sun = np.array([-0.5, 0.34, 0.8]) / np.linalg.norm([0.5, 0.34, 0.8])
    light = 0.42 + 0.22 * 0.5 + 0.44 * -sun[0] * 1.0
    np.testing.assert_allclose(view.rgb[v, u], np.array(TAXONOMY.colors[1]) * light, atol=0.51)


def test_the_view_is_whole():
    view = render(scene(), CAMERA)
    hit = view.semantics > 0
    assert set(np.unique(view.semantics)) == {0, 1, 9, 11, 13, 15, 18}
    np.testing.assert_array_equal(view.depth > 0, hit)
    np.testing.assert_allclose(np.abs(view.normals).sum(-1), hit)
    assert view.instance is None
    assert (view.rgb.dtype, view.depth.dtype, view.normals.dtype) == (np.uint8, np.float32, np.float32)
    assert view.rgb.min(axis=-1)[~hit].min() > 100  # sky and plain, no black


def test_haze_and_sky_follow_the_look():
    look = Look(haze_m=1e-3, horizon=(10, 20, 30), zenith=(10, 20, 30), plain=(10, 20, 30))
    assert np.abs(render(scene(), CAMERA, look).rgb - np.array([10.0, 20, 30])).max() <= 1


def test_instances_are_looked_up_by_voxel():
    numbers = np.zeros(GRID.shape, np.int32)
    numbers[10:16, 18:21, 1:4] = 77
    view = render(scene(), CAMERA, instances=numbers)
    assert view.instance is not None
    np.testing.assert_array_equal(view.instance, np.where(view.semantics == 1, 77, 0))
    with pytest.raises(InputError, match="instances of shape"):
        render(scene(), CAMERA, instances=numbers[1:])


def test_a_surface_looks_as_its_voxels_do():
    look = Look(grain=0)
    voxels, faces = render(scene(), CAMERA, look), render_surface(voxel_surface(scene()), CAMERA, look)
    np.testing.assert_array_equal(voxels.semantics, faces.semantics)
    np.testing.assert_allclose(voxels.depth, faces.depth, atol=1e-5)
    assert np.abs(voxels.rgb.astype(int) - faces.rgb).max() <= 1
    assert faces.instance is not None


def test_threads_and_repetition_change_nothing():
    before = numba.get_num_threads()
    try:
        seen = []
        for threads in (1, before, before):
            numba.set_num_threads(threads)
            seen.append(images(render(scene(), CAMERA)))
    finally:
        numba.set_num_threads(before)
    assert seen[0] == seen[1] == seen[2]


def test_golden():
    """The bytes of a small view; if a change of the look is meant, look at the picture and renew it."""
    assert hashlib.sha256(b"".join(images(render(scene(), CAMERA)))).hexdigest()[:16] == GOLDEN


# --- conditioning ----------------------------------------------------------------------------------------------------


def test_smoothing_rounds_steps_and_keeps_places():
    rough, smooth = voxel_surface(scene()), smoothed_surface(scene())
    moved = np.linalg.norm(smooth.vertices - rough.vertices, axis=1)
    assert 0 < np.median(moved) < 0.1
    assert moved.max() < 1.0  # two voxels, at the pole's tip
    view, plain = render_smoothed(scene(), CAMERA), render(scene(), CAMERA)
    assert (view.semantics == plain.semantics).mean() > 0.93
    assert len(np.unique(view.normals.reshape(-1, 3), axis=0)) > 50


def test_smoothing_turns_stairs_into_a_slope():
    labels = np.zeros((24, 24, 24), np.uint8)
    for x in range(24):
        labels[x, :, : x // 3 + 1] = 9
    grid = VoxelGrid(labels.shape, 0.2, (0.0, 0.0, 0.0))
    surface = smoothed_surface(Scene(labels, grid, TAXONOMY), rounds=40)
    corner = surface.vertices[surface.triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    middle = ((corner.mean(1)[:, :2] > 1.2) & (corner.mean(1)[:, :2] < 3.6)).all(1) & (corner.mean(1)[:, 2] > 0.3)
    np.testing.assert_allclose(normal[middle] @ np.array([-1, 0, 3]) / np.sqrt(10), 1, atol=0.12)


def test_the_horizon_fills_what_lies_below_it():
    empty = Scene(np.zeros(GRID.shape, np.uint8), GRID, TAXONOMY)
    view = with_horizon(render(empty, CAMERA), -1.75, class_id=9)
    rows = np.arange(48)
    below = rows > 19.75
    np.testing.assert_array_equal(view.semantics == 9, np.broadcast_to(below[:, None], (48, 64)))
    np.testing.assert_allclose(view.depth[below, 5], 2 * 32 / (rows[below] - 19.75), rtol=1e-6)  # f h / (v - cy)
    assert not view.depth[~below].any()
    assert (view.normals[below] == [0, 0, 1]).all()
    full = render(scene(), CAMERA)
    np.testing.assert_array_equal(with_horizon(full, -1.75).depth[full.depth > 0], full.depth[full.depth > 0])


def test_a_camera_that_looks_straight_up_sees_the_zenith():
    up = Camera(intrinsics(30, 1, 1), np.diag([1.0, -1, -1, 1]) @ np.diag([1.0, -1, -1, 1]), 3, 3)
    assert render(scene(), up).rgb[1, 1].tolist() == [139, 177, 225]
