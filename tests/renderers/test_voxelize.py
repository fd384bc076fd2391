"""Labels of surfaces and of scans: hand-worked voxels, the majority rules, plain twins, a real scan, threads."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scene.errors import InputError
from pipeline.scene.grid import DEFAULT_GRID, SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.records import Material, Surface
from pipeline.scene.taxonomy import load_taxonomy
from renderers.voxelize import LabelledScan, occupancy, voxelize_scans, voxelize_surface

TAXONOMY = load_taxonomy("semantic_kitti")
ROAD, BUILDING, POLE, TERRAIN = (TAXONOMY.id_of(n) for n in ("road", "building", "pole", "terrain"))
GRID = VoxelGrid((6, 5, 4), 1.0, (0.0, 0.0, 0.0))


def surface(corners, classes):
    """Triangles (t, 3, 3) as a Surface."""
    corners = np.asarray(corners, float)
    index = np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3)
    none = np.zeros(len(corners), np.int32)
    plain = (Material("plain", (1.0, 1.0, 1.0)),)
    return Surface(corners.reshape(-1, 3), index, np.array(classes, np.uint8), none, none, plain, TAXONOMY)


def rectangle(origin, first, second):
    a, b, c = np.array(origin, float), np.array(first, float), np.array(second, float)
    return [[a, a + b, a + b + c], [a, a + b + c, a + c]]


def occupied_by(corners, class_id, grid=GRID):
    return {tuple(v) for v in np.argwhere(voxelize_surface(surface(corners, [class_id] * len(corners)), grid))}


def test_a_floor_fills_exactly_the_voxels_it_covers():
    floor = rectangle((0.5, 0.5, 1.25), (3, 0, 0), (0, 2, 0))
    assert occupied_by(floor, ROAD) == {(x, y, 1) for x in range(4) for y in range(3)}


def test_a_face_between_two_voxels_belongs_to_the_upper_one_and_touching_is_not_passing():
    floor = rectangle((1, 1, 2), (2, 0, 0), (0, 2, 0))
    assert occupied_by(floor, ROAD) == {(x, y, 2) for x in (1, 2) for y in (1, 2)}


def test_a_slanted_triangle_passes_the_voxels_on_its_way():
    ramp = [[[0.1, 0.5, 0.1], [0.1, 0.6, 0.1], [3.9, 0.5, 3.9]]]
    assert occupied_by(ramp, ROAD) == {(n, 0, n) for n in range(4)}


def test_outside_the_grid_and_degenerate_triangles_leave_nothing():
    outside = [[[-5.0, 0, 0], [-1, 0, 0], [-1, 4, 0]], [[0, 0, 9], [5, 0, 9], [5, 5, 9]], [[1.5, 1.5, 1.5]] * 3]
    assert occupied_by(outside, ROAD) == set()
    assert not voxelize_surface(surface(np.zeros((0, 3, 3)), []), GRID).any()


def test_a_large_triangle_across_the_whole_grid_is_clipped_to_it():
    plane = [[[-100, -100, 1.5], [300, -100, 1.5], [-100, 300, 1.5]]]
    assert occupied_by(plane, ROAD) == {(x, y, 1) for x in range(6) for y in range(5)}


def test_the_larger_area_wins_and_equal_areas_go_to_the_lower_id():
    two = [
        *rectangle((1.1, 1.1, 1.5), (0.5, 0, 0), (0, 0.5, 0)),
        *rectangle((1.1, 1.1, 1.75), (0.5, 0, 0), (0, 0.625, 0)),
    ]
    assert voxelize_surface(surface(two, [ROAD] * 2 + [TERRAIN] * 2), GRID)[1, 1, 1] == TERRAIN
    assert voxelize_surface(surface(two, [TERRAIN] * 2 + [ROAD] * 2), GRID)[1, 1, 1] == ROAD
    same = [
        *rectangle((1.25, 1.25, 1.5), (0.5, 0, 0), (0, 0.5, 0)),
        *rectangle((1.25, 1.25, 1.75), (0.5, 0, 0), (0, 0.5, 0)),
    ]
    for classes in ([ROAD, ROAD, TERRAIN, TERRAIN], [TERRAIN, TERRAIN, ROAD, ROAD]):
        assert voxelize_surface(surface(same, classes), GRID)[1, 1, 1] == min(ROAD, TERRAIN)


def test_foreground_counts_twice():
    def both(pole_width):
        parts = [
            *rectangle((1.1, 1.1, 1.5), (0.5, 0, 0), (0, 0.5, 0)),
            *rectangle((1.8, 1.1, 1.1), (0, pole_width, 0), (0, 0, 0.5)),
        ]
        return voxelize_surface(surface(parts, [TERRAIN] * 2 + [POLE] * 2), GRID)[1, 1, 1]

    assert both(0.3) == POLE  # 0.15 against 0.25
    assert both(0.2) == TERRAIN


def test_splitting_triangles_changes_no_label():
    generator = np.random.default_rng(0)
    corners = generator.uniform(-1, 6, (40, 3, 3))
    classes = generator.integers(1, 20, 40)
    middle = corners.mean(axis=1)
    finer = np.concatenate([np.stack([corners[:, a], corners[:, (a + 1) % 3], middle], axis=1) for a in range(3)])
    whole, split = (
        voxelize_surface(surface(corners, classes), GRID),
        voxelize_surface(surface(finer, np.tile(classes, 3)), GRID),
    )
    np.testing.assert_array_equal(whole, split)


def sampled_labels(triangles, classes, grid, rows=400):
    """The slow twin: area by points spread evenly over every triangle (rows^2 of them, each of equal area)."""
    u, v = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(rows) + 0.5) / rows)
    u, v = u.ravel(), v.ravel()
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    areas = np.zeros((*grid.shape, len(TAXONOMY.classes)))
    for (a, b, c), class_id in zip(triangles, classes, strict=True):
        index = grid.index(a + u[:, None] * (b - a) + v[:, None] * (c - a))
        index = index[grid.contains(index)]
        area = np.linalg.norm(np.cross(b - a, c - a)) / 2 / rows**2
        np.add.at(areas, (*index.T, class_id), area * (2 if class_id in TAXONOMY.foreground else 1))
    return areas


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_agrees_with_dense_sampling(seed):
    generator = np.random.default_rng(seed)
    triangles, classes = generator.uniform(-1, 6, (5, 3, 3)), generator.integers(1, 20, 5)
    labels = voxelize_surface(surface(triangles, classes), GRID)
    areas = sampled_labels(triangles, classes, GRID)
    best, second = np.sort(areas, axis=-1)[..., -1], np.sort(areas, axis=-1)[..., -2]
    clear = best > second + 0.02  # sampling errs by about a row of points
    np.testing.assert_array_equal(labels[clear], areas.argmax(-1)[clear])
    assert (labels[best > 0.02] > 0).all()
    assert (best[labels == 0] < 0.02).all()


def test_no_gaps_in_a_closed_box_at_any_grid():
    sides = []
    for axis in range(3):
        first, second = np.eye(3)[(axis + 1) % 3] * 3.3, np.eye(3)[(axis + 2) % 3] * 3.3
        sides += rectangle((0.37, 0.41, 0.43), first, second) + rectangle(
            np.array([0.37, 0.41, 0.43]) + np.eye(3)[axis] * 3.3, first, second
        )
    grid = VoxelGrid((20, 20, 20), 0.2, (0.0, 0.0, 0.0))
    solid = voxelize_surface(surface(sides, [BUILDING] * 12), grid) > 0
    outer = np.zeros_like(solid)
    outer[1:19, 2:19, 2:19] = True
    inner = np.zeros_like(solid)
    inner[2:18, 3:18, 3:18] = True
    np.testing.assert_array_equal(solid, outer & ~inner)


def test_surface_labels_do_not_depend_on_threads():
    generator = np.random.default_rng(4)
    centre = generator.uniform((0, -25, -2), (51, 25, 4), (3000, 1, 3))
    many = surface(centre + generator.normal(0, 0.5, (3000, 3, 3)), generator.integers(1, 20, 3000))
    threads, answers = numba.get_num_threads(), []
    for n in {1, threads}:
        numba.set_num_threads(n)
        answers.append(voxelize_surface(many, DEFAULT_GRID))
    numba.set_num_threads(threads)
    assert all((a == answers[0]).all() for a in answers)
    assert len(np.unique(answers[0])) == 20


def scan_of(points, classes):
    return LabelledScan(np.asarray(points, np.float32), np.asarray(classes, np.uint8))


def plain_counts(scans, poses, grid, classes, ranges_m):
    """The slow twin of voxelize_scans: a dictionary of counts."""
    counts = {}
    for scan, pose in zip(scans, poses, strict=True):
        for (x, y, z), class_id in zip(scan.points[:, :3].astype(float), scan.class_id, strict=True):
            if not ranges_m[0] ** 2 <= x * x + y * y + z * z <= ranges_m[1] ** 2:
                continue
            world = [row[0] * x + row[1] * y + row[2] * z + row[3] for row in pose[:3]]
            voxel = tuple(grid.index(np.array(world)).tolist())
            if grid.contains(np.array(voxel)):
                counts.setdefault(voxel, np.zeros(256, int))[class_id] += 1
    labels, touched = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, bool)
    for voxel, count in counts.items():
        labels[voxel], touched[voxel] = count.argmax(), True
    return labels, touched


def test_the_most_frequent_class_wins_over_all_scans():
    near, step = [1.5, 1.5, 1.5], np.eye(4)
    step[0, 3] = 2.0  # the second scan stands two voxels ahead
    scans = [scan_of([near] * 3, [ROAD, ROAD, POLE]), scan_of([np.array(near) - [2, 0, 0]] * 2, [POLE, POLE])]
    labels, touched = voxelize_scans(scans, np.stack([np.eye(4), step]), GRID, 20)
    assert labels[1, 1, 1] == POLE
    assert np.argwhere(touched).tolist() == [[1, 1, 1]]
    tied, _ = voxelize_scans([scan_of([near] * 4, [POLE, ROAD, ROAD, POLE])], np.eye(4)[None], GRID, 20)
    assert tied[1, 1, 1] == ROAD


def test_unlabelled_and_ignored_points_block_sight_but_give_no_class():
    points = [[1.5, 1.5, 1.5]] * 3 + [[2.5, 1.5, 1.5]] * 3
    labels, touched = voxelize_scans([scan_of(points, [0, 0, ROAD, 255, 255, ROAD])], np.eye(4)[None], GRID, 20)
    assert labels[1:3, 1, 1].tolist() == [0, 255]
    assert touched[1:3, 1, 1].all()
    assert touched.sum() == 2


def test_ranges_count_from_each_scans_own_sensor():
    pose = np.eye(4)
    pose[0, 3] = 3.0
    points = [[0.5, 0.5, 0.5], [2.9, 0.1, 0.1], [-2.5, 0.5, 0.5]]
    _, touched = voxelize_scans([scan_of(points, [ROAD] * 3)], pose[None], GRID, 20, (1.0, 2.75))
    assert np.argwhere(touched).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("seed", range(4))
def test_scans_equal_the_plain_twin(seed):
    generator = np.random.default_rng(seed)
    grid = VoxelGrid((12, 10, 5), 0.4, (0.0, -2.0, -1.0))
    scans, poses = [], np.tile(np.eye(4), (5, 1, 1))
    for n in range(5):
        yaw = generator.normal(0, 0.2)
        poses[n, :2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        poses[n, :3, 3] = (0.5 * n, *generator.normal(0, 0.1, 2))
        points = generator.normal(1, 2, (700, 4))
        points[::3] = np.round(points[::3] / 0.2) * 0.2  # on voxel faces
        points[:2] = (np.nan, 1, 1, 0), (np.inf, 0, 0, 0)
        scans.append(scan_of(points, generator.choice([0, 1, 5, 9, 15, 255], 700)))
    labels, touched = voxelize_scans(scans, poses, grid, 20, (0.7, 4.0))
    plain_labels, plain_touched = plain_counts(scans, poses, grid, 20, (0.7, 4.0))
    np.testing.assert_array_equal(touched, plain_touched)
    np.testing.assert_array_equal(labels, plain_labels)
    assert touched.sum() > 100


def test_a_real_scan_fills_8293_voxels(shared_data):
    folder = shared_data / "kitti" / "semantickitti_points"
    points = np.fromfile(folder / "000964.bin", "<f4").reshape(-1, 4)
    occupied = occupancy(points, SEMANTIC_KITTI_GRID)
    assert occupied.sum() == 8293
    inside = SEMANTIC_KITTI_GRID.index(points[:, :3].astype(float))
    inside = inside[SEMANTIC_KITTI_GRID.contains(inside)]
    expected = np.zeros(occupied.shape, bool)
    expected[tuple(inside.T)] = True
    np.testing.assert_array_equal(occupied, expected)


def test_faults_are_named():
    with pytest.raises(InputError, match="LabelledScan"):
        scan_of([[0, 0, 0]], [1, 2])
    with pytest.raises(InputError, match="scans"):
        voxelize_scans([], np.zeros((0, 4, 4)), GRID, 20)
