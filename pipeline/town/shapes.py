"""Primitive meshes: boxes, prisms, cylinders, icospheres, extrusions. Metres, outward triangles (counter-clockwise).

A Mesh carries a skin a triangle, so merged meshes stay labelled; objects are built at the origin, resting on z = 0 and
facing +X, then placed by `transformed`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int32

from pipeline.town.materials import Skin

Point = Sequence[float] | np.ndarray


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles and their skins. vertices [m]; skin: index into `skins`, a triangle."""

    vertices: Float[np.ndarray, "v 3"]
    triangles: Int32[np.ndarray, "t 3"]
    skin: Int32[np.ndarray, "t"]
    skins: tuple[Skin, ...]


def mesh(vertices: np.ndarray, triangles: np.ndarray, one_skin: Skin) -> Mesh:
    """A mesh of one skin."""
    faces = np.ascontiguousarray(triangles, np.int32).reshape(-1, 3)
    return Mesh(np.asarray(vertices, float).reshape(-1, 3), faces, np.zeros(len(faces), np.int32), (one_skin,))


def merged(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes as one; equal skins are kept once."""
    if not meshes:
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int32), np.zeros(0, np.int32), ())
    number: dict[Skin, int] = {}
    vertices, triangles, skins, start = [], [], [], 0
    for part in meshes:
        lut = np.array([number.setdefault(s, len(number)) for s in part.skins], np.int32)
        vertices.append(part.vertices)
        triangles.append(part.triangles + np.int32(start))
        skins.append(lut[part.skin] if len(lut) else part.skin)
        start += len(part.vertices)
    return Mesh(np.concatenate(vertices), np.concatenate(triangles), np.concatenate(skins), tuple(number))


def transformed(part: Mesh, xyz: Point, yaw: float = 0.0, scale: Point = (1, 1, 1)) -> Mesh:
    """Scaled, turned by `yaw` about z [rad], then moved to `xyz` [m]."""
    c, s = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    return replace(part, vertices=(part.vertices * np.asarray(scale)) @ rotation.T + np.asarray(xyz, float))


def turned(part: Mesh, angle: float, axis: int) -> Mesh:
    """Turned about a coordinate axis through the origin [rad]."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    vertices = part.vertices.copy()
    c, s = np.cos(angle), np.sin(angle)
    vertices[:, i] = c * part.vertices[:, i] - s * part.vertices[:, j]
    vertices[:, j] = s * part.vertices[:, i] + c * part.vertices[:, j]
    return replace(part, vertices=vertices)


def mirrored(part: Mesh) -> Mesh:
    """Reflected in the plane y = 0."""
    return replace(part, vertices=part.vertices * np.array([1, -1, 1.0]), triangles=part.triangles[:, ::-1])


_BOX_CORNERS = np.array([[x, y, z] for z in (0, 1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))], float)
_BOX_QUADS = np.array([[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]])
_BOX_FACES = np.concatenate([_BOX_QUADS[:, [0, 1, 2]], _BOX_QUADS[:, [0, 2, 3]]])


def box(low: Point, high: Point, one_skin: Skin) -> Mesh:
    """An axis-aligned box between two corners [m]; 12 triangles."""
    corner = np.asarray(low, float)
    return mesh(corner + _BOX_CORNERS * (np.asarray(high, float) - corner), _BOX_FACES, one_skin)


def boxes(lows: np.ndarray, highs: np.ndarray, one_skin: Skin) -> Mesh:
    """Many axis-aligned boxes, corners (k, 3) each [m]."""
    lows, highs = np.asarray(lows, float).reshape(-1, 1, 3), np.asarray(highs, float).reshape(-1, 1, 3)
    corners = lows + _BOX_CORNERS * (highs - lows)
    faces = _BOX_FACES[None] + 8 * np.arange(len(lows))[:, None, None]
    return mesh(corners.reshape(-1, 3), faces.reshape(-1, 3), one_skin)


def quads(corners: np.ndarray, one_skin: Skin) -> Mesh:
    """Flat four-cornered faces (k, 4, 3), counter-clockwise as seen from outside [m]."""
    corners = np.asarray(corners, float).reshape(-1, 4, 3)
    base = 4 * np.arange(len(corners))[:, None]
    faces = np.concatenate([base + np.array([0, 1, 2]), base + np.array([0, 2, 3])])
    return mesh(corners.reshape(-1, 3), faces, one_skin)


def polygon(corners: np.ndarray, one_skin: Skin) -> Mesh:
    """A flat convex face (n, 3), counter-clockwise as seen from outside [m]."""
    n = len(corners)
    fan = np.stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)], 1)
    return mesh(np.asarray(corners, float), fan, one_skin)


