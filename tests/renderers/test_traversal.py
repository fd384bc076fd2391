"""Traversal against its exact twin and against Embree; hand-worked rays; adversarial ones; threads."""

import itertools

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scene.camera import Camera, look_at
from pipeline.scene.errors import InputError
from pipeline.scene.grid import SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy
from renderers.meshes import SurfaceCaster, voxel_surface
from renderers.traversal import trace, trace_rays
from renderers.viewpoints import kitti_front, lens
from tests.renderers.plain_traversal import cleared, plain_trace, rays_of

TAXONOMY = load_taxonomy("semantic_kitti")
SMALL = VoxelGrid((6, 5, 4), 0.5, (-1.0, -1.25, 0.25))


def noise(shape: tuple[int, int, int], share: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    labels = generator.integers(1, 20, shape).astype(np.uint8)
    return np.where(generator.random(shape) < share, labels, 0).astype(np.uint8)


def camera_at(eye: tuple, target: tuple, size: tuple[int, int] = (40, 30), fov: float = 80) -> Camera:
    up = np.array([0.0, 0, 1]) if eye[:2] != target[:2] else np.array([1.0, 0, 0])
    return Camera(lens(size, fov), look_at(np.array(eye, float), np.array(target, float), up), *size)


def assert_as_plain(labels: np.ndarray, grid: VoxelGrid, origins: np.ndarray, directions: np.ndarray) -> int:
    """Exactly the plain twin's voxels and faces, depth to float32; returns how many rays hit."""
    t, voxel, face = plain_trace(labels, grid, origins, directions)
    hits = trace_rays(labels, grid, origins, directions)
    np.testing.assert_array_equal(hits.voxel, voxel)
    np.testing.assert_array_equal(hits.face, face)
    np.testing.assert_array_equal(hits.label, np.where(voxel >= 0, labels.ravel()[voxel], 0))
    np.testing.assert_allclose(hits.depth, t, rtol=1e-6)
    return int((voxel >= 0).sum())


# --- hand-worked ---------------------------------------------------------------------------------------------------


def test_one_voxel_is_met_from_all_six_sides():
    grid = VoxelGrid((3, 3, 3), 2.0, (-3.0, -3.0, -3.0))
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 7
    along = np.concatenate([np.eye(3), -np.eye(3)])
    hits = trace_rays(labels, grid, -10 * along, along)
    np.testing.assert_array_equal(hits.depth, np.full(6, 9, np.float32))  # the face lies at -1, the eye at -10
    np.testing.assert_array_equal(hits.face, [-1, -2, -3, 1, 2, 3])
    np.testing.assert_array_equal(hits.label, 7)
    np.testing.assert_array_equal(hits.voxel, 13)
    assert (trace_rays(labels, grid, -10 * along, 2 * along).depth == 4.5).all()  # in lengths of the direction


def test_a_ray_within_a_plane_belongs_to_the_voxels_above_it():
    labels = np.zeros((3, 2, 2), np.uint8)
    labels[1] = [[1, 2], [3, 4]]
    grid = VoxelGrid((3, 2, 2), 1.0, (0.0, 0.0, 0.0))
    ends = np.array([[-1, 1.0, 1.0], [-1, 1.0, 0.5], [-1, 0.5, 1.0], [-1, 0.0, 0.0], [-1, 2.0, 0.5]])
    assert trace_rays(labels, grid, ends, np.array([1.0, 0, 0])).label.tolist() == [4, 3, 2, 1, 0]


def test_through_an_edge_x_comes_before_y():
    labels = np.zeros((2, 2, 1), np.uint8)
    labels[1, 0], labels[0, 1], labels[1, 1] = 5, 6, 7
    grid, eye = VoxelGrid((2, 2, 1), 1.0, (0.0, 0.0, 0.0)), np.array([0.5, 0.5, 0.5])
    hits = trace_rays(labels, grid, eye, np.array([1.0, 1.0, 0]))
    assert (hits.label[0], hits.depth[0], hits.face[0]) == (5, 0.5, -1)
    labels[1, 0] = 0
    assert trace_rays(labels, grid, eye, np.array([1.0, 1.0, 0])).label[0] == 7  # not 6: that corner is never entered


def test_a_camera_in_a_solid_voxel_sees_out_of_it_alone():
    grid = VoxelGrid((4, 1, 1), 1.0, (0.0, 0.0, 0.0))
    labels = np.array([1, 0, 2, 3], np.uint8).reshape(4, 1, 1)
    eye, along = np.array([0.25, 0.5, 0.5]), np.array([1.0, 0, 0])
    assert trace_rays(labels, grid, eye, along).label[0] == 2
    labels[1] = 4
    hit = trace_rays(labels, grid, eye, along)
    assert (hit.label[0], hit.depth[0]) == (4, 0.75)


def test_on_a_boundary_nothing_is_hit_at_depth_zero():
    labels = np.arange(1, 5, dtype=np.uint8).reshape(4, 1, 1)
    grid, eye = VoxelGrid((4, 1, 1), 1.0, (0.0, 0.0, 0.0)), np.array([2.0, 0.5, 0.5])
    forward, backward = (trace_rays(labels, grid, eye, np.array([s, 0, 0])) for s in (1.0, -1.0))
    assert (forward.label[0], forward.depth[0]) == (4, 1)
    assert (backward.label[0], backward.depth[0]) == (1, 1)


def test_ignored_voxels_are_empty_unless_asked_for():
    labels = np.array([0, 255, 3], np.uint8).reshape(3, 1, 1)
    grid, rays = VoxelGrid((3, 1, 1), 1.0, (0.0, 0.0, 0.0)), (np.array([-1, 0.5, 0.5]), np.array([1.0, 0, 0]))
    assert trace_rays(labels, grid, *rays).label[0] == 3
    assert trace_rays(labels, grid, *rays, solid_ignored=True).label[0] == 255


# --- the exact twin --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.03, 0.3, 1.0])
def test_random_rays(share: float):
    labels, generator = noise(SMALL.shape, share, 1), np.random.default_rng(2)
    origins = generator.uniform(-4, 4, (400, 3))
    aims = generator.uniform(SMALL.origin_m, SMALL.upper_m, (400, 3))
    assert assert_as_plain(labels, SMALL, origins, aims - origins) > 40


def test_every_lattice_point_in_every_lattice_direction():
    """Origins on corners, edges, faces, middles and outside; rays run along and through all of them."""
    grid = VoxelGrid((3, 2, 2), 1.0, (0.0, 0.0, 0.0))
    origins = np.array(list(itertools.product([-1, 0, 0.5, 1, 3, 4], [-0.5, 0, 1, 2, 2.5], [-1, 0, 0.5, 1, 2])))
    directions = np.array([d for d in itertools.product([-1, -0.5, 0, 0.5, 1], repeat=3) if any(d)])
    pairs = np.array(list(itertools.product(range(len(origins)), range(len(directions)))))
    pairs = pairs[np.random.default_rng(3).permutation(len(pairs))[:5000]]
    for labels in (noise(grid.shape, 0.4, 4), np.full(grid.shape, 9, np.uint8)):
        assert assert_as_plain(labels, grid, origins[pairs[:, 0]], directions[pairs[:, 1]]) > 100


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-50, 50) for _ in range(6)]), min_size=1, max_size=8),
    st.integers(0, 2**20 - 1),
)
def test_any_ray_meets_what_it_should(rays: list, bits: int):
    """Hypothesis tries tiny, huge, equal and zero components. Only the order of near ties may differ."""
    grid = VoxelGrid((5, 2, 2), 1.0, (0.0, 0.0, 0.0))
    labels = np.array([bits >> n & 1 for n in range(20)], np.uint8).reshape(grid.shape)
    origins, directions = np.array(rays)[:, :3], np.array(rays)[:, 3:]
    t, voxel, _ = plain_trace(labels, grid, origins, np.where(np.abs(directions) < 1e-290, 0, directions))
    hits = trace_rays(labels, grid, origins, directions)
    for n in np.flatnonzero(hits.voxel != voxel):  # then the voxel it found is touched by the ray all the same
        reach = origins[n] + float(hits.depth[n]) * directions[n]
        corner = np.array(np.unravel_index(max(hits.voxel[n], voxel[n]), grid.shape))
        reach = reach if hits.voxel[n] >= 0 else origins[n] + t[n] * directions[n]
        assert (np.abs(reach - (corner + 0.5)) <= 0.5 + 1e-4).all()


