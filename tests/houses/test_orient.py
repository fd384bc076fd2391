"""Data values told from blocks alone, against those that the builder laid, which knows."""

import numpy as np

from pipeline.houses.build import build_house
from pipeline.houses.canvas import DOOR_TOP, LADDERS, STAIRS
from pipeline.houses.materials import minecraft
from pipeline.houses.orient import oriented
from pipeline.houses.roles import role

B = {name: k for k, name in enumerate(minecraft().classes)}


def test_as_the_builder_laid_them() -> None:
    same, every = {"door": 0, "stairs": 0, "torch": 0}, {"door": 0, "stairs": 0, "torch": 0}
    for seed in range(12):
        _, canvas = build_house(seed)
        data = oriented(canvas.ids)
        for name, places in (
            ("door", role("door")[canvas.ids]),
            ("stairs", role("stairs")[canvas.ids]),
            ("torch", canvas.ids == B["torch"]),
        ):
            same[name] += int((data == canvas.data)[places].sum())
            every[name] += int(places.sum())
    assert same["door"] == every["door"] == 24
    assert same["torch"] == every["torch"] > 0
    assert same["stairs"] > 0.9 * every["stairs"]


def test_by_hand() -> None:
    """A ladder beside a wall to its east looks west; in a corner either wall may hold it."""
    shaft = np.zeros((3, 3, 3), np.uint8)
    shaft[2, 1], shaft[1, 1] = B["planks"], B["ladder"]
    assert (oriented(shaft)[1, 1] == LADDERS[(-1, 0)]).all()
    ids = np.zeros((4, 3, 5), np.uint8)
    ids[1, 1, 0], ids[2, 1, 1] = B["oak_stairs"], B["planks"]
    assert oriented(ids)[1, 1, 0] == STAIRS[(1, 0)] == 0
    assert oriented(ids[::-1])[2, 1, 0] == STAIRS[(-1, 0)] == 1
    tall = np.zeros((1, 1, 4), np.uint8)
    tall[0, 0] = B["wooden_door"]
    assert (oriented(tall)[0, 0] == DOOR_TOP).tolist() == [False, True, False, True]
    alone = np.full((1, 1, 1), B["torch"], np.uint8)
    assert oriented(alone)[0, 0, 0] == 5
