"""The command `report`: options in, one library call, a line out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("report")(report)


def report(
    directory: Annotated[Path, typer.Argument(help="A finished build.")],
    *,
    real: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="Real data to hold the classes against: its split train.")
    ] = None,
    scenes: Annotated[
        Path | None, typer.Option(metavar="TABLE.json", help="Scene measures, as `evaluate-scenes` writes them.")
    ] = None,
    ssc: Annotated[
        Path | None, typer.Option(metavar="TABLE.json", help="What the data is worth, as `ssc protocols` writes it.")
    ] = None,
    shown: Annotated[int, typer.Option(min=0, max=100, help="Samples on the page, evenly spaced.")] = 8,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Write a build's report again: DIR/report/index.html, a page to open from disk. Every build ends with one.

    \b
    Examples:
      occfactory report runs/demo
      occfactory report runs/demo --real data/runs/town --scenes data/runs/measured/table.json
    """
    from flows.report import write_report
    from flows.ssc_score import told

    with told("reading samples", quiet) as progress:
        page = write_report(directory, real, scenes, ssc, shown, progress)
    typer.echo(page)
