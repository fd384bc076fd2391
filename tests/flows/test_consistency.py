"""Samples that contradict themselves are found although every hash is right."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.build import build_dataset
from flows.inspect import verify_dataset
from flows.recipes import load_recipe
from pipeline.datasets.image_files import read_depth, read_image, read_label_image, write_depth, write_image
from pipeline.datasets.image_files import write_label_image as write_labels
from pipeline.datasets.manifest import read_manifest, record_files, write_manifest

CHANGES = (
    "samples=1",
    "gallery_samples=0",
    "views.width_px=96",
    "views.height_px=32",
    "source.grid.shape=[32,32,8]",
    "source.grid.voxel_size_m=0.8",
    'views.cameras=["front","left"]',
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "one"
    build_dataset(load_recipe("town_tiny", changes=CHANGES), out, "none", workers=1)
    return out


def deeper(path: Path) -> None:
    write_depth(path, read_depth(path) + np.float32(0.02))


def other_class(path: Path) -> None:
    labels = read_label_image(path)
    labels[-1, 40] += 1
    write_labels(path, labels)


def brighter(path: Path) -> None:
    write_image(path, read_image(path) ^ 1)


def narrower(path: Path) -> None:
    write_image(path, read_image(path)[:, 1:])


def emptied(path: Path) -> None:
    """Every voxel of the labels that isn't a road becomes empty."""
    raw = np.fromfile(path, "<u2")
    np.where(raw == 40, raw, 0).astype("<u2").tofile(path)


def turned(path: Path) -> None:
    table = json.loads(path.read_text())
    table["left"]["K"][0][0] *= 1.1
    path.write_text(json.dumps(table))


def shifted(path: Path) -> None:
    lines = path.read_text().splitlines()
    row = next(k for k, line in enumerate(lines) if line.startswith("P2"))
    name, *numbers = lines[row].split()
    numbers[2] = repr(float(numbers[2]) + 1.5)  # the principal point [px]
    lines[row] = " ".join([name, *numbers])
    path.write_text("\n".join(lines) + "\n")


def test_a_sound_build_agrees_with_itself(built: Path) -> None:
    assert verify_dataset(built) == []


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("depth_2/000000.png", deeper, "depth_2 is up to 0.02 m off"),
        ("semantics_left/000000.png", other_class, "semantics_left differs from the voxels' view in 1 of 3072 pixels"),
        ("image_2/000000.png", brighter, "image_2 is not the voxels' render"),
        ("image_2/000000.png", narrower, "96"),
        ("voxels/000000.label", emptied, "empty in .label"),
        ("cameras.json", turned, "_left"),
        ("calib.txt", shifted, "_2"),
    ],
)
def test_a_contradiction_is_found_though_hashed(
    built: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], said: str
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    damage(copy / "sequences/00" / name)
    manifest = read_manifest(copy)
    files = record_files(copy, (file.path for file in manifest.files))
    write_manifest(copy, manifest.model_copy(update={"files": files}))
    assert verify_dataset(copy, views=False) == []
    ((sample, fault),) = verify_dataset(copy)
    assert sample == "00/000000"
    assert said in fault
