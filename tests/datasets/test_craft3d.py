"""3D-Craft: replay and axes worked by hand, round trips, the real houses, faults in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.craft3d import (
    Action,
    House,
    open_craft3d,
    read_placed,
    read_schematic,
    replay,
    schematic_of,
    write_house,
    write_placed,
    write_schematic,
    write_splits,
)
from pipeline.scene.errors import InputError


def test_replay_by_hand(tmp_path) -> None:
    rows = [
        [3, "a", [10, 64, 5], [4, 0], "P"],
        [1, "a", [10, 64, 5], [1, 0], "P"],  # earlier by tick: replaced by the row above
        [4, "b", [12, 65, 4], [-43, 1], "P"],  # a signed byte: 213
        [5, "b", [11, 64, 5], [5, 2], "P"],
        [6, "b", [11, 64, 5], [0, 0], "B"],  # broken again
        [7, "b", [30, 64, 5], [0, 0], "P"],  # air
    ]
    (tmp_path / "placed.json").write_text(json.dumps(rows))
    house = replay(read_placed(tmp_path / "placed.json"), "h")
    assert house.blocks.shape == (3, 2, 2)  # x 10..12, z 4..5, y 64..65
    # X = x, Y = -z, Z = y: z = 5 is Y = 0, z = 4 is Y = 1
    assert house.blocks[0, 0, 0] == 4
    assert house.blocks[2, 1, 1] == 213
    assert house.meta[2, 1, 1] == 1
    assert house.occupied == 2
    assert house.fits()


def test_axes_of_a_schematic(tmp_path) -> None:
    array = np.zeros((2, 3, 4, 2), np.uint8)  # y z x
    array[1, 0, 3] = (17, 2)  # up, north-most, east-most
    np.save(tmp_path / "a.npy", array)
    house = read_schematic(tmp_path / "a.npy")
    assert house.blocks.shape == (4, 3, 2)
    assert house.blocks[3, 2, 1] == 17  # forward, left-most, up
    scene = house.scene()
    assert scene.taxonomy.classes[scene.labels[3, 2, 1]] == "log"
    assert scene.grid.voxel_size_m == 1.0


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 9)] * 3))
@settings(max_examples=25, deadline=None)
def test_round_trips(tmp_path_factory, seed: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("craft")
    house = House("h", rng.integers(0, 253, shape, dtype=np.uint8), rng.integers(0, 16, shape, dtype=np.uint8))
    write_schematic(folder / "schematic.npy", house)
    again = read_schematic(folder / "schematic.npy")
    np.testing.assert_array_equal(again.blocks, house.blocks)
    np.testing.assert_array_equal(again.meta, house.meta)
    actions = [
        Action(int(t), "me", (int(x), int(y), int(z)), int(b), 0, bool(p))
        for t, (x, y, z, b, p) in enumerate(rng.integers(-3, [4, 4, 4, 250, 2], (12, 5)) % [999, 999, 999, 256, 2])
    ]
    write_placed(folder / "placed.json", actions)
    assert read_placed(folder / "placed.json") == actions


def test_a_root(tmp_path) -> None:
    actions = [Action(1, "a", (0, 0, 0), 5, 0, True), Action(2, "a", (1, 0, 0), 53, 2, True)]
    built = replay(actions, "one")
    write_house(tmp_path, built, actions)
    (tmp_path / "houses/two").mkdir()
    write_placed(tmp_path / "houses/two/placed.json", actions[:1])
    assert open_craft3d(tmp_path).splits == {"all": ("one", "two")}
    write_splits(tmp_path, {"train": ("one", "lost"), "val": ("two",)})
    root = open_craft3d(tmp_path)
    assert root.splits == {"train": ("one",), "val": ("two",)}
    np.testing.assert_array_equal(root.house("one").blocks, built.blocks)
    assert root.house("two").occupied == 1
    with pytest.raises(InputError, match="inside"):
        root.house("../../etc")


def test_the_real_houses_and_parts(shared_data: Path, tmp_path) -> None:
    files = sorted((shared_data / "craftassist").glob("*/*.npy"))
    houses = [read_schematic(path) for path in files if path.parent.name == "house"]
    assert len(houses) == 36
    assert sum(house.fits() for house in houses) >= 18  # most of them
    for path in files:
        house = read_schematic(path)
        np.testing.assert_array_equal(schematic_of(house), np.load(path))
    for house in houses:
        assert house.scene().occupied.sum() == house.occupied


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, "a", [0, 0, 0], [1, 0]], "tick, builder"),
        ([1, "a", [0, 0], [1, 0], "P"], "tick, builder"),
        ([1, "a", [0, 0, 0.5], [1, 0], "P"], "tick, builder"),
        ([1, "a", [0, 0, 0], [1, 0], "X"], "tick, builder"),
        ([1, "a", [0, 0, 0], [999, 0], "P"], "a byte"),
        ([1, "a", [0, 2**40, 0], [1, 0], "P"], "32 bits"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message: str) -> None:
    path = tmp_path / "placed.json"
    path.write_text(json.dumps([[0, "a", [0, 0, 0], [1, 0], "P"], row]))
    with pytest.raises(InputError, match=f"row 1: .*{message}"):
        read_placed(path)


def test_bad_houses_are_refused(tmp_path) -> None:
    far = [Action(1, "a", (0, 0, 0), 1, 0, True), Action(2, "a", (10**6, 0, 0), 1, 0, True)]
    with pytest.raises(InputError, match="edges of at most 512"):
        replay(far, "far")
    with pytest.raises(InputError, match="no block"):
        replay([], "none")
    path = tmp_path / "a.npy"
    for array, message in [
        (np.zeros((2, 2, 2), np.uint8), "shape"),
        (np.zeros((2, 2, 2, 2), np.int16), "uint8 of shape"),
        (np.zeros((0, 2, 2, 2), np.uint8), "edges of 1 to 512"),
        (np.zeros((1, 1, 600, 2), np.uint8), "edges of 1 to 512"),
    ]:
        np.save(path, array)
        with pytest.raises(InputError, match=message):
            read_schematic(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="uint8 of shape"):
        read_schematic(path)
    np.save(path, np.zeros((2, 2, 2, 2), np.uint8))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="16 bytes of blocks, found 15"):
        read_schematic(path)
    with pytest.raises(InputError, match="3D-Craft root"):
        open_craft3d(tmp_path)
