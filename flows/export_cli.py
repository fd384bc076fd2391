"""The command `export`: options in, one library call, a few lines out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # that we may use


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    directory: Annotated[Path, typer.Argument(help="A finished build.")],
    *,
    to: Annotated[Literal["semantickitti", "webdataset", "parquet", "occ3d"], typer.Option(help="The form.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write; new, empty, or of the same run (which goes on).")
    ],
    val_share: Annotated[float | None, typer.Option(min=0, max=0.99, help="Of the scenes, for split val.")] = None,
    test_share: Annotated[float | None, typer.Option(min=0, max=0.99, help="Of the scenes, for split test.")] = None,
    split_seed: Annotated[int | None, typer.Option(min=0, help="Of the lots by which scenes are dealt.")] = None,
    shard_samples: Annotated[int | None, typer.Option(min=1, help="Samples a tar or Parquet file, at most.")] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", help="Of the data: an SPDX id, a URL or words.")
    ] = None,
    published: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Date for Croissant's metadata.")] = None,
    engine: Annotated[Literal["prefect", "none"], typer.Option(help="A Prefect flow, or a plain loop.")] = "none",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes; not in the bytes.")] = CORES,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Write a finished build in another form. The build is verified first; run it again to go on after a stop.

    Without shares the build's own splits are kept; with them scenes are dealt to train, val and test, none shared.
    Parquet needs the extra `exports`.

    \b
    Examples:
      occfactory export runs/demo --to webdataset --out runs/demo_tars
      occfactory export runs/demo --to parquet --licence cc-by-4.0 --out runs/demo_hub
      occfactory export runs/demo --to semantickitti --val-share 0.1 --test-share 0.1 --out runs/demo_kitti
    """
    from flows.export import export_dataset, export_recipe

    given = {"val_share": val_share, "test_share": test_share, "split_seed": split_seed}
    recipe = export_recipe(directory, to, **given, shard_samples=shard_samples, licence=licence, published=published)
    export_dataset(recipe, out, engine, workers, quiet)
