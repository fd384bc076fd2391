"""What each material kind looks like up close: one row of numbers a kind, read by the texture and light kernels.

Albedo is not here: it comes with each Material. An unknown kind gets the plain row.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

import numpy as np

PLAIN, COURSES, STONES, ROAD, PAINT, TURF, LEAVES, STREAKS, PANE = range(9)  # patterns


@dataclass(frozen=True)
class Look:
    """Strengths are relative to albedo; lengths in metres.

    mottle: large blotches; grain: fine speckle; tint: their change of hue; pattern: one of the list above, its units
    `unit_m` long and `course_m` high, `joint_m` apart (joints are `joint` times as bright), each varying by `unit`;
    streak: dirt running down walls; bump: how far normals wander; mirror: reflectance at right angles (0.04: glass,
    varnish); gloss: Blinn exponent of the sun's highlight (from 100 on a mirror); leaf: share of sunlight that shines
    through; shade: of the albedo.
    """

    mottle: float = 0.10
    mottle_m: float = 0.8
    grain: float = 0.06
    grain_m: float = 0.03
    tint: float = 0.04
    pattern: int = PLAIN
    unit_m: float = 1.0
    course_m: float = 1.0
    joint_m: float = 0.01
    joint: float = 1.0
    unit: float = 0.0
    streak: float = 0.0
    bump: float = 0.05
    mirror: float = 0.0
    gloss: float = 12.0
    leaf: float = 0.0
    shade: float = 1.0


LOOKS: dict[str, Look] = {
    "plain": Look(),
    "asphalt": Look(0.12, 2.6, 0.36, 0.022, 0.05, ROAD, bump=0.16, mirror=0.02, gloss=9),
    "marking": Look(0.14, 0.7, 0.22, 0.02, 0.04, PAINT, bump=0.08, mirror=0.03, gloss=10),
    "concrete": Look(0.18, 0.9, 0.16, 0.02, 0.04, COURSES, 1.0, 4.0, 0.012, 0.45, 0.08, 0.15, 0.08),
    "paving": Look(0.16, 1.4, 0.20, 0.02, 0.05, COURSES, 0.40, 0.40, 0.012, 0.38, 0.16, bump=0.08),
    "cobble": Look(0.15, 1.2, 0.22, 0.02, 0.06, STONES, 0.13, 0.13, 0.16, 0.35, 0.30, bump=0.25),
    "gravel": Look(0.18, 0.8, 0.30, 0.03, 0.08, STONES, 0.045, 0.045, 0.2, 0.45, 0.45, bump=0.35),
    "grass": Look(0.35, 1.7, 0.60, 0.035, 0.22, TURF, bump=0.45, leaf=0.12),
    "soil": Look(0.25, 0.9, 0.45, 0.06, 0.10, STONES, 0.09, 0.09, 0.1, 0.7, 0.30, bump=0.35),
    "brick": Look(0.14, 1.5, 0.15, 0.02, 0.06, COURSES, 0.25, 0.083, 0.011, 1.45, 0.24, 0.12, 0.10),
    "plaster": Look(0.035, 1.6, 0.06, 0.025, 0.012, streak=0.07, bump=0.06),
    "stone": Look(0.16, 0.8, 0.18, 0.03, 0.05, COURSES, 0.62, 0.31, 0.014, 0.6, 0.18, 0.15, 0.14),
    "roof_tile": Look(0.22, 1.3, 0.14, 0.03, 0.06, COURSES, 0.24, 0.33, 0.022, 0.55, 0.20, 0.18, 0.16),
    "roof_flat": Look(0.25, 1.8, 0.25, 0.03, 0.04, streak=0.1, bump=0.1),
    "glass": Look(0.0, 1.0, 0.0, 0.1, 0.0, PANE, bump=0.004, mirror=0.07, gloss=1500),
    "window_frame": Look(0.06, 0.5, 0.03, 0.02, 0.02, streak=0.1, bump=0.02, mirror=0.03, gloss=40),
    "door": Look(0.08, 0.6, 0.08, 0.04, 0.03, STREAKS, 0.09, bump=0.04, mirror=0.03, gloss=35),
    "wood": Look(0.16, 0.6, 0.22, 0.05, 0.08, STREAKS, 0.05, bump=0.10),
    "car_paint": Look(0.01, 0.9, 0.0, 0.02, 0.004, bump=0.004, mirror=0.05, gloss=900),
    "rubber": Look(0.15, 0.3, 0.12, 0.02, 0.02, bump=0.08, mirror=0.02, gloss=15),
    "metal": Look(0.10, 0.6, 0.06, 0.03, 0.02, streak=0.12, bump=0.03, mirror=0.10, gloss=60),
    "plastic": Look(0.06, 0.4, 0.04, 0.02, 0.02, bump=0.02, mirror=0.04, gloss=40),
    "fabric": Look(0.12, 0.16, 0.12, 0.02, 0.03, bump=0.2),
    "skin": Look(0.06, 0.08, 0.03, 0.01, 0.04, bump=0.05, mirror=0.02, gloss=15),
    "hair": Look(0.15, 0.05, 0.25, 0.01, 0.04, bump=0.2, mirror=0.02, gloss=20),
    "bark": Look(0.25, 0.5, 0.30, 0.04, 0.10, STREAKS, 0.05, bump=0.35),
    "foliage": Look(0.30, 0.8, 0.45, 0.07, 0.22, LEAVES, bump=0.9, mirror=0.02, gloss=10, leaf=0.5),
    "sign_face": Look(0.03, 0.3, 0.02, 0.02, 0.01, bump=0.01, mirror=0.03, gloss=20),
    "lamp": Look(0.04, 0.05, 0.10, 0.01, 0.02, bump=0.15, mirror=0.08, gloss=200),
}

CODES = {kind: code for code, kind in enumerate(LOOKS)}
TABLE = np.array(
    [astuple(look) for look in LOOKS.values()],
    dtype=[(f.name, np.int64 if f.name == "pattern" else np.float64) for f in fields(Look)],
)


def wetted(wetness: float) -> np.ndarray:
    """The table on a day of that wetness (0..1): paved ground mirrors what is above it, ripples of water included."""
    table = TABLE.copy()
    if wetness > 0.25:
        for kind in ("asphalt", "marking", "paving", "cobble", "concrete"):
            row = CODES[kind]
            table["mirror"][row], table["gloss"][row] = 0.035 * wetness, 120.0
            table["bump"][row] *= 0.8
            table["shade"][row] = 1 - 0.45 * wetness
    return table


def code_of(kind: str) -> int:
    """A kind's row in TABLE; the plain one if it isn't known."""
    return CODES.get(kind, CODES["plain"])
