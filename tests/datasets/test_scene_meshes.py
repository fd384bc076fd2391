"""Meshes of scenes: as many faces as unlike neighbours, wound outwards, axes and colours, read by two libraries."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.craft3d import open_craft3d
from pipeline.datasets.scene_meshes import boundary_faces, write_glb, write_ply
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy
from renderers.meshes import load_open3d

trimesh = pytest.importorskip("trimesh", reason="trimesh isn't installed (pip install trimesh)")
TAXONOMY = load_taxonomy("semantic_kitti")
CAR, ROAD = TAXONOMY.id_of("car"), TAXONOMY.id_of("road")
GRID = VoxelGrid((6, 5, 4), 0.5, (1.0, -2.0, -1.0))


def random_scene() -> Scene:
    labels = np.random.default_rng(0).choice(np.array([0, CAR, ROAD, 255], np.uint8), GRID.shape)
    return Scene(labels, GRID, TAXONOMY)


def faces_of(scene: Scene) -> int:
    solid = np.pad(scene.occupied, 1).astype(np.int8)
    return sum(int((np.diff(solid, axis=axis) != 0).sum()) for axis in range(3))


def test_one_voxel_by_hand() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[1, 2, 3] = CAR
    corners, classes = boundary_faces(Scene(labels, GRID, TAXONOMY))
    assert corners.shape == (6, 4, 3)
    assert (classes == CAR).all()
    np.testing.assert_allclose(corners.reshape(-1, 3).min(0), (1.5, -1.0, 0.5))
    np.testing.assert_allclose(corners.reshape(-1, 3).max(0), (2.0, -0.5, 1.0))
    outwards = corners.mean(1) - (1.75, -0.75, 0.75)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(normals / 0.25, outwards / 0.25)


def test_ply_by_two_libraries(tmp_path) -> None:
    open3d = load_open3d()
    scene = random_scene()
    write_ply(tmp_path / "a.ply", scene)
    written = (tmp_path / "a.ply").read_bytes()
    write_ply(tmp_path / "a.ply", scene)
    assert (tmp_path / "a.ply").read_bytes() == written
    mesh = trimesh.load(tmp_path / "a.ply", process=False)
    assert len(mesh.faces) == 2 * faces_of(scene)
    assert mesh.volume == pytest.approx(scene.occupied.sum() * 0.5**3)  # outwards, and nothing left open
    theirs = open3d.io.read_triangle_mesh(str(tmp_path / "a.ply"))
    assert len(theirs.triangles) == 2 * faces_of(scene)
    colors = np.unique(np.rint(np.asarray(theirs.vertex_colors) * 255).astype(int), axis=0)
    assert {tuple(c) for c in colors.tolist()} == {TAXONOMY.colors[CAR], TAXONOMY.colors[ROAD]}
    assert b"property uchar label" in written[:500]


def test_glb_has_a_part_a_class_and_gltf_axes(tmp_path) -> None:
    scene = random_scene()
    write_glb(tmp_path / "a.glb", scene)
    read = trimesh.load(tmp_path / "a.glb", process=False)
    assert set(read.geometry) == {"car", "road"}
    assert sum(len(part.faces) for part in read.geometry.values()) == 2 * faces_of(scene)
    assert sum(part.volume for part in read.geometry.values()) == pytest.approx(scene.occupied.sum() * 0.5**3)
    (x0, y0, z0), (x1, y1, z1) = read.bounds
    np.testing.assert_allclose((x0, x1, y0, y1, z0, z1), (-2.0, 0.5, -1.0, 1.0, 1.0, 4.0))  # Y, Z, X of the scene
    road = np.asarray(read.geometry["road"].visual.material.baseColorFactor)
    assert road.tolist() == [255, 0, 255, 255]
    write_glb(tmp_path / "b.glb", scene)
    assert (tmp_path / "b.glb").read_bytes() == (tmp_path / "a.glb").read_bytes()


def test_a_real_house(shared_data: Path, tmp_path) -> None:
    scene = open_craft3d(shared_data / "craftassist/house").house("house_00").scene()
    write_glb(tmp_path / "a.glb", scene)
    parts = trimesh.load(tmp_path / "a.glb", process=False).geometry
    assert len(parts) == 14
    assert sum(len(part.faces) for part in parts.values()) == 2 * faces_of(scene) == 2 * 1038


def test_an_empty_scene_is_refused(tmp_path) -> None:
    empty = Scene(np.full(GRID.shape, 255, np.uint8), GRID, TAXONOMY)
    with pytest.raises(InputError, match="occupied voxel"):
        write_ply(tmp_path / "a.ply", empty)
    assert not list(tmp_path.iterdir())
