"""One placed object as data: what it is, where it stands, and the seed its looks are drawn from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """A static object. kind: a key of the builders in scenery.py; x, y [m], heading [rad] in plan; size: as its builder

    reads it (mostly length, width, height [m]); style: a variant's name; detail: False draws a plainer, distant one.
    """

    kind: str
    x: float
    y: float
    heading: float
    seed: int
    size: tuple[float, ...] = ()
    style: str = ""
    detail: bool = True