def test_one_voxel_grid_empty_grid_and_far_away():
    one = VoxelGrid((1, 1, 1), 0.25, (10.0, 0.0, -3.0))
    far = camera_at((-20_000, 7_000, 900), (10.125, 0.125, -2.875), (21, 21), 0.002)
    assert assert_as_plain(np.full((1, 1, 1), 4, np.uint8), one, *rays_of(far)) > 20
    assert assert_as_plain(np.zeros((1, 1, 1), np.uint8), one, *rays_of(far)) == 0
    assert (trace(np.zeros(SMALL.shape, np.uint8), SMALL, far).voxel == -1).all()


def test_zero_and_denormal_directions_end():
    labels = np.ones(SMALL.shape, np.uint8)
    directions = np.array([[0, 0, 0], [5e-324, 0, 0], [1, 5e-324, -5e-324], [1e-300, 1e-300, 1e-300], [1e300, 1, 0]])
    hits = trace_rays(labels, SMALL, np.array([0.1, 0.1, 0.6]), directions)
    assert (hits.voxel >= 0).tolist() == [False, False, True, False, True]


def test_a_cameras_rays_are_its_ray_directions():
    labels = noise(SMALL.shape, 0.2, 5)
    camera = camera_at((-3, 0.3, 2.9), (0.4, 0.1, 1))
    image, rays = trace(labels, SMALL, camera), trace_rays(labels, SMALL, *rays_of(camera))
    np.testing.assert_array_equal(image.voxel.ravel(), rays.voxel)
    np.testing.assert_allclose(image.depth.ravel(), rays.depth, rtol=1e-6)


