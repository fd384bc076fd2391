"""Minecraft structures: states by hand, both halves of a door, places, the real houses, read back by nbtlib."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.craft3d import House, open_craft3d, schematic_of
from pipeline.datasets.minecraft_nbt import state_of, write_structure
from pipeline.scene.errors import InputError

nbtlib = pytest.importorskip("nbtlib", reason="nbtlib isn't installed (pip install nbtlib)")

STATES = {
    (1, 3): "diorite",
    (2, 0): "grass_block",
    (5, 1): "spruce_planks",
    (17, 4): "oak_log[axis=x]",
    (17, 13): "spruce_wood",
    (35, 14): "red_wool",
    (43, 8): "smooth_stone",
    (44, 13): "stone_brick_slab[type=top]",
    (50, 5): "torch",
    (50, 2): "wall_torch[facing=west]",
    (53, 6): "oak_stairs[facing=south,half=top]",
    (54, 5): "chest[facing=east]",
    (65, 3): "ladder[facing=south]",
    (78, 1): "snow[layers=2]",
    (96, 11): "oak_trapdoor[facing=east,half=top,open=false]",
    (145, 9): "damaged_anvil[facing=west]",
    (155, 3): "quartz_pillar[axis=x]",
    (155, 1): "chiseled_quartz_block",
    (251, 8): "light_gray_concrete",
    (234, 1): "black_shulker_box[facing=up]",
}


def text(name: str, properties) -> str:
    inside = ",".join(f"{key}={value}" for key, value in sorted(properties))
    return name.removeprefix("minecraft:") + (f"[{inside}]" if inside else "")


def read(path: Path) -> dict[tuple[int, int, int], str]:
    """States by place, as nbtlib reads them."""
    file = nbtlib.load(path)
    assert file.gzipped
    assert int(file["DataVersion"]) == 2586
    palette = [text(str(e["Name"]), [(k, str(v)) for k, v in e.get("Properties", {}).items()]) for e in file["palette"]]
    found = {tuple(int(n) for n in block["pos"]): palette[int(block["state"])] for block in file["blocks"]}
    assert len(found) == len(file["blocks"])
    return found


def house_of(array: np.ndarray) -> House:
    """A house from an array in the game's axes, (y, z, x, 2)."""
    ours = array.transpose(2, 1, 0, 3)[:, ::-1].astype(np.uint8)
    return House("h", ours[..., 0], ours[..., 1])


def test_states_by_hand() -> None:
    assert {key: text(*state_of(*key)) for key in STATES} == STATES
    for block in range(1, 253):
        for data in range(32):
            name, properties = state_of(block, data)
            assert name.startswith("minecraft:")
            assert all(isinstance(value, str) and value for _, value in properties)
            assert "{" not in name
    with pytest.raises(InputError, match="a number of"):
        state_of(253, 0)


def test_places_and_a_door(tmp_path) -> None:
    array = np.zeros((3, 2, 4, 2), np.uint8)  # y z x
    array[0, 0, 0] = (1, 0)
    array[0, 1, 3] = (64, 2 | 4)  # lower half: to the west, open
    array[1, 1, 3] = (64, 8 | 1)  # upper half: hinge on the right
    array[2, 0, 1] = (64, 8)  # an upper half alone
    write_structure(tmp_path / "a.nbt", house_of(array))
    assert [int(n) for n in nbtlib.load(tmp_path / "a.nbt")["size"]] == [4, 3, 2]
    assert read(tmp_path / "a.nbt") == {  # x y z
        (0, 0, 0): "stone",
        (3, 0, 1): "oak_door[facing=west,half=lower,hinge=right,open=true]",
        (3, 1, 1): "oak_door[facing=west,half=upper,hinge=right,open=true]",
        (1, 2, 0): "oak_door[facing=east,half=upper,hinge=left,open=false]",
    }
    written = (tmp_path / "a.nbt").read_bytes()
    write_structure(tmp_path / "b.nbt", house_of(array))
    assert (tmp_path / "b.nbt").read_bytes() == written


def test_a_real_house_block_by_block(shared_data: Path, tmp_path) -> None:
    house = open_craft3d(shared_data / "craftassist/house").house("house_00")
    write_structure(tmp_path / "a.nbt", house)
    found, array = read(tmp_path / "a.nbt"), schematic_of(house)
    assert len(found) == house.occupied
    for (x, y, z), state in found.items():
        block, data = (int(n) for n in array[y, z, x])
        if block not in (64, 71, 175, *range(193, 198)):
            assert state == text(*state_of(block, data))
    uppers = {place: state for place, state in found.items() if "door[" in state and "half=upper" in state}
    assert uppers
    for (x, y, z), state in uppers.items():
        assert found[x, y - 1, z] == state.replace("upper", "lower")


def test_a_number_that_is_no_block_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="254"):
        write_structure(
            tmp_path / "a.nbt", House("h", np.full((1, 1, 1), 254, np.uint8), np.zeros((1, 1, 1), np.uint8))
        )
    assert not list(tmp_path.iterdir())
