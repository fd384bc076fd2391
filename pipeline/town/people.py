"""People and their two-wheelers, built of tubes along limbs. Facing +X, standing on z = 0.

SemanticKITTI labels a rider and the machine under them as one: bicyclist or motorcyclist.
"""

from __future__ import annotations

import numpy as np

from pipeline.town.materials import Skin, skin, texture_seed, vary
from pipeline.town.shapes import Mesh, box, icosphere, merged, transformed, tube
from pipeline.town.splits import Color, Ranges
from pipeline.town.things import Thing

CLOTHES: tuple[Color, ...] = (
    (0.02, 0.03, 0.07), (0.03, 0.03, 0.03), (0.30, 0.03, 0.03), (0.45, 0.44, 0.42), (0.10, 0.16, 0.30),
    (0.12, 0.14, 0.06), (0.40, 0.28, 0.05), (0.20, 0.12, 0.08), (0.06, 0.18, 0.14), (0.35, 0.30, 0.36),
)  # fmt: skip
SKINS: tuple[Color, ...] = ((0.48, 0.28, 0.19), (0.55, 0.35, 0.26), (0.25, 0.13, 0.08), (0.38, 0.22, 0.14))
HAIR: tuple[Color, ...] = ((0.02, 0.015, 0.012), (0.10, 0.06, 0.03), (0.25, 0.17, 0.08), (0.30, 0.29, 0.28))


