"""Houses, town blocks, halls and sheds. Each stands in 0 <= y <= depth behind its front, centred on x = 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.town.facades import FacadeSkins, Opening, facade, plain_facade
from pipeline.town.materials import Skin, skin, texture_seed, vary
from pipeline.town.roofs import chimney, dormer, flat_roof, pitched_roof, roof_height
from pipeline.town.shapes import Mesh, box, merged, quads, transformed
from pipeline.town.splits import Ranges
from pipeline.town.things import Thing

FOUNDATION_M = 1.6  # walls go on below the ground, for slopes


@dataclass(frozen=True)
class _Look:
    """One building's skins and storeys."""

    skins: FacadeSkins
    tiles: Skin
    plinth: Skin
    storey_m: float
    window_m: tuple[float, float]
    pitch: float


def _look(generator: np.random.Generator, ranges: Ranges) -> _Look:
    seed = texture_seed(generator)
    if generator.random() < 0.2:
        wall = skin("building", "brick", vary(generator, _pick(generator, ranges.bricks), 0.15), seed)
    else:
        wall = skin("building", "plaster", vary(generator, _pick(generator, ranges.facades), 0.15), seed)
    frame_albedo = _pick(generator, ((0.75, 0.75, 0.74), (0.75, 0.75, 0.74), (0.16, 0.09, 0.05), (0.12, 0.13, 0.14)))
    door = _pick(generator, ((0.14, 0.07, 0.035), (0.3, 0.3, 0.3), (0.05, 0.1, 0.07), (0.2, 0.03, 0.02)))
    skins = FacadeSkins(
        wall=wall,
        frame=skin("building", "window_frame", vary(generator, frame_albedo, 0.1)),
        glass=skin("building", "glass", vary(generator, (0.05, 0.055, 0.06), 0.4), seed),
        door=skin("building", "door", vary(generator, door), seed),
        sill=skin("building", "stone", vary(generator, (0.4, 0.4, 0.38))),
    )
    return _Look(
        skins,
        skin("building", "roof_tile", vary(generator, _pick(generator, ranges.roofs), 0.2), seed),
        skin("building", "stone", vary(generator, (0.22, 0.21, 0.2), 0.3), seed),
        float(generator.uniform(*ranges.storey_m)),
        (float(generator.uniform(*ranges.window_width_m)), float(generator.uniform(1.25, 1.5))),
        float(np.radians(generator.uniform(*ranges.roof_pitch_deg))),
    )


def _pick(generator: np.random.Generator, choices: tuple) -> tuple[float, float, float]:
    return choices[int(generator.integers(len(choices)))]


