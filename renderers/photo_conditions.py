"""The circumstances of a photograph: light, weather, season, camera. One draw a sequence, a small drift a frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Conditions:
    """What the photographer met. Azimuths are in the world frame, counter-clockwise from +X.

    season: 0 lush green .. 1 autumn or drought. haze_m: distance at which a contrast falls to 1/e. exposure_ev: stops
    above the meter's choice. balance_k: the camera's white, so that a warmer sun than it looks warm. contrast: slope of
    the tone curve. vignetting: share of light lost in the corners. blur_px, chroma_px: lens blur (Gaussian sigma) and
    colour fringes at the border, at 1220 px width. noise: grain's strength. jpeg_quality 1..100. seed: the clouds'.
    """

    sun_azimuth_deg: float = 60.0
    sun_elevation_deg: float = 40.0
    sun_k: float = 5600.0
    sky_k: float = 11000.0
    cloud_cover: float = 0.3
    haze_m: float = 900.0
    season: float = 0.2
    wetness: float = 0.0
    exposure_ev: float = 0.0
    balance_k: float = 6000.0
    contrast: float = 1.3
    saturation: float = 1.0
    vignetting: float = 0.2
    blur_px: float = 0.6
    chroma_px: float = 0.4
    noise: float = 1.0
    jpeg_quality: int = 92
    seed: int = 0

    @property
    def sun(self) -> Float[np.ndarray, "3"]:
        """Unit vector towards the sun, world frame."""
        a, e = np.deg2rad(self.sun_azimuth_deg), np.deg2rad(self.sun_elevation_deg)
        return np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])

    @property
    def sun_light(self) -> Float[np.ndarray, "3"]:
        """The sun's irradiance / pi on a surface that faces it, linear RGB; about 1 on a clear noon."""
        air = np.exp(-0.16 / max(np.sin(np.deg2rad(self.sun_elevation_deg)), 0.06))
        clear = np.clip(1.0 - (self.cloud_cover - 0.45) / 0.5, 0.0, 1.0)
        return 1.25 * air * clear * kelvin_rgb(self.sun_k)

    @property
    def sky_light(self) -> Float[np.ndarray, "3"]:
        """Mean radiance of the open sky, linear RGB; clouds whiten and, up to a point, brighten it."""
        veil = np.clip((self.cloud_cover - 0.3) / 0.6, 0.0, 1.0)
        height = 0.45 + 0.55 * np.sin(np.deg2rad(self.sun_elevation_deg))
        return height * (0.26 + 0.2 * veil) * kelvin_rgb(self.sky_k + veil * (6600.0 - self.sky_k))


def kelvin_rgb(kelvin: float) -> Float[np.ndarray, "3"]:
    """A black body's colour, linear RGB of unit luminance; Planck's law at 610, 550 and 465 nm over 6500 K's."""
    wavelength = np.array([610e-9, 550e-9, 465e-9])

    def planck(k: float) -> Float[np.ndarray, "3"]:
        return 1.0 / np.expm1(0.014388 / (wavelength * k))

    rgb = planck(kelvin) / planck(6500.0)
    return rgb / (rgb @ np.array([0.2126, 0.7152, 0.0722]))


def draw_conditions(rng: np.random.Generator) -> Conditions:
    """Conditions of one sequence: mostly sunny to half-clouded days, a fifth overcast, all seasons."""
    overcast = rng.random() < 0.22
    elevation = rng.uniform(14, 60)
    return Conditions(
        sun_azimuth_deg=rng.uniform(0, 360),
        sun_elevation_deg=elevation,
        sun_k=4300 + 1500 * min(1.0, elevation / 40) + rng.normal(0, 150),
        sky_k=rng.uniform(8500, 14000),
        cloud_cover=rng.uniform(0.8, 1.0) if overcast else rng.uniform(0.05, 0.62),
        haze_m=float(np.exp(rng.uniform(np.log(250), np.log(2500)))),
        season=rng.beta(1.2, 2.2),
        wetness=rng.uniform(0.3, 1.0) if overcast and rng.random() < 0.5 else 0.0,
        exposure_ev=rng.normal(0, 0.28),
        balance_k=rng.uniform(5300, 6700),
        contrast=rng.uniform(1.1, 1.6),
        saturation=rng.uniform(0.8, 1.15),
        vignetting=rng.uniform(0.05, 0.35),
        blur_px=rng.uniform(0.35, 0.85),
        chroma_px=rng.uniform(0.0, 0.8),
        noise=rng.uniform(0.5, 1.8),
        jpeg_quality=int(rng.integers(82, 97)),
        seed=int(rng.integers(1, 1 << 31)),
    )


def at_frame(sequence: Conditions, frame: int, seconds_per_frame: float = 0.1) -> Conditions:
    """A frame's conditions: the automatic exposure breathes and clouds thin and thicken, smoothly over seconds."""
    t = frame * seconds_per_frame
    phase = np.random.default_rng(sequence.seed).uniform(0, 2 * np.pi, 3)
    breath = 0.06 * np.sin(t / 2.3 + phase[0]) + 0.04 * np.sin(t / 0.9 + phase[1])
    cover = float(np.clip(sequence.cloud_cover + 0.04 * np.sin(t / 9 + phase[2]), 0, 1))
    return replace(sequence, exposure_ev=sequence.exposure_ev + float(breath), cloud_cover=cover)
