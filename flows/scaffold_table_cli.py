"""The command `scaffold-table`: options in, one library call, a line out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.scene.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("scaffold-table")(scaffold_table)


def scaffold_table(
    root: Annotated[Path, typer.Argument(help="Houses: 3D-Craft's layout, or a folder of schematics (.npy).")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of runs and tables; what is there goes on.")],
    method: Annotated[
        list[str] | None, typer.Option(help="Only this one; several processes may train one each. Default: all.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of every stage; default: the recipes' own.")] = None,
    samples: Annotated[int, typer.Option("-n", min=2, help="Houses drawn, a method and sampler.")] = 8,
    draws: Annotated[int, typer.Option(min=2, help="Estimates of a bound, a house.")] = 16,
    sampler_steps: Annotated[str, typer.Option(help="Of the samplers compared; all: a block a call.")] = "8,32,128",
    seed: Annotated[int, typer.Option(min=0, help="Of the split, bounds and draws.")] = 0,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Of all; * = all stages; or RECIPE.FIELD=VALUE."),
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="The recipes' tiny twins, to try it out in a minute.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Processes, a method each.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Scaffold Diffusion's tables: train it and its baselines alike, and measure held-out likelihood, draws, samplers.

    \b
    Examples:
      occfactory scaffold-table HOUSES --out data/runs/scaffold_table --steps 500
      occfactory scaffold-table HOUSES --out data/runs/scaffold_table --steps 500 --method craft_latent
    """
    from flows.scaffold_recipes import COMPARED
    from flows.scaffold_table import TableRecipe
    from flows.scaffold_table_report import write_table

    recipe = TableRecipe(
        root=root,
        steps=steps,
        samples=samples,
        draws=draws,
        sampler_steps=_numbers(sampler_steps),
        seed=seed,
        tiny=tiny,
        changes=tuple(change or ()),
    )
    command = shlex.join(["occfactory", *sys.argv[1:]])
    say = (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))
    print(write_table(recipe, out, command, tuple(method or COMPARED), workers, say))


def _numbers(text: str) -> tuple[int | None, ...]:
    parts = text.split(",")
    if not all(part == "all" or (part.isdecimal() and int(part)) for part in parts):
        raise InputError("--sampler-steps", "whole numbers with commas between, such as 8,32,all", repr(text))
    return tuple(None if part == "all" else int(part) for part in parts)
