"""Town -> what stands around the vehicle at a frame's instant, and where the vehicle is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from pipeline.scene.records import Material, Surface
from pipeline.town.geometry import Patch, TownGeometry, geometry_of, joined
from pipeline.town.ground import TILE_M
from pipeline.town.materials import TAXONOMY
from pipeline.town.paths import at
from pipeline.town.plan import SCAN_PERIOD_S, Town, route_s

SENSOR_HEIGHT_M = 1.73  # KITTI's velodyne above the road
AXLES_M = (1.35, -1.35)  # front and rear axle ahead of the sensor
HORIZON_FROM_M = 100.0
FINE_M = 60.0  # tiles farther from the vehicle are drawn plain; the label grid ends before
_OVERHANG_M = 14.0  # how far things reach out of the tile they stand in


def frame_time_s(town: Town, frame: int) -> float:
    """The instant of a frame [s]; a scan every 0.1 s."""
    return frame * SCAN_PERIOD_S


def pose(town: Town, frame: int) -> Float[np.ndarray, "4 4"]:
    """world_from_vehicle; the vehicle frame is the velodyne's: X forward, Y left, Z up, 1.73 m above the road under it.

    Pitch and roll follow the road under the axles.
    """
    xy, heading = at(town.flow.route, route_s(town, frame_time_s(town, frame)), town.lane_n_m)
    land = geometry_of(town).land
    gradient = np.array(land.slope(xy, AXLES_M[0]))
    forward = np.array([np.cos(heading), np.sin(heading), 0.0])
    left = np.array([-forward[1], forward[0], 0.0])
    forward[2], left[2] = gradient @ forward[:2], gradient @ left[:2]
    forward /= np.linalg.norm(forward)
    up = np.cross(forward, left)
    up /= np.linalg.norm(up)
    world_from_vehicle = np.eye(4)
    world_from_vehicle[:3, :3] = np.stack([forward, np.cross(up, forward), up], axis=1)
    world_from_vehicle[:3, 3] = (*xy, float(land.height(xy[None])[0]) + SENSOR_HEIGHT_M)
    return world_from_vehicle


def surface_at(town: Town, frame: int, seen_from: int | None = None, radius_m: float = 120.0) -> Surface:
    """Every triangle within `radius_m` at the instant of `frame`, in the vehicle frame of `seen_from` (default: it).

    The disc is centred on the vehicle at `frame`; the vehicle itself is not part of it. From a radius of 100 m on, a
    coarse ring of land and trees around the disc closes the view (horizon.py). Instances are numbered a town: the same
    thing keeps its number from frame to frame.
    """
    geometry = geometry_of(town)
    centre = pose(town, frame)[:2, 3]
    keys = _tiles_near(centre, radius_m)
    patches = [_within(geometry.tile(key, _tile_distance(key, centre) < FINE_M), centre, radius_m) for key in keys]
    moving = geometry.moving(frame_time_s(town, frame), centre, radius_m)
    patches += [_within(patch, centre, radius_m) for patch in moving]
    if radius_m >= HORIZON_FROM_M:
        patches.append(geometry.beyond(centre, radius_m))
    whole = joined(patches)
    number, materials, classes = _renumbered(geometry, whole.skin)
    vehicle = np.linalg.inv(pose(town, frame if seen_from is None else seen_from))
    return Surface(
        vertices=_moved(whole.vertices, vehicle),
        triangles=whole.triangles,
        class_id=classes[number],
        instance=whole.instance,
        material=number,
        materials=materials,
        taxonomy=TAXONOMY,
    )


def _moved(points: np.ndarray, target_from_source: np.ndarray) -> np.ndarray:
    """Points in another frame; sums of three products, not BLAS, so the bytes don't depend on its threads."""
    x, y, z = np.ascontiguousarray(points.T)
    return np.stack([row[0] * x + row[1] * y + row[2] * z + row[3] for row in target_from_source[:3]], axis=1)


def _tiles_near(centre: np.ndarray, radius_m: float) -> list[tuple[int, int]]:
    reach = radius_m + _OVERHANG_M
    low, high = np.floor((centre - reach) / TILE_M).astype(int), np.floor((centre + reach) / TILE_M).astype(int)
    keys = [(i, j) for i in range(low[0], high[0] + 1) for j in range(low[1], high[1] + 1)]
    return [k for k in keys if _tile_distance(k, centre) < reach]


def _tile_distance(key: tuple[int, int], centre: np.ndarray) -> float:
    corner = TILE_M * np.array(key)
    return float(np.linalg.norm(centre - np.clip(centre, corner, corner + TILE_M)))


def _within(patch: Patch, centre: np.ndarray, radius_m: float) -> Patch:
    """The triangles whose middle is inside the disc."""
    low, high = patch.vertices[:, :2].min(axis=0), patch.vertices[:, :2].max(axis=0)
    if np.linalg.norm(np.maximum(np.abs(low - centre), np.abs(high - centre))) < radius_m:
        return patch
    middle = patch.vertices[:, :2][patch.triangles].mean(axis=1)
    near = ((middle - centre) ** 2).sum(axis=1) < radius_m**2
    return Patch(patch.vertices, patch.triangles[near], patch.skin[near], patch.instance[near])


def _renumbered(geometry: TownGeometry, skins: np.ndarray) -> tuple[np.ndarray, tuple[Material, ...], np.ndarray]:
    """Skins numbered by first use: (number a triangle, materials, class ids), independent of earlier frames."""
    first = np.full(len(geometry.skins), len(skins), np.int64)
    first[skins[::-1]] = np.arange(len(skins))[::-1]
    used = np.argsort(first, kind="stable")[: int((first < len(skins)).sum())]
    rank = np.zeros(len(geometry.skins), np.int32)
    rank[used] = np.arange(len(used), dtype=np.int32)
    chosen = [geometry.skins[k] for k in used]
    classes = np.array([s.class_id for s in chosen], np.uint8)
    return rank[skins], tuple(s.material for s in chosen), classes
