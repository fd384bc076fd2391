"""Meshes of the ground, tile by tile: carriageway, parking, kerb, sidewalk, verge, islands, squares and open land.

A tile is a grid of small triangles that are cut, one after the other, along the zero lines of the plan's fields; what
lies inside a field becomes that kind of ground. Where two kinds stand at different heights the cut becomes a kerb.
Far from every line the grid is coarse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pipeline.town.fields import Area, Land, area_distance, distances
from pipeline.town.materials import Skin
from pipeline.town.shapes import Mesh, merged, mesh

TILE_M = 32.0
KERB_M = 0.12  # height of a kerb
KERB_STONE_M = 0.16  # width of the kerb's stone
_BLOCK = 4  # fine cells (1 m) in a coarse cell
_X, _Y, _Z, _ISLAND, _PARKING, _ROAD, _STONE, _VERGE, _DRIVE, _SIDEWALK, _SQUARE, _FIELD, _VOID = range(13)


@dataclass(frozen=True)
class GroundSkins:
    """What the kinds of ground look like in one town."""

    road: Skin
    parking: Skin
    kerb: Skin
    sidewalk: Skin
    verge: Skin
    island: Skin
    square: Skin
    drive: Skin
    field: Skin
    land: Skin


def ground_tile(land: Land, areas: Sequence[Area], tile: tuple[int, int], skins: GroundSkins) -> Mesh:
    """The ground of one TILE_M square tile, in world coordinates."""
    triangles = _grid(land, areas, tile)
    parts: list[Mesh] = []
    _, triangles, _ = cut(triangles, _VOID)
    island, rest, edge = cut(triangles, _ISLAND)
    parts += [_flat(island, KERB_M, skins.island), _step(edge[:, ::-1], KERB_M, skins.kerb)]
    road, rest, edge = cut(rest, _ROAD)
    beside_bays = edge[:, :, _PARKING].mean(axis=1) < 0
    parts += [_flat(road, 0.0, skins.road), _step(edge[~beside_bays], KERB_M, skins.kerb)]
    parking, rest, edge = cut(rest, _PARKING)
    parts += [_flat(parking, 0.0, skins.parking), _step(edge, KERB_M, skins.kerb)]
    for column, one_skin in (
        (_STONE, skins.kerb),
        (_DRIVE, skins.drive),
        (_VERGE, skins.verge),
        (_SIDEWALK, skins.sidewalk),
        (_SQUARE, skins.square),
        (_FIELD, skins.field),
    ):
        inside, rest, _ = cut(rest, column)
        parts.append(_flat(inside, KERB_M, one_skin))
    parts.append(_flat(rest, KERB_M, skins.land))
    return merged([part for part in parts if len(part.triangles)])


def _grid(land: Land, areas: Sequence[Area], tile: tuple[int, int]) -> Float[np.ndarray, "t 3 a"]:
    """Triangles with their fields; 1 m cells near any field's zero line, 4 m cells elsewhere."""
    n = int(TILE_M)
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    xy = np.stack([i, j], -1).reshape(-1, 2) + TILE_M * np.array(tile)
    node = np.column_stack([xy, land.height(xy), _fields(land, areas, xy, tile)]).reshape(n + 1, n + 1, -1)
    values = node[..., 3:]
    coarse_centre = values[_BLOCK // 2 :: _BLOCK, _BLOCK // 2 :: _BLOCK]
    sharp = np.delete(coarse_centre, _FIELD - 3, axis=-1)  # a field's edge may be rough
    fine = (np.abs(sharp) < 0.75 * _BLOCK).any(axis=-1)  # (n/4, n/4)
    fine_cells = np.kron(fine, np.ones((_BLOCK, _BLOCK), bool))
    return np.concatenate([_cells(node, fine_cells, 1), _cells(node, ~fine, _BLOCK)])


def _cells(node: np.ndarray, chosen: np.ndarray, size: int) -> np.ndarray:
    i, j = np.nonzero(chosen)
    i, j = i * size, j * size
    a, b, c, d = node[i, j], node[i + size, j], node[i + size, j + size], node[i, j + size]
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def _fields(land: Land, areas: Sequence[Area], xy: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    centre = TILE_M * (np.array(tile) + 0.5)
    reach = TILE_M + 8
    near = [a for a in areas if np.hypot(a.x - centre[0], a.y - centre[1]) < reach + a.half_length + a.half_width]
    kinds = ("island", "parking", "drive", "square", "field", "void")
    area = {k: area_distance([a for a in near if a.kind == k], xy) for k in kinds}
    d = distances(land.layout, land.segments, xy)
    paved = np.minimum(d.sidewalk, area["parking"] - 1.8)
    stone = np.minimum(d.road, area["parking"]) - KERB_STONE_M
    columns = [
        area["island"],
        area["parking"],
        d.road,
        stone,
        d.verge,
        area["drive"],
        paved,
        area["square"],
        area["field"],
        area["void"],
    ]
    return np.stack(columns, 1)


def cut(triangles: Float[np.ndarray, "t 3 a"], column: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles cut along the zero line of one attribute: (inside, outside, edges).

    Inside is where it is negative; edges (k, 2, a) run along the cut with the inside on their left.
    """
    value = triangles[:, :, column]
    value = np.where(np.abs(value) < 1e-3, 1e-3, value)
    negative = value < 0
    count = negative.sum(axis=1)
    inside, outside, edges = [triangles[count == 3]], [triangles[count == 0]], []
    for lonely_inside in (True, False):
        mine = count == (1 if lonely_inside else 2)
        lonely = np.argmax(negative[mine] == lonely_inside, axis=1)
        order = (lonely[:, None] + np.arange(3)) % 3
        t = np.take_along_axis(triangles[mine], order[..., None], axis=1)
        v = np.take_along_axis(value[mine], order, axis=1)
        a, b, c = t[:, 0], t[:, 1], t[:, 2]
        p = a + (b - a) * (v[:, 0] / (v[:, 0] - v[:, 1]))[:, None]
        q = a + (c - a) * (v[:, 0] / (v[:, 0] - v[:, 2]))[:, None]
        tip, base = [np.stack([a, p, q], 1)], [np.stack([p, b, c], 1), np.stack([p, c, q], 1)]
        (inside if lonely_inside else outside).extend(tip)
        (outside if lonely_inside else inside).extend(base)
        edges.append(np.stack([p, q] if lonely_inside else [q, p], 1))
    return np.concatenate(inside), np.concatenate(outside), np.concatenate(edges)


def _flat(triangles: np.ndarray, above: float, one_skin: Skin) -> Mesh:
    points = triangles[:, :, :3] + np.array([0, 0, above])
    u, v = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    points = points[np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) > 2e-5]
    return mesh(points.reshape(-1, 3), np.arange(3 * len(points)), one_skin)


def _step(edges: np.ndarray, height: float, one_skin: Skin) -> Mesh:
    """Upright faces along edges, from a little below the low side up to `height` above it, seen from the left."""
    p, q = edges[:, 0, :3], edges[:, 1, :3]
    long_enough = np.linalg.norm(q - p, axis=1) > 5e-3
    p, q = p[long_enough], q[long_enough]
    low, high = np.array([0, 0, -0.02]), np.array([0, 0, height])
    corners = np.stack([q + low, p + low, p + high, q + high], 1).reshape(-1, 3)
    base = 4 * np.arange(len(p))[:, None]
    faces = np.concatenate([base + np.array([0, 1, 2]), base + np.array([0, 2, 3])])
    return mesh(corners, faces, one_skin)
