"""Walls, floors, doors, windows, stairs and furniture: what stands under the roof."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool

from pipeline.houses.canvas import BED_HEAD, BEDS, DOOR_TOP, DOORS, LADDERS, STAIRS, TORCHES, Canvas
from pipeline.houses.materials import Block
from pipeline.houses.plan import LOWEST, STOREY, HousePlan
from pipeline.houses.roofs import NONE, Heights

Plane = Bool[np.ndarray, "x y"]
FURNITURE = ("crafting_table", "chest", "furnace", "bookshelf", "cauldron", "bookshelf")


def footprints(plan: HousePlan, edge: int) -> Bool[np.ndarray, "s x y"]:
    """Which columns storeys 0, 1, .. take."""
    found = np.zeros((max(b.storeys for b in plan.bodies), edge, edge), bool)
    for body in plan.bodies:
        found[: body.storeys, body.x : body.x_end + 1, body.y : body.y_end + 1] = True
    return found


def ring(plane: Plane) -> Plane:
    """The columns of a footprint beside one that isn't, corners counted: where walls stand."""
    padded = np.pad(plane, 1)
    inner = plane.copy()
    for dx in (0, 1, 2):
        for dy in (0, 1, 2):
            inner &= padded[dx : dx + plane.shape[0], dy : dy + plane.shape[1]]
    return plane & ~inner


def lay_storeys(canvas: Canvas, plan: HousePlan, planes: Bool[np.ndarray, "s x y"]) -> None:
    """Floors and walls of all storeys: posts at corners, a beam around each upper floor, a foundation below."""
    style = plan.style
    for storey, plane in enumerate(planes):
        floor, walls = LOWEST + STOREY * storey, ring(plane)
        posts = walls & _corners(walls)
        canvas.put((*np.nonzero(plane & ~walls), floor), style.floor)
        canvas.put((*np.nonzero(walls), floor), style.beam if storey else style.foundation)
        for z in range(floor + 1, floor + STOREY):
            canvas.put((*np.nonzero(walls), z), style.wall)
            canvas.put((*np.nonzero(posts), z), style.post)


def _corners(walls: Plane) -> Plane:
    padded = np.pad(walls, 1)
    along_x = padded[2:, 1:-1] | padded[:-2, 1:-1]
    along_y = padded[1:-1, 2:] | padded[1:-1, :-2]
    return along_x & along_y


def lay_gables(canvas: Canvas, plan: HousePlan, plane: Plane, heights: Heights) -> None:
    """Walls of a body's last storey up to its roof."""
    for x, y in np.argwhere(ring(plane) & (heights > NONE)).tolist():
        for z in range(LOWEST + STOREY, int(heights[x, y])):
            canvas.grow((x, y, z), plan.style.wall)


def lay_door(canvas: Canvas, plan: HousePlan) -> tuple[int, int]:
    """The door in the main body's front, a torch beside it, perhaps a porch; its column."""
    x, y = plan.main.x, plan.main.y + plan.door
    walk = (1, 0)
    canvas.put((x, y, LOWEST + 1), plan.style.door.turned(DOORS[walk]))
    canvas.put((x, y, LOWEST + 2), plan.style.door.turned(DOOR_TOP))
    if plan.porch:
        _lay_porch(canvas, plan, y)
    else:
        canvas.grow((x - 1, y + 1, LOWEST + 2), Block("torch", TORCHES[(-1, 0)]))
    return x, y


def _lay_porch(canvas: Canvas, plan: HousePlan, door: int) -> None:
    """Two posts and a roof of three by two blocks."""
    x, style = plan.main.x, plan.style
    for y in (door - 1, door, door + 1):
        canvas.put((slice(x - 2, x), y, LOWEST), style.path)
        canvas.put((slice(x - 2, x), y, LOWEST + 3), style.ridge)
    for y in (door - 1, door + 1):
        canvas.put((x - 2, y, slice(LOWEST + 1, LOWEST + 3)), style.fence)


def lay_windows(canvas: Canvas, plan: HousePlan, planes: Bool[np.ndarray, "s x y"], door: tuple[int, int]) -> None:
    """Windows in every straight piece of wall that looks out, evenly, not beside a door."""
    for storey, plane in enumerate(planes):
        walls = ring(plane)
        for axis in (0, 1):
            for run in _runs(walls, plane, axis):
                for place in _panes(plan, len(run)):
                    x, y = run[place]
                    if storey or abs(x - door[0]) + abs(y - door[1]) > 1:
                        low = LOWEST + STOREY * storey + 2
                        canvas.put((x, y, slice(low, low + plan.window_height)), plan.style.window)


