"""The commands `build`, `remove`, `rebuild` and `serve`: options in, one library call, a few lines out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.scene.errors import InputError

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # that we may use

Engine = Annotated[Literal["prefect", "none"], typer.Option(help="A Prefect flow, or a plain loop.")]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Worker processes; the bytes don't depend on it.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("build")(build)
    app.command("remove")(remove)
    app.command("rebuild")(rebuild)
    app.command("serve")(serve)


def build(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; see `occfactory recipes`.")],
    root: Annotated[Path | None, typer.Argument(help="The dataset or weights a recipe reads, if it reads any.")] = None,
    *,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write; new, empty, or of the same run (which goes on).")
    ],
    seed: Annotated[int | None, typer.Option(min=0, help="Another root of the seed tree.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field.")] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="The folder is of another recipe: make anew what differs, keep the rest.")
    ] = False,
    engine: Engine = "prefect",
    workers: Workers = CORES,
    runner: Annotated[Literal["processes", "dask", "ray"], typer.Option(help="What runs the workers.")] = "processes",
    address: Annotated[str | None, typer.Option(help="Of a Dask or Ray cluster; none: a local one.")] = None,
    shard_range: Annotated[
        str | None, typer.Option(metavar="FIRST:END", help="These shards alone; a last run without it ends the build.")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, max=20, help="Of a shard's stage that fails.")] = 2,
    time_limit: Annotated[
        float | None, typer.Option(min=0.1, help="Of a shard's stage [s]; then it is retried.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(metavar="0,1", help="GPUs, one worker each; none given: all that are visible.")
    ] = None,
    quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Progress and end as lines of JSON on stdout.")] = False,
) -> None:
    """Build a dataset: scenes, masks, views, images, files, manifest and report. Run it again to go on after a stop.

    Exit status 3: shards kept failing and were left out; the others are done, and the same command goes on.

    \b
    Examples:
      occfactory build town_demo --out runs/demo
      occfactory build town_demo --out runs/big --set samples=500 --set views.width_px=640 --set views.height_px=192
      occfactory build semantic_kitti /data/semantic_kitti --out runs/kitti --workers 8 --engine none
      occfactory build town_demo --out runs/demo --set views.width_px=640 --changed
      occfactory build town_demo --out /mnt/runs/demo --shard-range 0:3
    """
    from flows.build import build_dataset
    from flows.jobs import RunOptions
    from flows.recipes import load_recipe

    changes = tuple(change or ()) + (() if seed is None else (f"seed={seed}",))
    options = RunOptions(
        runner=runner,
        address=address,
        shards=_range(shard_range),
        changed=changed,
        retries=retries,
        time_limit_s=time_limit,
        devices=None if devices is None else tuple(part for part in devices.split(",") if part),
    )
    build_dataset(load_recipe(recipe, root, changes), out, engine, workers, quiet, options, as_json)


def _range(text: str | None) -> range | None:
    if text is None:
        return None
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise InputError("--shard-range", "FIRST:END, such as 0:10 for the first ten", repr(text))
    return range(int(first), int(end))


def remove(
    directory: Annotated[Path, typer.Argument(help="A build's folder.")],
    finished: Annotated[bool, typer.Option("--finished", help="Also a finished build.")] = False,
) -> None:
    """Remove the folder of a build that failed or is not wanted; anything else is refused.

    \b
    Example:
      occfactory remove runs/demo
    """
    from flows.folder import remove_build

    typer.echo(f"{directory}: removed, {remove_build(directory, finished)} files")


def rebuild(
    directory: Annotated[Path, typer.Argument(help="A finished build, or a folder with its manifest.json alone.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to build in; new, empty, or of the same run.")],
    root: Annotated[Path | None, typer.Option(help="The dataset or weights that the recipe reads.")] = None,
    images: Annotated[Path | None, typer.Option(help="The pipeline that images were drawn with, if any were.")] = None,
    controlnet: Annotated[Path | None, typer.Option(help="Their ControlNet, if not the pipeline's own.")] = None,
    critic: Annotated[Path | None, typer.Option(help="The critic that judged them, if one did.")] = None,
    engine: Engine = "none",
    workers: Workers = CORES,
    quiet: Quiet = False,
) -> None:
    """Make a build again from its manifest, and compare. Exit status 1 names the first file that came out otherwise.

    \b
    Examples:
      occfactory rebuild runs/demo --out runs/demo_again
      occfactory rebuild runs/kitti --root /data/semantic_kitti --out runs/kitti_again
    """
    from flows.rebuild import rebuild_dataset

    folders = {"weights": images, "controlnet": controlnet, "critic": critic}
    given = {name: folder for name, folder in folders.items() if folder is not None}
    found = rebuild_dataset(directory, out, root, engine, workers, quiet, given)
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
