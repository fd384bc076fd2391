"""A house from a seed: its plan drawn, and its blocks laid."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from pipeline.houses.canvas import Canvas
from pipeline.houses.gardens import lay_garden, lay_path
from pipeline.houses.plan import LOWEST, HousePlan, Limits, draw_plan
from pipeline.houses.roofs import NONE, Heights, all_heights, lay_roof
from pipeline.houses.rooms import (
    footprints,
    lay_door,
    lay_furniture,
    lay_gables,
    lay_storeys,
    lay_ways_up,
    lay_windows,
)
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import rng

ATTEMPTS = 200
USUAL = Limits()


def build_house(seed: int, limits: Limits = USUAL, reserved: bool = False) -> tuple[HousePlan, Canvas]:
    """The house of a seed: the first of its plans whose blocks are within the limits. Raises InputError.

    reserved: of the styles and roofs that are kept for the test split alone.
    """
    if limits.edge < 24 or limits.blocks < 300:
        raise InputError("houses", "an edge of at least 24 and at least 300 blocks", f"{limits.edge}, {limits.blocks}")
    for attempt in range(ATTEMPTS):
        random = rng(seed, "house", 0, attempt)
        plan = draw_plan(random, limits, reserved)
        if _fits(plan, limits.edge):
            canvas = lay_house(plan, limits.edge, random)
            if canvas.count <= limits.blocks:
                return plan, canvas
    raise InputError("houses", f"a house of at most {limits.blocks} blocks", f"none in {ATTEMPTS} plans")


def _fits(plan: HousePlan, edge: int) -> bool:
    """Whether bodies, overhang, an outside chimney and a front yard lie in the cube."""
    low = min(min(b.x - 3, b.y - 1) for b in plan.bodies)
    high = max(max(b.x_end + 2, b.y_end + 1) for b in plan.bodies)
    return low >= 0 and high < edge


def lay_house(plan: HousePlan, edge: int, random: np.random.Generator) -> Canvas:
    """All blocks of a plan."""
    canvas = Canvas.new(edge)
    planes = footprints(plan, edge)
    roofs = all_heights(plan.bodies, planes)
    lay_storeys(canvas, plan, planes)
    door = lay_door(canvas, plan)
    lay_windows(canvas, plan, planes, door)
    for storeys, heights in enumerate(roofs, 1):
        lay_gables(canvas, plan, planes[storeys - 1], heights)
        lay_roof(canvas, heights, plan.style)
    taken = lay_ways_up(canvas, plan, door)
    taken |= _lay_chimney(canvas, plan, roofs)
    lay_furniture(canvas, plan, planes, taken | {(door[0] + 1, door[1])}, random)
    if plan.garden is None:
        lay_path(canvas, plan, door, 1)
    else:
        lay_garden(canvas, plan, plan.garden, planes[0], door, random)
    return canvas


def _lay_chimney(canvas: Canvas, plan: HousePlan, roofs: list[Heights]) -> set[tuple[int, int]]:
    """A column from the ground to two blocks above what stands around its top; the columns it takes."""
    if plan.chimney is None:
        return set()
    main = plan.main
    y = main.y + main.depth // 2  # away from stairs, which go up along the side walls
    x = main.x_end + (1 if plan.chimney == "outside" else -1)
    around = np.max(roofs, axis=0)[x - 1 : x + 2, y - 1 : y + 2]
    top = int(around[around > NONE].max()) + 2
    if top >= canvas.ids.shape[2]:
        return set()
    canvas.put((x, y, slice(LOWEST, top + 1)), plan.style.chimney)
    behind = canvas.ids[main.x_end, y] == plan.style.window.id  # no window looks into it
    canvas.put((main.x_end, y, behind), plan.style.wall)
    return {(x, y)}


def crop(ids: UInt8[np.ndarray, "x y z"], *others: UInt8[np.ndarray, "x y z"]) -> tuple[np.ndarray, ...]:
    """Arrays without the layers of air around a house."""
    places = np.argwhere(ids)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(places.min(0), places.max(0), strict=True))
    return tuple(np.ascontiguousarray(array[box]) for array in (ids, *others))
