"""Pinhole cameras: project, unproject, rays; KITTI's matrices.

Camera axes are OpenCV's (x right, y down, z forward). The centre of the top-left pixel is (u, v) = (0, 0), so an image
covers [-0.5, width-0.5) x [-0.5, height-0.5). Depth is z along the optical axis; distance is Euclidean; both in metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from pipeline.scene.errors import InputError


@dataclass(frozen=True, eq=False)
class Camera:
    """Intrinsics K [px], pose camera_from_world (4x4, metres), and the image's size [px]."""

    K: Float[np.ndarray, "3 3"]
    camera_from_world: Float[np.ndarray, "4 4"]
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        if self.width_px < 1 or self.height_px < 1:
            raise InputError("Camera", "a positive image size", f"{self.width_px}x{self.height_px}")
        finite = np.isfinite(self.K).all() and np.isfinite(self.camera_from_world).all()
        if not finite or self.K[0, 0] <= 0 or self.K[1, 1] <= 0:
            raise InputError("Camera", "finite matrices and positive focal lengths", f"K {self.K.tolist()}")

    @property
    def world_from_camera(self) -> Float[np.ndarray, "4 4"]:
        return np.linalg.inv(self.camera_from_world)

    @property
    def centre(self) -> Float[np.ndarray, "3"]:
        """The optical centre in the world [m]."""
        return self.world_from_camera[:3, 3]

    def project(self, points: Float[np.ndarray, "*n 3"]) -> tuple[Float[np.ndarray, "*n 2"], Float[np.ndarray, "*n"]]:
        """World points [m] -> pixel coordinates and depth [m]; pixels are NaN at depth <= 0."""
        camera = points @ self.camera_from_world[:3, :3].T + self.camera_from_world[:3, 3]  # (..., 3)
        depth = camera[..., 2]
        in_front = depth > 0
        scale = np.where(in_front, depth, np.nan)[..., None]
        return (camera @ self.K.T)[..., :2] / scale, depth

    def unproject(self, pixels: Float[np.ndarray, "*n 2"], depth: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3"]:
        """Pixel coordinates and depth [m] -> world points [m]; the inverse of `project`."""
        homogeneous = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
        camera = homogeneous @ np.linalg.inv(self.K).T * depth[..., None]
        world_from_camera = self.world_from_camera
        return camera @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]

    def sees(self, pixels: Float[np.ndarray, "*n 2"], depth: Float[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
        """Whether projected points fall on the image and in front of the camera."""
        u, v = pixels[..., 0], pixels[..., 1]
        inside = (u >= -0.5) & (u < self.width_px - 0.5) & (v >= -0.5) & (v < self.height_px - 0.5)
        return inside & (depth > 0)

    def ray_directions(self) -> Float[np.ndarray, "h w 3"]:
        """World direction through every pixel's centre, of length such that `centre + depth * direction` is hit."""
        u, v = np.meshgrid(np.arange(self.width_px, dtype=float), np.arange(self.height_px, dtype=float))
        homogeneous = np.stack([u, v, np.ones_like(u)], axis=-1)
        return homogeneous @ (self.world_from_camera[:3, :3] @ np.linalg.inv(self.K)).T

    def distance_over_depth(self) -> Float[np.ndarray, "h w"]:
        """Factor a pixel that turns depth into Euclidean distance."""
        return np.linalg.norm(self.ray_directions(), axis=-1)

    def resized(self, width_px: int, height_px: int) -> Camera:
        """The same view on another raster: pixel edges, not centres, are scaled."""
        sx, sy = width_px / self.width_px, height_px / self.height_px
        scale = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1.0]])
        return replace(self, K=scale @ self.K, width_px=width_px, height_px=height_px)

    def cropped(self, width_px: int, height_px: int) -> Camera:
        """The top-left part of the image (MonoScene's crop): K stays as it is."""
        return replace(self, width_px=width_px, height_px=height_px)


def look_at(
    eye: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], up: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    """camera_from_world of a camera at `eye` [m] that looks at `target`; `up` is roughly up in the image."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])  # rows: x right, y down, z forward
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ eye
    return pose


def kitti_camera(
    projection: Float[np.ndarray, "3 4"],
    rectified_from_velodyne: Float[np.ndarray, "4 4"],
    size_px: tuple[int, int],
    full_projection: bool = True,
) -> Camera:
    """A camera in the velodyne frame from KITTI's P (3x4) and Tr (odometry) or R0_rect @ Tr_velo_to_cam (object).

    P = K [I | t]: the fourth column is K t, the camera's offset from rectified camera 0, and is part of the pose.
    `full_projection=False` drops it, as MonoScene's published code does (mean 1.6 px off, up to 209 px near the car).
    size_px is (width, height).
    """
    K = projection[:, :3].astype(np.float64)
    camera_from_rectified = np.eye(4)
    if full_projection:
        camera_from_rectified[:3, 3] = np.linalg.solve(K, projection[:, 3])
    return Camera(K, camera_from_rectified @ rectified_from_velodyne, size_px[0], size_px[1])
