"""The Parquet export, read offline by `datasets` and by mlcroissant; the same bytes each time."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.export import export_dataset, export_recipe
from flows.export_card import sources_of
from flows.export_formats import WRITERS
from flows.inspect import verify_dataset
from pipeline.datasets.dataset_card import LOADING
from pipeline.datasets.export_sample import ExportSample
from pipeline.datasets.hub import write_parquet
from pipeline.datasets.manifest import Manifest, read_manifest
from pipeline.scene.errors import InputError
from pipeline.scene.files import sha256_file
from tests.flows import finished_build as mini
from tests.flows.toy_plan import files_of

pytestmark = [  # mlcroissant's ways with rdflib and pandas
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.reset_index"),
]
FIELDS = {"val_share": 0.34, "shard_samples": 2, "published": "2026-11-21", "licence": "cc-by-4.0"}
SPLITS = {"train": 4, "val": 2}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mini.write_finished_build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def parquet(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parquet")
    export_dataset(export_recipe(build, "parquet", **FIELDS), out)
    return out


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: Any) -> None:
        raise AssertionError(f"the network was asked for {words}")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def loaded(folder: Path, cache: Path) -> Any:
    """Every split, as `datasets` loads the folder."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), cache_dir=str(cache))


def index_of(provenance: dict[str, Any], name: str) -> int:
    return mini.NAMES.index(provenance.get("built_as", name))


