"""What a block's id may be in a house: sets of ids by role, as look-up tables."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool

from pipeline.houses.materials import minecraft

_MASONRY = (
    "stone cobblestone mossy_cobblestone sandstone red_sandstone stonebrick brick_block nether_brick red_nether_brick "
    "quartz_block hardened_clay stained_hardened_clay concrete end_bricks purpur_block prismarine obsidian"
)
_TIMBER = "planks log log2"
_DOUBLE = "double_stone_slab double_wooden_slab double_stone_slab2 purpur_double_slab"
_SLABS = "stone_slab wooden_slab stone_slab2 purpur_slab"

ROLES: dict[str, str] = {
    "wall": f"{_MASONRY} {_TIMBER} {_DOUBLE} wool clay snow bone_block iron_block bookshelf",
    "floor": f"{_MASONRY} {_TIMBER} {_DOUBLE} {_SLABS} wool carpet",
    "roof": f"{_DOUBLE} {_SLABS} planks cobblestone stonebrick brick_block nether_brick red_sandstone sandstone "
    "quartz_block hay_block wool",  # and all stairs
    "chimney": "cobblestone mossy_cobblestone stonebrick brick_block hardened_clay quartz_block nether_brick stone "
    "cobblestone_wall netherrack",
    "glass": "glass stained_glass glass_pane stained_glass_pane",
    "soil": "grass dirt farmland sand mycelium gravel flower_pot",
    "plant": "sapling tallgrass deadbush yellow_flower red_flower brown_mushroom red_mushroom wheat carrots potatoes "
    "double_plant beetroots",
    "tree": "leaves leaves2",
}


@functools.cache
def role(name: str) -> Bool[np.ndarray, "256"]:
    """Ids of a role of ROLES, or "door", "stairs", or "thin": what doesn't fill its cube and isn't glass or a door."""
    taxonomy, table = minecraft(), np.zeros(256, bool)
    if name in ("door", "stairs"):
        found = [k for k, block in enumerate(taxonomy.classes) if block.endswith(f"_{name}")]
    elif name == "thin":
        found = [k for k in taxonomy.foreground if not (role("door") | role("glass"))[k]]
    else:
        found = [taxonomy.id_of(block) for block in ROLES[name].split()]
        found += np.flatnonzero(role("stairs")).tolist() if name == "roof" else []
    table[found] = True
    return table
