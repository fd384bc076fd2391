"""View -> control image: the parts a recipe chooses, stacked, (C, H, W) float32 in 0..1.

    rgb             3  the render, with sky and a far plain where nothing is hit
    inverse_depth   1  near / depth: 1 at `near_m` and nearer, 0 infinitely far
    metric_depth    1  depth / far: 1 at `far_m` and farther
    semantics       3  class colours, flat; the sky's and the plain's where nothing is hit
    edges           1  steps in depth (Canny) and borders between labels: 0 or 1
    palette         3  as semantics, in the colours of a photograph (palettes.py)

A grid ends after some tens of metres, a street doesn't: a pixel without a hit is sky if its ray rises, else the plain
at `ground_z_m`, fading into the horizon. Both follow from the camera's pose, so renders of real and of generated
scenes end alike. Renders are made at the image's own size; nothing is resampled here.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Integer, UInt8

from pipeline.images.config import ControlConfig, Part, conditioning_channels
from pipeline.images.palettes import Palette
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.records import View
from pipeline.scene.taxonomy import EMPTY, load_taxonomy

SKY_RISE, STEP_M = 0.25, 10.0  # sine of elevation half way to the zenith's colour; depth at which steps count half


def control_image(view: View, config: ControlConfig, palette: Palette | None = None) -> Float32[np.ndarray, "c h w"]:
    """The view's control image, values in 0..1. palette: for the part of that name.

    Raises InputError: a view without a taxonomy's labels, channels, no palette.
    """
    conditioning_channels(config)
    hit = _hits(view, config.speck_px)
    beyond = _Beyond(view.camera, config)
    depth = np.where(hit, view.depth.astype(np.float64), beyond.depth)  # (h, w), infinite in the sky
    layers = [_part(part, view, config, hit, depth, beyond, palette) for part in config.parts]
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


def regions(view: View, config: ControlConfig, classes: int) -> Integer[np.ndarray, "h w"]:
    """Rows of a palette: the class of what is hit, 0 in the sky, `classes` on the plain. Raises InputError."""
    return _regions(view, _hits(view, config.speck_px), _Beyond(view.camera, config), classes)


def _regions(view: View, hit: Bool[np.ndarray, "h w"], beyond: _Beyond, classes: int) -> Integer[np.ndarray, "h w"]:
    if (largest := int(view.semantics.max())) >= classes:
        raise InputError("palette", f"one of the labels' classes, {largest + 1} or more", str(classes))
    return np.where(hit, view.semantics, np.where(beyond.rise < 0, classes, EMPTY))


def _coloured(
    view: View, hit: Bool[np.ndarray, "h w"], beyond: _Beyond, palette: Palette | None
) -> Float64[np.ndarray, "h w 3"]:
    if palette is None:
        raise InputError("control image", "a palette for its part of that name", "none")
    return palette[_regions(view, hit, beyond, len(palette) - 1)] / 255


def _part(
    part: Part,
    view: View,
    config: ControlConfig,
    hit: Bool[np.ndarray, "h w"],
    depth: Float64[np.ndarray, "h w"],
    beyond: _Beyond,
    palette: Palette | None,
) -> Float64[np.ndarray, "h w *c"]:
    if part == "rgb":
        return np.where(hit[..., None], view.rgb, beyond.colour()) / 255
    if part == "inverse_depth":
        return config.near_m / np.maximum(depth, config.near_m)
    if part == "metric_depth":
        return np.minimum(depth, config.far_m) / config.far_m
    if part == "semantics":
        return np.where(hit[..., None], _class_colours(view, config), beyond.flat()) / 255
    if part == "palette":
        return _coloured(view, hit, beyond, palette)
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
