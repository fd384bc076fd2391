"""A folder of versions: numbered, linked, pruned, and gone on with where one was stopped."""

from pathlib import Path

import pytest

from flows import versions as module
from flows.recipes import BuildRecipe, load_recipe
from flows.versions import build_version, versions
from pipeline.datasets.manifest import read_manifest
from pipeline.scene.errors import InputError

SMALL = ("samples=1", "gallery_samples=0", "views.width_px=64", "views.height_px=32", "source.mask_poses=1")
COARSE = ("source.grid.shape=[32,32,8]", "source.grid.voxel_size_m=1.6")


def recipe(*changes: str) -> BuildRecipe:
    return load_recipe("town_tiny", changes=SMALL + COARSE + changes)


def test_versions_differ_are_linked_and_the_old_ones_go(tmp_path: Path) -> None:
    out = tmp_path / "nightly"
    for number in (1, 2, 3):
        assert build_version(recipe(), out, keep=2) == out / f"{number:05d}"
        assert (out / "latest").resolve() == (out / f"{number:05d}").resolve()
    assert versions(out) == [2, 3]
    assert [path.name for path in sorted(out.iterdir())] == [".lock", "00002", "00003", "latest"]
    assert [read_manifest(out / f"{n:05d}").build_seed for n in (2, 3)] == [2, 3]


def test_a_stopped_version_is_gone_on_with_unless_the_recipe_changed(tmp_path: Path, monkeypatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_link", stopped)  # after the build, before it counts as the latest
        patch.setattr("flows.build.write_manifest", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_version(recipe(), tmp_path)
    assert versions(tmp_path) == []
    assert build_version(recipe("seed=5"), tmp_path).name == "00002"  # another recipe: a version of its own
    (tmp_path / "00002" / "manifest.json").unlink()
    assert build_version(recipe("seed=5"), tmp_path).name == "00002"
    assert versions(tmp_path) == [2]
    assert not (tmp_path / "00001").exists() or versions(tmp_path) == [2]


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1 version"):
        build_version(recipe(), tmp_path, keep=0)
    assert list(tmp_path.iterdir()) == []
