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
from pipeline.scene.taxonomy import load_taxonomy


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


def test_three_blocks_keep_their_handedness(tmp_path) -> None:
    """A corner stone, a log east of it, planks south of it, in (y, z, x): east is forward, south is right."""
    array = np.zeros((1, 2, 2, 2), np.uint8)
    array[0, 0, 0, 0], array[0, 0, 1, 0], array[0, 1, 0, 0] = 1, 17, 5
    np.save(tmp_path / "a.npy", array)
    scene = read_schematic(tmp_path / "a.npy").scene()
    at = {name: np.argwhere(scene.labels == scene.taxonomy.id_of(name))[0] for name in ("stone", "log", "planks")}
    assert (at["log"] - at["stone"]).tolist() == [1, 0, 0]  # forward
    assert (at["planks"] - at["stone"]).tolist() == [0, -1, 0]  # right
    assert scene.occupied.sum() == 3


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


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 6)] * 3))
@settings(max_examples=25, deadline=None)
def test_a_house_built_block_by_block_is_that_house(seed: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(1, 253, shape, dtype=np.uint8) * (rng.random(shape) < 0.6)
    blocks[0, 0, 0] = 1
    house = House("h", blocks.astype(np.uint8), np.where(blocks, rng.integers(0, 16, shape), 0).astype(np.uint8))
    array, low = schematic_of(house), rng.integers(-99, 99, 3)
    actions = [
        Action(int(tick), "a", (int(x + low[0]), int(y + low[1]), int(z + low[2])), *map(int, array[y, z, x]), True)
        for tick, (y, z, x) in enumerate(rng.permutation(np.argwhere(array[..., 0])))
    ]
    again, expected = replay(rng.permutation(np.array(actions, object)).tolist(), "h"), house.cropped()
    np.testing.assert_array_equal(again.blocks, expected.blocks)
    np.testing.assert_array_equal(again.meta, expected.meta)


def test_cropping_removes_air_only() -> None:
    blocks, meta = np.zeros((40, 3, 3), np.uint8), np.zeros((40, 3, 3), np.uint8)
    blocks[4, 1, 1], blocks[9, 1, 2], meta[9, 1, 2] = 5, 53, 2
    house = House("h", blocks, meta)
    assert not house.fits()
    assert house.cropped().fits()
    assert house.cropped().blocks.shape == (6, 1, 2)
    assert house.cropped().meta[5, 0, 1] == 2
    air = House("air", np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8))
    assert air.cropped() is air


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
    write_splits(tmp_path, {"train": ("one",), "val": ("two", "one")})
    with pytest.raises(InputError, match="in one split, found 'one' again"):
        open_craft3d(tmp_path)


def test_links_that_leave_the_root_are_refused(tmp_path) -> None:
    actions = [Action(1, "a", (0, 0, 0), 5, 0, True)]
    write_house(tmp_path / "root", replay(actions, "one"))
    write_house(tmp_path / "elsewhere", replay(actions, "two"))
    (tmp_path / "root/houses/two").symlink_to(tmp_path / "elsewhere/houses/two")
    with pytest.raises(InputError, match="a link to"):
        open_craft3d(tmp_path / "root")


def test_the_same_house_gives_the_same_bytes(tmp_path) -> None:
    actions = [Action(1, "a", (0, 0, 0), 5, 0, True), Action(2, 7, (1, 0, 0), 53, 2, True)]
    for name in ("x", "y"):
        written = write_house(tmp_path / name, replay(actions, "one"), actions)
    for path in written:
        assert (tmp_path / "x" / path).read_bytes() == (tmp_path / "y" / path).read_bytes()
    files = sorted(p.relative_to(tmp_path / "x").as_posix() for p in (tmp_path / "x").rglob("*") if p.is_file())
    assert files == sorted(written)  # no temporary file stays


