"""Blocks by name, and styles: which block plays which role in a house.

A block is an id and Minecraft 1.12's data value (kind of wood, colour, direction). Roles are what the checker asks
of a block's id, so they hold more than the styles use: whatever a builder might sensibly take.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

from pipeline.scene.taxonomy import Taxonomy, load_taxonomy

RoofKind = Literal["gable", "hip", "pyramid", "mansard", "shed", "flat"]
ROOF_KINDS: tuple[RoofKind, ...] = ("gable", "hip", "pyramid", "mansard", "shed", "flat")


def minecraft() -> Taxonomy:
    """The taxonomy whose class ids are block ids."""
    return load_taxonomy("minecraft")


@dataclass(frozen=True)
class Block:
    """A block's name in the taxonomy, and its data value."""

    name: str
    data: int = 0

    @property
    def id(self) -> int:
        """Its class id."""
        return _id(self.name)

    def turned(self, data: int) -> Block:
        """The same block with another data value."""
        return Block(self.name, data)


@functools.cache
def _id(name: str) -> int:
    return minecraft().id_of(name)


@dataclass(frozen=True)
class Style:
    """A palette. post: corners; beam: the ring between storeys; slope, ridge: a roof's stairs and full blocks.

    roofs: the kinds that go with it; plants: what grows in its garden; tree: trunk and leaves.
    """

    name: str
    foundation: Block
    wall: Block
    post: Block
    beam: Block
    floor: Block
    slope: Block
    ridge: Block
    window: Block
    door: Block
    fence: Block
    chimney: Block
    path: Block
    steps: Block
    roofs: tuple[RoofKind, ...]
    plants: tuple[Block, ...]
    tree: tuple[Block, Block]


_MEADOW = (Block("yellow_flower"), Block("red_flower"), Block("tallgrass", 1))
_PITCHED: tuple[RoofKind, ...] = ("gable", "hip", "pyramid", "mansard")

