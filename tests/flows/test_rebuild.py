"""A build made again from its manifest: the same bytes, or the first difference by name."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.build import build_dataset
from flows.cli import app
from flows.rebuild import rebuild_dataset, recipe_of
from flows.recipes import load_recipe
from pipeline.datasets.manifest import MANIFEST_NAME, read_manifest
from pipeline.scene.errors import InputError

CHANGES = (
    "samples=2",
    "shard_samples=1",
    "gallery_samples=1",
    "views.width_px=96",
    "views.height_px=32",
    "source.grid.shape=[32,32,8]",
    "source.grid.voxel_size_m=0.8",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "first"
    build_dataset(load_recipe("town_tiny", changes=CHANGES), out, "none", workers=1)
    return out


def alone(built: Path, folder: Path, change: dict[str, object] | None = None) -> Path:
    """A folder that holds the manifest and nothing else, perhaps changed."""
    table = json.loads((built / MANIFEST_NAME).read_text())
    folder.mkdir()
    (folder / MANIFEST_NAME).write_text(json.dumps(table | (change or {})))
    return folder


def test_the_manifest_alone_brings_back_every_byte(built: Path, tmp_path: Path) -> None:
    found = rebuild_dataset(alone(built, tmp_path / "m"), tmp_path / "again")
    assert found.differences == ()
    assert found.versions == ()
    assert found.files == len(read_manifest(built).files)
    assert (tmp_path / "again" / MANIFEST_NAME).read_bytes() == (built / MANIFEST_NAME).read_bytes()


def test_the_first_difference_is_named(built: Path, tmp_path: Path) -> None:
    files = [file.model_dump() for file in read_manifest(built).files]
    files[3]["sha256"] = "0" * 64
    gone = files.pop(5)["path"]
    folder = alone(built, tmp_path / "m", {"files": files})
    result = CliRunner().invoke(app, ["rebuild", str(folder), "--out", str(tmp_path / "again"), "--workers", "1"])
    assert result.exit_code == 1
    assert f"{files[3]['path']}: " in result.output
    assert "1 more differ" in result.output
    again = rebuild_dataset(folder, tmp_path / "again")  # finished: found done
    assert (gone, "was not in the first build") in again.differences


@pytest.mark.parametrize(
    ("change", "root", "said"),
    [
        ({"recipe_digest": "0" * 64}, None, "recipe digest 000000000000"),
        ({}, Path("somewhere"), "expected none"),
        ({"recipe": {"name": "x", "source": {"kind": "split"}}}, None, "the folder of the recipe's root"),
        ({"recipe": {"name": "x", "source": {"kind": "moon"}}}, None, "recipe field"),
        ({"recipe": {}}, None, "recipe field"),
    ],
)
def test_what_cannot_be_built_again_is_one_line(built: Path, tmp_path: Path, change, root, said) -> None:
    folder = alone(built, tmp_path / "m", change)
    with pytest.raises(InputError, match=said) as caught:
        recipe_of(read_manifest(folder), folder, root)
    assert "\n" not in str(caught.value)


def test_it_is_not_built_over_itself(built: Path) -> None:
    with pytest.raises(InputError, match="another folder"):
        rebuild_dataset(built, built)
