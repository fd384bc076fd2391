"""The commands `rebuild` and `serve`: options in, one library call, a few lines out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("rebuild")(rebuild)
    app.command("serve")(serve)


def rebuild(
    directory: Annotated[Path, typer.Argument(help="A finished build, or a folder with its manifest.json alone.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to build in; new, empty, or of the same run.")],
    root: Annotated[Path | None, typer.Option(help="The dataset or weights that the recipe reads.")] = None,
    engine: Annotated[Literal["prefect", "none"], typer.Option(help="A Prefect flow, or a plain loop.")] = "none",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes.")] = os.cpu_count() or 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Make a build again from its manifest, and compare. Exit status 1 names the first file that came out otherwise.

    \b
    Examples:
      occfactory rebuild runs/demo --out runs/demo_again
      occfactory rebuild runs/kitti --root /data/semantic_kitti --out runs/kitti_again
    """
    from flows.rebuild import rebuild_dataset

    found = rebuild_dataset(directory, out, root, engine, workers, quiet)
    for line in found.versions:
        typer.echo(f"version: {line}")
    if not found.differences:
        typer.echo(f"{out}: the same {found.files} files, byte for byte")
        return
    path, fault = found.differences[0]
    more = len(found.differences) - 1
    typer.echo(f"{path}: {fault}" + (f"; {more} more differ" if more else ""))
    raise typer.Exit(1)


def serve(
    schedule: Annotated[Path, typer.Argument(help="A TOML file of [[build]] tables.")],
    *,
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Of the Prefect server that is started.")] = 4200,
) -> None:
    """Build on a schedule until stopped: each build writes a new version, keeps the last ones and links `latest`.

    \b
    A schedule file:
      [[build]]
      name = "nightly"
      recipe = "town_demo"
      set = ["samples=200"]
      out = "runs/nightly"
      cron = "0 3 * * *"          # or interval_s = 3600
      timezone = "Europe/Berlin"
      keep = 3
      workers = 8
    \b
    Example:
      occfactory serve schedule.toml
    """
    from flows.schedule import read_schedule, serve_builds

    serve_builds(read_schedule(schedule), port)
