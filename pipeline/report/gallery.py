"""A build's static gallery: one HTML page that opens from disk, with pictures beside it; no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.scene.files import write_atomic


@dataclass(frozen=True)
class Picture:
    """A picture on the page; src and href are relative to the page, sizes in pixels."""

    caption: str
    src: str
    href: str
    width: int
    height: int


@dataclass(frozen=True)
class GallerySample:
    """One sample: wide pictures one under another, square maps beside them."""

    name: str
    strips: tuple[Picture, ...]
    maps: tuple[Picture, ...]


@dataclass(frozen=True)
class ClassRow:
    """One class: its name, RGB, and cells already formatted."""

    name: str
    color: tuple[int, int, int]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """Everything the page says; facts are (name, value) pairs."""

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    class_note: str
    class_heads: Sequence[str]
    class_rows: Sequence[ClassRow]
    sample_note: str
    samples: Sequence[GallerySample]


def write_gallery(path: Path, gallery: Gallery) -> None:
    """Write the page; every text is escaped."""
    from jinja2 import Environment, StrictUndefined

    template = (Path(__file__).parent / "gallery.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    write_atomic(path, environment.from_string(template).render(vars(gallery)) + "\n")
