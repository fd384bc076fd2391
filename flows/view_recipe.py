"""How a build looks at its scenes, as configuration: cameras, image sizes, jitter."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.learning.fields import unwritten
from pipeline.scene.camera import Camera

Row3 = tuple[float, float, float]
Row4 = tuple[float, float, float, float]


class CameraConfig(BaseModel):
    """A Camera in the vehicle frame, as numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    K: tuple[Row3, Row3, Row3]  # [px]
    camera_from_vehicle: tuple[Row4, Row4, Row4, Row4]
    width_px: int = Field(ge=16, le=8192)
    height_px: int = Field(ge=16, le=8192)

    @classmethod
    def of(cls, camera: Camera) -> Self:
        """These numbers of a camera."""
        matrices = {"K": camera.K.tolist(), "camera_from_vehicle": camera.camera_from_world.tolist()}
        return cls.model_validate({**matrices, "width_px": camera.width_px, "height_px": camera.height_px})

    def camera(self) -> Camera:
        return Camera(np.array(self.K), np.array(self.camera_from_vehicle), self.width_px, self.height_px)


class ViewConfig(BaseModel):
    """How a scene is looked at and rendered."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cameras: tuple[Literal["front", "left", "right", "rear"], ...] = Field(("front",), min_length=1)  # first: the image
    width_px: int = Field(1220, ge=16, le=8192)
    height_px: int = Field(370, ge=16, le=8192)
    # cameras of a real dataset, sizes included, that sequences take in turn instead of KITTI's typical one; the change
    # views.real=ROOT reads those of ROOT's training split
    real: tuple[CameraConfig, ...] = unwritten(())
    jitter_m: float = Field(0.03, ge=0, le=2)  # standard deviation of the camera's place [m]
    jitter_deg: float = Field(0.3, ge=0, le=20)  # standard deviation of its angles [degrees]
    jitter_focal: float = unwritten(0.0, ge=0, le=0.5)  # of ln(focal length)
    calibrated: bool = False  # the source's own calibration and image size instead of KITTI's typical ones

    @model_validator(mode="after")
    def _own_calibration_is_exact(self) -> Self:
        jitter = self.jitter_m or self.jitter_deg or self.jitter_focal
        if self.calibrated and (self.cameras != ("front",) or jitter):
            raise ValueError("calibrated views have the front camera alone and no jitter")
        if self.calibrated and self.real:
            raise ValueError("calibrated views have the source's own cameras, so views.real must be empty")
        return self
