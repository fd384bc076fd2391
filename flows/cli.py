"""The command `occfactory`: the same functions as the Python API and the flows, with progress and one-line errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.quiet import quiet_environment
from pipeline.scene.errors import InputError

app = typer.Typer(
    name="occfactory",
    help="A factory for synthetic 3D-semantics datasets: scenes, renders, images, paired occupancy.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Out = Annotated[Path, typer.Option("--out", help="Folder to write; new, empty, or of the same run (which goes on).")]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Worker processes; the bytes don't depend on it.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Engine = Annotated[Literal["prefect", "none"], typer.Option(help="A Prefect flow, or a plain loop.")]
Seed = Annotated[int, typer.Option(min=0, help="Root of the seed tree.")]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # that we may use


@app.command()
def build(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; see `occfactory recipes`.")],
    root: Annotated[Path | None, typer.Argument(help="The dataset a recipe reads, if it reads one.")] = None,
    *,
    out: Out,
    engine: Engine = "prefect",
    workers: Workers = CORES,
    seed: Annotated[int | None, typer.Option(min=0, help="Another root of the seed tree.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field.")] = None,
    quiet: Quiet = False,
) -> None:
    """Build a dataset: scenes, masks, views, images, files, manifest and gallery. Run it again to go on after a stop.

    \b
    Examples:
      occfactory build town_demo --out runs/demo
      occfactory build town_demo --out runs/big --set samples=500 --set views.width_px=640 --set views.height_px=192
      occfactory build semantic_kitti /data/semantic_kitti --out runs/kitti --workers 8 --engine none
    """
    from flows.build import build_dataset
    from flows.recipes import load_recipe

    changes = tuple(change or ()) + (() if seed is None else (f"seed={seed}",))
    build_dataset(load_recipe(recipe, root, changes), out, engine, workers, quiet)


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Show this one whole, as JSON.")] = None) -> None:
    """List the recipes, or show one whole.

    \b
    Examples:
      occfactory recipes
      occfactory recipes town_demo
    """
    from flows.recipes import RECIPES, load_recipe

    if name is None:
        for recipe in RECIPES.values():
            print(f"{recipe.__name__:16} {(recipe.__doc__ or '').strip()}")
        return
    shown = load_recipe(name, Path("ROOT") if name == "semantic_kitti" else None)
    print(shown.model_dump_json(indent=2))


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="A finished build.")],
    quiet: Quiet = False,
) -> None:
    """Check every file of a build against its manifest: changed, missing and extra files. Exit status 1 on a fault.

    \b
    Example:
      occfactory verify runs/demo
    """
    from flows.inspect import verify_dataset

    faults = verify_dataset(directory, quiet)
    for path, fault in faults:
        print(f"{directory / path}: {fault}")
    if faults:
        raise typer.Exit(1)


def main() -> None:
    """Entry point: faults of input, work and disk end in one line and a status other than 0."""
    quiet_environment()
    from flows.engine import JobError

    try:
        app()
    except (InputError, JobError, OSError) as error:
        print(f"occfactory: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("occfactory: stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
