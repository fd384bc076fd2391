"""Invalid and occluded masks: hand-worked voxels, the plain twin, adversarial rays, threads."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from renderers.columns import pack_blocks, pack_columns
from renderers.grid_ray import occluder, ray_table, ray_to, unpack, visits
from renderers.visibility import invalid_and_occluded
from tests.renderers.plain_visibility import blocked, plain_masks


def unit_grid(shape):
    return VoxelGrid(tuple(int(n) for n in shape), 1.0, (0.0, 0.0, 0.0))


def poses_at(positions):
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, 3] = positions
    return poses


def assert_as_plain(occupied, positions):
    invalid, occluded = invalid_and_occluded(occupied, unit_grid(occupied.shape), poses_at(positions))
    plain_invalid, plain_occluded = plain_masks(occupied, np.asarray(positions, float))
    np.testing.assert_array_equal(occluded, plain_occluded)
    np.testing.assert_array_equal(invalid, plain_invalid)


def test_exactly_the_voxels_behind_a_wall_are_hidden():
    occupied = np.zeros((10, 3, 1), bool)
    occupied[4] = True  # a wall across the grid, the sensor in the middle of voxel (1, 1, 0)
    invalid, occluded = invalid_and_occluded(occupied, unit_grid(occupied.shape), poses_at([[1.5, 1.5, 0.5]]))
    expected = np.zeros_like(occupied)
    expected[5:] = True
    np.testing.assert_array_equal(occluded, expected)
    np.testing.assert_array_equal(invalid, expected)


def test_a_single_voxel_casts_its_shadow_along_the_row():
    occupied = np.zeros((8, 3, 1), bool)
    occupied[3, 1, 0] = True
    _, occluded = invalid_and_occluded(occupied, unit_grid(occupied.shape), poses_at([[0.5, 1.5, 0.5]]))
    # A ray from voxel (x, 0) enters row 1 midway, at (x + 1) / 2: it meets the voxel at 3 where that is above 3.
    assert occluded[:, 1, 0].tolist() == [False] * 4 + [True] * 4
    assert occluded[:, 0, 0].tolist() == occluded[:, 2, 0].tolist() == [False] * 6 + [True, True]


def test_a_voxel_hidden_from_one_pose_only_is_occluded_but_valid():
    occupied = np.zeros((10, 1, 1), bool)
    occupied[4] = True
    grid, near, far = unit_grid(occupied.shape), [1.5, 0.5, 0.5], [8.5, 0.5, 0.5]
    invalid, occluded = invalid_and_occluded(occupied, grid, poses_at([near, far]))
    assert occluded[5:].all()
    assert not occluded[:5].any()
    assert not invalid.any()
    assert invalid_and_occluded(occupied, grid, poses_at([far, near]))[1][:4].all()


def test_an_occupied_voxel_can_be_occluded_but_not_invalid():
    occupied = np.zeros((6, 1, 1), bool)
    occupied[[2, 4]] = True
    invalid, occluded = invalid_and_occluded(occupied, unit_grid(occupied.shape), poses_at([[0.5, 0.5, 0.5]]))
    assert occluded.ravel().tolist() == [False, False, False, True, True, True]
    assert invalid.ravel().tolist() == [False, False, False, True, False, True]


def test_the_start_voxel_never_counts_and_the_sensors_own_does():
    occupied = np.zeros((3, 1, 1), bool)
    occupied[0] = True
    _, occluded = invalid_and_occluded(occupied, unit_grid(occupied.shape), poses_at([[0.9, 0.5, 0.5]]))
    assert occluded.ravel().tolist() == [False, True, True]


def test_a_sensor_on_a_boundary_plane_is_reached_from_either_side_without_crossing_it():
    occupied = np.zeros((4, 1, 1), bool)
    occupied[1] = True
    _, occluded = invalid_and_occluded(occupied, unit_grid(occupied.shape), poses_at([[2.0, 0.5, 0.5]]))
    assert occluded.ravel().tolist() == [True, False, False, False]


def test_through_an_edge_x_is_crossed_before_y():
    occupied = np.zeros((2, 2, 1), bool)
    occupied[0, 1] = True  # from (1, 1) x is crossed first: by (0, 1)
    _, occluded = invalid_and_occluded(occupied, unit_grid(occupied.shape), poses_at([[0.5, 0.5, 0.5]]))
    assert occluded[1, 1, 0]
    _, occluded = invalid_and_occluded(occupied[::-1, ::-1], unit_grid(occupied.shape), poses_at([[0.5, 0.5, 0.5]]))
    assert not occluded[1, 1, 0]


def test_a_ray_to_a_sensor_outside_ends_at_the_grids_face():
    occupied = np.zeros((9, 9, 9), bool)
    occupied[0] = True
    _, occluded = invalid_and_occluded(occupied, unit_grid(occupied.shape), poses_at([[-5.0, 4.5, 4.5]]))
    assert occluded[1:, 4, 4].all()
    assert not occluded[0].any()
    above = invalid_and_occluded(occupied, unit_grid(occupied.shape), poses_at([[4.5, 4.5, 1e9]]))
    assert not above[0].any()


def street(generator, shape):
    """Ground, walls, boxes and stray voxels, thinned as scans thin them."""
    occupied = np.zeros(shape, bool)
    occupied[:, :, 1] = True
    occupied[:, shape[1] // 4, 1 : shape[2] // 2] = True
    for _ in range(12):
        low = generator.integers(0, shape)
        high = np.minimum(low + generator.integers(1, 7, 3), shape)
        occupied[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    return (occupied & (generator.random(shape) < 0.7)) | (generator.random(shape) < 0.005)


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_plain_twin_on_streets(seed):
    generator = np.random.default_rng(seed)
    shape = tuple(int(n) for n in generator.integers((20, 20, 6), (50, 50, 14)))
    start = np.array([0.0, shape[1] / 2, shape[2] / 2]) + generator.normal(0, 1e-3, 3) * (seed % 2)
    drive = start + np.outer(np.arange(12), [4.7 if seed % 2 else 5.0, 0.0, 0.0])  # leaves the grid ahead
    assert_as_plain(street(generator, shape), drive)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 21)] * 3),
    share=st.sampled_from([0.0, 0.02, 0.2, 0.9, 1.0]),
    raster=st.sampled_from([None, 1.0, 0.5, 0.25]),
)
def test_equals_the_plain_twin_through_edges_corners_and_from_outside(seed, shape, share, raster):
    generator = np.random.default_rng(seed)
    positions = generator.uniform(-1, 2, (4, 3)) * shape
    if raster:  # sensors on planes, edges, corners and centres: ties everywhere
        positions = np.round(positions / raster) * raster
    assert_as_plain(generator.random(shape) < share, positions)


def test_equals_the_plain_twin_in_columns_of_several_words():
    generator = np.random.default_rng(5)
    assert_as_plain(generator.random((9, 9, 150)) < 0.02, [[4.5, 4.0, 75.0], [4.2, 8.9, 149.5], [0.0, 0.0, 64.0]])


def only(voxel, shape):
    occupied = np.zeros(shape, bool)
    occupied[voxel] = True
    return occupied


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), raster=st.sampled_from([0.0, 0.5]))
def test_a_ray_visits_what_the_plain_walk_visits(seed, raster):
    generator = np.random.default_rng(seed)
    shape = (11, 10, 9)
    sensor = generator.uniform(-3, 14, 3)
    if raster:
        sensor = np.round(sensor / raster) * raster
    start = generator.integers(0, shape)
    walked = {v for v in np.ndindex(*shape) if blocked(only(v, shape), start, sensor)}
    ray = ray_to(0, *start.tolist(), (shape[0], shape[0] + shape[1]), ray_table(sensor[None], shape))
    told = {v for v in np.ndindex(*shape) if visits(ray, *v)}
    assert told == walked


def test_the_first_occluder_is_the_nearest():
    occupied = np.zeros((40, 20, 4), bool)
    occupied[[5, 12, 30], 10, 2] = True
    columns = pack_columns(occupied)
    table = ray_table(np.array([[0.5, 10.5, 2.5]]), occupied.shape)
    ray = ray_to(0, 35, 10, 2, (40, 60), table)
    assert unpack(occluder(ray, columns, pack_blocks(columns), 4)) == (30, 10, 2)


def test_any_number_of_threads_gives_the_same_masks():
    generator = np.random.default_rng(2)
    occupied, drive = street(generator, (40, 33, 12)), generator.uniform(0, 33, (9, 3))
    threads = numba.get_num_threads()
    answers = []
    for n in {1, threads}:
        numba.set_num_threads(n)
        answers.append(np.stack(invalid_and_occluded(occupied, unit_grid(occupied.shape), poses_at(drive))))
    numba.set_num_threads(threads)
    assert all((a == answers[0]).all() for a in answers)


def test_real_units_and_origin_shift_nothing():
    generator = np.random.default_rng(3)
    occupied = street(generator, (32, 32, 8))
    grid = VoxelGrid((32, 32, 8), 0.25, (0.0, -4.0, -1.0))  # sizes that binary numbers hold exactly
    positions = np.array([[0.0, 16.0, 4.0], [9.3, 15.5, 4.2]])
    metric = poses_at(positions * 0.25 + grid.origin_m)
    for a, b in zip(
        invalid_and_occluded(occupied, grid, metric),
        plain_masks(occupied, grid.coordinates(metric[:, :3, 3])),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("occupied", "poses", "words"),
    [
        (np.zeros((3, 3, 3), bool), poses_at([[1, 1, 1]]), "occupied voxels"),
        (np.zeros((4, 4, 4), np.uint8), poses_at([[1, 1, 1]]), "occupied voxels"),
        (np.zeros((4, 4, 4), bool), np.zeros((0, 4, 4)), "poses"),
        (np.zeros((4, 4, 4), bool), poses_at([[1, np.nan, 1]]), "poses"),
        (np.zeros((4, 4, 4), bool), np.eye(4), "poses"),
    ],
)
def test_faults_are_named(occupied, poses, words):
    with pytest.raises(InputError, match=words):
        invalid_and_occluded(occupied, unit_grid((4, 4, 4)), poses)
