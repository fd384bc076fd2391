"""What a split's towns may look like: parameter ranges, as data. Validation and test show what training never does.

`DISJOINT` names the fields whose ranges, palettes or species do not overlap between splits; a test holds it to that.
Lengths in metres, angles in degrees, albedo in linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]
Range = tuple[float, float]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Ranges:
    """One split's parameters; a range is sampled uniformly, a tuple of names or colours by choice.

    programs: layouts as letters, repeated until the route is long enough: s straight, b bend, z double bend,
    x 4-way junction crossed straight on, t T-junction crossed straight on, r / l turn at a junction.
    """

    programs: tuple[str, ...]
    straight_m: Range
    bend_radius_m: Range
    bend_angle_deg: Range
    junction_angle_deg: Range  # between the crossing roads
    lane_width_m: Range
    sidewalk_width_m: Range
    corner_radius_m: Range
    relief_slope: Range  # steepest slope of the land
    storey_m: Range
    house_width_m: Range
    house_roofs: tuple[str, ...]
    roof_pitch_deg: Range
    block_storeys: tuple[int, ...]
    window_width_m: Range
    facades: tuple[Color, ...]
    bricks: tuple[Color, ...]
    roofs: tuple[Color, ...]
    tree_species: tuple[str, ...]
    tree_spacing_m: Range
    lamp_height_m: Range
    lamp_spacing_m: Range
    fence_kinds: tuple[str, ...]
    hedge_height_m: Range
    zebra_bar_m: Range
    asphalt: tuple[Color, ...]
    paving: tuple[Color, ...]


DISJOINT = (
    "programs", "straight_m", "bend_radius_m", "junction_angle_deg", "lane_width_m", "sidewalk_width_m",
    "corner_radius_m", "storey_m", "roof_pitch_deg", "window_width_m", "facades", "bricks", "roofs", "tree_species",
    "tree_spacing_m", "lamp_height_m", "lamp_spacing_m", "zebra_bar_m", "asphalt", "paving",
)  # fmt: skip

TRAIN = Ranges(
    programs=("sxsbst", "stsxsbs", "sbsxsrst", "sxslsbst", "stsbsrsx", "sbstslsx", "stsxs"),
    straight_m=(32, 58),
    bend_radius_m=(45, 90),
    bend_angle_deg=(18, 55),
    junction_angle_deg=(86, 94),
    lane_width_m=(3.2, 3.5),
    sidewalk_width_m=(1.9, 2.7),
    corner_radius_m=(4.5, 6.0),
    relief_slope=(0.0, 0.045),
    storey_m=(2.8, 2.95),
    house_width_m=(8.5, 13),
    house_roofs=("gable", "gable_front", "hip", "flat"),
    roof_pitch_deg=(36, 45),
    block_storeys=(3, 4),
    window_width_m=(1.0, 1.25),
    facades=(
        (0.62, 0.58, 0.48), (0.70, 0.69, 0.66), (0.55, 0.44, 0.28), (0.50, 0.32, 0.24), (0.38, 0.40, 0.36),
        (0.66, 0.55, 0.34), (0.45, 0.47, 0.50),
    ),
    bricks=((0.30, 0.10, 0.06), (0.24, 0.12, 0.08)),
    roofs=((0.27, 0.07, 0.035), (0.20, 0.055, 0.03), (0.06, 0.055, 0.055), (0.13, 0.07, 0.045)),
    tree_species=("linden", "maple", "spruce", "poplar", "ash"),
    tree_spacing_m=(8.5, 12.5),
    lamp_height_m=(5.2, 6.6),
    lamp_spacing_m=(24, 31),
    fence_kinds=("picket", "bars", "mesh", "wall", "boards"),
    hedge_height_m=(1.0, 1.9),
    zebra_bar_m=(0.46, 0.52),
    asphalt=((0.060, 0.060, 0.063), (0.085, 0.083, 0.080), (0.048, 0.048, 0.052)),
    paving=((0.26, 0.25, 0.23), (0.20, 0.20, 0.20), (0.30, 0.27, 0.23)),
)  # fmt: skip

VAL = Ranges(
    programs=("szsxst", "stszsr", "sxszsl", "slstsz"),
    straight_m=(62, 80),
    bend_radius_m=(30, 42),
    bend_angle_deg=(15, 32),
    junction_angle_deg=(74, 83),
    lane_width_m=(3.0, 3.15),
    sidewalk_width_m=(2.8, 3.4),
    corner_radius_m=(6.4, 7.5),
    relief_slope=(0.015, 0.05),
    storey_m=(3.0, 3.08),
    house_width_m=(9, 14),
    house_roofs=("gable", "half_hip", "hip", "flat"),
    roof_pitch_deg=(28, 34),
    block_storeys=(2, 4, 5),
    window_width_m=(1.3, 1.5),
    facades=(
        (0.60, 0.62, 0.58), (0.72, 0.62, 0.50), (0.42, 0.26, 0.17), (0.33, 0.36, 0.42), (0.58, 0.50, 0.44),
        (0.68, 0.66, 0.56),
    ),
    bricks=((0.34, 0.15, 0.09), (0.28, 0.17, 0.11)),
    roofs=((0.23, 0.085, 0.055), (0.075, 0.07, 0.065), (0.16, 0.06, 0.04)),
    tree_species=("plane", "birch", "pine"),
    tree_spacing_m=(13.5, 17),
    lamp_height_m=(7.0, 8.5),
    lamp_spacing_m=(33, 39),
    fence_kinds=("bars", "mesh", "wall", "rails", "boards"),
    hedge_height_m=(0.9, 2.1),
    zebra_bar_m=(0.56, 0.64),
    asphalt=((0.070, 0.068, 0.066), (0.054, 0.055, 0.058)),
    paving=((0.24, 0.23, 0.21), (0.28, 0.26, 0.25)),
)  # fmt: skip

TEST = Ranges(
    programs=("ssxsbs", "sbstss", "srsbss", "slsxss"),
    straight_m=(84, 105),
    bend_radius_m=(95, 150),
    bend_angle_deg=(12, 40),
    junction_angle_deg=(97, 106),
    lane_width_m=(3.52, 3.65),
    sidewalk_width_m=(1.45, 1.8),
    corner_radius_m=(7.8, 9.0),
    relief_slope=(0.0, 0.05),
    storey_m=(3.1, 3.2),
    house_width_m=(8, 13.5),
    house_roofs=("gable_front", "half_hip", "hip", "flat"),
    roof_pitch_deg=(47, 52),
    block_storeys=(2, 3, 6),
    window_width_m=(0.8, 0.95),
    facades=(
        (0.64, 0.64, 0.62), (0.58, 0.47, 0.36), (0.47, 0.38, 0.33), (0.66, 0.58, 0.42), (0.36, 0.42, 0.38),
    ),
    bricks=((0.26, 0.085, 0.055), (0.36, 0.20, 0.13)),
    roofs=((0.30, 0.10, 0.05), (0.09, 0.085, 0.08), (0.17, 0.045, 0.03)),
    tree_species=("oak", "cherry", "cypress"),
    tree_spacing_m=(6.8, 8.2),
    lamp_height_m=(4.0, 4.9),
    lamp_spacing_m=(18, 22),
    fence_kinds=("picket", "mesh", "wall", "rails"),
    hedge_height_m=(0.8, 1.6),
    zebra_bar_m=(0.40, 0.44),
    asphalt=((0.066, 0.065, 0.068), (0.078, 0.076, 0.072)),
    paving=((0.22, 0.22, 0.215), (0.32, 0.30, 0.26)),
)  # fmt: skip

SPLITS: dict[Split, Ranges] = {"train": TRAIN, "val": VAL, "test": TEST}
