"""Frames from a surface and from scans: parts that fit together, the window over a sequence, labels at the door."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.scene.errors import InputError
from pipeline.scene.grid import SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.records import Material, Surface
from pipeline.scene.taxonomy import load_taxonomy
from renderers.ground_truth import ScanRecipe, frame_from_scans, frame_from_surface, frames_from_sequence, labelled_scan
from renderers.voxelize import LabelledScan, occupancy, voxelize_surface
from tests.renderers.plain_visibility import plain_masks

TAXONOMY = load_taxonomy("semantic_kitti")
ROAD, BUILDING, CAR = (TAXONOMY.id_of(n) for n in ("road", "building", "car"))
GRID = VoxelGrid((16, 8, 6), 0.5, (0.0, -2.0, -2.0))


def poses_along_x(count, step=1.0):
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = step * np.arange(count)
    return poses


def wall_and_floor():
    """A floor at z = -1.7 and a wall across the road at x = 4.2."""
    v = [
        [0, -2, -1.7],
        [8, -2, -1.7],
        [8, 2, -1.7],
        [0, 2, -1.7],
        [4.2, -2, -1.7],
        [4.2, 2, -1.7],
        [4.2, 2, 1],
        [4.2, -2, 1],
    ]
    triangles = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    none, plain = np.zeros(4, np.int32), (Material("plain", (0.5, 0.5, 0.5)),)
    return Surface(np.array(v, float), triangles, np.array([9, 9, 13, 13], np.uint8), none, none, plain, TAXONOMY)


def test_a_frame_of_geometry_holds_its_shell_its_scan_and_its_masks():
    surface, points = wall_and_floor(), np.array([[4.2, 0.1, 0.1, 0.3], [2.2, 0.1, -1.7, 0.3]], np.float32)
    truth = frame_from_surface(surface, GRID, points, poses_along_x(3))
    labels = voxelize_surface(surface, GRID)
    np.testing.assert_array_equal(truth.labels, labels)
    np.testing.assert_array_equal(truth.occupancy, occupancy(points, GRID))
    assert truth.occupancy.sum() == 2
    sensors = GRID.coordinates(poses_along_x(3)[:, :3, 3])
    for mask, plain in zip((truth.invalid, truth.occluded), plain_masks(labels > 0, sensors), strict=True):
        np.testing.assert_array_equal(mask, plain)
    assert truth.invalid[9:, :, 1:5].all()  # behind the wall
    assert not truth.invalid[:8, :, 1:].any()
    assert not (truth.invalid & (labels > 0)).any()


def test_past_the_wall_the_drive_sees_what_the_first_pose_could_not():
    truth = frame_from_surface(wall_and_floor(), GRID, np.zeros((0, 4), np.float32), poses_along_x(7))
    assert truth.occluded[9:, :, 1:5].all()
    assert not truth.invalid[9:, :, 2:].any()


def test_shell_that_no_pose_sees_can_be_dropped():
    surface = wall_and_floor()
    upper = surface.vertices[:4] + np.array([0, 0, 0.6])  # a second floor over the first, which becomes a cellar
    vertices = np.concatenate([surface.vertices, upper])
    triangles = np.concatenate([surface.triangles, surface.triangles[:2] + 8])
    both = replace(
        surface,
        vertices=vertices,
        triangles=triangles.astype(np.int32),
        class_id=np.array([9, 9, 13, 13, 9, 9], np.uint8),
        instance=np.zeros(6, np.int32),
        material=np.zeros(6, np.int32),
    )
    none = np.zeros((0, 4), np.float32)
    kept = frame_from_surface(both, GRID, none, poses_along_x(7))
    dropped = frame_from_surface(both, GRID, none, poses_along_x(7), drop_unseen=True)
    assert (kept.labels[:, :, 0] == ROAD).all()
    assert not kept.invalid[:, :, 0].any()
    assert not dropped.labels[:, :, 0].any()
    assert dropped.invalid[:, :, 0].all()
    assert not dropped.labels[8, :, 1].any()  # the upper floor under the wall's foot
    rest = np.arange(16) != 8
    np.testing.assert_array_equal(dropped.labels[rest, :, 1:], kept.labels[rest, :, 1:])
    np.testing.assert_array_equal(dropped.invalid[rest, :, 1:], kept.invalid[rest, :, 1:])


def labelled(points, classes):
    return LabelledScan(np.asarray(points, np.float32), np.asarray(classes, np.uint8))


def test_what_moves_leaves_a_smear():
    """A car that keeps 3 m ahead of a sensor driving at 1 m a scan fills a row of voxels."""
    scans = [labelled([[3.25, 0.25, 0.25]], [CAR]) for _ in range(4)]
    truth = frame_from_scans(scans, poses_along_x(4), GRID, 20)
    assert np.argwhere(truth.labels == CAR).tolist() == [[6, 4, 4], [8, 4, 4], [10, 4, 4], [12, 4, 4]]
    assert np.argwhere(truth.occupancy).tolist() == [[6, 4, 4]]


class Folder:
    """Scans read when asked for; counts how often."""

    def __init__(self, scans):
        self.scans, self.reads = scans, []

    def __len__(self):
        return len(self.scans)

    def __getitem__(self, index):
        self.reads.append(index)
        return self.scans[index]


def random_drive(count):
    generator = np.random.default_rng(8)
    scans = [
        labelled(generator.normal(2, 3, (300, 4)), generator.choice([1, 9, 13, 0, 255], 300)) for _ in range(count)
    ]
    poses = poses_along_x(count, 0.4)
    yaw = 0.05 * np.arange(count)
    poses[:, 0, 0] = poses[:, 1, 1] = np.cos(yaw)
    poses[:, 1, 0], poses[:, 0, 1] = np.sin(yaw), -np.sin(yaw)
    return scans, poses


def test_a_sequence_gives_every_frame_of_its_own_window_and_reads_each_scan_once():
    scans, poses = random_drive(13)
    recipe = ScanRecipe(scans_ahead=4, stride=3, ranges_m=(1.0, 5.0))
    folder = Folder(scans)
    frames = dict(frames_from_sequence(folder, poses, GRID, TAXONOMY, recipe))
    assert list(frames) == [0, 3, 6, 9, 12]
    assert folder.reads == list(range(13))
    for frame, truth in frames.items():
        window = slice(frame, min(frame + 5, 13))
        alone = frame_from_scans(scans[window], np.linalg.inv(poses[frame]) @ poses[window], GRID, 20, (1.0, 5.0))
        for a, b in zip(truth, alone, strict=True):
            np.testing.assert_array_equal(a, b)
    assert frames[0].occupancy.any()


def test_a_stride_beyond_the_window_reads_only_what_it_needs():
    scans, poses = random_drive(9)
    folder = Folder(scans)
    recipe = ScanRecipe(scans_ahead=1, stride=4, ranges_m=(0.5, 9.0))
    assert [n for n, _ in frames_from_sequence(folder, poses, GRID, TAXONOMY, recipe)] == [0, 4, 8]
    assert folder.reads == [0, 1, 4, 5, 8]


def test_raw_labels_lose_their_instance_and_join_outliers_to_unlabelled():
    raw = np.array([10 | 7 << 16, 252, 1, 0, 40, 52], np.uint32)
    scan = labelled_scan(np.zeros((6, 4), np.float32), raw, TAXONOMY, ScanRecipe(), "000000.label")
    assert scan.class_id.tolist() == [CAR, CAR, 0, 0, ROAD, 255]
    with pytest.raises(InputError, match="000000"):
        labelled_scan(np.zeros((1, 4), np.float32), np.array([33], np.uint32), TAXONOMY, ScanRecipe(), "000000.label")


def test_a_real_scan_becomes_a_frame(shared_data):
    folder = shared_data / "kitti" / "semantickitti_points"
    points = np.fromfile(folder / "000964.bin", "<f4").reshape(-1, 4)
    raw = np.fromfile(folder / "000964.label", "<u4")
    scan = labelled_scan(points, raw, TAXONOMY, ScanRecipe(), folder / "000964.label")
    ((frame, truth),) = frames_from_sequence([scan], np.eye(4)[None], SEMANTIC_KITTI_GRID, TAXONOMY, ScanRecipe())
    assert frame == 0
    assert truth.occupancy.sum() == 8293
    kept = np.bincount(truth.labels.ravel(), minlength=256)
    assert kept[[CAR, ROAD, BUILDING]].min() > 300
    assert not (truth.invalid & ((truth.labels > 0) | ~truth.occluded)).any()
    assert 0.1 < truth.invalid.mean() < 0.9


@pytest.mark.parametrize("poses", [np.zeros((2, 4, 4)), np.full((3, 4, 4), np.nan)])
def test_poses_that_do_not_fit_are_named(poses):
    with pytest.raises(InputError, match="poses"):
        next(frames_from_sequence(random_drive(3)[0], poses, GRID, TAXONOMY, ScanRecipe()))


def test_a_recipe_is_checked():
    with pytest.raises(InputError, match="ScanRecipe"):
        ScanRecipe(ranges_m=(5.0, 5.0))
