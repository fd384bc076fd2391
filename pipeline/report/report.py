"""A build's report: one HTML page that opens from disk, with pictures and the 3D viewer's page beside it; no network.

The page is told what to say: every text arrives formatted, every picture lies beside it already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.report.evaluation import Table
from pipeline.scene.files import write_atomic

FOLDER, PAGE, VIEWER = "report", "index.html", "viewer.html"  # ROOT/report/index.html


@dataclass(frozen=True)
class Picture:
    """A picture on the page; src and href are relative to the page, sizes in pixels."""

    caption: str
    src: str
    href: str
    width: int
    height: int


@dataclass(frozen=True)
class Shown:
    """One sample: wide pictures, a square map beside them; number: its place in the viewer."""

    name: str
    note: str
    strips: tuple[Picture, ...]
    map: Picture
    number: int


@dataclass(frozen=True)
class ClassRow:
    """One class: its name, RGB, cells already formatted, and a bar a dataset, in 0..1 of the longest."""

    name: str
    color: tuple[int, int, int]
    cells: tuple[str, ...]
    bars: tuple[float, ...]


@dataclass(frozen=True)
class ClassTable:
    """Class rows; bar_names: what the bars are of, in order."""

    note: str
    heads: Sequence[str]
    rows: Sequence[ClassRow]
    bar_names: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of the page by its anchor: tables, then pictures, then links (text, href)."""

    anchor: str
    title: str
    note: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    links: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class WorstSample:
    """A sample at the end of a list: its name, figure and pictures."""

    name: str
    value: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Worst:
    """The samples that fare worst by one check, worst first."""

    title: str
    samples: Sequence[WorstSample]


@dataclass(frozen=True)
class Report:
    """Everything the page says. tiles: (figure, what it is), facts: (name, value), links: (text, href, what it is).

    samples are the viewer page's scenes in order; none: no viewer.
    """

    title: str
    subtitle: str
    tiles: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]
    built: Sequence[Table]
    sample_note: str
    samples: Sequence[Shown]
    classes: ClassTable
    sections: Sequence[Section]
    worst_note: str
    worst: Sequence[Worst]
    links: Sequence[tuple[str, str, str]]


def write_report_page(folder: Path, report: Report) -> None:
    """Write FOLDER/index.html; every text is escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((here / "report.html").read_text(encoding="utf-8"))
    style = Markup((here / "report.css").read_text(encoding="utf-8"))
    write_atomic(folder / PAGE, template.render(**vars(report), style=style, viewer=VIEWER) + "\n")
