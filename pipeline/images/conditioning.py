"""View -> control image: the parts a recipe chooses, stacked, (C, H, W) float32 in 0..1.

    rgb             3  the render, with sky and a far plain where nothing is hit
    inverse_depth   1  near / depth: 1 at `near_m` and nearer, 0 infinitely far
    metric_depth    1  depth / far: 1 at `far_m` and farther
    semantics       3  class colours, flat; the sky's and the plain's where nothing is hit
    edges           1  steps in depth (Canny) and borders between labels: 0 or 1

A grid ends after some tens of metres, a street doesn't: a pixel without a hit is sky if its ray rises, else the plain
at `ground_z_m`, fading into the horizon. Both follow from the camera's pose, so renders of real and of generated
scenes end alike. Renders are made at the image's own size; nothing is resampled here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.images.base import check_conditioning_channels
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.records import View
from pipeline.scene.taxonomy import EMPTY, load_taxonomy

Part = Literal["rgb", "inverse_depth", "metric_depth", "semantics", "edges"]
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
Metres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
CHANNELS: dict[Part, int] = {"rgb": 3, "inverse_depth": 1, "metric_depth": 1, "semantics": 3, "edges": 1}
SKY_RISE, STEP_M = 0.25, 10.0  # sine of elevation half way to the zenith's colour; depth at which steps count half


class ControlConfig(BaseModel):
    """What a control image holds; part of a recipe and of its digest. Colours are RGB in 0..255."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = ("rgb", "inverse_depth", "edges")  # in this order
    near_m: Metres = 4.0  # inverse depth is 1 here
    far_m: Metres = 100.0  # metric depth is 1 here
    ground_z_m: Annotated[float, Field(allow_inf_nan=False)] = -1.73  # the plain's height in the world, KITTI's road
    haze_m: Metres = 60.0  # distance at which the plain is half haze
    zenith: Colour = (118, 164, 222)
    horizon: Colour = (222, 230, 238)
    plain: Colour = (148, 144, 134)
    edge_low: Annotated[float, Field(ge=0)] = 40.0  # Canny's thresholds on depth as 255 d / (d + 10 m)
    edge_high: Annotated[float, Field(ge=0)] = 90.0
    speck_px: Annotated[int, Field(ge=0)] = 0  # blobs of hits smaller than this in all are taken for no hit
    taxonomy: str = "semantic_kitti"  # whose colours `semantics` has

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(set(self.parts)) != len(self.parts):
            raise ValueError("each part once")
        if self.edge_low > self.edge_high:
            raise ValueError("edge_low is at most edge_high")
        conditioning_channels(self)
        return self


def conditioning_channels(config: ControlConfig) -> int:
    """Channels of the control images, as ControlNet's `conditioning_channels`; never 4. Raises InputError.

    diffusers takes a tensor of 4 channels for latents and doesn't treat it as an image.
    """
    channels = sum(CHANNELS[part] for part in config.parts)
    check_conditioning_channels(channels)
    return channels


def control_image(view: View, config: ControlConfig) -> Float32[np.ndarray, "c h w"]:
    """The view's control image, values in 0..1. Raises InputError: a view without a taxonomy's labels, or channels."""
    conditioning_channels(config)
    hit = _hits(view, config.speck_px)
    beyond = _Beyond(view.camera, config)
    depth = np.where(hit, view.depth.astype(np.float64), beyond.depth)  # (h, w), infinite in the sky
    layers = [_part(part, view, config, hit, depth, beyond) for part in config.parts]
    return np.concatenate([np.atleast_3d(layer).transpose(2, 0, 1) for layer in layers]).astype(np.float32)


def _hits(view: View, speck_px: int) -> Bool[np.ndarray, "h w"]:
    """Pixels that hit something, small blobs aside."""
    hit = (view.depth > 0) & (view.semantics != EMPTY)
    if not speck_px:
        return hit
    import cv2

    _, blobs, statistics, _ = cv2.connectedComponentsWithStats(hit.astype(np.uint8), connectivity=8)
    kept = statistics[:, cv2.CC_STAT_AREA] >= speck_px
    return hit & kept[blobs]


def _part(
    part: Part,
    view: View,
    config: ControlConfig,
    hit: Bool[np.ndarray, "h w"],
    depth: Float64[np.ndarray, "h w"],
    beyond: _Beyond,
) -> Float64[np.ndarray, "h w *c"]:
    if part == "rgb":
        return np.where(hit[..., None], view.rgb, beyond.colour()) / 255
    if part == "inverse_depth":
        return config.near_m / np.maximum(depth, config.near_m)
    if part == "metric_depth":
        return np.minimum(depth, config.far_m) / config.far_m
    if part == "semantics":
        return np.where(hit[..., None], _class_colours(view, config), beyond.flat()) / 255
    return _edges(np.where(hit, view.semantics, EMPTY).astype(np.uint8), depth, config).astype(np.float64)


def _class_colours(view: View, config: ControlConfig) -> UInt8[np.ndarray, "h w 3"]:
    taxonomy = load_taxonomy(config.taxonomy)
    if (largest := int(view.semantics.max())) >= len(taxonomy.classes):
        raise InputError("control image", f"labels of {taxonomy.name}", str(largest), "set its taxonomy")
    return taxonomy.color_table()[view.semantics]


def _edges(
    labels: UInt8[np.ndarray, "h w"], depth: Float64[np.ndarray, "h w"], config: ControlConfig
) -> Bool[np.ndarray, "h w"]:
    """Depth as d / (d + 10 m) has steps that matter near and vanish far, and needs no logarithm."""
    import cv2

    steps = np.round(255 * (1 - STEP_M / (depth + STEP_M))).astype(np.uint8)  # 255 in the sky
    creases = cv2.Canny(steps, config.edge_low, config.edge_high) > 0
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (2, 2))
    return creases | (cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, cross) > 0)


class _Beyond:
    """What lies behind pixels without a hit: the sky, or the plain at ground_z_m where a ray falls to it."""

    def __init__(self, camera: Camera, config: ControlConfig):
        self.config = config
        rays = camera.ray_directions()  # (h, w, 3), world, z-depth 1
        self.length = np.linalg.norm(rays, axis=-1)
        self.rise = rays[..., 2] / self.length  # sine of the ray's elevation
        drop = camera.centre[2] - config.ground_z_m  # the camera's height over the plain [m]
        with np.errstate(divide="ignore"):
            self.depth = np.where(rays[..., 2] < 0, max(drop, 0.0) / -np.minimum(rays[..., 2], 0), np.inf)  # (h, w) [m]

    def colour(self) -> Float64[np.ndarray, "h w 3"]:
        """Sky: horizon to zenith; plain: its colour to the horizon's by distance."""
        zenith, horizon, plain = (
            np.array(c, float) for c in (self.config.zenith, self.config.horizon, self.config.plain)
        )
        up = np.maximum(self.rise, 0)
        sky = horizon + (zenith - horizon) * (up / (up + SKY_RISE))[..., None]
        ratio = self.config.haze_m / np.maximum(self.depth * self.length, 1e-6)  # 0 at the horizon
        near = ratio * ratio / (1 + ratio * ratio)
        return np.where((self.rise < 0)[..., None], horizon + (plain - horizon) * near[..., None], sky)

    def flat(self) -> Float64[np.ndarray, "h w 3"]:
        """One colour for the sky and one for the plain."""
        return np.where((self.rise < 0)[..., None], self.config.plain, self.config.zenith).astype(float)
