"""Where cameras stand: KITTI's in the vehicle frame, other lenses, seeded jitter, rigs.

The vehicle frame is the velodyne's: X forward, Y left, Z up, its origin in the sensor, 1.73 m above the road. In camera
axes x = -Y, y = -Z, z = X. Calibrated cameras of a real sequence come from pipeline.scene.camera.kitti_camera instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError

Size = tuple[int, int]  # width, height [px]

KITTI_SIZE_PX: Size = (1220, 370)
KITTI_LENSES = {  # focal length, cx, cy [px] of P2 by odometry sequences
    "00-02": (718.856, 607.1928, 185.2157),  # and 13-21
    "03": (721.5377, 609.5593, 172.854),
    "04-12": (707.0912, 601.8873, 183.1104),
}
KITTI_EYE_M = (0.30, 0.06, -0.07)  # camera 2 in the vehicle frame, rounded over the sequences (x 0.27 to 0.33)
RIG_YAW_DEG = {"front": 0.0, "left": 90.0, "right": -90.0, "rear": 180.0}  # counter-clockwise seen from above


@dataclass(frozen=True)
class Jitter:
    """How exactly cameras are mounted: standard deviations of place [m] and angles [degrees], each axis alone."""

    place_m: float = 0.03
    angle_deg: float = 0.3


def intrinsics(focal_px: float, cx: float, cy: float) -> Float[np.ndarray, "3 3"]:
    """K with square pixels and no skew."""
    return np.array([[focal_px, 0, cx], [0, focal_px, cy], [0, 0, 1.0]])


def lens(size_px: Size, horizontal_fov_deg: float) -> Float[np.ndarray, "3 3"]:
    """K of a lens that sees `horizontal_fov_deg` from edge to edge, its axis in the middle. Raises InputError."""
    if not 0 < horizontal_fov_deg < 180:
        raise InputError("lens", "a field of view between 0 and 180 degrees", f"{horizontal_fov_deg}")
    width, height = size_px
    focal = width / 2 / np.tan(np.radians(horizontal_fov_deg) / 2)
    return intrinsics(focal, (width - 1) / 2, (height - 1) / 2)


def mounted(
    K: Float[np.ndarray, "3 3"], size_px: Size, eye_m: Sequence[float], angles_deg: Sequence[float] = (0, 0, 0)
) -> Camera:
    """A camera at `eye_m` in the vehicle frame, looking forward.

    angles_deg: yaw to the left, pitch up, roll to the right (clockwise as the camera sees along its axis); yaw is
    applied about the vertical, then pitch, then roll about the camera's own axes.
    """
    yaw, pitch, roll = np.radians(np.asarray(angles_deg, float))
    vehicle_from_camera = _about(2, yaw) @ _about(1, -pitch) @ _about(0, roll) @ _VEHICLE_FROM_CAMERA
    pose = np.eye(4)
    pose[:3, :3] = vehicle_from_camera.T
    pose[:3, 3] = -vehicle_from_camera.T @ np.asarray(eye_m, float)
    return Camera(np.asarray(K, float), pose, *size_px)


def kitti_front(sequences: str = "04-12", size_px: Size = KITTI_SIZE_PX) -> Camera:
    """KITTI's left colour camera without a particular car's tilt; other sizes by `fitted`. Raises InputError."""
    if sequences not in KITTI_LENSES:
        raise InputError("KITTI lens", f"one of {', '.join(KITTI_LENSES)}", repr(sequences))
    native = mounted(intrinsics(*KITTI_LENSES[sequences]), KITTI_SIZE_PX, KITTI_EYE_M)
    return fitted(native, size_px)


def fitted(camera: Camera, size_px: Size) -> Camera:
    """The camera's picture at another size: scaled alike in both directions until it covers it, then cut centrally."""
    width, height = size_px
    scale = max(width / camera.width_px, height / camera.height_px)
    whole = camera.resized(max(width, round(camera.width_px * scale)), max(height, round(camera.height_px * scale)))
    K = whole.K.copy()
    K[0, 2] -= (whole.width_px - width) // 2
    K[1, 2] -= (whole.height_px - height) // 2
    return replace(whole, K=K, width_px=width, height_px=height)


def jittered(camera: Camera, jitter: Jitter, rng: np.random.Generator) -> Camera:
    """The camera displaced and turned a little about its own centre; draws six numbers whatever the jitter is."""
    place, angles = rng.normal(size=3) * jitter.place_m, np.radians(rng.normal(size=3) * jitter.angle_deg)
    moved = np.eye(4)
    moved[:3, :3] = _about(2, angles[2]) @ _about(1, angles[1]) @ _about(0, angles[0])
    moved[:3, 3] = place
    return replace(camera, camera_from_world=moved @ camera.camera_from_world)


def zoomed(camera: Camera, factor: float) -> Camera:
    """The camera with a focal length so many times as long; its principal point stays."""
    K = camera.K.copy()
    K[:2, :2] *= factor
    return replace(camera, K=K)


def turned(camera: Camera, yaw_deg: float) -> Camera:
    """The camera carried round the vehicle's vertical axis, to the left: 90 makes a front camera a left one."""
    turn = np.eye(4)
    turn[:3, :3] = _about(2, -np.radians(yaw_deg))
    return replace(camera, camera_from_world=camera.camera_from_world @ turn)


def kitti_rig(
    names: Sequence[str] = ("front",), size_px: Size = KITTI_SIZE_PX, sequences: str = "04-12"
) -> dict[str, Camera]:
    """KITTI's camera looking to the named sides (RIG_YAW_DEG), without jitter. Raises InputError."""
    unknown = [name for name in names if name not in RIG_YAW_DEG]
    if unknown:
        raise InputError("camera rig", f"some of {', '.join(RIG_YAW_DEG)}", ", ".join(map(repr, unknown)))
    front = kitti_front(sequences, size_px)
    return {name: turned(front, RIG_YAW_DEG[name]) for name in names}


def rig(front: Camera, yaws_deg: Sequence[float], jitter: Jitter, rng: np.random.Generator) -> tuple[Camera, ...]:
    """Any camera turned to several sides, each jittered on its own; the n-th one's jitter depends on n alone."""
    return tuple(jittered(turned(front, yaw), jitter, rng) for yaw in yaws_deg)


_VEHICLE_FROM_CAMERA = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])  # columns: camera x, y, z in vehicle axes


def _about(axis: int, angle: float) -> Float[np.ndarray, "3 3"]:
    """Right-handed rotation about an axis [rad]."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[a, a] = rotation[b, b] = np.cos(angle)
    rotation[a, b], rotation[b, a] = -np.sin(angle), np.sin(angle)
    return rotation