STYLES = (
    Style(
        name="oak cottage",
        foundation=Block("cobblestone"),
        wall=Block("planks"),
        post=Block("log"),
        beam=Block("log"),
        floor=Block("planks", 1),
        slope=Block("oak_stairs"),
        ridge=Block("double_wooden_slab"),
        window=Block("glass_pane"),
        door=Block("wooden_door"),
        fence=Block("fence"),
        chimney=Block("cobblestone"),
        path=Block("gravel"),
        steps=Block("oak_stairs"),
        roofs=(*_PITCHED, "shed"),
        plants=_MEADOW,
        tree=(Block("log"), Block("leaves")),
    ),
    Style(
        name="spruce lodge",
        foundation=Block("mossy_cobblestone"),
        wall=Block("planks", 1),
        post=Block("log", 1),
        beam=Block("planks", 5),
        floor=Block("planks", 1),
        slope=Block("stone_stairs"),
        ridge=Block("cobblestone"),
        window=Block("glass_pane"),
        door=Block("spruce_door"),
        fence=Block("spruce_fence"),
        chimney=Block("stonebrick"),
        path=Block("grass_path"),
        steps=Block("spruce_stairs"),
        roofs=(*_PITCHED, "shed"),
        plants=(Block("tallgrass", 2), Block("red_flower", 8), Block("brown_mushroom")),
        tree=(Block("log", 1), Block("leaves", 1)),
    ),
    Style(
        name="brick town house",
        foundation=Block("stone"),
        wall=Block("brick_block"),
        post=Block("stonebrick"),
        beam=Block("stonebrick"),
        floor=Block("planks", 2),
        slope=Block("stone_brick_stairs"),
        ridge=Block("stonebrick"),
        window=Block("glass"),
        door=Block("dark_oak_door"),
        fence=Block("nether_brick_fence"),
        chimney=Block("brick_block"),
        path=Block("stonebrick"),
        steps=Block("birch_stairs"),
        roofs=("gable", "hip", "mansard", "flat"),
        plants=(Block("red_flower"), Block("red_flower", 4), Block("yellow_flower")),
        tree=(Block("log", 2), Block("leaves", 2)),
    ),
    Style(
        name="desert house",
        foundation=Block("sandstone"),
        wall=Block("sandstone"),
        post=Block("sandstone", 2),
        beam=Block("sandstone", 1),
        floor=Block("planks", 2),
        slope=Block("sandstone_stairs"),
        ridge=Block("red_sandstone"),
        window=Block("stained_glass_pane", 4),
        door=Block("birch_door"),
        fence=Block("birch_fence"),
        chimney=Block("hardened_clay"),
        path=Block("sand"),
        steps=Block("birch_stairs"),
        roofs=("flat", "pyramid", "shed", "hip"),
        plants=(Block("deadbush"), Block("tallgrass", 1)),
        tree=(Block("log", 3), Block("leaves", 3)),
    ),
    Style(
        name="timber frame",
        foundation=Block("stonebrick"),
        wall=Block("concrete"),
        post=Block("log2", 1),
        beam=Block("log2", 1),
        floor=Block("planks", 5),
        slope=Block("brick_stairs"),
        ridge=Block("brick_block"),
        window=Block("glass_pane"),
        door=Block("wooden_door"),
        fence=Block("dark_oak_fence"),
        chimney=Block("stonebrick"),
        path=Block("cobblestone"),
        steps=Block("dark_oak_stairs"),
        roofs=_PITCHED,
        plants=_MEADOW,
        tree=(Block("log"), Block("leaves")),
    ),
    Style(
        name="white villa",
        foundation=Block("stone"),
        wall=Block("quartz_block"),
        post=Block("quartz_block", 2),
        beam=Block("stained_hardened_clay", 8),
        floor=Block("planks", 2),
        slope=Block("quartz_stairs"),
        ridge=Block("double_stone_slab"),
        window=Block("glass"),
        door=Block("iron_door"),
        fence=Block("birch_fence"),
        chimney=Block("quartz_block"),
        path=Block("double_stone_slab"),
        steps=Block("quartz_stairs"),
        roofs=("flat", "shed", "hip", "pyramid"),
        plants=(Block("red_flower", 3), Block("red_flower", 6), Block("tallgrass", 1)),
        tree=(Block("log", 2), Block("leaves", 2)),
    ),
    Style(
        name="clay farm",
        foundation=Block("cobblestone"),
        wall=Block("stained_hardened_clay", 1),
        post=Block("log2"),
        beam=Block("log2"),
        floor=Block("planks", 4),
        slope=Block("acacia_stairs"),
        ridge=Block("hay_block"),
        window=Block("glass_pane"),
        door=Block("acacia_door"),
        fence=Block("acacia_fence"),
        chimney=Block("hardened_clay"),
        path=Block("gravel"),
        steps=Block("acacia_stairs"),
        roofs=("gable", "hip", "shed", "mansard"),
        plants=(Block("wheat", 7), Block("carrots", 7), Block("potatoes", 7)),
        tree=(Block("log2"), Block("leaves2")),
    ),
    Style(
        name="stone keep",
        foundation=Block("cobblestone"),
        wall=Block("stonebrick"),
        post=Block("cobblestone"),
        beam=Block("stone"),
        floor=Block("planks", 5),
        slope=Block("nether_brick_stairs"),
        ridge=Block("nether_brick"),
        window=Block("stained_glass_pane", 7),
        door=Block("dark_oak_door"),
        fence=Block("cobblestone_wall"),
        chimney=Block("cobblestone"),
        path=Block("cobblestone"),
        steps=Block("stone_brick_stairs"),
        roofs=("pyramid", "hip", "mansard", "flat"),
        plants=(Block("tallgrass", 1), Block("red_mushroom"), Block("sapling", 1)),
        tree=(Block("log", 1), Block("leaves", 1)),
    ),
)


def roof_kinds(style: int, reserved: bool) -> tuple[RoofKind, ...]:
    """A style's roof kinds, a quarter or so of all pairs being kept for the test split alone."""
    kinds = STYLES[style].roofs
    kept = tuple(kind for place, kind in enumerate(kinds) if (place + style) % 4 == 0)
    return kept if reserved else tuple(kind for kind in kinds if kind not in kept)
