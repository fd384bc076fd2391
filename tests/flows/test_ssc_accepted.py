"""Frames that a build's structure check accepted, as a dataset: which files, splits and marks it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.ssc_accepted import accepted_frames, write_accepted
from flows.ssc_protocol_data import datasets
from pipeline.datasets.manifest import Manifest, SampleRecord, read_manifest, record_files, verify_files, write_manifest
from ssc_eval.views import open_scenes
from tests.ssc_eval.toy_root import write_toy_root

KEPT = frozenset({"00/000001", "00/000003"})


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """Two sequences whose manifest marks two frames of the first as accepted and all others as not."""
    root = write_toy_root(tmp_path / "build", {"00": 4, "01": 2}, {"train": ["00", "01"]})
    labels = root / "labels" / "00"  # as MonoScene's loader wants them
    labels.mkdir(parents=True)
    for frame in range(4):
        np.save(labels / f"{frame:06d}_1_1.npy", np.zeros(1))
    names = [f"00/{frame:06d}" for frame in range(4)] + [f"01/{frame:06d}" for frame in range(2)]
    samples = tuple(SampleRecord(name=name, shard=0, provenance={"accepted": name in KEPT}) for name in names)
    paths = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    manifest = Manifest(
        recipe={}, recipe_digest="", build_seed=0, samples=samples, files=record_files(root, sorted(paths))
    )
    write_manifest(root, manifest)
    return root


def test_the_accepted_frames_alone_are_there_whole(build: Path, tmp_path: Path) -> None:
    root, _ = open_scenes(build)
    assert accepted_frames(root) == KEPT
    out = write_accepted(root, KEPT, tmp_path / "kept")
    found, _ = open_scenes(out)
    assert found.frames("train") == (("00", "000001"), ("00", "000003"))
    assert found.grid == root.grid
    np.testing.assert_array_equal(found.scene("00", "000003").labels, root.scene("00", "000003").labels)
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert not [name for name in names if "000000" in name or "000002" in name]
    assert "labels/00/000003_1_1.npy" in names
    assert "sequences/00/calib.txt" in names
    manifest = read_manifest(out)
    assert {sample.name for sample in manifest.samples} == KEPT
    assert [path for path, fault in verify_files(out, manifest) if fault] == []


def test_the_build_stays_as_it_was(build: Path, tmp_path: Path) -> None:
    before = read_manifest(build)
    write_accepted(open_scenes(build)[0], KEPT, tmp_path / "kept")
    assert [path for path, fault in verify_files(build, before) if fault] == []


def test_without_marks_there_is_nothing_to_choose(build: Path) -> None:
    root, _ = open_scenes(build)
    manifest = read_manifest(build)
    bare = tuple(sample.model_copy(update={"provenance": {}}) for sample in manifest.samples)
    write_manifest(build, manifest.model_copy(update={"samples": bare}))
    assert accepted_frames(root) is None
    (build / "manifest.json").unlink()
    assert accepted_frames(root) is None


def test_a_matrix_finds_them(build: Path, tmp_path: Path) -> None:
    real = write_toy_root(tmp_path / "real", {"00": 1, "08": 1}, {"train": ["00"], "val": ["08"]})
    (found,) = datasets(real, [build], tmp_path / "out", "val").synthetic
    assert (found.frames, found.accepted) == (6, 2)
    assert found.accepted_root is not None
    assert len(open_scenes(found.accepted_root)[0].frames("train")) == 2
    assert datasets(real, [build], tmp_path / "out", "val").synthetic == (found,)
