"""The commands `ssc train` and `ssc predict`: options in, one library call, a line out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ssc_eval.samples import Source
    from ssc_eval.views import ImageKind

SOURCE = "ROOT[,weight=W][,fraction=F][,frames=N][,split=S][,image=render][,balanced=true]"


def register(ssc: typer.Typer) -> None:
    """Give `ssc` the commands."""
    ssc.command("train")(train)
    ssc.command("predict")(predict)


def train(
    recipe: Annotated[str, typer.Argument(help="small, surfaces, published or tiny (see flows/ssc_recipes.py).")],
    *,
    sources: Annotated[list[str], typer.Option("--source", metavar=SOURCE, help="Data to train on; repeat to mix.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of checkpoints, logs and weights; again to go on.")],
    validation: Annotated[
        str | None, typer.Option("--val", metavar=SOURCE, help="Frames to score now and then; else 8 of split val.")
    ] = None,
    adapt: Annotated[
        str | None, typer.Option("--adapt", metavar=SOURCE, help="Images, labels unused, for the batch norms.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Weights to begin with, such as synthetic data's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, subsets, order and augmentation.")] = 0,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change the recipe.")
    ] = None,
) -> None:
    """Train a semantic scene completion network on one dataset or several mixed by weight; OUT/weights.

    Called again with the same options it goes on after an interruption, to the same weights. TensorBoard's files lie
    in OUT/tensorboard. Under `accelerate launch` it runs on many GPUs.

    \b
    Examples:
      occfactory ssc train small --source data/runs/town_ssc --val data/runs/town_ssc --out runs/ssc
      occfactory ssc train small --source real,fraction=0.05 --source synthetic,weight=3 --out runs/mixed
      occfactory ssc train small --source real --from runs/synthetic/weights --set training.steps=300 --out runs/tuned
    """
    from flows.ssc_recipes import ssc_recipe
    from ssc_eval.training import train_ssc

    config = ssc_recipe(recipe, tuple(source_of(text) for text in sources), tuple(changes or ()))
    more = {
        "seed": seed,
        "start": start,
        "validation": None if validation is None else source_of(validation, split="val", frames=8),
        "adapt": None if adapt is None else source_of(adapt),
    }
    print(train_ssc(config.model_copy(update=more), out))


def predict(
    weights: Annotated[Path, typer.Argument(help="A folder of weights that `ssc train` made.")],
    root: Annotated[Path, typer.Argument(help="The dataset's root.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.")],
    split: Annotated[str, typer.Option(help="The root's split.")] = "val",
    batch: Annotated[int, typer.Option(min=1, help="Frames at once.")] = 1,
    render: Annotated[bool, typer.Option("--render", help="Feed shaded renders, not images.")] = False,
    occupied_above: Annotated[
        float | None, typer.Option(help="A voxel is occupied from this probability on, not as the network has it.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Predict every frame of a split: OUT/sequences/XX/predictions/NNNNNN.label, uint16 raw ids as the benchmark's.

    \b
    Example:
      occfactory ssc predict runs/ssc/weights data/runs/town_ssc --split val --out runs/predicted
    """
    from flows.ssc_score import told
    from ssc_eval.inference import predict as write

    with told("predicting", quiet) as progress:
        kind: ImageKind = "render" if render else "image"
        write(weights, root, split, out, batch, image=kind, occupied_above=occupied_above, progress=progress)


def source_of(text: str, **defaults: object) -> Source:
    """A Source from ROOT,field=value,... Raises InputError."""
    from flows.changes import apply_changes
    from flows.recipes import validated
    from ssc_eval.samples import Source

    root, *changes = text.split(",")
    table: dict[str, object] = {**Source(root=Path(root)).model_dump(mode="json"), **defaults}
    apply_changes(table, tuple(changes))
    return validated(Source, table)
