"""What stands at kerbs and on boundaries: lamps, signs, traffic lights, bollards; fences, walls and railings."""

from __future__ import annotations

import numpy as np

from pipeline.town.materials import Skin, skin, texture_seed, vary
from pipeline.town.shapes import Mesh, box, boxes, circle, cylinder, icosphere, merged, prism, transformed, tube
from pipeline.town.splits import Color, Ranges
from pipeline.town.things import Thing

METAL: Color = (0.30, 0.31, 0.32)


def lamp(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A street lamp whose arm reaches to +X. size: (height,) [m]; style: arm or lantern."""
    height = thing.size[0]
    metal = skin(
        "pole", "metal", vary(generator, ((0.26, 0.27, 0.28), (0.06, 0.09, 0.07), (0.4, 0.41, 0.42))[thing.seed % 3])
    )
    light = skin("pole", "lamp", (0.6, 0.6, 0.56))
    foot = [cylinder(0.11, -0.3, 0.9, metal, 8)]
    if thing.style == "lantern":
        parts = [tube(np.array([[0, 0, 0.9], [0, 0, height]]), np.array([0.06, 0.045]), metal, 7)]
        parts.append(prism(circle(0.2, 8), height, height + 0.45, light))
        parts.append(transformed(prism(circle(0.27, 8), 0, 0.08, metal), (0, 0, height + 0.45)))
        return merged(foot + parts)
    path = np.array([[0, 0, 0.9], [0, 0, height - 0.8], [0.25, 0, height - 0.15], [1.3, 0, height]])
    parts = [tube(path, np.array([0.075, 0.06, 0.05, 0.04]), metal, 7)]
    parts.append(box((1.1, -0.13, height - 0.06), (1.85, 0.13, height + 0.07), metal))
    parts.append(box((1.2, -0.1, height - 0.09), (1.8, 0.1, height - 0.055), light))
    return merged(foot + parts)


FACES: dict[str, tuple[str, Color, Color]] = {
    "limit": ("round", (0.50, 0.02, 0.02), (0.75, 0.75, 0.73)),
    "no_stop": ("round", (0.50, 0.02, 0.02), (0.02, 0.06, 0.35)),
    "yield": ("triangle", (0.50, 0.02, 0.02), (0.75, 0.75, 0.73)),
    "priority": ("diamond", (0.75, 0.75, 0.73), (0.70, 0.45, 0.02)),
    "parking": ("square", (0.75, 0.75, 0.73), (0.02, 0.08, 0.40)),
    "crossing": ("square", (0.75, 0.75, 0.73), (0.02, 0.08, 0.40)),
    "name": ("board", (0.75, 0.75, 0.73), (0.02, 0.07, 0.30)),
    "direction": ("panel", (0.75, 0.75, 0.73), (0.65, 0.40, 0.02)),
}
_OUTLINES = {
    "round": circle(0.31, 16),
    "triangle": np.array([(0.0, -0.40), (0.46, 0.38), (-0.46, 0.38)]),
    "diamond": np.array([(0.0, -0.42), (0.42, 0.0), (0.0, 0.42), (-0.42, 0.0)]),
    "square": np.array([(-0.31, -0.31), (0.31, -0.31), (0.31, 0.31), (-0.31, 0.31)]),
    "board": np.array([(-0.5, -0.12), (0.5, -0.12), (0.5, 0.12), (-0.5, 0.12)]),
    "panel": np.array([(-0.75, -0.4), (0.75, -0.4), (0.75, 0.4), (-0.75, 0.4)]),
}


def sign(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A pole with one or two plates that face +X. size: (height of the plate's middle,) [m]; style: a key of FACES."""
    height = thing.size[0]
    post = cylinder(0.035, -0.3, height + 0.42, skin("pole", "metal", METAL), 6)
    parts = [post, _plate(thing.style, height)]
    if thing.detail and generator.random() < 0.35:
        parts.append(_plate("name", height - 0.62))
    if thing.style == "direction":
        parts.append(transformed(post, (0, 0.5, 0)))
    return merged(parts)


def _plate(style: str, height: float) -> Mesh:
    shape, rim, face = FACES[style]
    outline = _OUTLINES[shape]
    back = skin("traffic-sign", "metal", (0.33, 0.34, 0.35))
    plate = prism(outline, 0.04, 0.06, back, axis=0)
    border = prism(outline * 0.995, 0.06, 0.064, skin("traffic-sign", "sign_face", rim), axis=0)
    inner = prism(outline * 0.78, 0.064, 0.068, skin("traffic-sign", "sign_face", face), axis=0)
    return transformed(merged([plate, border, inner]), (0, 0, height))


def traffic_light(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A traffic light that faces +X. Pole and housing are pole, as the data set has it. style: a lit colour."""
    metal, dark = skin("pole", "metal", METAL), skin("pole", "plastic", (0.02, 0.025, 0.022))
    parts = [cylinder(0.07, -0.3, 3.4, metal, 8), box((-0.02, -0.17, 2.3), (0.22, 0.17, 3.3), dark)]
    colors: dict[str, Color] = {"red": (0.9, 0.02, 0.02), "amber": (0.9, 0.4, 0.02), "green": (0.02, 0.8, 0.25)}
    for k, name in enumerate(("green", "amber", "red")):
        tone = colors[name] if thing.style == name else (0.03, 0.03, 0.03)
        lens = prism(circle(0.1, 10), 0.22, 0.235, skin("pole", "lamp", tone), axis=0)
        parts.append(transformed(lens, (0, 0, 2.46 + 0.32 * k)))
    return merged(parts)


def bollard(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A knee-high post."""
    metal = skin("pole", "metal", vary(generator, (0.2, 0.05, 0.04) if thing.seed % 2 else (0.25, 0.25, 0.26)))
    return merged([cylinder(0.07, -0.2, 0.85, metal, 7), icosphere((0, 0, 0.85), (0.08, 0.08, 0.06), metal, 0)])


def mast(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A wooden telegraph pole. size: (height,) [m]."""
    height = thing.size[0]
    wood = skin("pole", "wood", vary(generator, (0.13, 0.10, 0.075)))
    bar = box((-0.06, -0.9, height - 0.7), (0.06, 0.9, height - 0.56), wood)
    return merged([tube(np.array([[0, 0, -0.4], [0, 0, height]]), np.array([0.14, 0.10]), wood, 8), bar])


def fence(thing: Thing, generator: np.random.Generator, ranges: Ranges) -> Mesh:
    """A fence along x from 0 on. size: length, height [m]; style: picket, bars, mesh, boards, rails, wall."""
    length, height = thing.size
    make = {"picket": _picket, "bars": _bars, "mesh": _mesh_fence, "boards": _boards, "rails": _rails, "wall": _wall}
    return make[thing.style](length, height, generator, thing.detail)


def _posts(length: float, every: float, half: float, height: float, one_skin: Skin) -> Mesh:
    count = max(round(length / every), 1)
    x = np.linspace(half, length - half, count + 1)
    return _uprights(x - half, x + half, half, (-0.3, height), one_skin)


def _slats(length: float, pitch: float, width: float, span: tuple[float, float], one_skin: Skin) -> Mesh:
    x = np.arange(0.02, length - width, pitch)
    return _uprights(x, x + width, min(0.015, width / 2), span, one_skin)


def _uprights(x0: np.ndarray, x1: np.ndarray, half: float, span: tuple[float, float], one_skin: Skin) -> Mesh:
    low = np.stack([x0, np.full_like(x0, -half), np.full_like(x0, span[0])], 1)
    high = np.stack([x1, np.full_like(x1, half), np.full_like(x1, span[1])], 1)
    return boxes(low, high, one_skin)


def _picket(length: float, height: float, generator: np.random.Generator, detail: int) -> Mesh:
    tone: Color = ((0.30, 0.20, 0.11), (0.6, 0.6, 0.58), (0.16, 0.10, 0.06))[int(generator.integers(3))]
    wood = skin("fence", "wood", vary(generator, tone, 0.2), texture_seed(generator))
    rails = [box((0, -0.04, z), (length, -0.015, z + 0.07), wood) for z in (0.25, height - 0.3)]
    slats = _slats(length, 0.15 if detail else 0.6, 0.09 if detail else 0.4, (0.06, height), wood)
    return merged([*rails, slats, _posts(length, 2.2, 0.045, height, wood)])


def _bars(length: float, height: float, generator: np.random.Generator, detail: int) -> Mesh:
    metal = skin("fence", "metal", vary(generator, (0.05, 0.06, 0.055), 0.4))
    stone = skin("fence", "concrete", vary(generator, (0.28, 0.27, 0.25)), texture_seed(generator))
    foot = box((0, -0.12, -0.4), (length, 0.12, 0.35), stone)
    rails = [box((0, -0.02, z), (length, 0.02, z + 0.04), metal) for z in (0.45, height - 0.12)]
    bars = _slats(length, 0.13 if detail else 0.52, 0.022 if detail else 0.06, (0.35, height), metal)
    return merged([foot, *rails, bars, _posts(length, 2.5, 0.04, height, metal)])


def _mesh_fence(length: float, height: float, generator: np.random.Generator, detail: int) -> Mesh:
    wire = skin("fence", "metal", vary(generator, (0.07, 0.14, 0.08) if generator.random() < 0.6 else METAL, 0.3))
    spacing = 0.2 if detail else 0.7
    rows = [box((0, -0.006, z), (length, 0.006, z + 0.012), wire) for z in np.arange(0.06, height, spacing)]
    columns = _slats(length, spacing, 0.012, (0.05, height), wire)
    return merged([*rows, columns, _posts(length, 2.5, 0.03, height + 0.05, wire)])


def _boards(length: float, height: float, generator: np.random.Generator, detail: int) -> Mesh:
    wood = skin("fence", "wood", vary(generator, (0.24, 0.16, 0.09), 0.3), texture_seed(generator))
    panels = [box((x, -0.02, 0.05), (min(x + 1.78, length), 0.02, height), wood) for x in np.arange(0, length, 1.8)]
    return merged([*panels, _posts(length, 1.8, 0.05, height + 0.06, wood)])


def _rails(length: float, height: float, generator: np.random.Generator, detail: int) -> Mesh:
    metal = skin("fence", "metal", vary(generator, (0.42, 0.43, 0.44)))
    bands = [box((0, 0.04, z), (length, 0.09, z + 0.24), metal) for z in (0.42, 0.42 + 0.26)]
    return merged([*bands, _posts(length, 2.0, 0.05, 0.85, metal)])


def _wall(length: float, height: float, generator: np.random.Generator, detail: int) -> Mesh:
    seed = texture_seed(generator)
    kind = str(generator.choice(["brick", "plaster", "stone", "concrete"]))
    tone: dict[str, Color] = {
        "brick": (0.27, 0.11, 0.07),
        "plaster": (0.5, 0.46, 0.38),
        "stone": (0.24, 0.22, 0.19),
        "concrete": (0.3, 0.3, 0.29),
    }
    body = skin("fence", kind, vary(generator, tone[kind], 0.2), seed)
    cap = skin("fence", "concrete", vary(generator, (0.34, 0.33, 0.31)), seed)
    return merged(
        [
            box((0, -0.12, -0.5), (length, 0.12, height), body),
            box((0, -0.16, height), (length, 0.16, height + 0.06), cap),
        ]
    )
