"""A root of classes of its own: taxonomy.toml beside its grid, written and read back."""

import numpy as np
import pytest

from pipeline.datasets.semantic_kitti import open_root, write_frame, write_layout
from pipeline.datasets.voxel_frames import Frame
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import from_short_form, load_taxonomy, short_form, taxonomy_toml

GRID = VoxelGrid((8, 8, 8), 0.4, (0.0, -1.6, -2.0))
OWN = """
name = "harbour"
ignore_raw = [99]
[[class]]
name = "empty"
color = [0, 0, 0]
raw = [0]
[[class]]
name = "quay"
color = [120, 120, 120]
raw = [7, 8]
[[class]]
name = "crane"
plain = "harbour crane ü"
color = [250, 200, 0]
raw = [300]
written = 301
foreground = true
"""


@pytest.mark.parametrize("name", ["semantic_kitti", "carla_sc", "occ3d", "kitti_360", "minecraft"])
def test_a_shipped_taxonomy_survives_writing_and_reading(name: str, tmp_path) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text(taxonomy_toml(load_taxonomy(name)))
    assert load_taxonomy(str(path)) == load_taxonomy(name)


def test_a_root_of_its_own_classes_reads_back(tmp_path) -> None:
    (tmp_path / "harbour.toml").write_text(OWN.replace("written = 301\n", ""))
    own, root = load_taxonomy(str(tmp_path / "harbour.toml")), tmp_path / "root"
    labels = np.random.default_rng(0).integers(0, 3, GRID.shape, dtype=np.uint8)
    invalid = np.zeros(GRID.shape, bool)
    invalid[0], labels[0], labels[1, 0, 0] = True, 255, 255
    written = write_layout(root, GRID, {"train": ["00"]}, own)
    write_frame(root, Frame("00", "000000", GRID, own, labels, invalid))
    assert "taxonomy.toml" in written
    found = open_root(root)
    assert found.taxonomy == own
    np.testing.assert_array_equal(found.scene("00", "000000").labels, labels)
    raw = np.fromfile(root / "sequences/00/voxels/000000.label", np.uint16)
    assert set(raw) == {0, 7, 99, 300}


def test_a_written_id_of_its_own_and_plain_words_are_kept(tmp_path) -> None:
    (tmp_path / "harbour.toml").write_text(OWN)
    own = load_taxonomy(str(tmp_path / "harbour.toml"))
    (tmp_path / "again.toml").write_text(taxonomy_toml(own))
    again = load_taxonomy(str(tmp_path / "again.toml"))
    assert again == own
    assert from_short_form(short_form(own)) == own
    assert short_form(load_taxonomy("occ3d")) == "occ3d"
    assert from_short_form("occ3d") == load_taxonomy("occ3d")
    assert (again.plain[2], again.raw_ids[2], again.foreground) == ("harbour crane ü", 301, frozenset({2}))


def test_a_root_of_published_classes_has_no_such_file(tmp_path) -> None:
    assert "taxonomy.toml" not in write_layout(tmp_path, GRID, {"train": ["00"]}, load_taxonomy("semantic_kitti"))
