"""From scene radiance to a camera's file: lens, exposure, noise, white balance, tone curve, JPEG."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, UInt8

from renderers.photo_conditions import Conditions, kelvin_rgb

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
NATIVE_WIDTH_PX = 1220


def develop(
    radiance: Float[np.ndarray, "h w 3"], conditions: Conditions, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Linear radiance -> sRGB picture as it comes out of a JPEG file."""
    image = _lens(radiance.astype(np.float32), conditions)
    image *= np.float32(metered_gain(radiance, conditions))
    image = _noise(image, conditions, rng)
    image /= (kelvin_rgb(conditions.balance_k) / kelvin_rgb(6500.0)).astype(np.float32)
    grey = (image @ LUMINANCE)[..., None]
    image = grey + np.float32(conditions.saturation) * (image - grey)
    return jpeg(tone(image, conditions.contrast), conditions.jpeg_quality)


def metered_gain(radiance: Float[np.ndarray, "h w 3"], conditions: Conditions) -> float:
    """Automatic exposure: half adapted to the frame's own log mean (lower three quarters), half to the light."""
    part = radiance[radiance.shape[0] // 4 :].reshape(-1, 3) @ LUMINANCE
    mean = float(np.exp(np.log(np.minimum(part, 1.0) + 5e-3).mean()))
    outside = 0.10 * float((conditions.sun_light + 1.5 * conditions.sky_light) @ LUMINANCE)
    return float(2.0**conditions.exposure_ev * 0.20 / np.sqrt(mean * outside))


def _lens(image: Float32[np.ndarray, "h w 3"], conditions: Conditions) -> Float32[np.ndarray, "h w 3"]:
    """Blur, glare, colour fringes, vignetting."""
    import cv2

    h, w = image.shape[:2]
    scale = w / NATIVE_WIDTH_PX
    image = np.minimum(image, 8.0)
    sigma = max(conditions.blur_px * scale, 0.3)
    image = cv2.GaussianBlur(image, (0, 0), sigma)
    small = cv2.resize(image, (max(w // 8, 1), max(h // 8, 1)), interpolation=cv2.INTER_AREA)
    glare = cv2.resize(cv2.GaussianBlur(small, (0, 0), 3.0), (w, h), interpolation=cv2.INTER_LINEAR)
    image = 0.975 * image + 0.025 * glare
    u, v = np.meshgrid(np.linspace(-1, 1, w, dtype=np.float32), np.linspace(-1, 1, h, dtype=np.float32))
    for channel, sign in ((0, 1.0), (2, -1.0)):
        stretch = np.float32(1 + sign * conditions.chroma_px * scale / (w / 2))
        x, y = (u * stretch + 1) * (w - 1) / 2, (v * stretch + 1) * (h - 1) / 2
        fringe = cv2.remap(
            np.ascontiguousarray(image[..., channel]), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        image[..., channel] = fringe
    radius2 = (u * u + (v * h / w) ** 2)[..., None]
    return image * (1 - np.float32(conditions.vignetting) * radius2)


def _noise(
    image: Float32[np.ndarray, "h w 3"], conditions: Conditions, rng: np.random.Generator
) -> Float32[np.ndarray, "h w 3"]:
    """Shot and read noise, a little smoothed in colour as a Bayer sensor's interpolation does."""
    import cv2

    grain = rng.standard_normal(image.shape, dtype=np.float32)
    grain = 0.55 * grain + 0.9 * cv2.GaussianBlur(grain, (0, 0), 0.8)
    sigma = conditions.noise * np.sqrt(0.00022 * np.maximum(image, 0) + 0.000006)
    return image + sigma.astype(np.float32) * grain


def tone(image: Float32[np.ndarray, "h w 3"], contrast: float) -> UInt8[np.ndarray, "h w 3"]:
    """Linear (1 = white) -> 8-bit: a shoulder that rolls highlights off, sRGB's slope, an S-curve about mid-grey."""
    x = np.maximum(image, 0.0)
    x = np.where(x < 0.6, x, 0.6 + 0.4 * (1 - np.exp(-(x - 0.6) / 0.4)))
    encoded = np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-6) ** (1 / 2.4) - 0.055)
    curved = encoded + (contrast - 1) * 2.2 * encoded * (1 - encoded) * (encoded - 0.45)
    return np.round(np.clip(curved, 0, 1) * 255).astype(np.uint8)


def jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int) -> UInt8[np.ndarray, "h w 3"]:
    """What is left of a picture after JPEG at that quality."""
    import cv2

    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])
