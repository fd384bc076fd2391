"""Rays on surfaces: hand-worked triangles, occlusion, faults; the faces of voxels."""

import subprocess
import sys

import numpy as np
import pytest

from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Material, Scene, Surface
from pipeline.scene.taxonomy import load_taxonomy
from renderers.meshes import SurfaceCaster, voxel_surface
from renderers.viewpoints import intrinsics, mounted

TAXONOMY = load_taxonomy("semantic_kitti")


def walls(*distances: float, shift: float = 0.0) -> Surface:
    """Triangles across the x axis, 8 m wide, of classes 1, 2, .. and instances 10, 20, .."""
    corners = [[(x + shift, -4.0, -4.0), (x + shift, 4.0, -4.0), (x + shift, 0.0, 4.0)] for x in distances]
    count = len(distances)
    return Surface(
        vertices=np.array(corners, float).reshape(-1, 3),
        triangles=np.arange(3 * count, dtype=np.int32).reshape(-1, 3),
        class_id=np.arange(1, count + 1, dtype=np.uint8),
        instance=10 * np.arange(1, count + 1, dtype=np.int32),
        material=np.zeros(count, np.int32),
        materials=(Material("plain", (0.5, 0.5, 0.5)),),
        taxonomy=TAXONOMY,
    )


def test_open3d_imports_in_a_fresh_process():
    code = "from renderers.meshes import load_open3d; print(load_open3d().__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split()[-1:] == ["open3d"], done.stderr


def test_the_nearer_wall_is_seen_with_all_it_carries():
    camera = mounted(intrinsics(10, 1, 1), (3, 3), (0, 0, 0))
    hits = SurfaceCaster(walls(5, 3)).cast(camera)
    np.testing.assert_allclose(hits.depth, 3, atol=1e-6)  # z, not the longer way to the corners
    assert (hits.class_id == 2).all()
    assert (hits.instance == 20).all()
    assert (hits.triangle == 1).all()
    np.testing.assert_allclose(hits.normals, np.broadcast_to([-1, 0, 0], (3, 3, 3)), atol=1e-6)  # towards the camera
    np.testing.assert_allclose(hits.barycentric[1, 1], [0.25, 0.5], atol=1e-6)  # y = -4 + 8 b + 4 c, z = -4 + 8 c
    behind = SurfaceCaster(walls(5, 3)).cast_rays(np.array([[9.0, 0, 0]]), np.array([[-1.0, 0, 0]]))
    np.testing.assert_allclose(behind.normals, [[1, 0, 0]], atol=1e-6)


def test_a_miss_is_zero():
    hits = SurfaceCaster(walls(5)).cast_rays(np.zeros((1, 3)), np.array([[-1.0, 0, 0]]))
    assert (hits.depth[0], hits.class_id[0], hits.instance[0], hits.triangle[0]) == (0, 0, 0, -1)
    assert not hits.normals.any()
    distance, triangle = SurfaceCaster(walls(5)).distances(np.zeros((1, 3)), np.array([[-1.0, 0, 0]]))
    assert (distance[0], triangle[0]) == (np.inf, -1)


def test_depth_counts_in_lengths_of_the_direction():
    distance, triangle = SurfaceCaster(walls(6, 4)).distances(np.zeros((2, 3)), np.array([[1.0, 0, 0], [0.5, 0, 0]]))
    np.testing.assert_allclose(distance, [4, 8], rtol=1e-6)
    assert triangle.tolist() == [1, 1]


def test_occlusion_before_a_range_of_its_own():
    caster, along = SurfaceCaster(walls(5)), np.array([[1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]])
    assert caster.occluded(np.zeros((3, 3)), along).tolist() == [True, True, False]
    assert caster.occluded(np.zeros((3, 3)), along, 4.9).tolist() == [False, False, False]
    assert caster.occluded(np.zeros((3, 3)), along, np.array([4.9, 5.1, 9])).tolist() == [False, True, False]


def test_far_from_the_origin_it_stays_precise():
    far = 1_000_000.0
    distance, _ = SurfaceCaster(walls(5, shift=far)).distances(np.array([[far, 0.01, 0]]), np.array([[1.0, 0, 0]]))
    assert distance[0] == pytest.approx(5, abs=1e-5)  # plain float32 would be 0.06 m off


def test_threads_change_nothing():
    scene = Scene(
        np.random.default_rng(1).integers(0, 2, (9, 9, 9), np.uint8),
        VoxelGrid((9,) * 3, 1.0, (2.0, -4.5, -4.5)),
        TAXONOMY,
    )
    surface, camera = voxel_surface(scene), mounted(intrinsics(30, 30, 20), (60, 40), (0, 0.1, 0.2))
    one, two = (SurfaceCaster(surface, threads).cast(camera) for threads in (1, 2))
    for name in ("depth", "triangle", "normals", "barycentric"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_an_empty_surface_shows_nothing():
    camera = Camera(intrinsics(10, 1, 1), np.eye(4), 3, 3)
    assert not SurfaceCaster(walls()).cast(camera).depth.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_id": np.zeros(3, np.uint8)}, "a class and an instance for each of 1 triangles"),
        ({"triangles": np.array([[0, 1, 7]], np.int32)}, "vertex indices below 3"),
        ({"vertices": np.full((3, 3), np.nan)}, "finite vertices"),
    ],
)
def test_surfaces_that_do_not_fit_are_refused(change: dict, message: str):
    surface = walls(5)
    for name, value in change.items():
        object.__setattr__(surface, name, value)  # past the types that pytest checks at construction
    with pytest.raises(InputError, match=message):
        SurfaceCaster(surface)


# --- voxel faces -----------------------------------------------------------------------------------------------------


def test_two_voxels_side_by_side_have_ten_faces_of_outward_normals():
    labels = np.zeros((4, 3, 3), np.uint8)
    labels[1, 1, 1], labels[2, 1, 1], labels[0, 0, 0] = 4, 5, 255
    surface = voxel_surface(Scene(labels, VoxelGrid((4, 3, 3), 0.5, (1.0, 2.0, 3.0)), TAXONOMY))
    assert len(surface.triangles) == 20
    assert len(surface.vertices) == 12
    assert np.bincount(surface.class_id).tolist() == [0, 0, 0, 0, 10, 10]
    corner = surface.vertices[surface.triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    outward = corner.mean(axis=1) - np.where(surface.class_id == 4, 1.75, 2.25)[:, None] * [1, 0, 0] - [0, 2.75, 3.75]
    assert ((normal * outward).sum(1) > 0).all()
    np.testing.assert_allclose(surface.vertices.min(0), [1.5, 2.5, 3.5])
    np.testing.assert_allclose(surface.vertices.max(0), [2.5, 3.0, 4.0])
    volume = (corner[:, 0] * np.cross(corner[:, 1], corner[:, 2])).sum() / 6
    assert volume == pytest.approx(2 * 0.5**3)  # closed


def test_faces_of_nothing_and_of_everything():
    grid = VoxelGrid((2, 3, 4), 1.0, (0.0, 0.0, 0.0))
    assert len(voxel_surface(Scene(np.zeros(grid.shape, np.uint8), grid, TAXONOMY)).triangles) == 0
    full = voxel_surface(Scene(np.full(grid.shape, 9, np.uint8), grid, TAXONOMY))
    assert len(full.triangles) == 2 * 2 * (2 * 3 + 3 * 4 + 2 * 4)