def person(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A person. size: (height [m], stride in -1..1), stride the swing of the legs; style: ignored."""
    height = thing.size[0] if thing.size else float(generator.uniform(1.58, 1.88))
    stride = thing.size[1] if len(thing.size) > 1 else 0.08
    reach = 0.32 * stride
    hip, shoulder = 0.93, 1.43
    feet = [(reach, 0.1, 0.05), (-reach, -0.1, 0.05 + 0.08 * abs(stride))]
    knees = [(reach * 0.75 + 0.05, 0.1, 0.49), (-reach * 0.35 + 0.08, -0.1, 0.50)]
    hands = [(-reach * 0.8 + 0.08, 0.27, 0.84), (reach * 0.8 + 0.08, -0.27, 0.84)]
    body = _figure("person", generator, (0, 0, hip), (0.02, 0, shoulder), knees, feet, hands)
    return transformed(body, (0, 0, 0), 0.0, np.full(3, height / 1.75))


def _figure(
    class_name: str, generator: np.random.Generator, hip: tuple[float, float, float],
    neck: tuple[float, float, float], knees: list, feet: list, hands: list, helmet: bool = False,
) -> Mesh:  # fmt: skip
    """A body from its joints, for a height of 1.75 m; knees, feet and hands are (left, right)."""
    seed = texture_seed(generator)
    cloth = [
        skin(class_name, "fabric", vary(generator, CLOTHES[int(generator.integers(len(CLOTHES)))], 0.3), seed)
        for _ in range(2)
    ]
    flesh = skin(class_name, "skin", vary(generator, SKINS[int(generator.integers(len(SKINS)))]))
    shoe = skin(class_name, "rubber", (0.04, 0.035, 0.03))
    h, n = np.array(hip), np.array(neck)
    up = (n - h) / np.linalg.norm(n - h)
    parts = [_torso(h, n, up, cloth[0])]
    for side, knee, foot, hand in zip((1, -1), knees, feet, hands, strict=True):
        top = h + np.array([0, side * 0.09, 0.02])
        parts.append(tube(np.array([top, knee, foot]), np.array([0.095, 0.07, 0.05]), cloth[1], 6))
        parts.append(icosphere(np.array(foot) + np.array([0.06, 0, -0.005]), (0.13, 0.05, 0.05), shoe, 0))
        shoulder = n + np.array([0, side * 0.19, -0.06])
        elbow = (shoulder + hand) / 2 + np.array([-0.05, side * 0.05, -0.02])
        parts.append(tube(np.array([shoulder, elbow, hand]), np.array([0.058, 0.047, 0.035]), cloth[0], 5))
        parts.append(icosphere(hand, (0.045, 0.04, 0.06), flesh, 0))
    head = n + up * 0.06 + np.array([0.03, 0, 0.14])
    parts.append(tube(np.array([n - 0.03 * up, head - [0, 0, 0.05]]), np.array([0.06, 0.055]), flesh, 6))
    parts.append(icosphere(head, (0.10, 0.08, 0.125), flesh, 1))
    if helmet:
        shell = skin(class_name, "plastic", vary(generator, CLOTHES[int(generator.integers(len(CLOTHES)))], 0.3))
        parts.append(icosphere(head + np.array([-0.01, 0, 0.045]), (0.135, 0.115, 0.11), shell, 1))
    else:
        hair = skin(class_name, "hair", HAIR[int(generator.integers(len(HAIR)))])
        parts.append(icosphere(head + np.array([-0.025, 0, 0.035]), (0.10, 0.088, 0.11), hair, 1))
    return merged(parts)


def _torso(hip: np.ndarray, neck: np.ndarray, up: np.ndarray, cloth: Skin) -> Mesh:
    path = hip + np.linspace(-0.1, 1.0, 6)[:, None] * (neck - hip)
    path[-1] += 0.02 * up
    torso = tube(path, np.array([0.10, 0.145, 0.125, 0.135, 0.14, 0.07]), cloth, 8)
    wide = torso.vertices.copy()
    wide[:, 1] *= 1.38
    return Mesh(wide, torso.triangles, torso.skin, torso.skins)


def _spoked_wheel(class_name: str, x: float, radius: float, thick: float) -> list[Mesh]:
    angle = np.linspace(0, 2 * np.pi, 17)
    path = np.stack([x + radius * np.cos(angle), 0 * angle, radius * np.sin(angle) + radius + thick], 1)
    rubber, metal = skin(class_name, "rubber", (0.02, 0.02, 0.02)), skin(class_name, "metal", (0.3, 0.3, 0.31))
    spokes = [
        tube(
            np.array(
                [
                    [x - radius * np.cos(a), 0, radius + thick - radius * np.sin(a)],
                    [x + radius * np.cos(a), 0, radius + thick + radius * np.sin(a)],
                ]
            ),
            np.array(0.006),
            metal,
            3,
        )
        for a in (0.3, 1.35, 2.4)
    ]
    return [tube(path, np.array(thick), rubber, 5), *spokes]


def bicycle(thing: Thing, generator: np.random.Generator, ranges: Ranges, class_name: str = "bicycle") -> Mesh:
    """A bicycle, upright."""
    paint = skin(class_name, "car_paint", vary(generator, CLOTHES[int(generator.integers(len(CLOTHES)))], 0.3))
    dark = skin(class_name, "plastic", (0.03, 0.03, 0.03))
    rear, front, crank = np.array([-0.52, 0, 0.34]), np.array([0.55, 0, 0.34]), np.array([-0.08, 0, 0.30])
    seat, head, bar = np.array([-0.24, 0, 0.86]), np.array([0.36, 0, 0.80]), np.array([0.33, 0, 1.03])
    lines = [
        (rear, crank),
        (crank, seat),
        (seat * 0.93, rear),
        (crank, head),
        (seat * 0.97, head),
        (head, front),
        (head, bar),
    ]
    parts = [tube(np.array(line), np.array(0.02), paint, 5) for line in lines]
    parts.append(
        tube(
            np.array(
                [
                    bar + np.array([-0.12, 0.25, 0]),
                    bar + np.array([0, 0.12, 0.01]),
                    bar + np.array([0, -0.12, 0.01]),
                    bar + np.array([-0.12, -0.25, 0]),
                ]
            ),
            np.array(0.015),
            dark,
            4,
        )
    )
    parts.append(box(seat + np.array([-0.14, -0.08, 0]), seat + np.array([0.12, 0.08, 0.06]), dark))
    parts.append(box(crank + np.array([-0.1, -0.13, -0.02]), crank + np.array([0.1, 0.13, 0.02]), dark))
    return merged(
        [*parts, *_spoked_wheel(class_name, -0.52, 0.32, 0.022), *_spoked_wheel(class_name, 0.55, 0.32, 0.022)]
    )


def bicyclist(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A person riding a bicycle, both of the class bicyclist."""
    machine = bicycle(thing, generator, ranges, "bicyclist")
    knees, feet = [(0.18, 0.1, 0.72), (0.12, -0.1, 0.60)], [(-0.02, 0.12, 0.38), (-0.12, -0.12, 0.22)]
    hands = [(0.24, 0.24, 1.05), (0.24, -0.24, 1.05)]
    rider = _figure(
        "bicyclist", generator, (-0.22, 0, 0.95), (0.04, 0, 1.42), knees, feet, hands, generator.random() < 0.5
    )
    return merged([machine, rider])


def motorcycle(thing: Thing, generator: np.random.Generator, ranges: Ranges, class_name: str = "motorcycle") -> Mesh:
    """A motorcycle or (style scooter) a scooter, upright."""
    paint = skin(
        class_name,
        "car_paint",
        vary(generator, CLOTHES[int(generator.integers(len(CLOTHES)))], 0.3),
        texture_seed(generator),
    )
    dark, chrome = skin(class_name, "plastic", (0.025, 0.025, 0.025)), skin(class_name, "metal", (0.35, 0.35, 0.36))
    scooter = thing.style == "scooter"
    radius = 0.22 if scooter else 0.27
    base = 0.6 if scooter else 0.7
    parts = [*_spoked_wheel(class_name, -base, radius, 0.06), *_spoked_wheel(class_name, base, radius, 0.055)]
    parts.append(icosphere((-0.05, 0, 0.48), (0.3, 0.16, 0.2), chrome, 1))
    parts.append(icosphere((0.16, 0, 0.80), (0.27, 0.15, 0.15), paint, 1))
    parts.append(box((-0.75, -0.13, 0.72), (0.0, 0.13, 0.84), dark))
    parts.append(icosphere((-0.55, 0, 0.66), (0.3, 0.14, 0.14), paint, 1))
    parts.append(tube(np.array([[base, 0, radius], [0.42, 0, 1.0]]), np.array(0.045), chrome, 5))
    parts.append(tube(np.array([[0.3, 0.36, 1.04], [0.42, 0, 1.02], [0.3, -0.36, 1.04]]), np.array(0.02), dark, 5))
    parts.append(icosphere((0.5, 0, 0.92), (0.09, 0.1, 0.11), skin(class_name, "lamp", (0.6, 0.6, 0.6)), 1))
    if scooter:
        parts.append(box((0.28, -0.2, 0.25), (0.42, 0.2, 0.95), paint))
        parts.append(box((-0.2, -0.18, 0.2), (0.35, 0.18, 0.3), dark))
    parts.append(tube(np.array([[-0.05, -0.15, 0.35], [-0.8, -0.17, 0.42]]), np.array(0.05), chrome, 6))
    return merged(parts)


def motorcyclist(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A person riding a motorcycle, both of the class motorcyclist."""
    machine = motorcycle(thing, generator, ranges, "motorcyclist")
    knees, feet = [(0.12, 0.19, 0.72), (0.12, -0.19, 0.72)], [(-0.15, 0.17, 0.33), (-0.15, -0.17, 0.33)]
    hands = [(0.3, 0.33, 1.05), (0.3, -0.33, 1.05)]
    rider = _figure("motorcyclist", generator, (-0.3, 0, 0.9), (-0.08, 0, 1.38), knees, feet, hands, True)
    return merged([machine, rider])
