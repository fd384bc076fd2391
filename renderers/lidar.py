"""A simulated spinning lidar: one turn of a 64-beam sensor over a Surface, after the HDL-64E that drove KITTI's car.

A firing returns when its echo is strong enough: reflectance * sqrt(cos of incidence) * (reach / distance)^2, against a
threshold that flickers from firing to firing. So far, dark and grazing surfaces thin out (asphalt from some 35 m),
signs reach furthest, and panes, which mostly mirror or pass the beam, return few points. (Lambert's cosine would lose
the road at 20 m; the root stands for its roughness.) What a beam sees behind glass, and its width, are not simulated.

While the sensor turns the vehicle may move: every column of beams then leaves from its own pose. The world stands still
for that tenth of a second. Points are given in the sensor's frame at the middle of the turn, when the beams face
forward, as KITTI's odometry scans are; or, not compensated, as the sensor measured them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.records import Material
from renderers.meshes import SurfaceCaster, SurfaceHits

# Reflectance in the near infrared (905 nm); kinds that aren't here take the mean of their visible albedo.
REFLECTANCE = {
    "asphalt": 0.17, "marking": 0.6, "concrete": 0.35, "paving": 0.3, "cobble": 0.25, "gravel": 0.3, "grass": 0.45,
    "soil": 0.25, "brick": 0.35, "roof_tile": 0.3, "glass": 0.1, "rubber": 0.06, "bark": 0.3, "foliage": 0.5,
    "skin": 0.5, "fabric": 0.4, "hair": 0.2, "sign_face": 2.0,
}  # fmt: skip


@dataclass(frozen=True)
class Lidar:
    """A sensor. elevations_deg and azimuth_offsets_deg: by beam, from the top; columns: firings of a beam a turn.

    noise_m: standard deviation of a range; reach_m: where a surface of 10 % returns half of its echoes head on;
    flicker: standard deviation of the threshold's logarithm; glass_loss, stray_loss: share of firings lost on glass,
    and anywhere; turn_s: duration of a turn [s].
    """

    elevations_deg: tuple[float, ...]
    azimuth_offsets_deg: tuple[float, ...]
    columns: int = 2083  # 0.1728 degrees apart
    nearest_m: float = 0.9
    farthest_m: float = 120.0
    noise_m: float = 0.02
    reach_m: float = 75.0
    flicker: float = 0.3
    glass_loss: float = 0.8
    stray_loss: float = 0.04
    turn_s: float = 0.1

    def __post_init__(self) -> None:
        if not self.elevations_deg or len(self.elevations_deg) != len(self.azimuth_offsets_deg) or self.columns < 1:
            found = f"{len(self.elevations_deg)} elevations, {len(self.azimuth_offsets_deg)} offsets, {self.columns}"
            raise InputError("Lidar", "an elevation and an azimuth offset a beam, and at least one column", found)


NOMINAL = Lidar((*(2.0 - np.arange(32) / 3).tolist(), *np.linspace(-8.83, -24.9, 32).tolist()), (0.0,) * 64)  # HDL-64E


@dataclass(frozen=True)
class Motion:
    """The vehicle's motion during a turn, in the sensor's axes: velocity [m/s] and yaw rate [rad/s] (left positive)."""

    velocity_mps: tuple[float, float, float]
    yaw_rate_rps: float = 0.0


STANDING = Motion((0.0, 0.0, 0.0))


@dataclass(frozen=True, eq=False)
class LidarScan:
    """One turn: x, y, z [m] in the sensor's frame and intensity in 0..1; class, instance and beam of every point."""

    points: Float32[np.ndarray, "n 4"]
    class_id: UInt8[np.ndarray, "n"]
    instance: Int32[np.ndarray, "n"]
    beam: UInt8[np.ndarray, "n"]


def hdl64e(generator: np.random.Generator) -> Lidar:
    """The 64 beams: 32 from +2 degrees, 1/3 apart, and 32 from -8.83 down to -24.9; each a little off, as calibrated.

    generator: which unit of the series it is; keep it for a whole sequence.
    """
    elevations = np.clip(NOMINAL.elevations_deg + generator.normal(0, 0.03, 64), -24.9, 2.0)
    return Lidar(tuple(elevations.tolist()), tuple(generator.normal(0, 0.05, 64).tolist()))


