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


Changes = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change the recipe.")]


@images.command("train-base")
def train_base(
    root: Annotated[Path, typer.Argument(help="A SemanticKITTI-layout root with photographs.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; a run found there goes on.")],
    recipe: Annotated[str, typer.Option(help="small or tiny (see flows/image_recipes.py).")] = "small",
    features: Annotated[
        Path | None, typer.Option(help="A critic's weights for the VAE's perceptual loss; not the judge's.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split to learn from.")] = "train",
    held_out: Annotated[str, typer.Option("--held-out", help="The split of the validation images.")] = "val",
    changes: Changes = None,
) -> None:
    """Train a small image pipeline of our own: a VAE, then UNet, text encoder and ControlNet together; OUT/weights.

    Its folder is one of diffusers' pipelines. Called again with the same options it goes on after an interruption.

    \b
    Examples:
      occfactory images train-base data/runs/town --out runs/images --features runs/features/weights
      occfactory images train-base data/runs/town --out runs/images --set vae.feature_weight=0 --set vae.train.steps=500
    """
    from flows.image_critic import Splits
    from flows.image_recipes import base_recipe
    from flows.image_training import train_base as trained

    typer.echo(trained(root, out, base_recipe(recipe, tuple(changes or ())), Splits(split, held_out), features))


@images.command("train-controlnet")
def train_controlnet(
    base: Annotated[str, typer.Argument(help="A Stable Diffusion 1.x or 2.x pipeline in diffusers' form: its folder.")],
    root: Annotated[Path, typer.Argument(help="A SemanticKITTI-layout root with photographs.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; a run found there goes on.")],
    recipe: Annotated[str, typer.Option(help="semantic_kitti, small or tiny.")] = "semantic_kitti",
    split: Annotated[str, typer.Option(help="The split to learn from.")] = "train",
    held_out: Annotated[str, typer.Option("--held-out", help="The split of the validation images.")] = "val",
    changes: Changes = None,
) -> None:
    """Train a ControlNet, begun with the base's UNet, while the base stays as it is; OUT/weights/controlnet.

    \b
    Example:
      occfactory images train-controlnet /models/stable-diffusion-v1-5 /data/semantic_kitti --out runs/controlnet
    """
    from flows.image_critic import Splits
    from flows.image_recipes import control_recipe
    from flows.image_training import train_controlnet as trained

    typer.echo(trained(base, root, out, control_recipe(recipe, tuple(changes or ())), Splits(split, held_out)))
