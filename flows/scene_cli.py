"""Commands about scene generators: train one, draw scenes from one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Change = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field; * = all stages.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("train-generator")(train_generator)
    app.command("halve-weights")(halve_weights)
    app.command("sample")(sample)
    app.command("sweep-rates")(sweep_rates)
    app.command("ablation")(ablation)
    app.command("train-encoder")(train_encoder)


def train_generator(
    recipe: Annotated[str, typer.Argument(help="A generator's recipe; see `occfactory recipes`.")],
    root: Annotated[Path, typer.Argument(help="A dataset root; its training split is learned.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of checkpoints, logs and weights; a run there goes on.")],
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage; several processes may train one each.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Weights to begin with, of as many blocks or fewer; default: random ones."),
    ] = None,
    change: Change = None,
) -> None:
    """Train a scene generator. Run it again to go on after a stop; the last run saves OUT/weights.

    \b
    Examples:
      occfactory train-generator comp_d3pm data/runs/town_small --out data/runs/comp
      occfactory train-generator comp_d3pm ROOT --out DIR --stage fusion --set "*.training.steps=20000"
      occfactory train-generator comp_d3pm ROOT --from DIR/weights --out OTHER --set "*.training.learning_rate=1e-4"
    """
    from flows.generator_recipes import generator_recipe
    from flows.generators import train_generator as train

    train(generator_recipe(recipe, tuple(change or ())), root, out, tuple(stage or ()), start)


def halve_weights(
    weights: Annotated[Path, typer.Argument(help="Folder of weights of a generator or a completion network.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; new, or of weights, which are replaced.")],
    note: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TEXT", help="For the card: training=..., hardware=...; repeat.")
    ] = None,
) -> None:
    """Write saved weights in float16, half as large, to give away. They are used as before.

    \b
    Example:
      occfactory halve-weights data/runs/comp/weights --out data/runs/comp/released --note "training=20,000 steps"
    """
    from pipeline.learning.checkpoint import halve
    from pipeline.scene.errors import InputError

    notes = dict(each.partition("=")[::2] for each in note or ())
    if not all(notes) or not all(notes.values()):
        raise InputError("--note", "NAME=TEXT", repr(note))
    halve(weights, out, notes)


def sample(
    *,
    weights: Annotated[Path, typer.Option(help="Folder of a generator's weights.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write; new, empty, or of the same run (which goes on).")
    ],
    samples: Annotated[int, typer.Option("-n", min=1, help="How many scenes.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Root of the seed tree; scene i depends on it and i alone.")] = 0,
    complete: Annotated[bool, typer.Option("--complete", help="Leave no voxel invalid: no passing sensor.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Of every stage, at most T; default: the weights'.")] = None,
    maps: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="Whose occupancy maps are filled, by methods that need one.")
    ] = None,
    maps_split: Annotated[str, typer.Option(metavar="SPLIT", help="Of that root.")] = "train",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes, each with the recipe's threads.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Draw scenes into a root that every other command reads (scene-sheet, info, render, build, evaluate-scenes).

    \b
    Examples:
      occfactory sample --weights data/weights/comp_d3pm -n 500 --seed 0 --out data/runs/scenes
      occfactory sample --weights data/weights/comp_d3pm -n 500 --steps 10 --out data/runs/quick
      occfactory sample --weights DIR/weights --maps HOUSES --maps-split val --complete -n 8 --out data/runs/houses
    """
    from flows.generators import sample_recipe, sample_scenes

    given = None if maps is None else (maps, maps_split)
    sample_scenes(sample_recipe(weights, samples, seed, complete, given, steps), out, "none", workers, quiet)


def sweep_rates(
    root: Annotated[Path, typer.Argument(help="A dataset root; its training split is learned.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs and rates.json.")],
    recipe: Annotated[list[str] | None, typer.Option(help="A generator's recipe; may be given again.")] = None,
    rates: Annotated[str, typer.Option(help="Learning rates to try.")] = "5e-4,1e-3,2e-3",
    steps: Annotated[int, typer.Option(min=20, help="Steps a run.")] = 120,
) -> None:
    """Try learning rates alike on all stages of some recipes; print each one's loss over the last quarter.

    \b
    Example:
      occfactory sweep-rates data/runs/town_small --out data/runs/rates
    """
    from flows.sweep import sweep_rates as sweep
    from pipeline.scene.errors import InputError

    try:
        tried = [float(rate) for rate in rates.split(",")]
    except ValueError:
        raise InputError("--rates", "numbers with commas between", repr(rates)) from None
    names = recipe or ["comp_d3pm", "whole_scene", "two_stage"]
    for name, stages in sweep(names, root, out, tried, steps).items():
        for stage, losses in stages.items():
            print(f"{name:12} {stage:12}", "  ".join(f"{rate}: {loss:.3f}" for rate, loss in losses.items()))


def ablation(
    root: Annotated[Path, typer.Argument(help="A dataset root with train and val splits.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of runs, scenes and table; a run there goes on.")],
    samples: Annotated[int, typer.Option("-n", min=4, help="Scenes of each variant.")] = 100,
    variants: Annotated[str, typer.Option(help="Which, with commas; default: all five.")] = "",
    encoder: Annotated[Path | None, typer.Option(help="3D encoder's weights; default: no F3D and K3D.")] = None,
    change: Change = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """The paper's Table 3 as one run: full resolution, blocks of 0.8, 1.6 and 3.2 m, and no composition.

    \b
    Example:
      occfactory ablation data/runs/town_small --out data/runs/table3 --set "*.training.steps=500" \\
        --encoder data/weights/encoder3d_comparison
    """
    from flows.ablation import VARIANTS, run_ablation, variants_of

    chosen = variants_of(variants) if variants else VARIANTS
    table = run_ablation(root, out, tuple(change or ()), samples, variants=chosen, encoder=encoder, quiet=quiet)
    if not quiet:
        print(f"{table}/index.html, table.md, table.json")


def train_encoder(
    root: Annotated[Path, typer.Argument(help="A dataset root with train and val splits.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of checkpoints and weights; a run there goes on.")],
    change: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field.")] = None,
) -> None:
    """Train the 3D autoencoder whose features F3D and K3D compare, on the training split alone.

    \b
    Example:
      occfactory train-encoder data/runs/town_small --out data/runs/encoder3d
    """
    from flows.encoders import train_encoder as train

    held_out = train(root, out, tuple(change or ())).get("held_out")
    print(f"{out}/weights; reconstruction of the val split: {held_out}")
