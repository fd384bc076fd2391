"""Exports of a finished build, each read back by its own public reader with equal labels, masks, pictures, cameras."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from flows import export_cli
from flows.export import export_dataset, export_recipe, export_shards
from flows.export_occ3d import LIFT_M
from flows.export_splits import deal_scenes
from flows.inspect import verify_dataset
from pipeline.datasets.convert import convert_scene, load_conversion
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.occ3d import OCC3D_GRID, open_occ3d
from pipeline.scene.errors import InputError
from tests.flows import finished_build as mini
from tests.flows.toy_plan import files_of

SHARES = {"val_share": 0.34, "test_share": 0.34, "shard_samples": 2}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mini.write_finished_build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def kitti(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dealt to three splits."""
    out = tmp_path_factory.mktemp("kitti")
    export_dataset(export_recipe(build, "semantickitti", **SHARES), out)
    return out


@pytest.fixture(scope="module")
def tars(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tars")
    export_dataset(export_recipe(build, "webdataset", shard_samples=4), out)
    return out


def notes_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]


def index_of(note: dict[str, Any]) -> int:
    return mini.NAMES.index(note["provenance"].get("built_as", note["name"]))


def png(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def stock_sample(root: Path, sequence: str, name: str, edge_m: float) -> dict[str, np.ndarray]:
    """What a MonoScene-style loader reads of a frame, in numpy alone."""
    rows = {}
    for line in (root / "sequences" / sequence / "calib.txt").read_text().splitlines():
        key, _, values = line.partition(":")
        rows[key] = np.array(values.split(), float).reshape(3, 4)
    image = np.array(Image.open(root / "sequences" / sequence / "image_2" / f"{name}.png"), np.float32) / 255
    labels = np.load(root / "labels" / sequence / f"{name}_1_1.npy")
    extent = np.array(labels.shape) * edge_m
    centres = (np.indices(labels.shape).reshape(3, -1).T + 0.5) * edge_m + [0, -extent[1] / 2, -2]
    camera = np.c_[centres, np.ones(len(centres))] @ np.vstack([rows["Tr"], [0, 0, 0, 1]]).T
    pixels = camera[:, :3] @ rows["P2"][:3, :3].T
    return {
        "image": image[:370, :1220],
        "target": labels,
        "target_1_8": np.load(root / "labels" / sequence / f"{name}_1_8.npy"),
        "projected": pixels[:, :2] / pixels[:, 2:],
        "depth": pixels[:, 2],
    }


def test_a_stock_monoscene_style_loader_reads_the_kitti_layout(kitti: Path) -> None:
    for note in notes_of(kitti):
        index = index_of(note)
        sequence, name = note["name"].split("/")
        assert (kitti / "sequences" / sequence / "voxels" / f"{name}.bin").exists()  # by which it finds frames
        read = stock_sample(kitti, sequence, name, mini.GRID.voxel_size_m)
        np.testing.assert_array_equal(read["target"], mini.frame(index).labels)
        assert read["target_1_8"].shape == (4, 4, 1)
        np.testing.assert_array_equal(np.rint(read["image"] * 255), mini.pictures(index)["image_2"])
        camera = mini.cameras(mini.NAMES[index].split("/")[0])["2"]
        pixels, depth = camera.project(mini.GRID.centres().reshape(-1, 3))
        np.testing.assert_allclose(read["depth"], depth, atol=1e-9)
        np.testing.assert_allclose(read["projected"][depth > 0], pixels[depth > 0], atol=1e-6)


def test_kitti_voxel_files_are_the_builds_own_and_every_split_has_its_names(build: Path, kitti: Path) -> None:
    splits = json.loads((kitti / "splits.json").read_text())
    assert splits["val"][0] == "08"
    assert splits["test"][0] == "11"
    for note in notes_of(kitti):
        old, new = mini.NAMES[index_of(note)].split("/"), note["name"].split("/")
        assert new[0] in splits[note["split"]]
        for kind in ("voxels/{}.label", "voxels/{}.invalid", "voxels/{}.occluded", "depth_left/{}.png"):
            there = kitti / "sequences" / new[0] / kind.format(new[1])
            assert there.read_bytes() == (build / "sequences" / old[0] / kind.format(old[1])).read_bytes()
        assert len((kitti / "sequences" / new[0] / "poses.txt").read_text().splitlines()) == 3


def test_no_scene_is_in_two_splits_even_where_it_fills_two_sequences(kitti: Path) -> None:
    splits: dict[str, set[str]] = {}
    for note in notes_of(kitti):
        assert note["scene"] == f"town-{mini.SCENES[index_of(note)]}"
        splits.setdefault(note["scene"], set()).add(note["split"])
    assert sorted(splits) == ["town-7", "town-8", "town-9"]
    assert sorted(split for found in splits.values() for split in found) == ["test", "train", "val"]


def test_scenes_are_dealt_by_seed_and_too_few_are_refused() -> None:
    scenes = [f"s{k}" for k in range(20)]
    dealt = deal_scenes(scenes, 0.2, 0.1, 0)
    assert sorted(dealt.values()) == ["test"] * 2 + ["train"] * 14 + ["val"] * 4
    assert dealt == deal_scenes(scenes[::-1], 0.2, 0.1, 0)
    assert dealt != deal_scenes(scenes, 0.2, 0.1, 1)
    with pytest.raises(InputError, match="more than 2 scenes"):
        deal_scenes(scenes[:2], 0.1, 0.1, 0)


def read_by_webdataset(names: list[str], *, decoded: bool) -> list[dict[str, Any]]:
    webdataset = pytest.importorskip("webdataset")
    stored = webdataset.WebDataset(names, shardshuffle=False, empty_check=False)
    return list(stored.decode("pil") if decoded else stored)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the library leaves tars to the collector
def test_webdataset_reads_the_tars(tars: Path) -> None:
    names = [str(tars / name) for name in json.loads((tars / "dataset.json").read_text())["splits"]["train"]["shards"]]
    assert len(names) == 2
    samples, raw = read_by_webdataset(names, decoded=True), read_by_webdataset(names, decoded=False)
    gc.collect()
    assert [sample["__key__"] for sample in samples] == [name.replace("/", "_") for name in mini.NAMES]
    for index, sample in enumerate(samples):
        frame, pictures, note = mini.frame(index), mini.pictures(index), sample["json"]
        np.testing.assert_array_equal(sample["voxels.npz"]["labels"], frame.labels)
        for mask in ("invalid", "occluded", "scan"):
            np.testing.assert_array_equal(sample["voxels.npz"][mask], getattr(frame, mask))
        np.testing.assert_array_equal(np.asarray(sample["image_left.png"]), pictures["image_left"])
        for suffix, camera in mini.cameras(mini.NAMES[index].split("/")[0]).items():
            np.testing.assert_array_equal(note["cameras"][suffix]["K"], camera.K)
            np.testing.assert_array_equal(note["cameras"][suffix]["camera_from_velodyne"], camera.camera_from_world)
        counts = np.bincount(frame.labels.ravel(), minlength=256)
        assert note["class_voxels"] == counts[:20].tolist()
        assert (note["prompt"], note["accepted"]) == (f"a street, {index}", index != 3)
        assert note["provenance"]["image"]["edges"] == 0.25 * index
    np.testing.assert_array_equal(png(raw[1]["depth_2.png"]) / 256, mini.pictures(1)["depth_2"])
    np.testing.assert_array_equal(png(raw[1]["semantics_2.png"]), mini.pictures(1)["semantics_2"])


def test_the_same_bytes_by_two_workers_after_a_stop_and_finished_shards_stay(build: Path, tars: Path, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(tars, out)  # what a run that was stopped in its first shard leaves
    gone = ("train-00000.tar", ".build/records/webdataset/00000.json", ".build/notes/00000.json", "dataset.json")
    for name in (*gone, "README.md", "samples.jsonl", "manifest.json"):
        (out / name).unlink()
    os.utime(out / "train-00001.tar", (1, 1))
    export_dataset(export_recipe(build, "webdataset", shard_samples=4), out, workers=2)
    assert (out / "train-00001.tar").stat().st_mtime == 1
    assert files_of(out) == files_of(tars)


def test_occ3d_has_the_converted_labels_images_and_cameras(build: Path, tmp_path) -> None:
    export_dataset(export_recipe(build, "occ3d", val_share=0.34), tmp_path)
    root = open_occ3d(tmp_path)
    infos = json.loads((tmp_path / "annotations.json").read_text())["scene_infos"]
    conversion = load_conversion("semantic_kitti", "occ3d")
    seen = 0
    for split in ("train", "val"):
        for sequence, token in root.frames(split):
            note = next(note for note in notes_of(tmp_path) if note["name"].replace("/", "_") == token)
            assert note["split"] == split
            index = index_of(note)
            expected = convert_scene(mini.frame(index).scene(), conversion, OCC3D_GRID, LIFT_M)
            np.testing.assert_array_equal(root.scene(sequence, token).labels, expected.labels)
            for name, suffix in (("CAM_FRONT", "2"), ("CAM_LEFT", "left")):
                record = infos[sequence][token]["camera_sensor"][name]
                image = png((tmp_path / record["img_path"]).read_bytes())
                np.testing.assert_array_equal(image, mini.pictures(index)[f"image_{suffix}"])
                check_occ3d_camera(record, mini.cameras(mini.NAMES[index].split("/")[0])[suffix])
            seen += 1
    assert seen == 6
    assert verify_dataset(tmp_path) == []


def check_occ3d_camera(record: dict[str, Any], camera: Any) -> None:
    """A point on the road in the ego frame lands on the pixel on which it lands in the velodyne frame."""
    w, x, y, z = record["extrinsic"]["rotation"]
    vector, point = np.array([x, y, z]), np.array([8.0, 1.0, 0.4])  # ego_from_camera turns v as a quaternion does
    basis = np.eye(3)
    turned = basis + 2 * (w * np.cross(vector, basis) + np.cross(vector, np.cross(vector, basis)))
    seen = turned @ (point - record["extrinsic"]["translation"])  # rows are the camera's axes in the ego frame
    pixel = np.array(record["intrinsics"]) @ seen
    expected, depth = camera.project(point - [0, 0, LIFT_M])
    np.testing.assert_allclose(pixel[2], depth, atol=1e-9)
    if depth > 0:
        np.testing.assert_allclose(pixel[:2] / pixel[2], expected, atol=1e-6)


def test_an_export_is_verified_by_its_manifest_and_a_flipped_bit_is_found(kitti: Path, tars: Path, tmp_path) -> None:
    assert verify_dataset(kitti) == []
    assert verify_dataset(tars) == []
    manifest = read_manifest(tars)
    assert [sample.provenance["export_split"] for sample in manifest.samples] == ["train"] * 6
    shutil.copytree(tars, tmp_path / "copy")
    content = bytearray((tars / "train-00000.tar").read_bytes())
    content[5000] ^= 1
    (tmp_path / "copy" / "train-00000.tar").write_bytes(content)
    assert verify_dataset(tmp_path / "copy") == [("train-00000.tar", "content differs from its SHA-256")]


def test_the_card_names_licences_sources_and_counts(build: Path, kitti: Path) -> None:
    text = (kitti / "README.md").read_text()
    assert text.startswith('---\nlicense: "apache-2.0"\n')
    assert "| scenes | occfactory's embedded world, procedural | - | Apache-2.0, as occfactory |" in text
    assert "Six / samples." in text
    assert "5 of 6 checked ones passed their structure check; 6 were made from a prompt" in text
    cars = sum(int((mini.frame(k).labels == 1).sum()) for k in range(6))
    assert f"| car | {cars} | " in text
    assert read_manifest(build).recipe_digest not in text
    assert str(build) not in text


def test_faults_are_one_line_before_anything_is_written(build: Path, tars: Path, tmp_path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(build, damaged)
    (damaged / "sequences/00/voxels/000001.label").unlink()
    cases = {
        "000001.label: expected a file as the manifest lists it, found missing": (damaged, "webdataset", {}),
        "expected a finished build, found an export of one": (tars, "webdataset", {}),
        "expected splits train and val alone, found test": (build, "occ3d", {"test_share": 0.3}),
        "the manifest of a finished build": (tmp_path, "webdataset", {}),
        "recipe field to": (build, "floppy", {}),
    }
    for line, (root, to, fields) in cases.items():
        with pytest.raises(InputError, match=line) as caught:
            export_dataset(export_recipe(root, to, **fields), tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="a folder outside the build"):
        export_dataset(export_recipe(build, "webdataset"), build / "out")


def test_the_command_tells_what_it_wrote(build: Path, tmp_path) -> None:
    app = typer.Typer()
    export_cli.register(app)
    app.command("other")(lambda: None)
    words = ["export", str(build), "--to", "webdataset", "--out", str(tmp_path / "o"), "--workers", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "webdataset 1/1 shards" in result.stderr
    assert "6 samples as webdataset" in result.stderr
    assert verify_dataset(tmp_path / "o") == []
    assert len(export_shards(export_recipe(build, "webdataset", shard_samples=1))) == 6
