"""Town -> what stands around the vehicle at a frame's instant, and where the vehicle is."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float

from pipeline.scene.records import Surface
from pipeline.scene.seeds import rng
from pipeline.town.materials import TAXONOMY, skin, texture_seed, vary
from pipeline.town.plan import Town
from pipeline.town.shapes import Mesh, box, circle, cylinder, icosphere, merged, prism, transformed

SCAN_PERIOD_S = 0.1
SENSOR_HEIGHT_M = 1.73  # KITTI's velodyne above the road


def frame_time_s(town: Town, frame: int) -> float:
    """The instant of a frame [s]; a scan every 0.1 s."""
    return frame * SCAN_PERIOD_S


def pose(town: Town, frame: int) -> Float[np.ndarray, "4 4"]:
    """world_from_vehicle; the vehicle frame is the velodyne's: X forward, Y left, Z up, 1.73 m above the road."""
    world_from_vehicle = np.eye(4)
    world_from_vehicle[:3, 3] = (frame_time_s(town, frame) * town.speed_mps, -1.7, SENSOR_HEIGHT_M)
    return world_from_vehicle


def surface_at(town: Town, frame: int, seen_from: int | None = None, radius_m: float = 120.0) -> Surface:
    """Every triangle within `radius_m` at the instant of `frame`, in the vehicle frame of `seen_from` (default: it)."""
    static, instance = _street(town)
    vehicle = np.linalg.inv(pose(town, frame if seen_from is None else seen_from))
    vertices = static.vertices @ vehicle[:3, :3].T + vehicle[:3, 3]
    corners = static.vertices[static.triangles] - pose(town, frame)[:3, 3]
    near = np.linalg.norm(corners[..., :2].mean(axis=1), axis=1) < radius_m
    class_id = np.array([s.class_id for s in static.skins], np.uint8)[static.skin]
    materials = tuple(s.material for s in static.skins)
    return Surface(
        vertices, static.triangles[near], class_id[near], instance[near], static.skin[near], materials, TAXONOMY
    )


@functools.lru_cache(maxsize=4)
def _street(town: Town) -> tuple[Mesh, np.ndarray]:
    generator = rng(town.seed, f"town/{town.split}/street", 0)
    length = town.frames * SCAN_PERIOD_S * town.speed_mps + 140
    parts = [(p, 0) for p in _ground(length)]
    objects = []
    for x in np.arange(-120, length, 16.0):
        for side in (-1, 1):
            objects.append(transformed(_house(generator), (x, side * 13, 0), 0 if side > 0 else np.pi))
            objects.append(transformed(_tree(generator), (x + 6, side * 7.6, 0.12)))
            objects.append(transformed(_lamp(), (x + 11, side * 4.4, 0.12), 0 if side > 0 else np.pi))
            if generator.random() < 0.6:
                objects.append(transformed(_car(generator), (x + generator.uniform(-4, 4), side * 2.6, 0)))
    parts += [(o, k + 1) for k, o in enumerate(objects)]
    instance = np.concatenate([np.full(len(p.triangles), n, np.int32) for p, n in parts])
    return merged([p for p, _ in parts]), instance


def _ground(length: float) -> list[Mesh]:
    strips = [
        (0, 3.6, 0.0, skin("road", "asphalt", (0.06, 0.06, 0.065))),
        (3.6, 6.4, 0.12, skin("sidewalk", "paving", (0.3, 0.29, 0.27))),
        (6.4, 90, 0.1, skin("terrain", "grass", (0.08, 0.14, 0.03))),
    ]
    parts = []
    for a, b, z, s in strips:
        for side in (-1, 1):
            low, high = sorted((side * a, side * b))
            for x in np.arange(-125, length, 5.0):
                parts.append(box((x, low, z - 0.3), (x + 5, high, z), s))
    return parts


def _house(generator: np.random.Generator) -> Mesh:
    w, d, h = 12.0, 9.0, float(generator.uniform(5.6, 9))
    wall = skin("building", "plaster", vary(generator, (0.5, 0.45, 0.36), 0.3), texture_seed(generator))
    roof = skin("building", "roof_tile", vary(generator, (0.25, 0.08, 0.04)), texture_seed(generator))
    glass = skin("building", "glass", (0.03, 0.035, 0.04))
    parts = [box((-w / 2, 0, 0), (w / 2, d, h), wall)]
    parts.append(prism(np.array([[-0.4, h], [d + 0.4, h], [d / 2, h + 3]]), -w / 2, w / 2, roof, axis=0))
    for z in np.arange(0.9, h - 1.4, 2.8):
        for x in (-4.0, -1.3, 1.3, 4.0):
            parts.append(box((x - 0.5, -0.03, z), (x + 0.5, 0.02, z + 1.3), glass))
    return merged(parts)


def _tree(generator: np.random.Generator) -> Mesh:
    bark = skin("trunk", "bark", (0.09, 0.07, 0.05))
    leaf = skin("vegetation", "foliage", vary(generator, (0.06, 0.12, 0.03)), texture_seed(generator))
    parts = [cylinder(0.16, 0, 3, bark)]
    for _ in range(8):
        offset = generator.normal(0, 0.8, 3) + (0, 0, 4)
        parts.append(icosphere(offset, generator.uniform(0.7, 1.4, 3), leaf))
    return merged(parts)


def _lamp() -> Mesh:
    metal = skin("pole", "metal", (0.3, 0.31, 0.32))
    return merged([cylinder(0.08, 0, 6, metal), box((-0.06, -1.2, 6), (0.06, 0.1, 6.1), metal)])


def _car(generator: np.random.Generator) -> Mesh:
    paint = skin("car", "car_paint", vary(generator, (0.3, 0.3, 0.3), 0.9, 0.4), texture_seed(generator))
    glass, rubber = skin("car", "glass", (0.02, 0.02, 0.025)), skin("car", "rubber", (0.02, 0.02, 0.02))
    side = np.array([[0.25, -2.1], [0.75, -2.1], [0.9, -1.2], [0.9, 1.9], [0.25, 2.1]])[::-1]
    body = prism(side, -0.88, 0.88, paint, 1)
    cabin = prism(np.array([[0.9, -1.0], [1.45, -0.4], [1.45, 1.0], [0.9, 1.7]])[::-1], -0.75, 0.75, glass, 1)
    parts = [transformed(part, (0, 0, 0), np.pi) for part in (body, cabin)]
    wheel = prism(circle(0.32, 12), -0.1, 0.1, rubber, 1)
    parts += [transformed(wheel, (x, y, 0.32)) for x in (-1.3, 1.3) for y in (-0.78, 0.78)]
    return merged(parts)
