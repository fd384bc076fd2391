"""The checker on a plain hut that passes all, and on huts built to break each rule, counted by hand."""

from typing import Any

import numpy as np
import pytest

from pipeline.houses.check import CHECKS, Count, check_house, rates
from pipeline.houses.materials import minecraft
from pipeline.scene.taxonomy import IGNORE

B = {name: k for k, name in enumerate(minecraft().classes)}


def hut() -> np.ndarray:
    """5 x 5 outside, 3 x 3 inside, walls of three blocks, a flat roof, a door to -x, two panes, a chimney, a flower."""
    ids = np.zeros((12, 12, 12), np.uint8)
    ids[3:8, 3:8, 0] = B["cobblestone"]
    ids[3:8, 3:8, 1:4] = B["planks"]
    ids[4:7, 4:7, 1:4] = 0
    ids[3:8, 3:8, 4] = B["stone_slab"]
    ids[3, 5, 1:3] = B["wooden_door"]
    ids[5, 3, 2] = ids[5, 7, 2] = B["glass"]
    ids[7, 5, 4:7] = B["brick_block"]
    ids[7, 5, 1:4] = B["brick_block"]
    ids[1, 1, 0], ids[1, 1, 1] = B["grass"], B["red_flower"]
    return ids


WHOLE = {
    "has_room": (1, 1),
    "roofed": (9, 9),
    "roof_above_walls": (15, 15),  # 16 columns of walls less the chimney's
    "wall_blocks": (41, 41),  # 15 x 3 less a door's two and two panes
    "floor_blocks": (9, 9),
    "one_wall_material": (29, 29),  # without four corners
    "one_roof_slope": (0, 0),
    "door_at_ground": (1, 1),
    "doors_whole": (2, 2),
    "doors_free": (1, 1),
    "has_windows": (1, 1),
    "windows_in_walls": (2, 2),
    "chimneys_on_roof": (1, 1),
    "has_chimney": (1, 1),
    "plants_on_soil": (1, 1),
    "floors_reached": (9, 9),
    "connected": (102, 102),
}


def test_a_hut_passes() -> None:
    found = check_house(hut())
    assert list(found) == list(CHECKS)
    assert {name: tuple(count) for name, count in found.items()} == WHOLE


S = np.s_
BROKEN: dict[str, list[tuple[Any, str]]] = {  # what is laid over the hut
    "no wall": [(S[3:8, 7, 1:4], "air")],
    "no roof": [(S[3:8, 3:8, 4], "air")],
    "half a roof": [(S[4:6, 4:7, 4], "air")],
    "roof of lamps": [(S[3:8, 3:8, 4], "glowstone")],
    "wall of leaves": [(S[3, 3:5, 1:4], "leaves")],
    "floor of water": [(S[4:7, 4:6, 0], "water")],
    "walls of two kinds": [(S[4:7, 3, 1:4], "wool")],
    "slopes of two kinds": [(S[4, 4:7, 4], "oak_stairs"), (S[5, 4:6, 4], "stone_stairs")],
    "no door": [(S[3, 5, 1:3], "planks")],
    "door upstairs": [(S[3, 5, 1], "planks"), (S[3, 5, 2:4], "wooden_door")],
    "half a door": [(S[3, 5, 2], "planks")],
    "door of three": [(S[3, 5, 3], "wooden_door")],
    "blocked door": [(S[2, 5, 2], "planks")],
    "pane in the air": [(S[1, 9, 0:2], "planks"), (S[1, 9, 2], "glass")],
    "one window": [(S[5, 3, 2], "planks")],
    "buried pane": [(S[5, [2, 4], 2], "planks")],
    "chimney of wood": [(S[7, 5, 4:7], "log")],
    "no chimney": [(S[7, 5, 5:7], "air")],
    "chimney in the air": [(S[7, 5, 6], "air"), (S[7, 5, 7], "brick_block")],
    "flower on stone": [(S[1, 1, 0], "stone")],
    "room without a way": [(S[4, 4:7, 1:3], "planks")],
    "floating": [(S[10, 10, 9], "planks")],
}


def broken(name: str) -> np.ndarray:
    ids = hut()
    for where, block in BROKEN[name]:
        ids[where] = B[block]
    return ids


