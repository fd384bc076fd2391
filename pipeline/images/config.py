"""The configs that a build's recipe holds: what a control image shows, how images are drawn and how they are judged.

They stand apart from what they configure so that reading a recipe doesn't import torch. Prompts' is in prompts.py.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.scene.errors import InputError

Part = Literal["rgb", "inverse_depth", "metric_depth", "semantics", "edges", "palette"]
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
Metres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
CHANNELS: dict[Part, int] = {"rgb": 3, "inverse_depth": 1, "metric_depth": 1, "semantics": 3, "edges": 1, "palette": 3}
SchedulerName = Literal["unipc", "dpm++", "ddim", "lcm"]


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


def check_conditioning_channels(channels: int) -> None:
    """diffusers takes a control image of 4 channels for latents and doesn't treat it as an image. Raises InputError."""
    if channels < 1 or channels == 4:
        raise InputError("control image", "1, 2, 3, 5 or more channels", str(channels), "add or drop a condition")


class SynthesisConfig(BaseModel):
    """How images are drawn; part of a recipe and of its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    scheduler: SchedulerName = "unipc"  # lcm needs weights that were distilled for it
    steps: Annotated[int, Field(ge=1)] = 12
    guidance: Annotated[float, Field(ge=1)] = 2.0  # classifier-free, towards the prompt; 1: none, half the work
    # deviation of the first noise; below 1: likelier and smoother images than photographs, that keep structure better
    temperature: Annotated[float, Field(gt=0, le=1)] = 1.0
    control_scale: Annotated[float, Field(ge=0)] = 1.0  # factor on what the ControlNet adds
    batch_size: Annotated[int, Field(ge=1)] = 4
    torch_threads: Annotated[int, Field(ge=1)] = 1  # CPU threads
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    channels_last: bool = False
    compile: bool = False  # torch.compile of UNet and ControlNet: slow once, then faster
    device: Literal["auto", "cpu"] = "auto"  # auto: a GPU where there is one


class FidelityConfig(BaseModel):
    """How images are held against their conditions; part of a recipe and of its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    min_share: Fraction = 0.002  # classes that cover less of the image don't count
    quantile: Annotated[float, Field(ge=0, lt=0.5)] = 0.05  # of photographs that fall short of each threshold
    slack: Annotated[float, Field(ge=0, lt=1)] = 0.0  # shares and recalls may be lower, errors higher, by this part
    min_photographs: Annotated[int, Field(ge=1)] = 10  # with a class in view, for it to have a threshold
    retries: Annotated[int, Field(ge=0)] = 3  # draws after the first one, before a sample is dropped