def house(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A house. size: width, depth [m], storeys; style: gable, gable_front, half_hip, hip, flat, or row (terraced)."""
    width, depth, storeys = thing.size[0], thing.size[1], int(thing.size[2])
    look = _look(generator, ranges)
    base = float(generator.uniform(0.25, 0.6))
    height = base + storeys * look.storey_m
    parts = [_walls(width, depth, base, storeys, look, thing.detail, generator), _plinth(width, depth, base, look)]
    if thing.style == "gable_front":
        roof = pitched_roof(depth, width, height, look.pitch, "gable", look.tiles, look.skins.wall)
        turned_roof = transformed(roof, (width, 0, 0), np.pi / 2)
        parts += [turned_roof]
    elif thing.style == "flat":
        cover = skin("building", "roof_flat", vary(generator, (0.16, 0.155, 0.15)))
        parts.append(flat_roof(width, depth, height, cover, look.skins.wall))
    else:
        kind = "gable" if thing.style in ("gable", "row") else thing.style
        parts.append(pitched_roof(width, depth, height, look.pitch, kind, look.tiles, look.skins.wall))
        if thing.detail and kind != "hip" and generator.random() < 0.5:
            parts += _dormers(width, height, look, generator)
    if thing.style != "flat":
        top = height + roof_height(width if thing.style == "gable_front" else depth, look.pitch)
        brick = skin("building", "brick", (0.22, 0.1, 0.07))
        parts.append(chimney(width * generator.uniform(0.3, 0.7), depth * 0.5 + 0.5, top - 1.4, top + 0.6, brick))
    if thing.detail:
        parts.append(_doorstep(width, base, look))
    return transformed(merged(parts), (-width / 2, 0, 0))


def block(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A town house in a closed row. size: width, depth [m], storeys; style: shop (glass at street level) or flats."""
    width, depth, storeys = thing.size[0], thing.size[1], int(thing.size[2])
    look = _look(generator, ranges)
    base = 0.3
    height = base + storeys * look.storey_m + (0.6 if thing.style == "shop" else 0)
    parts = [_block_front(width, base, height, storeys, look, thing, generator), _plinth(width, depth, base, look)]
    back = _window_rows(width, base, storeys, look, 1.2, generator)
    draw = facade if thing.detail else plain_facade
    parts.append(transformed(draw(width, -FOUNDATION_M, height, back, look.skins), (width, depth, 0), np.pi))
    for x, yaw in ((0.0, -np.pi / 2), (width, np.pi / 2)):
        y = depth if yaw < 0 else 0.0
        parts.append(transformed(plain_facade(depth, -FOUNDATION_M, height, [], look.skins), (x, y, 0), yaw))
    if generator.random() < 0.5:
        cover = skin("building", "roof_flat", vary(generator, (0.15, 0.15, 0.15)))
        parts.append(flat_roof(width, depth, height, cover, look.skins.wall, 0.7))
        parts.append(box((width * 0.4, depth * 0.4, height), (width * 0.6, depth * 0.7, height + 2.2), look.skins.wall))
    else:
        kind = "hip" if generator.random() < 0.3 else "gable"
        parts.append(pitched_roof(width, depth, height, look.pitch * 0.9, kind, look.tiles, look.skins.wall))
    if thing.detail and thing.style == "flats":
        parts += _balconies(width, base, storeys, look, generator)
    return transformed(merged(parts), (-width / 2, 0, 0))


def hall(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A supermarket or workshop: low, wide, flat, with a glass front. size: width, depth, height [m]."""
    width, depth, height = thing.size
    look = _look(generator, ranges)
    seed = texture_seed(generator)
    tone = _pick(generator, ((0.55, 0.56, 0.57), (0.3, 0.32, 0.35), (0.5, 0.47, 0.4)))
    wall = skin("building", "metal" if generator.random() < 0.5 else "plaster", vary(generator, tone), seed)
    skins = FacadeSkins(wall, look.skins.frame, look.skins.glass, look.skins.door, look.skins.sill)
    shops = [Opening(u, 0.15, u + 2.6, min(3.0, height - 1), "shop") for u in np.arange(1.5, width - 4, 3.1)]
    parts = [(facade if thing.detail else plain_facade)(width, -FOUNDATION_M, height, shops, skins)]
    for x, y, yaw, length in (
        (width, depth, np.pi, width),
        (0, depth, -np.pi / 2, depth),
        (width, 0, np.pi / 2, depth),
    ):
        parts.append(transformed(plain_facade(length, -FOUNDATION_M, height, [], skins), (x, y, 0), yaw))
    cover = skin("building", "roof_flat", vary(generator, (0.2, 0.2, 0.2)))
    parts.append(flat_roof(width, depth, height, cover, wall, 0.6))
    band = skin(
        "building",
        "plastic",
        vary(generator, _pick(generator, ((0.5, 0.03, 0.03), (0.03, 0.1, 0.4), (0.6, 0.4, 0.02)))),
    )
    parts.append(box((1, -0.2, height - 0.9), (width - 1, 0.02, height + 0.2), band))
    return transformed(merged(parts), (-width / 2, 0, 0))


def shed(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A garage or garden shed. size: width, depth, height [m]."""
    width, depth, height = thing.size
    look = _look(generator, ranges)
    opening = [Opening(0.35, 0.05, width - 0.35, min(2.2, height - 0.25), "door")]
    parts = [(facade if thing.detail else plain_facade)(width, -FOUNDATION_M, height, opening, look.skins)]
    for x, y, yaw, length in (
        (width, depth, np.pi, width),
        (0, depth, -np.pi / 2, depth),
        (width, 0, np.pi / 2, depth),
    ):
        parts.append(transformed(plain_facade(length, -FOUNDATION_M, height, [], look.skins), (x, y, 0), yaw))
    cover = skin("building", "roof_flat", vary(generator, (0.15, 0.15, 0.15)))
    parts.append(box((-0.15, -0.2, height), (width + 0.15, depth + 0.15, height + 0.16), cover))
    return transformed(merged(parts), (-width / 2, 0, 0))


def _walls(
    width: float, depth: float, base: float, storeys: int, look: _Look, detail: int, generator: np.random.Generator
) -> Mesh:
    """Four facades; the front has the door."""
    high = base + storeys * look.storey_m
    draw = facade if detail else plain_facade
    front = _with_door(_window_rows(width, base, storeys, look, 1.0, generator), width, base)
    sides = [
        (front, width, (0.0, 0.0), 0.0),
        (_window_rows(width, base, storeys, look, 1.0, generator), width, (width, depth), np.pi),
        (_window_rows(depth, base, storeys, look, 2.0, generator), depth, (0.0, depth), -np.pi / 2),
        (_window_rows(depth, base, storeys, look, 2.0, generator), depth, (width, 0.0), np.pi / 2),
    ]
    walls = [
        transformed(draw(length, -FOUNDATION_M, high, openings, look.skins), (*corner, 0), yaw)
        for openings, length, corner, yaw in sides
    ]
    return merged(walls)


def _window_rows(
    length: float, base: float, storeys: int, look: _Look, margin: float, generator: np.random.Generator
) -> list[Opening]:
    """Windows in columns, evenly spaced, the same on every storey."""
    w, h = look.window_m
    pitch = w + float(generator.uniform(0.8, 1.6))
    count = max(int((length - 2 * margin + pitch - w) / pitch), 0)
    left = (length - (count - 1) * pitch - w) / 2
    sill = min(0.85, look.storey_m - h - 0.25)
    return [
        Opening(
            left + c * pitch, base + r * look.storey_m + sill, left + c * pitch + w, base + r * look.storey_m + sill + h
        )
        for c in range(count)
        for r in range(storeys)
    ]


def _with_door(openings: list[Opening], width: float, base: float) -> list[Opening]:
    """A door in the middle of the front; windows that would touch it go."""
    door = Opening(width / 2 - 0.5, base + 0.02, width / 2 + 0.5, base + 2.12, "door")
    kept = [o for o in openings if o.u1 < door.u0 - 0.15 or o.u0 > door.u1 + 0.15 or o.v0 > door.v1 + 0.2]
    return [*kept, door]


def _plinth(width: float, depth: float, base: float, look: _Look) -> Mesh:
    o, top = 0.03, base - 0.04
    corners = [(-o, -o), (width + o, -o), (width + o, depth + o), (-o, depth + o)]
    faces = [
        [(*a, -FOUNDATION_M), (*b, -FOUNDATION_M), (*b, top), (*a, top)]
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True)
    ]
    return quads(np.array(faces), look.plinth)


def _doorstep(width: float, base: float, look: _Look) -> Mesh:
    middle = width / 2
    steps = [box((middle - 0.9, -1.1, -0.3), (middle + 0.9, 0.0, base - 0.02), look.plinth)]
    steps.append(box((middle - 0.9, -1.45, -0.3), (middle + 0.9, -1.1, base / 2), look.plinth))
    roof = box((middle - 1.0, -1.1, base + 2.35), (middle + 1.0, 0.0, base + 2.45), look.tiles)
    return merged([*steps, roof])


def _dormers(width: float, eaves: float, look: _Look, generator: np.random.Generator) -> list[Mesh]:
    run = float(generator.uniform(0.9, 1.5))
    count = 1 if width < 9.5 else 2
    skins = (look.skins.wall, look.tiles, look.skins.glass)
    low = eaves + run * np.tan(look.pitch) - 0.05
    return [dormer(width * (k + 1) / (count + 1), 1.5, low, run, look.pitch, skins) for k in range(count)]


def _block_front(
    width: float, base: float, height: float, storeys: int, look: _Look, thing: Thing, generator: np.random.Generator
) -> Mesh:
    draw = facade if thing.detail else plain_facade
    openings = _window_rows(width, base, storeys, look, 0.8, generator)
    if thing.style == "shop":
        lift = 0.6
        upper = [Opening(o.u0, o.v0 + lift, o.u1, o.v1 + lift) for o in openings if o.v0 > base + look.storey_m]
        shops = [Opening(u, 0.4, u + 2.3, 2.9, "shop") for u in np.arange(1.6, width - 2.6, 2.8)]
        door = [Opening(0.35, 0.05, 1.3, 2.5, "door")]
        front = draw(width, -FOUNDATION_M, height, upper + shops + door, look.skins)
        tone = vary(
            generator, _pick(generator, ((0.4, 0.03, 0.03), (0.03, 0.12, 0.08), (0.5, 0.42, 0.2), (0.05, 0.08, 0.3)))
        )
        band = box(
            (0.3, -0.15, 3.05), (width - 0.3, 0.01, 3.6), skin("building", "plastic", tone, texture_seed(generator))
        )
        return merged([front, band])
    return draw(width, -FOUNDATION_M, height, _with_door(openings, width, 0.1), look.skins)


def _balconies(width: float, base: float, storeys: int, look: _Look, generator: np.random.Generator) -> list[Mesh]:
    rail = skin("building", "metal", vary(generator, (0.3, 0.31, 0.32)))
    middle = width * float(generator.uniform(0.2, 0.8))
    middle = float(np.clip(middle, 1.6, width - 1.6))
    parts = []
    for storey in range(1, storeys):
        z = base + storey * look.storey_m
        parts.append(box((middle - 1.5, -1.25, z - 0.15), (middle + 1.5, 0, z), look.skins.sill))
        parts.append(box((middle - 1.5, -1.25, z), (middle + 1.5, -1.2, z + 1.0), rail))
        parts += [box((middle + x, -1.2, z), (middle + x + 0.05, 0, z + 1.0), rail) for x in (-1.5, 1.45)]
    return parts