@pytest.mark.parametrize(
    ("name", "check", "expected"),
    [
        ("no wall", "has_room", (0, 1)),
        ("no roof", "roofed", (0, 9)),
        ("no roof", "roof_above_walls", (0, 15)),
        ("half a roof", "roofed", (3, 9)),
        ("roof of lamps", "roof_above_walls", (0, 15)),
        ("wall of leaves", "wall_blocks", (35, 41)),
        ("floor of water", "floor_blocks", (3, 9)),
        ("walls of two kinds", "one_wall_material", (21, 30)),
        ("slopes of two kinds", "one_roof_slope", (3, 5)),
        ("no door", "door_at_ground", (0, 1)),
        ("door upstairs", "door_at_ground", (0, 1)),
        ("door upstairs", "doors_whole", (2, 2)),
        ("half a door", "doors_whole", (0, 1)),
        ("half a door", "door_at_ground", (0, 1)),
        ("door of three", "doors_whole", (0, 3)),
        ("blocked door", "doors_free", (0, 1)),
        ("blocked door", "door_at_ground", (0, 1)),
        ("pane in the air", "windows_in_walls", (2, 3)),
        ("one window", "has_windows", (0, 1)),
        ("buried pane", "windows_in_walls", (1, 2)),
        ("chimney of wood", "chimneys_on_roof", (0, 1)),
        ("chimney of wood", "has_chimney", (0, 1)),
        ("no chimney", "chimneys_on_roof", (0, 0)),
        ("chimney in the air", "chimneys_on_roof", (0, 1)),
        ("flower on stone", "plants_on_soil", (0, 1)),
        ("room without a way", "floors_reached", (0, 6)),
        ("floating", "connected", (102, 103)),
    ],
)
def test_a_broken_rule_is_counted(name: str, check: str, expected: tuple[int, int]) -> None:
    assert tuple(check_house(broken(name))[check]) == expected


def test_place_and_unknown_voxels_make_no_difference() -> None:
    ids = hut()
    higher = np.roll(ids, (2, -1, 5), (0, 1, 2))
    assert check_house(higher) == check_house(ids)
    assert check_house(ids[1:9, 1:9, :7]) == check_house(ids)  # no air around
    assert check_house(np.where(ids == 0, IGNORE, ids)) == check_house(ids)


def test_a_house_on_a_plinth_is_checked_from_its_floor_on() -> None:
    plinth = np.full((12, 12, 2), B["dirt"], np.uint8)
    found = check_house(np.concatenate([plinth, hut()[:, :, :10]], axis=2))
    assert tuple(found.pop("connected")) == (102 + 288, 102 + 288)
    assert found == {name: count for name, count in check_house(hut()).items() if name != "connected"}


def test_turned_houses_count_the_same() -> None:
    for quarters in (1, 2, 3):
        assert check_house(np.rot90(hut(), quarters)) == check_house(hut())


def test_ladders_and_stairs_lead_up() -> None:
    """A second floor over the first: reached by a ladder through a hole, by four stairs, and not at all."""
    ids = np.zeros((12, 12, 14), np.uint8)
    ids[2:10, 2:10, :9] = B["planks"]
    ids[3:9, 3:9, 1:4] = ids[3:9, 3:9, 5:8] = 0
    ids[2, 5, 1:3] = B["wooden_door"]
    assert tuple(check_house(ids)["floors_reached"]) == (36, 72)
    ladder = ids.copy()
    ladder[8, 8, 1:5] = B["ladder"]
    passed, of = check_house(ladder)["floors_reached"]
    assert passed == of >= 72
    stairs = ids.copy()
    for step in range(4):
        stairs[7 - step, 8, 1 + step] = B["oak_stairs"]
        if step < 3:
            stairs[7 - step, 8, 4] = 0
    passed, of = check_house(stairs)["floors_reached"]
    assert passed == of > 60


def test_rates_sum_over_houses() -> None:
    found = rates([check_house(broken("half a roof")), check_house(hut())])
    assert found["roofed"] == 12 / 18
    assert np.isnan(found["one_roof_slope"])
    nothing = check_house(np.zeros((4, 4, 4), np.uint8))
    assert nothing["door_at_ground"] == Count(0, 1)
    assert np.isnan(rates([nothing])["roofed"])