def prism(outline: np.ndarray, low: float, high: float, one_skin: Skin, axis: int = 2, caps: bool = True) -> Mesh:
    """A convex outline (n, 2), counter-clockwise, extruded along an axis from `low` to `high` [m].

    The outline's coordinates are the two other axes in cyclic order: (x, y) for z, (y, z) for x, (z, x) for y.
    """
    outline = np.asarray(outline, float)
    n = len(outline)
    corners = np.zeros((2 * n, 3))
    corners[:, (axis + 1) % 3], corners[:, (axis + 2) % 3] = np.tile(outline[:, 0], 2), np.tile(outline[:, 1], 2)
    corners[:n, axis], corners[n:, axis] = low, high
    i, j = np.arange(n), (np.arange(n) + 1) % n
    faces = [np.stack([i, j, j + n], 1), np.stack([i, j + n, i + n], 1)]
    if caps:
        fan = np.stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)], 1)
        faces += [fan[:, ::-1], fan + n]
    return mesh(corners, np.concatenate(faces), one_skin)


def circle(radius: float, sides: int) -> np.ndarray:
    """A regular polygon (sides, 2), counter-clockwise."""
    angle = (np.arange(sides) + 0.5) * (2 * np.pi / sides)
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def cylinder(radius: float, low: float, high: float, one_skin: Skin, sides: int = 8, axis: int = 2) -> Mesh:
    """A cylinder about an axis through the origin, from `low` to `high` along it [m]."""
    return prism(circle(radius, sides), low, high, one_skin, axis)


def tube(path: np.ndarray, radii: np.ndarray, one_skin: Skin, sides: int = 6) -> Mesh:
    """A round bar along a path (n, 3) with a radius at each point [m]; open ends."""
    path, radii = np.asarray(path, float), np.broadcast_to(np.asarray(radii, float), len(path))
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    helper = np.where(np.abs(along[:, 2:]) > 0.9, [[1.0, 0, 0]], [[0, 0, 1.0]])
    u = np.cross(helper, along)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(along, u)
    ring = circle(1.0, sides)
    points = path[:, None] + radii[:, None, None] * (ring[:, :1] * u[:, None] + ring[:, 1:] * v[:, None])
    n = len(path)
    a = (np.arange(n - 1)[:, None] * sides + np.arange(sides)).ravel()
    b = (np.arange(n - 1)[:, None] * sides + (np.arange(sides) + 1) % sides).ravel()
    faces = np.concatenate([np.stack([a, b, b + sides], 1), np.stack([a, b + sides, a + sides], 1)])
    return mesh(points.reshape(-1, 3), faces, one_skin)


@functools.cache
def _icosphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    golden = (1 + 5**0.5) / 2
    points = np.array([[-1, golden, 0], [1, golden, 0], [-1, -golden, 0], [1, -golden, 0]], float)
    vertices = np.concatenate([points, np.roll(points, 1, 1), np.roll(points, 2, 1)])
    vertices /= np.linalg.norm(vertices[0])
    pairs = np.linalg.norm(vertices[:, None] - vertices[None], axis=2) < 1.1
    faces = np.array(
        [(i, j, k) for i in range(12) for j in range(i + 1, 12) for k in range(j + 1, 12)
         if pairs[i, j] and pairs[j, k] and pairs[i, k]]
    )  # fmt: skip
    corner = vertices[faces]
    inward = np.einsum("ij,ij->i", np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), corner[:, 0]) < 0
    faces[inward] = faces[inward][:, ::-1]
    for _ in range(subdivisions):
        vertices, faces = _subdivided(vertices, faces)
    return vertices, faces


def _subdivided(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    unique, index = np.unique(edges, axis=0, return_inverse=True)
    middle = vertices[unique].mean(axis=1)
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    m = index.reshape(-1, 3) + len(vertices)
    a, b, c = faces.T
    parts = [(a, m[:, 0], m[:, 2]), (b, m[:, 1], m[:, 0]), (c, m[:, 2], m[:, 1]), (m[:, 0], m[:, 1], m[:, 2])]
    return np.concatenate([vertices, middle]), np.concatenate([np.stack(p, 1) for p in parts])


def icosphere(centre: Point, radii: Point, one_skin: Skin, subdivisions: int = 1) -> Mesh:
    """An ellipsoid of 20 * 4^subdivisions triangles [m]."""
    vertices, faces = _icosphere(subdivisions)
    return mesh(vertices * np.asarray(radii, float) + np.asarray(centre, float), faces, one_skin)