# --- Embree on the voxels' faces -------------------------------------------------------------------------------------

MIDDLE = VoxelGrid((40, 36, 20), 0.2, (-4.0, -3.6, -2.0))
PLACES = {
    "outside, askew": ((-9.013, 2.021, 3.057), (0, 0, 0)),
    "outside, along x": ((-9.013, 0.087, 0.031), (1, 0.087, 0.031)),
    "outside, along y": ((0.0937, 9.041, 0.0313), (0.0937, 1, 0.0313)),
    "from above": ((0.093, 0.041, 7.077), (0.093, 0.041, 0)),
    "inside": ((0.131, -0.247, 0.353), (2, 1, 0.1)),
    "beside": ((-3.9, -8.017, 0.1), (3, 1, -1)),
    "far away": ((-190.13, 40.37, 30.11), (0, 0, 0)),
}


def assert_as_embree(labels: np.ndarray, grid: VoxelGrid, camera: Camera) -> None:
    caster = SurfaceCaster(voxel_surface(Scene(cleared(labels, grid, camera), grid, TAXONOMY)))
    want, have = caster.cast(camera), trace(labels, grid, camera)
    same = want.class_id == have.label
    assert same.mean() >= 0.9999
    assert np.abs(want.depth - have.depth)[same].max() <= 1e-3


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("share", [0.02, 0.25, 1.0])
def test_embree_agrees_on_noise(place: str, share: float):
    eye, target = PLACES[place]
    fov = 2.5 if place == "far away" else 75
    assert_as_embree(noise(MIDDLE.shape, share, 6), MIDDLE, camera_at(eye, target, (200, 120), fov))


def test_embree_agrees_from_inside_a_solid_voxel():
    labels = noise(MIDDLE.shape, 0.1, 7)
    camera = camera_at((0.131, -0.247, 0.353), (2, 1, 0.1), (200, 120))
    labels[tuple(MIDDLE.index(camera.centre))] = 5
    assert_as_embree(labels, MIDDLE, camera)


def test_embree_agrees_on_a_street():
    assert_as_embree(street(), SEMANTIC_KITTI_GRID, kitti_front(size_px=(610, 185)))


def street() -> np.ndarray:
    """Road, sidewalks, facades, trees, cars: 256 x 256 x 32."""
    labels = np.zeros(SEMANTIC_KITTI_GRID.shape, np.uint8)
    labels[:, :, :2], labels[:, :100, 2:3], labels[:, 156:, 2:3] = 9, 11, 11
    labels[:, :70, 2:26], labels[:, 190:, 2:22] = 13, 13
    for x in range(8, 240, 24):
        labels[x : x + 2, 92:94, 2:16], labels[x - 4 : x + 6, 88:98, 12:22] = 16, 15
        labels[x : x + 20, 134:143, 3:10] = 1
    return labels


# --- threads, faults -------------------------------------------------------------------------------------------------


def test_threads_change_nothing():
    labels, camera = noise(MIDDLE.shape, 0.1, 8), camera_at((-9, 2, 3), (0, 0, 0), (97, 61))
    before = numba.get_num_threads()
    try:
        answers = []
        for threads in {1, before}:
            numba.set_num_threads(threads)
            hits = trace(labels, MIDDLE, camera)
            answers.append([a.tobytes() for a in (hits.depth, hits.label, hits.face, hits.voxel)])
    finally:
        numba.set_num_threads(before)
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("labels", [np.zeros((6, 5, 5), np.uint8), np.zeros((6, 5, 4), np.int32)])
def test_wrong_labels_are_refused(labels: np.ndarray):
    with pytest.raises(InputError, match="uint8 labels of the grid's shape"):
        trace_rays(labels, SMALL, np.zeros((1, 3)), np.ones((1, 3)))


def test_bad_rays_are_refused():
    labels = np.zeros(SMALL.shape, np.uint8)
    with pytest.raises(InputError, match="NaN or infinity"):
        trace_rays(labels, SMALL, np.full((1, 3), np.nan), np.ones((1, 3)))
    with pytest.raises(InputError, match=r"shape \(N, 3\)"):
        trace_rays(labels, SMALL, np.zeros((4, 2)), np.ones((4, 2)))