def run_card_snippet(folder: Path) -> dict[str, Any]:
    """The card's own lines for reading a row, as a user would paste them."""
    code = LOADING["parquet"].split("```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(code.replace("FOLDER", str(folder)), found)
    return found


def test_datasets_loads_the_folder_offline_with_every_value(parquet: Path, tmp_path) -> None:
    splits = loaded(parquet, tmp_path)
    assert {split: rows.num_rows for split, rows in splits.items()} == SPLITS
    for row in (row for rows in splits.values() for row in rows):
        provenance = json.loads(row["provenance"])
        index = index_of(provenance, row["name"])
        frame = mini.frame(index)
        assert (row["scene"], row["prompt"]) == (f"town-{mini.SCENES[index]}", f"a street, {index}")
        assert row["accepted"] is (index != 3)
        assert provenance["image"]["edges"] == 0.25 * index
        for folder, picture in mini.pictures(index).items():
            stored = np.asarray(row[folder])
            np.testing.assert_array_equal(stored / 256 if folder.startswith("depth") else stored, picture)
        for suffix, camera in mini.cameras(mini.NAMES[index].split("/")[0]).items():
            np.testing.assert_array_equal(np.reshape(row[f"K_{suffix}"], (3, 3)), camera.K)
            pose = np.reshape(row[f"camera_from_velodyne_{suffix}"], (4, 4))
            np.testing.assert_array_equal(pose, camera.camera_from_world)
        assert (tuple(row["grid_shape"]), row["voxel_size_m"]) == (mini.GRID.shape, mini.GRID.voxel_size_m)
        assert tuple(row["origin_m"]) == mini.GRID.origin_m
        counts = np.bincount(frame.labels.ravel(), minlength=256)
        assert (row["class_voxels"], row["ignored_voxels"]) == (counts[:20].tolist(), counts[255])


def test_the_cards_lines_read_labels_masks_and_depth(parquet: Path, monkeypatch, tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    found = run_card_snippet(parquet)
    index = index_of(json.loads(found["row"]["provenance"]), found["row"]["name"])
    np.testing.assert_array_equal(found["labels"], mini.frame(index).labels)
    np.testing.assert_array_equal(found["invalid"], mini.frame(index).invalid)
    np.testing.assert_array_equal(found["depth_m"], mini.pictures(index)["depth_2"])


def test_no_scene_is_in_two_splits_and_the_card_says_what_the_files_hold(parquet: Path, tmp_path) -> None:
    splits = loaded(parquet, tmp_path)
    scenes = [set(rows["scene"]) for rows in splits.values()]
    assert not scenes[0] & scenes[1]
    yaml = pytest.importorskip("yaml")
    matter = yaml.safe_load((parquet / "README.md").read_text().split("---\n")[1])
    assert matter["license"] == "cc-by-4.0"
    assert "synthetic" in matter["tags"]
    described = type(splits["train"].features)._from_yaml_list(matter["dataset_info"]["features"])
    assert described == splits["train"].features
    for row in matter["dataset_info"]["splits"]:
        files = list(parquet.glob(f"data/{row['name']}-*.parquet"))
        assert len(files) == SPLITS[row["name"]] // 2
        assert row["num_bytes"] == sum(path.stat().st_size for path in files)
        assert row["num_examples"] == SPLITS[row["name"]]


def test_mlcroissant_accepts_the_metadata_and_reads_its_record_sets(parquet: Path, tmp_path, caplog) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=str(parquet / "croissant.json"))
    assert caplog.messages == []  # neither a warning nor a context that isn't the standard's
    assert not dataset.metadata.ctx.issues.errors | dataset.metadata.ctx.issues.warnings
    records = list(dataset.records("samples"))
    rows = {row["name"]: row for split in loaded(parquet, tmp_path).values() for row in split}
    assert sorted(record["samples/name"].decode() for record in records) == sorted(rows)
    for record in records:
        row = rows[record["samples/name"].decode()]
        assert record["samples/labels"] == row["labels"]
        assert np.array_equal(record["samples/image_left"], row["image_left"])
        assert record["samples/K_2"] == row["K_2"]
        assert record["samples/accepted"] == row["accepted"]
    found = list(dataset.records("samples", filters={"samples/split": "val"}))
    assert [record["samples/split"] for record in found] == [b"val", b"val"]
    classes = [record["classes/name"] for record in dataset.records("classes")]
    assert classes == list(mini.frame(0).taxonomy.classes)


def test_croissant_names_every_file_with_its_digest_and_that_it_is_synthetic(parquet: Path) -> None:
    table = json.loads((parquet / "croissant.json").read_text())
    assert table["rai:hasSyntheticData"] is True
    assert table["license"] == "cc-by-4.0"
    files = {row["@id"]: row["sha256"] for row in table["distribution"] if row["@type"] == "cr:FileObject"}
    written = {path.relative_to(parquet).as_posix(): sha256_file(path) for path in parquet.glob("data/*.parquet")}
    assert files == written
    assert len(files) == 3


def test_the_same_bytes_by_two_workers_after_a_stop(build: Path, parquet: Path, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(parquet, out)  # what a run that was stopped in its second shard leaves
    for name in ("data/train-00001-of-00002.parquet", ".build/records/parquet/00001.json", ".build/notes/00001.json"):
        (out / name).unlink()
    for name in ("README.md", "samples.jsonl", "croissant.json", "manifest.json"):
        (out / name).unlink()
    (out / "data/val-00000-of-00001.parquet").touch()
    before = (out / "data/val-00000-of-00001.parquet").stat().st_mtime_ns
    export_dataset(export_recipe(build, "parquet", **FIELDS), out, workers=2)
    assert (out / "data/val-00000-of-00001.parquet").stat().st_mtime_ns == before
    assert files_of(out) == files_of(parquet)
    assert verify_dataset(out) == []
    assert {"pyarrow", "mlcroissant"} <= read_manifest(out).versions.keys()


def test_a_sample_without_scan_prompt_or_second_camera_has_nulls(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    frame = replace(mini.frame(0), scan=None)
    cameras = {"2": mini.cameras("00")["2"]}
    sample = ExportSample("00/000000", "train", "town-7", frame, cameras, {"image_2": b"png"}, {})
    write_parquet(tmp_path / "one.parquet", [sample], ("2", "left"))
    (row,) = pyarrow.read_table(tmp_path / "one.parquet").to_pylist()
    nulls = {"scan", "prompt", "accepted", "image_left", "K_left", "camera_from_velodyne_left"}
    assert {name for name in row if row[name] is None} - {
        "depth_2",
        "semantics_2",
        "depth_left",
        "semantics_left",
    } == nulls


def test_the_libraries_bring_neither_torchvision_nor_tensorflow() -> None:
    pytest.importorskip("datasets")
    code = "import sys, pyarrow, mlcroissant, datasets; print([*{'torchvision', 'tensorflow'} & {*sys.modules}])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_card_names_the_weights_that_images_came_from() -> None:
    images = {"kind": "controlnet", "weights_digest": "ab12", "critic_digest": "cd34"}
    manifest = Manifest(
        recipe={"source": {"kind": "generator", "weights_digest": "ef56"}, "images": images},
        recipe_digest="",
        build_seed=0,
        inputs={"source": "0199"},
        samples=(),
        files=(),
    )
    found = {source.role: source.sha256 for source in sources_of(manifest)}
    assert found == {"scenes": "ef56", "images": "ab12", "check of images": "cd34", "source": "0199"}


def test_a_missing_extra_and_a_bad_date_are_named(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="recipe field published"):
        export_recipe(build, "parquet", published="2026-02-31")
    monkeypatch.setitem(WRITERS, "parquet", replace(WRITERS["parquet"], packages=("a_package_that_is_nowhere",)))
    with pytest.raises(InputError, match=r"no a_package_that_is_nowhere; pip install 'occfactory\[exports\]'"):
        export_recipe(build, "parquet")
