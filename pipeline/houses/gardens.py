"""The lot around a house: lawn, path, fence with a gate, plants and trees."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from pipeline.houses.canvas import Canvas
from pipeline.houses.materials import Block
from pipeline.houses.plan import LOWEST, Garden, HousePlan

GRASS, SOIL = Block("grass"), Block("farmland", 7)
CROPS = ("wheat", "carrots", "potatoes")
GATES = {"cobblestone_wall": "fence_gate", "nether_brick_fence": "dark_oak_fence_gate"}  # others: by their name


def lay_path(canvas: Canvas, plan: HousePlan, door: tuple[int, int], length: int) -> None:
    """From the door to the street, level with the floor; one block where there is no garden."""
    canvas.put((slice(max(door[0] - length, 0), door[0]), door[1], LOWEST), plan.style.path)


def lay_garden(
    canvas: Canvas,
    plan: HousePlan,
    garden: Garden,
    house: Bool[np.ndarray, "x y"],
    door: tuple[int, int],
    random: np.random.Generator,
) -> None:
    """Lay the lot; what stands there already stays, and the path stays free."""
    box = _lot(canvas, garden, house)
    lawn = np.zeros_like(house)
    lawn[box] = True
    lawn &= ~house
    lay_path(canvas, plan, door, door[0] - box[0].start)
    for x, y in np.argwhere(lawn).tolist():
        canvas.grow((x, y, LOWEST), GRASS)
    if garden.fenced:
        _lay_fence(canvas, plan, box, lawn, door)
    inside = lawn.copy()
    inside[:, door[1] - 1 : door[1] + 2] = False  # the way to the door stays free
    free = [(x, y) for x, y in np.argwhere(inside).tolist() if not canvas.ids[x, y, LOWEST + 1 : LOWEST + 4].any()]
    for x, y in free:
        if random.random() < garden.plants:
            _lay_plant(canvas, plan, (x, y), random)
    for _ in range(garden.trees):
        _lay_tree(canvas, plan, house, free, random)


def _lot(canvas: Canvas, garden: Garden, house: Bool[np.ndarray, "x y"]) -> tuple[slice, slice]:
    edge = len(house)
    places = np.argwhere(house)
    low, high = places.min(0), places.max(0)
    x = slice(max(int(low[0]) - garden.front, 0), min(int(high[0]) + garden.around + 1, edge))
    y = slice(max(int(low[1]) - garden.around, 0), min(int(high[1]) + garden.around + 1, edge))
    return x, y


def _lay_fence(
    canvas: Canvas, plan: HousePlan, box: tuple[slice, slice], lawn: Bool[np.ndarray, "x y"], door: tuple[int, int]
) -> None:
    rim = np.zeros_like(lawn)
    rim[box] = True
    rim[box[0].start + 1 : box[0].stop - 1, box[1].start + 1 : box[1].stop - 1] = False
    for x, y in np.argwhere(rim & lawn).tolist():
        canvas.grow((x, y, LOWEST + 1), plan.style.fence)
    name = plan.style.fence.name
    canvas.put((box[0].start, door[1], LOWEST + 1), Block(GATES.get(name, f"{name}_gate"), 1))


def _lay_plant(canvas: Canvas, plan: HousePlan, place: tuple[int, int], random: np.random.Generator) -> None:
    plant = plan.style.plants[int(random.integers(len(plan.style.plants)))]
    soil = SOIL if plant.name in CROPS else Block("sand") if plant.name == "deadbush" else GRASS
    canvas.put((*place, LOWEST), soil)
    canvas.grow((*place, LOWEST + 1), plant)


def _lay_tree(
    canvas: Canvas,
    plan: HousePlan,
    house: Bool[np.ndarray, "x y"],
    free: list[tuple[int, int]],
    random: np.random.Generator,
) -> None:
    """A trunk of four and a crown around its top, at least three blocks away from the house."""
    places = np.argwhere(house)
    far = [p for p in free if np.abs(places - p).max(1).min() >= 3 and not canvas.ids[(*p, LOWEST + 1)]]
    if not far:
        return
    x, y = far[int(random.integers(len(far)))]
    trunk, leaves = plan.style.tree
    canvas.put((x, y, slice(LOWEST + 1, LOWEST + 5)), trunk)
    for z, reach in ((3, 1), (4, 1), (5, 0)):
        for dx in range(-reach, reach + 1):
            for dy in range(-reach, reach + 1):
                if 0 <= x + dx < len(house) and 0 <= y + dy < len(house) and not (z == 3 and dx * dy):
                    canvas.grow((x + dx, y + dy, LOWEST + z), leaves)
