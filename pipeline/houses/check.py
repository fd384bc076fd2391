"""What can be counted of a house from its blocks alone: does it have the structure of one?

check_house gives, for each of CHECKS, how many things passed of how many there were; `rates` sums them over houses. A
house without walls or doors has nothing to count in some checks, which is why has_room, door_at_ground and has_windows
count houses. Places are found by geometry (a room is what walls enclose), then their blocks are judged by role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from pipeline.houses.roles import role
from pipeline.houses.walking import reached
from pipeline.scene.taxonomy import EMPTY, IGNORE

CHECKS: dict[str, str] = {
    "has_room": "houses in which walls enclose a room",
    "roofed": "columns of a room that have a block above head height",
    "roof_above_walls": "columns of walls that end in a roof's block, higher than walls of three",
    "wall_blocks": "blocks of walls that are building material",
    "floor_blocks": "blocks under rooms that are flooring",
    "one_wall_material": "blocks of walls, corners left out, that are of the house's commonest kind",
    "one_roof_slope": "stairs on top of the house that are of its commonest kind",
    "door_at_ground": "houses with a whole door at ground level, two free blocks in front and a room behind",
    "doors_whole": "blocks of doors that are half of a door two blocks high",
    "doors_free": "doors at ground level with two free blocks in front",
    "has_windows": "houses with two windows in walls or more",
    "windows_in_walls": "panes held by walls: beside, below and above, and open to one side",
    "chimneys_on_roof": "what juts out of a roof by two blocks that is a chimney standing on house or ground",
    "has_chimney": "houses with such a chimney",
    "plants_on_soil": "plants that stand on soil",
    "floors_reached": "places indoors to stand on that can be walked to from a door",
    "connected": "blocks that hang together with the ground (the rest floats)",
}
FLOORS = 10  # levels that a room's floor is sought on: people build on plinths and hills
HEAD = 3  # levels above the floor that walls and doors take at least


class Count(NamedTuple):
    """How many passed, of how many."""

    passed: int
    of: int


class _House(NamedTuple):
    """A house as the checks see it, its lowest level that of its ground floor; volumes (X, Y, Z), planes (X, Y).

    solid: fills its cube, no glass or door; closed: solid, glass or door; rooms, walls: columns; chimney: columns that
    jut out of the roof by two.
    """

    ids: UInt8[np.ndarray, "x y z"]
    solid: Bool[np.ndarray, "x y z"]
    closed: Bool[np.ndarray, "x y z"]
    rooms: Bool[np.ndarray, "x y"]
    walls: Bool[np.ndarray, "x y"]
    chimney: Bool[np.ndarray, "x y"]


def check_house(labels: UInt8[np.ndarray, "x y z"]) -> dict[str, Count]:
    """Counts of every check; labels: Minecraft's class ids, 255 taken for air. A box of air passes nothing."""
    known = np.where(labels == IGNORE, EMPTY, labels).astype(np.uint8)
    levels = np.flatnonzero(known.any(axis=(0, 1)))
    if not len(levels):
        return {name: Count(0, int(name in PER_HOUSE)) for name in CHECKS}
    whole = np.pad(known[:, :, levels[0] :], ((1, 1), (1, 1), (0, HEAD + 2)))  # air around
    house = _on_its_floor(whole)
    found = {"has_room": Count(int(house.rooms.any()), 1)}
    found |= _roof(house) | _materials(house) | _doors(house) | _windows(house) | _chimneys(house)
    found |= {"plants_on_soil": _plants(house), "connected": _connected(whole)}
    found["floors_reached"] = Count(*reached(house.ids, house.solid | role("glass")[house.ids], _indoors(house)))
    return {name: found[name] for name in CHECKS}


PER_HOUSE = ("has_room", "door_at_ground", "has_windows", "has_chimney")


def rates(counts: Iterable[Mapping[str, Count]]) -> dict[str, float]:
    """Share that passed of all houses' things together; nan where there were none."""
    sums = {name: np.zeros(2, int) for name in CHECKS}
    for found in counts:
        for name in CHECKS:
            sums[name] += found[name]
    return {name: float(passed / of) if of else float("nan") for name, (passed, of) in sums.items()}


def _on_its_floor(whole: UInt8[np.ndarray, "x y z"]) -> _House:
    """The house from the lowest level on above which walls enclose a room; from the ground on where there is none."""
    for level in range(min(FLOORS, whole.shape[2] - HEAD - 2)):
        house = _house(whole[:, :, level:])
        if house.rooms.any():
            return house
    return _house(whole)


def _house(ids: UInt8[np.ndarray, "x y z"]) -> _House:
    from scipy.ndimage import binary_dilation, binary_fill_holes, label

    solid = (ids != EMPTY) & ~(role("thin") | role("glass") | role("door"))[ids]
    closed = solid | (role("glass") | role("door"))[ids]
    inside = [binary_fill_holes(closed[:, :, z]) & ~closed[:, :, z] for z in (1, 2)]
    parts, _ = label(inside[0] & inside[1])
    sizes = np.bincount(parts.ravel())
    rooms = (parts > 0) & (sizes >= 4)[parts]
    walls = closed[:, :, 1] & closed[:, :, 2] & binary_dilation(rooms, np.ones((3, 3)))
    body = solid & ~role("tree")[ids]
    beside = binary_dilation(rooms | walls, np.ones((3, 3)))
    tops = np.where(body.any(2), body.shape[2] - 1 - body[:, :, ::-1].argmax(2), -1)
    padded = np.pad(tops, 1, constant_values=-1)
    around = np.max([padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2]], axis=0)
    chimney = beside & (tops >= around + 2) & (around >= HEAD)
    return _House(ids, solid, closed, rooms, walls & ~chimney, chimney)


