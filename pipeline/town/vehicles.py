"""Motor vehicles, at the origin, wheels on z = 0, facing +X. Cars are lofted from cross-sections along their length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.town.materials import Skin, skin, texture_seed, vary
from pipeline.town.shapes import Mesh, box, circle, cylinder, merged, mesh, prism, quads, transformed
from pipeline.town.splits import Color, Ranges
from pipeline.town.things import Thing

# Share of new cars by colour, as albedo: white, silver, greys, black, blues, reds, green, beige.
PAINTS: tuple[Color, ...] = (
    (0.72, 0.72, 0.71), (0.45, 0.46, 0.47), (0.42, 0.43, 0.44), (0.16, 0.165, 0.17), (0.025, 0.025, 0.028),
    (0.02, 0.02, 0.022), (0.02, 0.05, 0.16), (0.05, 0.13, 0.30), (0.30, 0.02, 0.018), (0.02, 0.08, 0.045),
    (0.40, 0.33, 0.22), (0.09, 0.10, 0.12),
)  # fmt: skip


@dataclass(frozen=True)
class Body:
    """A car's outline. Stations run from the nose (0) to the tail (1) as shares of the length; heights in metres.

    belt: (station, height of the lower body's upper edge); roof: (station, roof height) from the windscreen's foot to
    the rear window's foot.
    """

    length: float
    width: float
    wheel: float
    belt: tuple[tuple[float, float], ...]
    roof: tuple[tuple[float, float], ...]
    axles: tuple[float, float]


BODIES = {
    "hatchback": Body(
        4.05, 1.76, 0.31,
        ((0, 0.62), (0.03, 0.72), (0.2, 0.88), (0.27, 0.93), (0.9, 0.98), (0.97, 0.95), (1, 0.72)),
        ((0.25, 0.94), (0.42, 1.42), (0.5, 1.47), (0.72, 1.46), (0.86, 1.36), (0.96, 0.97)), (0.19, 0.81),
    ),
    "sedan": Body(
        4.6, 1.81, 0.32,
        ((0, 0.60), (0.03, 0.70), (0.22, 0.86), (0.29, 0.92), (0.8, 0.97), (0.97, 0.96), (1, 0.70)),
        ((0.27, 0.93), (0.43, 1.39), (0.5, 1.44), (0.65, 1.43), (0.72, 1.38), (0.84, 0.99)), (0.19, 0.79),
    ),
    "estate": Body(
        4.65, 1.81, 0.32,
        ((0, 0.60), (0.03, 0.70), (0.21, 0.87), (0.28, 0.92), (0.92, 0.98), (0.98, 0.95), (1, 0.70)),
        ((0.26, 0.93), (0.42, 1.42), (0.5, 1.47), (0.8, 1.46), (0.92, 1.38), (0.98, 0.97)), (0.19, 0.79),
    ),
    "suv": Body(
        4.45, 1.86, 0.36,
        ((0, 0.72), (0.03, 0.88), (0.2, 1.03), (0.27, 1.08), (0.92, 1.12), (0.98, 1.08), (1, 0.8)),
        ((0.25, 1.09), (0.39, 1.60), (0.48, 1.67), (0.8, 1.66), (0.92, 1.56), (0.98, 1.10)), (0.19, 0.80),
    ),
    "van": Body(
        4.9, 1.92, 0.34,
        ((0, 0.75), (0.02, 0.95), (0.12, 1.08), (0.17, 1.12), (0.96, 1.16), (0.99, 1.12), (1, 0.7)),
        ((0.14, 1.13), (0.28, 1.83), (0.36, 1.93), (0.9, 1.95), (0.97, 1.88), (0.995, 1.14)), (0.18, 0.8),
    ),
    "compact": Body(
        3.55, 1.64, 0.29,
        ((0, 0.62), (0.03, 0.74), (0.16, 0.88), (0.22, 0.93), (0.92, 0.97), (0.98, 0.94), (1, 0.7)),
        ((0.2, 0.94), (0.37, 1.42), (0.46, 1.49), (0.78, 1.48), (0.9, 1.38), (0.98, 0.97)), (0.18, 0.82),
    ),
}  # fmt: skip
SILL_M = 0.24  # a body's lower edge


def car(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A car. style: a key of BODIES."""
    body = BODIES[thing.style]
    paint = skin(
        "car",
        "car_paint",
        vary(generator, PAINTS[int(generator.integers(len(PAINTS)))], 0.2, 0.06),
        texture_seed(generator),
    )
    glass, dark = skin("car", "glass", (0.018, 0.02, 0.022)), skin("car", "plastic", (0.025, 0.025, 0.026))
    parts = [
        _lower_body(body, paint, dark),
        _cabin(body, paint, glass),
        _wheels(body, "car", generator, 14 if thing.detail else 7),
    ]
    if thing.detail:
        parts += _car_details(body, dark)
    return merged(parts)


def _x(body: Body, station: float | np.ndarray) -> np.ndarray:
    return (0.5 - np.asarray(station)) * body.length


def _loft(rings: np.ndarray, skins: list[Skin]) -> Mesh:
    """Quads between successive cross-sections (n, m, 3), one skin a strip of the ring (m - 1 of them)."""
    parts = []
    for j, one_skin in enumerate(skins):
        corners = np.stack([rings[:-1, j], rings[:-1, j + 1], rings[1:, j + 1], rings[1:, j]], 1)
        parts.append(quads(corners, one_skin))
    return merged(parts)


def _lower_body(body: Body, paint: Skin, dark: Skin) -> Mesh:
    stations = np.array([s for s, _ in body.belt])
    belt = np.array([z for _, z in body.belt])
    taper = 1 - 0.10 * np.exp(-stations / 0.05) - 0.08 * np.exp(-(1 - stations) / 0.05)  # narrower at nose and tail
    half = body.width / 2 * taper
    sill = SILL_M + 0.06 * (np.exp(-stations / 0.04) + np.exp(-(1 - stations) / 0.04))
    ring_y = np.stack([-half * 0.93, -half, -half * 0.99, -half * 0.92, half * 0.92, half * 0.99, half, half * 0.93], 1)
    ring_z = np.stack([sill, sill + 0.18, belt - 0.1, belt, belt, belt - 0.1, sill + 0.18, sill], 1)
    rings = np.stack([np.broadcast_to(_x(body, stations)[:, None], ring_y.shape), ring_y, ring_z], -1)
    sides = _loft(rings, [dark, paint, paint, paint, paint, paint, dark])
    floor = quads(np.stack([rings[:-1, 0], rings[1:, 0], rings[1:, -1], rings[:-1, -1]], 1), dark)
    fan = np.stack([np.zeros(6, int), np.arange(1, 7), np.arange(2, 8)], 1)
    nose, tail = mesh(rings[0], fan[:, ::-1], paint), mesh(rings[-1], fan, paint)
    return merged([sides, floor, nose, tail])


def _cabin(body: Body, paint: Skin, glass: Skin) -> Mesh:
    """Windscreen, side windows between painted pillars, rear window and roof."""
    stations, roof = np.array([s for s, _ in body.roof]), np.array([z for _, z in body.roof])
    belt = np.interp(stations, [s for s, _ in body.belt], [z for _, z in body.belt]) - 0.01
    half = body.width / 2
    rise = np.clip((roof - belt) / (roof.max() - belt.min()), 0, 1)
    top = half * (0.91 - 0.17 * rise)
    x = _x(body, stations)
    parts = []
    frame = 0.06
    for side in (-1.0, 1.0):
        low = np.stack([x, np.full_like(x, side * half * 0.915), belt], 1)
        high = np.stack([x, side * top, roof], 1)
        strip = quads(np.stack([low[:-1], low[1:], high[1:], high[:-1]], 1), paint)
        parts.append(strip)
        parts.append(quads(_side_windows(low, high, side, frame), glass))
    across = np.stack([np.stack([x, top, roof], 1), np.stack([x, -top, roof], 1)], 1)  # (n, 2, 3)
    panels = np.stack([across[:-1, 0], across[1:, 0], across[1:, 1], across[:-1, 1]], 1)
    n = len(panels)
    parts.append(quads(panels[[0, n - 1]], glass))
    parts.append(quads(panels[1 : n - 1], paint))
    return merged(parts)


def _side_windows(low: np.ndarray, high: np.ndarray, side: float, frame: float) -> np.ndarray:
    """Panes a centimetre proud of a cabin's side, leaving pillars and a roof frame; (k, 4, 3)."""
    x_front, x_rear = low[0, 0] - 0.28, low[-1, 0] + 0.22
    middle = (x_front + x_rear) / 2 - 0.1
    panes = []
    for x0, x1 in ((x_front, middle + 0.04), (middle - 0.04, x_rear)):
        xs = np.linspace(x0, x1, 5)
        b, t = _on_edge(low, xs), _on_edge(high, xs)
        b = b + (t - b) * 0.06
        t = b + (t - b) * max(1 - frame / 0.4, 0.7)
        shift = np.array([0, side * 0.012, 0])
        panes.append(np.stack([b[:-1], b[1:], t[1:], t[:-1]], 1) + shift)
    corners = np.concatenate(panes)
    tall = np.abs(corners[:, 3, 2] - corners[:, 0, 2]) + np.abs(corners[:, 2, 2] - corners[:, 1, 2]) > 0.04
    return corners[tall]


def _on_edge(edge: np.ndarray, x: np.ndarray) -> np.ndarray:
    order = np.argsort(edge[:, 0])
    return np.stack([x, *(np.interp(x, edge[order, 0], edge[order, k]) for k in (1, 2))], 1)


def _wheels(body: Body, class_name: str, generator: np.random.Generator, sides: int) -> Mesh:
    parts = []
    rim = vary(generator, (0.35, 0.36, 0.37), 0.5)
    for axle in body.axles:
        for side in (-1, 1):
            y = side * (body.width / 2 - 0.10)
            parts.append(
                transformed(wheel(class_name, body.wheel, 0.2, rim, sides), (float(_x(body, axle)), y, body.wheel))
            )
    return merged(parts)


def wheel(class_name: str, radius: float, width: float, rim_albedo: Color = (0.3, 0.3, 0.31), sides: int = 14) -> Mesh:
    """A wheel about the y axis through the origin."""
    tyre = prism(circle(radius, sides), -width / 2, width / 2, skin(class_name, "rubber", (0.02, 0.02, 0.021)), 1)
    rim = prism(
        circle(radius * 0.64, 10), -width / 2 - 0.012, width / 2 + 0.012, skin(class_name, "metal", rim_albedo), 1
    )
    return merged([tyre, rim])


def _car_details(body: Body, dark: Skin) -> list[Mesh]:
    """Wheel arches, lamps, plates, mirrors and bumpers."""
    half, front, rear = body.width / 2, body.length / 2, -body.length / 2
    parts = []
    for axle in body.axles:
        for side in (-1, 1):
            arch = circle(body.wheel + 0.07, 14)
            arch = arch[arch[:, 1] > -0.05]
            x = float(_x(body, axle))
            inner = transformed(prism(arch[:, ::-1], -0.004, 0.004, dark, 1), (x, side * (half + 0.001), body.wheel))
            parts.append(inner)
    lamp, red = skin("car", "lamp", (0.75, 0.76, 0.78)), skin("car", "lamp", (0.35, 0.012, 0.01))
    plate = skin("car", "sign_face", (0.7, 0.7, 0.68))
    nose, tail = body.belt[1][1], body.belt[-2][1]
    for side in (-1, 1):
        y = side * half * 0.66
        parts.append(box((front - 0.2, y - 0.2, nose - 0.16), (front - 0.02, y + 0.16, nose - 0.01), lamp))
        parts.append(box((rear + 0.02, y - 0.16, tail - 0.24), (rear + 0.16, y + 0.18, tail - 0.04), red))
        mirror = float(_x(body, body.roof[0][0])) - 0.45
        parts.append(
            box(
                (mirror, side * half, body.belt[3][1]),
                (mirror + 0.13, side * (half + 0.17), body.belt[3][1] + 0.14),
                dark,
            )
        )
    parts.append(box((front - 0.12, -half * 0.8, 0.28), (front + 0.03, half * 0.8, 0.46), dark))
    parts.append(box((rear - 0.03, -half * 0.8, 0.30), (rear + 0.12, half * 0.8, 0.48), dark))
    parts.append(box((front + 0.02, -0.26, 0.38), (front + 0.045, 0.26, 0.49), plate))
    parts.append(box((rear - 0.045, -0.26, 0.5), (rear - 0.02, 0.26, 0.61), plate))
    return parts


def truck(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A lorry or a delivery truck. size: length, width, height [m]; style: box or tipper."""
    length, width, height = thing.size
    paint = skin(
        "truck",
        "car_paint",
        vary(generator, PAINTS[int(generator.integers(len(PAINTS)))], 0.2),
        texture_seed(generator),
    )
    load = skin(
        "truck",
        "fabric" if thing.style == "box" else "metal",
        vary(generator, (0.5, 0.5, 0.48), 0.5, 0.3),
        texture_seed(generator),
    )
    glass, dark = skin("truck", "glass", (0.02, 0.022, 0.025)), skin("truck", "plastic", (0.025, 0.025, 0.026))
    front, half = length / 2, width / 2
    cab, cab_top = 1.9, min(height, 2.75)
    profile = np.array(
        [
            (0.45, front - cab),
            (0.45, front),
            (1.3, front),
            (cab_top - 0.1, front - 0.22),
            (cab_top, front - 0.5),
            (cab_top, front - cab),
        ]
    )
    parts = [
        prism(profile, -half, half, paint, 1),
        box((-front, -half * 0.35, 0.7), (front - 0.4, half * 0.35, 0.95), dark),
    ]
    low, high = 1.0, height if thing.style == "box" else min(height, 2.3)
    parts.append(box((-front, -half, low), (front - cab - 0.15, half, high), load))
    parts.append(_screen(front, half, cab_top, glass))
    for side in (-1, 1):
        y = sorted((side * half, side * (half + 0.015)))
        parts.append(box((front - 1.45, y[0], 1.45), (front - 0.55, y[1], cab_top - 0.35), glass))
        parts.append(
            box(
                (front - 0.4, min(side * half, side * (half + 0.15)), 1.6),
                (front - 0.25, max(side * half, side * (half + 0.15)), 2.1),
                dark,
            )
        )
    parts += _bumper_lamps("truck", front, -front, half)
    return merged(
        [
            *parts,
            *_axle_wheels(
                "truck", (front - 1.0, -front + 1.2, -front + 2.4 if length > 8 else -front + 1.2), half, 0.48
            ),
        ]
    )


def _screen(front: float, half: float, top: float, glass: Skin) -> Mesh:
    corners = [
        (front - 0.03, -half * 0.9, 1.45),
        (front - 0.03, half * 0.9, 1.45),
        (front - 0.2, half * 0.9, top - 0.25),
        (front - 0.2, -half * 0.9, top - 0.25),
    ]
    return quads(np.array([corners]) + np.array([0.05, 0, 0]), glass)


def _axle_wheels(class_name: str, axles: tuple[float, ...], half: float, radius: float) -> list[Mesh]:
    return [
        transformed(wheel(class_name, radius, 0.3), (x, side * (half - 0.16), radius))
        for x in sorted(set(axles))
        for side in (-1, 1)
    ]


def _bumper_lamps(class_name: str, front: float, rear: float, half: float) -> list[Mesh]:
    white, red = skin(class_name, "lamp", (0.7, 0.7, 0.7)), skin(class_name, "lamp", (0.35, 0.012, 0.01))
    dark = skin(class_name, "plastic", (0.04, 0.04, 0.042))
    parts = [
        box((front - 0.1, -half, 0.4), (front + 0.06, half, 0.75), dark),
        box((rear - 0.04, -half, 0.5), (rear + 0.1, half, 0.72), dark),
    ]
    for side in (-1, 1):
        y = side * (half - 0.3)
        parts.append(box((front + 0.05, y - 0.18, 0.5), (front + 0.08, y + 0.18, 0.68), white))
        parts.append(box((rear - 0.06, y - 0.15, 0.8), (rear, y + 0.15, 1.0), red))
    return parts


def bus(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A city bus. size: length, width, height [m]."""
    length, width, height = thing.size
    tone: Color = ((0.6, 0.5, 0.04), (0.5, 0.03, 0.03), (0.65, 0.65, 0.64), (0.04, 0.15, 0.35))[
        int(generator.integers(4))
    ]
    paint = skin("other-vehicle", "car_paint", vary(generator, tone), texture_seed(generator))
    glass = skin("other-vehicle", "glass", (0.025, 0.028, 0.03))
    front, half = length / 2, width / 2
    section = np.array(
        [
            (-half, 0.32),
            (half, 0.32),
            (half, height - 0.25),
            (half - 0.2, height),
            (-half + 0.2, height),
            (-half, height - 0.25),
        ]
    )
    parts = [prism(section, -front, front, paint, 0)]
    for side in (-1, 1):
        y = sorted((side * half, side * (half + 0.015)))
        for x in np.arange(-front + 0.5, front - 1.7, 1.45):
            parts.append(box((x, y[0], 1.15), (x + 1.36, y[1], height - 0.55), glass))
    for x in (front - 0.18 * length, 0.03 * length):
        parts.append(box((x, -half - 0.02, 0.4), (x + 1.2, -half, height - 0.5), glass))
    parts.append(box((front, -half * 0.92, 1.0), (front + 0.02, half * 0.92, height - 0.3), glass))
    parts.append(box((-front - 0.02, -half * 0.8, 1.4), (-front, half * 0.8, height - 0.5), glass))
    parts += _bumper_lamps("other-vehicle", front, -front, half)
    return merged(
        [*parts, *_axle_wheels("other-vehicle", (front - 0.23 * length, -front + 0.27 * length), half, 0.16 * height)]
    )


def trailer(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A caravan or a flat trailer, parked. size: length, width, height [m]; style: caravan or flatbed."""
    length, width, height = thing.size
    front, half = length / 2, width / 2
    body = skin("other-vehicle", "car_paint", vary(generator, (0.66, 0.65, 0.62), 0.15), texture_seed(generator))
    dark = skin("other-vehicle", "metal", (0.12, 0.12, 0.12))
    parts = [box((front, -0.05, 0.4), (front + 1.1, 0.05, 0.5), dark), cylinder(0.08, 0, 0.45, dark, 6)]
    parts[1] = transformed(parts[1], (front + 1.0, 0, 0))
    if thing.style == "caravan":
        profile = np.array(
            [(0.45, -front), (0.45, front), (1.2, front), (height, front - 0.5), (height, -front + 0.3), (1.6, -front)]
        )
        parts.append(prism(profile, -half, half, body, 1))
        glass = skin("other-vehicle", "glass", (0.04, 0.035, 0.03))
        for x in (-front * 0.55, front * 0.3):
            parts.append(box((x, -half - 0.015, 1.3), (x + 0.9, half + 0.015, 1.9), glass))
        parts.append(
            box(
                (front * 0.02 - 0.5, -half - 0.02, 0.55),
                (front * 0.02 + 0.1, -half, 2.1),
                skin("other-vehicle", "door", (0.6, 0.6, 0.58)),
            )
        )
    else:
        wood = skin("other-vehicle", "wood", (0.25, 0.18, 0.1))
        parts += [box((-front, -half, 0.5), (front, half, 0.6), wood)]
        parts += [box((-front, side * half - 0.03, 0.6), (front, side * half + 0.03, height), dark) for side in (-1, 1)]
        parts += [box((end * front - 0.03, -half, 0.6), (end * front + 0.03, half, height), dark) for end in (-1, 1)]
    return merged([*parts, *_axle_wheels("other-vehicle", (0.0,), half + 0.02, 0.31)])
