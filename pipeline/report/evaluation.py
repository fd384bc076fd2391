"""An evaluation's page: facts, tables and pictures in one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.scene.files import write_atomic


@dataclass(frozen=True)
class Table:
    """A table of cells already formatted; the first column names the rows."""

    title: str
    note: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Page:
    """pictures: (caption, media type, bytes)."""

    title: str
    facts: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[tuple[str, str, bytes]]


def write_page(path: Path, page: Page) -> None:
    """Write the page; every text is escaped, every picture inside."""
    from jinja2 import Environment, StrictUndefined

    template = (Path(__file__).parent / "evaluation.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    inside = [(caption, f"data:{kind};base64,{base64.b64encode(raw).decode()}") for caption, kind, raw in page.pictures]
    text = environment.from_string(template).render(
        title=page.title, facts=page.facts, tables=page.tables, pictures=inside
    )
    write_atomic(path, text + "\n")
