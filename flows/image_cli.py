"""The commands `images ...`: options in, one library call, a few lines out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.image_judging_cli import adopt_critic, evaluate

images = typer.Typer(no_args_is_help=True, help="Images: critics, pipelines, ControlNets; drawing and checking.")


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(images, name="images")


@images.callback()
def group() -> None:
    """Images: critics, pipelines, ControlNets; drawing and checking."""


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
Critic = Annotated[
    Path | None, typer.Option(help="OUT/weights of a critic for the parts of the loss that ask one; not the judge.")
]


@images.command("train-base")
def train_base(
    root: Annotated[Path, typer.Argument(help="A SemanticKITTI-layout root with photographs.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; a run found there goes on.")],
    recipe: Annotated[str, typer.Option(help="small, small_guided or tiny (see flows/image_recipes.py).")] = "small",
    critic: Critic = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="OUT/weights of an earlier run, to train its networks further.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split to learn from.")] = "train",
    held_out: Annotated[str, typer.Option("--held-out", help="The split of the validation images.")] = "val",
    changes: Changes = None,
) -> None:
    """Train a small image pipeline of our own: a VAE, then UNet, text encoder and ControlNet together; OUT/weights.

    Its folder is one of diffusers' pipelines. Called again with the same options it goes on after an interruption.

    \b
    Examples:
      occfactory images train-base data/runs/town --out runs/images
      occfactory images train-base data/runs/town --out runs/guided --recipe small_guided \\
        --from runs/images/weights --critic runs/critic/weights
    """
    from flows.image_critic import Splits
    from flows.image_recipes import base_recipe
    from flows.image_training import train_base as trained

    chosen = base_recipe(recipe, tuple(changes or ()))
    typer.echo(trained(root, out, chosen, Splits(split, held_out), critic=critic, start=start))


@images.command("train-controlnet")
def train_controlnet(
    base: Annotated[str, typer.Argument(help="A Stable Diffusion 1.x or 2.x pipeline in diffusers' form: its folder.")],
    root: Annotated[Path, typer.Argument(help="A SemanticKITTI-layout root with photographs.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; a run found there goes on.")],
    recipe: Annotated[str, typer.Option(help="semantic_kitti, small or tiny.")] = "semantic_kitti",
    critic: Critic = None,
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

    chosen = control_recipe(recipe, tuple(changes or ()))
    typer.echo(trained(base, root, out, chosen, Splits(split, held_out), critic=critic))


@images.command("sample")
def sample(
    weights: Annotated[Path, typer.Argument(help="A diffusers pipeline's folder, such as `train-base` writes.")],
    root: Annotated[Path, typer.Argument(help="A SemanticKITTI-layout root with photographs.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.")],
    controlnet: Annotated[Path | None, typer.Option(help="A ControlNet's folder, instead of the pipeline's.")] = None,
    split: Annotated[str, typer.Option(help="The root's split.")] = "val",
    frames: Annotated[int, typer.Option(min=1, help="So many frames, evenly over the split.")] = 16,
    count: Annotated[
        int, typer.Option("--images", min=1, help="Images a frame, with noise and words of their own.")
    ] = 1,
    extras: Annotated[
        list[str] | None, typer.Option("--words", help="Draw from weather, time_of_day or camera; repeat.")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Default: as the weights learned.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Root of the seed tree.")] = 0,
    changes: Changes = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Draw images of a root's frames, with their conditions, photographs and the VAE's reconstructions beside them.

    \b
    Examples:
      occfactory images sample runs/images/weights data/runs/town --out runs/drawn --frames 100
      occfactory images sample runs/images/weights data/runs/town --out runs/drawn --images 4 --words weather \\
        --set synthesis.scheduler=dpm++ --set synthesis.steps=20 --set synthesis.guidance=3
    """
    from flows.changes import apply_changes
    from flows.image_samples import SamplesRecipe, sample_images, samples_recipe
    from flows.recipes import validated
    from flows.ssc_score import told

    pairs: dict[str, object] = {} if size is None else dict(zip(("width_px", "height_px"), _size(size), strict=True))
    fields = {"controlnet": controlnet, "frames": frames, "images": count, "seed": seed, "pairs": pairs}
    recipe = samples_recipe(weights, root, split, **fields)
    table = recipe.model_dump() | {"weights": weights, "controlnet": controlnet, "source": recipe.source}
    if extras:
        table["pairs"]["prompt"]["extras"] = tuple(extras)
    apply_changes(table, tuple(changes or ()))
    with told("drawing", quiet) as progress:
        rows = sample_images(validated(SamplesRecipe, table), out, progress)
    typer.echo(rows)


@images.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="What `images sample` wrote, or a data set with images.")],
    *,
    critic: Annotated[Path, typer.Option(help="A folder that `images train-critic` wrote.")],
    split: Annotated[str, typer.Option(help="Of a data set.")] = "val",
    frames: Annotated[int | None, typer.Option(min=1, help="Of a data set: so many, evenly; default: all.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the scores as JSON.")] = None,
) -> None:
    """Score how far images keep their voxels' structure, by a critic, beside photographs and shuffled pairs.

    \b
    Examples:
      occfactory images check runs/drawn --critic runs/critic
      occfactory images check data/runs/town --critic runs/critic --frames 100
    """
    from flows.image_scores import check_folder, lines
    from pipeline.scene.files import write_json

    found = check_folder(folder, critic, split, frames)
    if out is not None:
        write_json(out, found)
    typer.echo("\n".join(lines(found)))


images.command("adopt-critic")(adopt_critic)
images.command("evaluate")(evaluate)


def _size(text: str) -> tuple[int, int]:
    from pipeline.scene.errors import InputError

    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InputError("--size", "WIDTHxHEIGHT in pixels, such as 384x128", repr(text))
    return int(width), int(height)
