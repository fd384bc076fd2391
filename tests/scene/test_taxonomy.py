"""Taxonomies: the published facts, the door for raw ids, readable errors."""

import numpy as np
import pytest

from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import EMPTY, IGNORE, load_taxonomy, parse_taxonomy

SHIPPED = ("semantic_kitti", "carla_sc", "occ3d", "minecraft")


@pytest.mark.parametrize("name", SHIPPED)
def test_written_ids_are_read_back_as_their_class(name: str) -> None:
    taxonomy = load_taxonomy(name)
    labels = np.arange(len(taxonomy.classes), dtype=np.uint8)
    np.testing.assert_array_equal(taxonomy.from_raw(taxonomy.to_raw(labels), "memory"), labels)
    assert len(taxonomy.colors) == len(taxonomy.plain) == len(taxonomy.classes)
    assert taxonomy.classes[EMPTY] in ("empty", "air")


def test_semantic_kitti_learning_map() -> None:
    taxonomy = load_taxonomy("semantic_kitti")
    raw = np.array([0, 1, 52, 99, 10, 252, 16, 256, 60, 40, 81, 259, 254])
    expected = [0, IGNORE, IGNORE, IGNORE, 1, 1, 5, 5, 9, 9, 19, 5, 6]
    assert taxonomy.from_raw(raw, "memory").tolist() == expected
    assert len(taxonomy.raw_to_class) == 34


def test_carla_sc_remap() -> None:
    remap = [0, 1, 2, 3, 4, 5, 6, 6, 8, 9, 10, 2, 5, 3, 7, 3, 3, 2, 5, 3, 3, 3, 7]
    assert load_taxonomy("carla_sc").from_raw(np.arange(23), "memory").tolist() == remap


@pytest.mark.parametrize(("name", "share"), [("semantic_kitti", 0.9069), ("carla_sc", 0.9585)])
def test_background_share_is_the_published_one(name: str, share: float) -> None:
    taxonomy = load_taxonomy(name)
    counts = np.array(taxonomy.voxel_counts, dtype=float)
    counts[EMPTY] = 0
    foreground = taxonomy.is_foreground()[: len(counts)]
    assert counts[~foreground].sum() / counts.sum() == pytest.approx(share, abs=5e-5)


def test_unknown_raw_id_is_named_with_its_file() -> None:
    taxonomy = load_taxonomy("semantic_kitti")
    for unknown in (2, 300, 65535):
        with pytest.raises(InputError, match=rf"a\.label: .*unknown raw id {unknown}$"):
            taxonomy.from_raw(np.array([0, 10, unknown], dtype=np.uint16), "a.label")
    assert taxonomy.from_raw(np.zeros(0, np.uint16), "a.label").shape == (0,)


def test_ignore_is_written_as_asked() -> None:
    taxonomy = load_taxonomy("semantic_kitti")
    assert taxonomy.to_raw(np.array([IGNORE, 6], np.uint8)).tolist() == [0, 30]
    assert taxonomy.to_raw(np.array([IGNORE], np.uint8), ignore_raw=1).tolist() == [1]


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"name": "x", "class": [{"name": "empty", "color": [0, 0, 0], "raw": [0]}]},
        {"name": "x", "class": [{"name": n, "color": [0, 0, 0], "raw": [0]} for n in "ab"]},
        {"name": "x", "class": [{"name": n, "color": [0, 0, 999], "raw": [k]} for k, n in enumerate("ab")]},
        {"name": "x", "class": [{"name": n, "color": [0, 0], "raw": [k]} for k, n in enumerate("ab")]},
        {"name": "x", "class": [{"name": n, "color": [0, 0, 0], "raw": []} for n in "ab"]},
        {"name": "x", "class": 3},
    ],
)
def test_malformed_tables_are_refused_in_one_line(table: dict) -> None:
    with pytest.raises(InputError) as caught:
        parse_taxonomy(table, "mine.toml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("mine.toml: expected")


def test_own_taxonomy_from_a_file(tmp_path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "own"\n[[class]]\nname = "empty"\ncolor = [0, 0, 0]\nraw = [7]\n'
        '[[class]]\nname = "rock"\ncolor = [9, 9, 9]\nraw = [1, 2]\nwritten = 2\nforeground = true\n'
    )
    taxonomy = load_taxonomy(str(path))
    assert taxonomy.from_raw(np.array([7, 1, 2]), "x").tolist() == [0, 1, 1]
    assert taxonomy.to_raw(np.array([0, 1], np.uint8)).tolist() == [7, 2]
    assert taxonomy.id_of("rock") == 1
    assert taxonomy.is_foreground().nonzero()[0].tolist() == [1]
    with pytest.raises(InputError, match="nowhere"):
        load_taxonomy(str(tmp_path / "nowhere.toml"))