def test_headers_of_other_writers(tmp_path) -> None:
    header = b"{'shape': (1, 1, 1, 2), 'fortran_order':False, 'descr': '|u1'}"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x02\0" + len(header).to_bytes(4, "little") + header + b"\x05\x02")
    house = read_schematic(tmp_path / "a.npy")
    assert (house.blocks.item(), house.meta.item()) == (5, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY\x01\0",
        b"\x93NUMPY\x04\0\x02\0\0\0{}",
        b"\x93NUMPY\x01\0\xff\xff{}",
        b"\x93NUMPY\x02\0\xff\xff\xff\xff{}",
        b"\x93NUMPY\x01\0\x4c\0{'descr': '|u1', 'fortran_order': 0L, 'shape': (1, 1, 1, 2), }".ljust(86) + b"\5\2",
    ],
)
def test_damaged_headers_are_refused_in_one_line(tmp_path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy: expected an? .*\.npy"):
        read_schematic(path)


def test_classes_are_block_ids() -> None:
    taxonomy = load_taxonomy("minecraft")
    assert taxonomy.raw_ids == tuple(range(253))
    hand = {
        0: "air",
        5: "planks",
        64: "wooden_door",
        102: "glass_pane",
        124: "lit_redstone_lamp",
        252: "concrete_powder",
    }
    assert {block: taxonomy.classes[block] for block in hand} == hand
    assert taxonomy.foreground >= {26, 50, 63, 64, 65, 69, 71, 85, 102, 37}  # bed torch sign door ladder lever ...
    assert not taxonomy.foreground & {1, 5, 17, 20, 45, 53, 123, 124}  # full blocks, stairs, lamps
    assert taxonomy.from_raw(np.array([253, 254, 255]), "x").tolist() == [255] * 3


def test_the_real_houses_fit_as_stated(shared_data: Path) -> None:
    root = open_craft3d(shared_data / "craftassist/house")
    houses = [root.house(name) for name, _ in root.frames("all")]
    assert len(houses) == 36
    assert sum(house.fits() for house in houses) == 25
    assert sum(house.cropped().fits() for house in houses) == 27
    for house in houses:
        assert house.scene().occupied.sum() == house.occupied == house.cropped().occupied


def test_real_files_are_written_back_byte_for_byte(shared_data: Path, tmp_path) -> None:
    folders = sorted(path for path in (shared_data / "craftassist").iterdir() if path.is_dir())
    assert len(folders) == 21  # houses and 20 kinds of parts
    for folder in folders:
        root = open_craft3d(folder)
        assert root.splits["all"]
        for name in root.splits["all"]:
            (path,) = root.label_files(name, "")
            write_schematic(tmp_path / "a.npy", root.house(name))
            assert (tmp_path / "a.npy").read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, "a", [0, 0, 0], [1, 0]], "tick, builder"),
        ([1, "a", [0, 0], [1, 0], "P"], "tick, builder"),
        ([1, "a", [0, 0, 0.5], [1, 0], "P"], "tick, builder"),
        ([1, "a", [0, 0, 0], [1, 0], "X"], "tick, builder"),
        ([1, {}, [0, 0, 0], [1, 0], "P"], "tick, builder"),
        ([1, "a", [True, 0, 0], [1, 0], "P"], "tick, builder"),
        ("PPPPP", "tick, builder"),
        ([1, "a", [0, 0, 0], [1, -129], "P"], "a byte"),
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
        (np.zeros((2, 2, 2, 2), np.int16), "uint8 in C order.*found <i2"),
        (np.asfortranarray(np.zeros((2, 2, 2, 2), np.uint8)), "in Fortran order"),
        (np.zeros((0, 2, 2, 2), np.uint8), "edges of 1 to 512"),
        (np.zeros((1, 1, 600, 2), np.uint8), "edges of 1 to 512"),
    ]:
        np.save(path, array)
        with pytest.raises(InputError, match=message):
            read_schematic(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="uint8 in C order"):
        read_schematic(path)
    np.save(path, np.zeros((2, 2, 2, 2), np.uint8))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="16 bytes of blocks, found 15"):
        read_schematic(path)
    path.unlink()
    with pytest.raises(InputError, match="3D-Craft root"):
        open_craft3d(tmp_path)