def scan(
    caster: SurfaceCaster,
    lidar: Lidar,
    world_from_sensor: Float[np.ndarray, "4 4"],
    generator: np.random.Generator,
    motion: Motion = STANDING,
    compensated: bool = True,
) -> LidarScan:
    """One turn over a surface, beam after beam from the top, each from behind clockwise.

    world_from_sensor: the pose at the middle of the turn. Every firing has its own draws, so a change in one place of
    the world changes no other point.
    """
    directions = beam_directions(lidar)  # (beams, columns, 3), each in the frame of its own instant
    turn, shift = _drift(lidar, motion)
    start_direction = np.einsum("cij,bcj->bci", turn, directions)  # in the frame of the middle
    rotation, position = world_from_sensor[:3, :3], world_from_sensor[:3, 3]
    origins = np.broadcast_to(shift @ rotation.T + position, directions.shape)
    hits = caster.cast_rays(origins, start_direction @ rotation.T)
    returned, distance, intensity = _echoes(caster, lidar, hits, start_direction @ rotation.T, generator)
    points = directions * distance[..., None]
    if compensated:
        points = start_direction * distance[..., None] + shift
    beam = np.broadcast_to(np.arange(len(directions), dtype=np.uint8)[:, None], returned.shape)
    cloud = np.concatenate([points, intensity[..., None]], axis=-1).astype(np.float32)
    return LidarScan(cloud[returned], hits.class_id[returned], hits.instance[returned], beam[returned])


def beam_directions(lidar: Lidar) -> Float64[np.ndarray, "beams columns 3"]:
    """Unit directions of all firings in the sensor's axes: columns run clockwise from behind, over forward (+X)."""
    elevation = np.radians(lidar.elevations_deg)[:, None]
    azimuth = np.pi - (np.arange(lidar.columns) + 0.5) / lidar.columns * 2 * np.pi
    azimuth = azimuth[None] + np.radians(lidar.azimuth_offsets_deg)[:, None]
    x, y = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)
    return np.stack([x, y, np.broadcast_to(np.sin(elevation), x.shape)], axis=-1)


def _drift(lidar: Lidar, motion: Motion) -> tuple[Float64[np.ndarray, "columns 3 3"], Float64[np.ndarray, "columns 3"]]:
    """The pose of the sensor at each column in its frame at the turn's middle; speed and yaw rate are constant."""
    time_s = ((np.arange(lidar.columns) + 0.5) / lidar.columns - 0.5) * lidar.turn_s
    yaw = motion.yaw_rate_rps * time_s
    turn = np.zeros((lidar.columns, 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(yaw)
    turn[:, 1, 0], turn[:, 0, 1], turn[:, 2, 2] = np.sin(yaw), -np.sin(yaw), 1
    return turn, time_s[:, None] * np.asarray(motion.velocity_mps)


def _echoes(
    caster: SurfaceCaster,
    lidar: Lidar,
    hits: SurfaceHits,
    directions: Float[np.ndarray, "b c 3"],
    generator: np.random.Generator,
) -> tuple[Bool[np.ndarray, "b c"], Float[np.ndarray, "b c"], Float[np.ndarray, "b c"]]:
    """Which firings return, at what measured distance [m], and with what intensity."""
    shape = hits.depth.shape
    noise, flicker = generator.normal(0, lidar.noise_m, shape), generator.normal(0, lidar.flicker, shape)
    lost, grain = generator.random(shape), generator.normal(1, 0.08, shape)
    reflectance, is_glass = _material_tables(caster.surface.materials)
    material = np.append(caster.surface.material, 0)[hits.triangle]  # -1, nothing hit, reads the appended one
    facing = np.abs((hits.normals * directions).sum(-1))
    brightness = reflectance[material] * np.sqrt(facing)
    distance = hits.depth + noise
    strength = brightness / 0.1 * (lidar.reach_m / np.maximum(hits.depth, 1e-3)) ** 2
    in_range = (hits.triangle >= 0) & (hits.depth >= lidar.nearest_m) & (hits.depth <= lidar.farthest_m)
    kept = lost >= np.where(is_glass[material], lidar.glass_loss, lidar.stray_loss)
    intensity = np.round(np.clip(brightness * grain, 0, 0.99), 2)  # KITTI's steps of 0.01
    return in_range & kept & (strength > np.exp(flicker)), distance, intensity


def _material_tables(materials: tuple[Material, ...]) -> tuple[Float64[np.ndarray, "m"], Bool[np.ndarray, "m"]]:
    """Reflectance, and whether it is glass, by material."""
    reflectance = [REFLECTANCE.get(m.kind, float(np.mean(m.albedo))) for m in materials]
    return np.array([*reflectance, 0.0]), np.array([*(m.kind == "glass" for m in materials), False])
