"""The command `flow-collapse`: options in, one library call, a few lines out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.scene.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("flow-collapse")(flow_collapse)


def flow_collapse(
    *,
    real: Annotated[Path, typer.Option("--real", help="A dataset root with held-out scenes.")],
    generator: Annotated[
        list[str], typer.Option("--generator", metavar="NAME=WEIGHTS", help="A generator to measure; repeat it.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.")],
    scenes: Annotated[int, typer.Option("-n", min=1, help="Held-out scenes, and as many drawn ones.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps from T to 0, the same for all.")] = 25,
    split: Annotated[str, typer.Option(help="The split of held-out scenes.")] = "val",
    seed: Annotated[int, typer.Option(min=0, help="Root of the seed tree.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No summary.")] = False,
) -> None:
    """Measure what each reverse step moves from foreground to background and back. OUT/flow.json has all numbers.

    \b
    Example:
      occfactory flow-collapse --real data/runs/town_small --generator comp=data/runs/comp/weights \\
        --generator whole=data/runs/whole/weights --out runs/flow
    """
    from flows.flow_collapse import flow_collapse as measured
    from flows.flow_collapse import summary

    report = measured(real, named(generator), out, scenes=scenes, steps=steps, seed=seed, split=split)
    if not quiet:
        typer.echo("\n".join(summary(report)))


def named(pairs: list[str]) -> dict[str, Path]:
    """Folders by name from NAME=WEIGHTS words. Raises InputError."""
    found: dict[str, Path] = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder) or name in found:
            raise InputError("--generator", "NAME=WEIGHTS, each name once", repr(pair))
        found[name] = Path(folder)
    return found
