"""Whole builds: the same bytes whatever the way and after a kill, labels that an independent reader agrees with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flows.build import STAGES, build_dataset
from flows.inspect import verify_dataset
from flows.recipes import BuildRecipe, load_recipe
from flows.sources import draw
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.semantic_kitti import open_root, read_camera, read_frame, read_frame_depth, read_frame_image
from pipeline.scene.camera import kitti_camera
from renderers.shading import render
from renderers.visibility import invalid_and_occluded
from renderers.voxel_scan import scan_voxels
from tests.datasets import byte_facts
from tests.flows.toy_plan import files_of

CHANGES = (
    "samples=5",
    "shard_samples=2",
    "gallery_samples=2",
    'views.cameras=["front", "left"]',
    "monoscene_labels=true",
)
COMMAND = [sys.executable, "-m", "flows", "build", "town_tiny"] + [part for c in CHANGES for part in ("--set", c)]
REPOSITORY = Path(__file__).parents[2]


def recipe() -> BuildRecipe:
    return load_recipe("town_tiny", changes=CHANGES)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built")
    build_dataset(recipe(), out, "none", workers=1)
    return out


def test_a_finished_build_is_sound_and_knows_its_origin(built: Path) -> None:
    assert verify_dataset(built) == []
    manifest = read_manifest(built)
    assert manifest.recipe_digest == recipe().digest()
    assert [s.name for s in manifest.samples] == ["00/000000", "00/000001", "00/000002", "01/000000", "01/000001"]
    assert {s.provenance["source"] for s in manifest.samples} == {"town"}
    assert {s.provenance["split"] for s in manifest.samples} == {"train"}  # never the held-out world
    assert not any(
        str(built) in text or str(REPOSITORY) in text for text in (built / "manifest.json").read_text().split()
    )


@pytest.mark.parametrize(("engine", "workers"), [("none", 2), ("prefect", 2)])
def test_the_same_bytes_by_any_engine_and_number_of_workers(built: Path, tmp_path, engine: str, workers: int) -> None:
    build_dataset(recipe(), tmp_path, engine, workers)
    assert files_of(tmp_path) == files_of(built)


@pytest.mark.parametrize("moment", [1, 6, 12])
def test_the_same_bytes_after_a_kill_of_the_whole_process_group(built: Path, tmp_path, moment: int) -> None:
    run = subprocess.Popen(
        [*COMMAND, "--out", str(tmp_path), "--engine", "none", "--workers", "2"],
        cwd=REPOSITORY,
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    assert run.stderr is not None
    for _ in range(moment):  # a line a finished job: 5 stages x 3 shards
        run.stderr.readline()
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    run.stderr.close()
    assert not (tmp_path / "manifest.json").exists()
    build_dataset(recipe(), tmp_path, "none", workers=1)
    assert files_of(tmp_path) == files_of(built)


def test_a_finished_build_has_nothing_left_to_do(built: Path) -> None:
    before = files_of(built)
    started = time.time()
    build_dataset(recipe(), built, "none", workers=1)
    assert files_of(built) == before
    voxels = list((built / "sequences").rglob("*.label"))
    assert all(path.stat().st_mtime < started for path in voxels)


def test_an_independent_reader_agrees_on_labels_and_masks(built: Path) -> None:
    for index, sample in enumerate(read_manifest(built).samples):
        sequence, frame = sample.name.split("/")
        folder = built / "sequences" / sequence / "voxels"
        (drawn,) = draw(recipe(), range(index, index + 1))
        solid = drawn.scene.occupied
        invalid, occluded = invalid_and_occluded(solid, drawn.scene.grid, drawn.poses)
        seen = np.pad(~solid & ~invalid, 1)  # a solid voxel is known where an empty one beside it was seen
        beside = sum(np.roll(seen, step, axis) for axis in range(3) for step in (1, -1))[1:-1, 1:-1, 1:-1] > 0
        expected = np.where(invalid | (solid & ~beside), 255, drawn.scene.labels)
        assert byte_facts.labels(folder, frame) == expected.ravel().tolist()
        assert byte_facts.bits(folder / f"{frame}.occluded") == occluded.ravel().tolist()
        assert (
            byte_facts.bits(folder / f"{frame}.bin")
            == scan_voxels(drawn.scene.labels, drawn.scene.grid).ravel().tolist()
        )


def test_views_are_those_of_the_written_scene_through_the_written_camera(built: Path) -> None:
    root = open_root(built)
    for sequence, frame in root.frames("train"):
        camera = read_camera(root, sequence, frame)
        view = render(read_frame(root, sequence, frame).scene(), camera)
        np.testing.assert_array_equal(read_frame_image(root, sequence, frame), view.rgb)
        np.testing.assert_allclose(read_frame_depth(root, sequence, frame), view.depth, atol=0.5 / 256)
    left = json.loads((built / "sequences/00/cameras.json").read_text())["left"]
    assert np.array(left["camera_from_velodyne"])[2, 1] > 0.99  # its axis points to the left, +Y
    assert (built / "sequences/00/image_left/000000.png").is_file()
    assert np.load(built / "labels/00/000000_1_8.npy").shape == (16, 16, 2)


def test_cameras_differ_between_sequences_and_not_within(built: Path) -> None:
    root = open_root(built)
    poses = [read_camera(root, *key).camera_from_world for key in root.frames("train")]
    assert np.array_equal(poses[0], poses[2])
    assert not np.array_equal(poses[0], poses[3])
    assert np.abs(poses[0] - poses[3]).max() < 0.3


def test_damage_is_found_and_mended(built: Path, tmp_path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    label = copy / "sequences/01/voxels/000001.label"
    content = bytearray(label.read_bytes())
    content[1000] ^= 4
    label.write_bytes(content)
    (copy / "sequences/00/image_2/000002.png").unlink()
    assert dict(verify_dataset(copy)) == {
        "sequences/00/image_2/000002.png": "missing",
        "sequences/01/voxels/000001.label": "content differs from its SHA-256",
    }
    command = [sys.executable, "-m", "flows", "verify", str(copy)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "000002.png: missing" in run.stdout
    build_dataset(recipe(), copy, "none", workers=1)
    assert files_of(copy) == files_of(built)


def test_a_real_root_is_rendered_with_its_calibration_and_exported_again(real_kitti_root: Path, tmp_path) -> None:
    real = load_recipe("semantic_kitti", real_kitti_root)
    build_dataset(real, tmp_path, "none", workers=1)
    assert verify_dataset(tmp_path) == []
    source, copy = real_kitti_root / "sequences/07", tmp_path / "sequences/07"
    assert byte_facts.labels(copy / "voxels", "000964") == byte_facts.labels(source / "voxels", "000964")
    assert (copy / "voxels/000964.bin").read_bytes() == (source / "voxels/000964.bin").read_bytes()
    assert sum(byte_facts.bits(copy / "voxels/000964.bin")) == 8293
    rows = {line.split(":")[0]: line.split(":")[1] for line in (source / "calib.txt").read_text().splitlines() if line}
    P2, Tr = (np.array(rows[key].split(), float).reshape(3, 4) for key in ("P2", "Tr"))
    camera = read_camera(open_root(tmp_path), "07", "000964")
    expected = kitti_camera(P2, np.vstack([Tr, [0, 0, 0, 1]]), (1224, 370))
    np.testing.assert_allclose(camera.camera_from_world, expected.camera_from_world, atol=1e-12)
    depth = read_frame_depth(tmp_path, "07", "000964")
    assert depth.shape == (370, 1224)
    # a voxel centre that the depth says is seen projects to where it is seen
    frame = read_frame(open_root(tmp_path), "07", "000964")
    centres = frame.grid.centres()[frame.scene().occupied]
    pixels, z = camera.project(centres)
    seen = camera.sees(pixels, z)
    u, v = np.round(pixels[seen]).astype(int).T
    assert np.mean(depth[v, u] <= z[seen] + 0.2) > 0.999  # nothing occupied lies in front of what is seen
    assert np.mean(np.abs(depth[v, u] - z[seen]) < 0.2) > 0.2


def test_stages_are_those_of_the_road() -> None:
    assert [stage.name for stage in STAGES] == ["scenes", "masks", "views", "images", "files"]
