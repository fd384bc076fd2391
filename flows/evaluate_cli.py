"""The commands `evaluate-scenes`, `scene-sheet` and `rate`: options in, one library call, a line out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows import rate_cli
from pipeline.scene.errors import InputError

Out = Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
ENCODER = "weights/encoder3d_comparison"  # ships with the project


def register(app: typer.Typer) -> None:
    """Give `app` the commands."""
    app.command("evaluate-scenes")(evaluate_scenes)
    app.command("scene-sheet")(scene_sheet)
    rate_cli.register(app)


def evaluate_scenes(  # a command has as many parameters as options
    *,
    real: Annotated[Path, typer.Option("--real", help="A dataset root with train and val splits.")],
    generated: Annotated[list[Path], typer.Option("--generated", help="A root of generated scenes; repeatable.")],
    name: Annotated[list[str] | None, typer.Option("--name", help="What to call it, one a folder.")] = None,
    out: Out,
    scenes: Annotated[
        int | None, typer.Option(min=4, help="The first so many of each; default: the least folder's number.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Folder of a 3D encoder's weights, or none; default: the shipped one.")
    ] = None,
    inception: Annotated[
        Path | None, typer.Option(help="File of Inception-v3 weights for FID, KID, IS; default: an offline encoder.")
    ] = None,
    reference: Annotated[
        Literal["val", "train"], typer.Option(help="Compare with held-out scenes, or with half of training's drives.")
    ] = "val",
    image_features: Annotated[int, typer.Option(min=1, help="Features of the offline image encoder.")] = 48,
    novelty_scenes: Annotated[int, typer.Option(min=1, help="Scenes of each set sought among training's.")] = 200,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes; figures don't depend on it.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Root of the seed tree.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Measure generated scenes against a held-out real split: F3D, K3D, FID, KID, classes, counts, invasion, novelty.

    \b
    Examples:
      occfactory evaluate-scenes --real data/runs/town_small --generated data/runs/comp500 --out runs/measured
      occfactory evaluate-scenes --real ROOT --generated A --generated B --name ours --name baseline --out runs/both
    """
    from flows.evaluate import EvaluateRecipe, evaluate
    from flows.evaluate_report import write_evaluation
    from flows.recipes import validated
    from pipeline.scene.files import require_empty

    require_empty(out)
    fields = {
        "real": real,
        "generated": tuple(generated),
        "names": tuple(name or ()),
        "scenes": scenes,
        "encoder": _encoder(encoder),
        "inception": inception,
        "reference": reference,
        "image_features": image_features,
        "novelty_scenes": novelty_scenes,
        "seed": seed,
    }
    found = evaluate(validated(EvaluateRecipe, fields), workers, quiet)
    write_evaluation(found, out, _command())
    if not quiet:
        print(f"{out}/index.html, table.md, table.json: {len(found.generated)} folders, {len(found.rows)} rows")


def _encoder(given: str | None) -> Path | None:
    from pipeline.scene.files import data_path

    if given is not None:
        return None if given == "none" else Path(given)
    try:
        return data_path(ENCODER)
    except InputError:
        raise InputError("--encoder", "3D encoder weights", f"no {ENCODER}", "train one, or give none") from None


def _command() -> str:
    """The command line as it was given."""
    return shlex.join(["occfactory", *sys.argv[1:]])


def scene_sheet(
    folder: Annotated[Path, typer.Argument(help="A root of generated scenes.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="The .png or .jpg to write.")],
    real: Annotated[Path | None, typer.Option("--real", help="A root whose val split is shown beside.")] = None,
    first: Annotated[int, typer.Option(min=1, max=64, help="So many scenes, from the first on.")] = 16,
    quiet: Quiet = False,
) -> None:
    """Draw generated scenes as they come, three views each, beside real ones.

    \b
    Example:
      occfactory scene-sheet data/runs/comp500 --real data/runs/town_small --out sheet.jpg
    """
    from flows.scene_sheet import write_scene_sheet

    shown = write_scene_sheet(folder, out, real, first)
    if not quiet:
        print(f"{out}: {shown} scenes")
