"""One placed object as data: what it is, where it stands, and the seed its looks are drawn from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """A static object. kind: a key of the builders in scenery.py; x, y [m], heading [rad] in plan; size: as its builder

    reads it (mostly length, width, height [m]); style: a variant's name; detail: 2 close to the route, 1 near it, 0 far
    from it, where a plainer mesh does.
    """

    kind: str
    x: float
    y: float
    heading: float
    seed: int
    size: tuple[float, ...] = ()
    style: str = ""
    detail: int = 2