def _roof(house: _House) -> dict[str, Count]:
    above = house.solid[:, :, HEAD:].any(2)
    top = house.solid.shape[2] - 1 - house.solid[:, :, ::-1].argmax(2)
    upper = np.take_along_axis(house.ids, top[..., None], 2)[..., 0]
    covered = house.walls & role("roof")[upper] & (top > HEAD)
    stairs = upper[(house.rooms | house.walls) & role("stairs")[upper] & (top >= HEAD)]
    return {
        "roofed": _count(above & house.rooms, house.rooms),
        "roof_above_walls": _count(covered, house.walls),
        "one_roof_slope": Count(_commonest(stairs), len(stairs)),
    }


def _materials(house: _House) -> dict[str, Count]:
    places = np.repeat(house.walls[..., None], house.ids.shape[2], 2) & house.closed
    places[:, :, [0, *range(HEAD + 1, places.shape[2])]] = False
    places &= ~(role("door") | role("glass"))[house.ids]
    straight = house.ids[places & ~_corners(house.walls)[..., None]]
    floors = house.ids[:, :, 0][house.rooms]
    return {
        "wall_blocks": Count(int(role("wall")[house.ids[places]].sum()), int(places.sum())),
        "floor_blocks": Count(int(role("floor")[floors].sum()), len(floors)),
        "one_wall_material": Count(_commonest(straight), len(straight)),
    }


def _corners(walls: Bool[np.ndarray, "x y"]) -> Bool[np.ndarray, "x y"]:
    padded = np.pad(walls, 1)
    return (padded[2:, 1:-1] | padded[:-2, 1:-1]) & (padded[1:-1, 2:] | padded[1:-1, :-2])


def _doors(house: _House) -> dict[str, Count]:
    door, ids = role("door")[house.ids], house.ids
    same = door[:, :, 1:] & (ids[:, :, 1:] == ids[:, :, :-1])  # the block above is of the same door
    starts = same & ~np.pad(same, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]
    lower = np.pad(starts & ~np.pad(same, ((0, 0), (0, 0), (0, 1)))[:, :, 1:], ((0, 0), (0, 0), (0, 1)))
    ground = np.argwhere(lower[:, :, 1] & (ids[:, :, 0] != EMPTY))
    free = (ids[:, :, 1] == EMPTY) & (ids[:, :, 2] == EMPTY) & ~house.rooms
    sides = [(x, y, dx, dy) for x, y in ground.tolist() for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    fronts = [(x, y) for x, y, dx, dy in sides if free[x + dx, y + dy] and house.rooms[x - dx, y - dy]]
    return {
        "door_at_ground": Count(int(bool(fronts)), 1),
        "doors_whole": Count(2 * int(lower.sum()), int(door.sum())),
        "doors_free": Count(len(set(fronts)), len(ground)),
    }


def _windows(house: _House) -> dict[str, Count]:
    glass, padded = role("glass")[house.ids], np.pad(house.closed, 1)
    open_ = np.pad(~house.solid, 1, constant_values=True)
    sides = [[(slice(2, None), slice(1, -1)), (slice(None, -2), slice(1, -1))]]
    sides.append([(b, a) for a, b in sides[0]])
    beside = [np.logical_and(*(padded[(*at, slice(1, -1))] for at in pair)) for pair in sides]
    sees = [np.logical_or(*(open_[(*at, slice(1, -1))] for at in pair)) for pair in sides]
    held = glass & (beside[0] & sees[1] | beside[1] & sees[0]) & padded[1:-1, 1:-1, 2:] & padded[1:-1, 1:-1, :-2]
    return {"windows_in_walls": _count(held, glass), "has_windows": Count(int(held.sum() >= 2), 1)}


def _chimneys(house: _House) -> dict[str, Count]:
    good = 0
    places = np.argwhere(house.chimney).tolist()
    for x, y in places:
        column, ids = house.solid[x, y], house.ids[x, y]
        top = int(np.flatnonzero(column)[-1])
        good += bool(role("chimney")[ids[top - 1 : top + 1]].all() and column[top - 3 : top + 1].all())
    return {"chimneys_on_roof": Count(good, len(places)), "has_chimney": Count(int(good > 0), 1)}


def _plants(house: _House) -> Count:
    plants = role("plant")[house.ids]
    below = np.pad(house.ids, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]
    return _count(plants & (role("soil")[below] | (below == house.ids)), plants)


def _connected(ids: UInt8[np.ndarray, "x y z"]) -> Count:
    """Blocks hang together across faces, edges and corners, as stairs of a roof do."""
    from scipy.ndimage import label

    occupied = ids != EMPTY
    parts, _ = label(occupied, np.ones((3, 3, 3)))
    grounded = np.unique(parts[:, :, 0][occupied[:, :, 0]])
    return _count(np.isin(parts, grounded) & occupied, occupied)


def _indoors(house: _House) -> Bool[np.ndarray, "x y"]:
    from scipy.ndimage import binary_fill_holes

    return binary_fill_holes(house.rooms | house.walls)  # stairs and furniture stand in rooms, too


def _commonest(ids: UInt8[np.ndarray, "n"]) -> int:
    return int(np.bincount(ids, minlength=1).max())


def _count(passed: Bool[np.ndarray, "*n"], of: Bool[np.ndarray, "*n"]) -> Count:
    return Count(int(passed.sum()), int(of.sum()))
