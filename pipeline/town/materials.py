"""What the world is made of: the list of material kinds, and albedo that varies from object to object.

Albedo is linear RGB in 0..1 (not sRGB). A kind tells the photograph's shader which pattern to draw; it says nothing
about the class: plaster is on buildings and on walls, metal on cars, poles and fences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.scene.records import Material
from pipeline.scene.taxonomy import load_taxonomy

KINDS = (
    "asphalt",  # carriageways
    "marking",  # paint on carriageways
    "concrete",  # kerbs, walls, islands
    "paving",  # sidewalks and squares, laid in slabs
    "cobble",  # parking bays and tram beds, laid in small stones
    "gravel",  # drives, tree pits
    "grass",  # lawns, verges, hills
    "soil",  # beds, bare ground
    "brick",  # facades and garden walls
    "plaster",  # facades and walls
    "stone",  # plinths, walls
    "roof_tile",  # pitched roofs
    "roof_flat",  # bitumen and gravel roofs
    "glass",  # windows of houses and vehicles
    "window_frame",
    "door",
    "wood",  # fences, benches, posts
    "car_paint",
    "rubber",  # tyres
    "metal",  # poles, railings, rims
    "plastic",  # bumpers, bins
    "fabric",  # clothes, tarpaulins
    "skin",
    "hair",
    "bark",
    "foliage",  # crowns, hedges, shrubs
    "sign_face",  # printed side of traffic signs
    "lamp",  # head lamps, street lamps, traffic lights
)

TAXONOMY = load_taxonomy("semantic_kitti")


@dataclass(frozen=True)
class Skin:
    """What a triangle is: its class id and its material."""

    class_id: int
    material: Material


def skin(class_name: str, kind: str, albedo: tuple[float, float, float], texture_seed: int = 0) -> Skin:
    """A skin by class name; albedo is clipped to 0.01..0.95 and rounded, so that equal skins merge."""
    if kind not in KINDS:
        raise ValueError(f"material kind {kind!r} is not in KINDS")
    r, g, b = (round(float(np.clip(c, 0.01, 0.95)), 3) for c in albedo)
    return Skin(TAXONOMY.id_of(class_name), Material(kind, (r, g, b), texture_seed))


def vary(
    generator: np.random.Generator, albedo: tuple[float, float, float], value: float = 0.15, tint: float = 0.04
) -> tuple[float, float, float]:
    """An albedo near the given one: brightness times 1 +- value, each channel times 1 +- tint (uniform)."""
    scale = generator.uniform(1 - value, 1 + value) * generator.uniform(1 - tint, 1 + tint, 3)
    r, g, b = np.asarray(albedo) * scale
    return (float(r), float(g), float(b))


def texture_seed(generator: np.random.Generator) -> int:
    return int(generator.integers(1, 1 << 16))
