"""The commands `houses` and `evaluate-houses`: options in, one library call, a line or two out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # that we may use


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("houses")(houses)


def houses(
    *,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write; new, empty, or of the same run (which goes on).")
    ],
    houses: Annotated[int, typer.Option("--houses", min=3, help="How many in all splits.")],
    seed: Annotated[int, typer.Option(min=0, help="Root of the seed tree; house i depends on its own seed alone.")] = 0,
    edge: Annotated[int, typer.Option(min=24, max=128, help="Of the cube that a house fits [blocks].")] = 32,
    blocks: Annotated[int, typer.Option(min=300, max=32768, help="At most in a house.")] = 1024,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes; the bytes don't depend on it.")] = CORES,
    engine: Annotated[Literal["prefect", "none"], typer.Option(help="A Prefect flow, or a plain loop.")] = "none",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Write procedural Minecraft houses as a 3D-Craft root: what stands in for recorded ones. A tenth is val, one test.

    \b
    Examples:
      occfactory houses --out data/runs/houses --houses 3000
      occfactory houses --out data/runs/large --houses 500 --edge 64 --blocks 4096
    """
    from flows.houses import HouseRecipe, make_houses
    from flows.recipes import validated

    fields: dict[str, object] = {"houses": houses, "seed": seed, "edge": edge, "blocks": blocks}
    make_houses(validated(HouseRecipe, fields), out, engine, workers, quiet)