def _runs(walls: Plane, plane: Plane, axis: int) -> Iterator[list[tuple[int, int]]]:
    """Pieces of wall along an axis with nothing on one side and room on the other, corners left out."""
    padded, inner = np.pad(plane, 1), np.pad(plane & ~walls, 1)
    shifts = [(slice(1, -1), slice(2, None)), (slice(1, -1), slice(None, -2))]
    one, other = shifts if axis == 0 else [(b, a) for a, b in shifts]
    straight = walls & (~padded[one] & inner[other] | ~padded[other] & inner[one])
    straight &= ~_corners(walls)
    lines = straight if axis else straight.T
    for fixed, line in enumerate(lines):
        places = np.flatnonzero(line)
        for part in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
            if len(part):
                yield [(fixed, int(p)) if axis else (int(p), fixed) for p in part]


def _panes(plan: HousePlan, length: int) -> list[int]:
    """Places of panes along a run of wall: groups of `window_width`, `window_step` apart, in its middle."""
    groups = max(1, (length - plan.window_width) // plan.window_step + 1) if length >= plan.window_width + 1 else 0
    taken = (groups - 1) * plan.window_step + plan.window_width
    first = (length - taken) // 2
    return [first + g * plan.window_step + k for g in range(groups) for k in range(plan.window_width)]


def lay_ways_up(canvas: Canvas, plan: HousePlan, door: tuple[int, int]) -> set[tuple[int, int]]:
    """Stairs, or in narrow bodies a ladder, from each of the main body's floors to the next; the columns they take."""
    main, taken = plan.main, set()
    for storey in range(main.storeys - 1):
        floor = LOWEST + STOREY * storey
        y = main.y_end - 1 if (storey + (plan.door > main.depth // 2)) % 2 == 0 else main.y + 1
        if main.width >= 8 and main.depth >= 7:
            taken |= _lay_stairs(canvas, plan, main.x_end - 1, y, floor)
        else:
            x = main.x_end - 1
            for z in range(floor + 1, floor + STOREY + 1):
                canvas.put((x, y, z), Block("ladder", LADDERS[(-1, 0)]))
            taken |= {(x, y), (x - 1, y)}
    return taken


def _lay_stairs(canvas: Canvas, plan: HousePlan, back: int, y: int, floor: int) -> set[tuple[int, int]]:
    """A flight along a side wall up to the front: four steps, the floor above open over all but the last."""
    first = back - 1
    for step in range(STOREY):
        x, z = first - step, floor + 1 + step
        canvas.put((x, y, z), plan.style.steps.turned(STAIRS[(-1, 0)]))
        if step < STOREY - 1:
            canvas.clear((x, y, floor + STOREY))
    landing = {(back, y + dy) for dy in (-1, 1)} | {(first - STOREY, y + dy) for dy in (-1, 1)}
    return landing | {(x, y) for x in range(first - STOREY, back + 1)}


def lay_furniture(
    canvas: Canvas,
    plan: HousePlan,
    planes: Bool[np.ndarray, "s x y"],
    taken: set[tuple[int, int]],
    random: np.random.Generator,
) -> None:
    """Pieces along the ground floor's walls and a bed upstairs or beside them, never in the way."""
    inner = planes[0] & ~ring(planes[0])
    beside = np.pad(inner, 1)
    count = beside[2:, 1:-1].astype(int) + beside[:-2, 1:-1] + beside[1:-1, 2:] + beside[1:-1, :-2]
    spots = [(x, y) for x, y in np.argwhere(inner & (count == 2)).tolist() if (x, y) not in taken]
    spots += [(x, y) for x, y in np.argwhere(inner & (count == 3)).tolist() if (x, y) not in taken]
    front = plan.main.x + 1
    spots = [(x, y) for x, y in spots if x > front + 1]
    order = random.permutation(len(spots))[: plan.furniture]
    for place in order.tolist():
        piece = FURNITURE[int(random.integers(len(FURNITURE)))]
        canvas.grow((*spots[place], LOWEST + 1), Block(piece, 4 if piece in ("chest", "furnace") else 0))
    _lay_bed(canvas, [spot for k, spot in enumerate(spots) if k not in set(order.tolist())])


def _lay_bed(canvas: Canvas, spots: list[tuple[int, int]]) -> None:
    free = set(spots)
    for x, y in spots:
        for step in BEDS:
            head = (x + step[0], y + step[1])
            if head in free and not canvas.ids[x, y, LOWEST + 1] and not canvas.ids[(*head, LOWEST + 1)]:
                canvas.put((x, y, LOWEST + 1), Block("bed", BEDS[step]))
                canvas.put((*head, LOWEST + 1), Block("bed", BEDS[step] + BED_HEAD))
                return
