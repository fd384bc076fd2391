"""From a Thing to its mesh in its own frame: the table of builders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.scene.seeds import rng
from pipeline.town.buildings import block, hall, house, shed
from pipeline.town.people import bicycle, bicyclist, motorcycle, motorcyclist, person
from pipeline.town.plants import hedge, shrub, tree
from pipeline.town.shapes import Mesh
from pipeline.town.splits import Ranges
from pipeline.town.street_furniture import bollard, fence, lamp, mast, sign, traffic_light
from pipeline.town.things import Thing
from pipeline.town.vehicles import bus, car, trailer, truck

Builder = Callable[[Thing, np.random.Generator, Ranges], Mesh]

BUILDERS: dict[str, Builder] = {
    "house": house,
    "block": block,
    "hall": hall,
    "shed": shed,
    "tree": tree,
    "shrub": shrub,
    "hedge": hedge,
    "fence": fence,
    "lamp": lamp,
    "sign": sign,
    "traffic_light": traffic_light,
    "bollard": bollard,
    "mast": mast,
    "car": car,
    "truck": truck,
    "bus": bus,
    "trailer": trailer,
    "person": person,
    "bicycle": bicycle,
    "bicyclist": bicyclist,
    "motorcycle": motorcycle,
    "motorcyclist": motorcyclist,
}
VEHICLES = ("car", "truck", "bus", "trailer", "bicycle", "bicyclist", "motorcycle", "motorcyclist")
DRAPED = ("hedge", "fence")  # long things follow the ground under every point
TILTED = VEHICLES  # these lie in the ground's plane; all else stands upright


def build(thing: Thing, ranges: Ranges) -> Mesh:
    """A thing's mesh at the origin; its looks come from its own seed alone."""
    return BUILDERS[thing.kind](thing, rng(thing.seed, f"town/looks/{thing.kind}", 0), ranges)
