"""The commands `images ...`: options in, one library call, a few lines out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

images = typer.Typer(no_args_is_help=True, help="Critics of images.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(images, name="images")


@images.callback()
def group() -> None:
    """Critics of images."""


@images.command("train-critic")
def train_critic(
    root: Annotated[Path, typer.Argument(help="A SemanticKITTI-layout root with photographs.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; a run found there goes on.")],
    width: Annotated[int, typer.Option(min=16, help="Of photographs and renders [px].")] = 384,
    height: Annotated[int, typer.Option(min=16, help="Of photographs and renders [px].")] = 128,
    split: Annotated[str, typer.Option(help="The split to learn from.")] = "train",
    held_out: Annotated[str, typer.Option("--held-out", help="The split that thresholds come from.")] = "val",
    quantile: Annotated[float, typer.Option(help="Of held-out photographs below each threshold.")] = 0.05,
    toy: Annotated[bool, typer.Option("--tiny", help="A tiny network, to try things out.")] = False,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change the config.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No summary.")] = False,
) -> None:
    """Train the network that judges generated images, on real photographs alone, and its thresholds.

    \b
    Example:
      occfactory images train-critic data/runs/town --out runs/critic --width 192 --height 64 --set train.steps=1500
    """
    from flows.image_critic import Splits, summary
    from flows.image_critic import train_critic as trained
    from flows.recipes import validated
    from pipeline.images.config import FidelityConfig

    fidelity = validated(FidelityConfig, {"quantile": quantile})
    splits = Splits(split, held_out)
    found = trained(root, out, (width, height), splits=splits, toy=toy, changes=changes or (), fidelity=fidelity)
    if not quiet:
        typer.echo("\n".join(summary(*found)))
