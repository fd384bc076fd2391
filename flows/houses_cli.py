"""The commands `houses`, `edit-houses` and `evaluate-houses`: options in, one library call, a line or two out."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.scene.errors import InputError

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # that we may use


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("houses")(houses)
    app.command("edit-houses")(edit_houses)
    app.command("evaluate-houses")(evaluate_houses)


def houses(
    *,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write; new, empty, or of the same run (which goes on).")
    ],
    houses: Annotated[int, typer.Option("--houses", min=3, help="How many in all splits.")],
    seed: Annotated[int, typer.Option(min=0, help="Root of the seed tree; house i depends on its own seed alone.")] = 0,
    edge: Annotated[int, typer.Option(min=24, max=128, help="Of the cube that a house fits [blocks].")] = 32,
    blocks: Annotated[int, typer.Option(min=300, max=32768, help="At most in a house.")] = 1024,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes; the bytes don't depend on it.")] = CORES,
    engine: Annotated[Literal["prefect", "none"], typer.Option(help="A Prefect flow, or a plain loop.")] = "none",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Write procedural Minecraft houses as a 3D-Craft root: what stands in for recorded ones. A tenth is val, one test.

    \b
    Examples:
      occfactory houses --out data/runs/houses --houses 3000
      occfactory houses --out data/runs/large --houses 500 --edge 64 --blocks 4096
    """
    from flows.houses import HouseRecipe, make_houses
    from flows.recipes import validated

    fields: dict[str, object] = {"houses": houses, "seed": seed, "edge": edge, "blocks": blocks}
    make_houses(validated(HouseRecipe, fields), out, engine, workers, quiet)


def edit_houses(
    root: Annotated[Path, typer.Argument(help="A 3D-Craft root: real houses, or procedural ones.")],
    *,
    weights: Annotated[Path, typer.Option(help="Scaffold's folder, from `occfactory train-generator`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.")],
    keep: Annotated[
        str | None, typer.Option(metavar="lower|upper|front|back|left|right", help="Keep this half, make the other.")
    ] = None,
    recolour: Annotated[bool, typer.Option("--recolour", help="New classes for all blocks, where they are.")] = False,
    box: Annotated[
        str | None, typer.Option(metavar="x0,y0,z0,x1,y1,z1", help="Make this box [blocks] of the house anew.")
    ] = None,
    own_map: Annotated[bool, typer.Option("--own-map", help="Blocks stay where they are; classes are new.")] = False,
    only: Annotated[str | None, typer.Option(help="New blocks take these classes, such as brick_block,glass.")] = None,
    house: Annotated[str | None, typer.Option(help="This house; -n variants of it.")] = None,
    split: Annotated[str | None, typer.Option(help="A split's houses; default: of all splits.")] = None,
    n: Annotated[int, typer.Option("-n", "--count", min=1, help="How many houses.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Root of the seed tree.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Finish houses from a half, recolour them, or make a box of them anew; all else survives exactly.

    \b
    Examples:
      occfactory edit-houses data/runs/houses --weights W --split val --keep lower --out data/runs/finished
      occfactory edit-houses data/runs/houses --weights W --house val_00003 -n 4 --recolour --out data/runs/recoloured
      occfactory edit-houses data/runs/houses --weights W --split val --box 0,0,1,5,5,4 --own-map --out data/runs/box
    """
    from flows.edit_houses import Chosen, HouseEdit
    from flows.edit_houses import edit_houses as edit_them
    from flows.generators import load_generator
    from pipeline.generators.scaffold import Scaffold

    names = tuple(name.strip() for name in (only or "").split(",") if name.strip())
    edit = HouseEdit(keep, recolour, _box(box), own_map, names)  # type: ignore[arg-type]  # checked there
    generator = load_generator(weights)
    if not isinstance(generator, Scaffold):
        raise InputError(weights, "weights of scaffold", type(generator).__name__)
    found = edit_them(generator, Chosen(root, house, split, n), edit, seed, out, quiet)
    if not quiet:
        same, map_same = f"{100 * found['recovered']:.1f} %", f"{100 * found['map_recovered']:.1f} %"
        print(f"{out}: {found['houses']} houses; of former blocks {same} came out as they were, places {map_same}")


def _box(text: str | None) -> tuple[int, int, int, int, int, int] | None:
    if text is None:
        return None
    try:
        x0, y0, z0, x1, y1, z1 = (int(number) for number in text.split(","))
    except ValueError:
        raise InputError("--box", "six whole numbers x0,y0,z0,x1,y1,z1", repr(text)) from None
    return x0, y0, z0, x1, y1, z1


def evaluate_houses(
    *,
    real: Annotated[Path, typer.Option("--real", help="A 3D-Craft root with a training and a held-out split.")],
    generated: Annotated[Path, typer.Option("--generated", help="A root of generated houses.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for table.md and table.json; new or empty.")],
    split: Annotated[str, typer.Option(help="The held-out split.")] = "val",
    houses: Annotated[
        int | None, typer.Option(min=2, help="The first so many generated and held-out ones; default: all.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Scaffold's, to draw several times on one map.")] = None,
    maps: Annotated[int, typer.Option(min=1, help="Held-out maps that are drawn on.")] = 4,
    draws: Annotated[int, typer.Option(min=2, help="Samples a map.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Root of the seed tree.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no table.")] = False,
) -> None:
    """Check generated houses' structure beside held-out ones', how much they differ, and how near training they are.

    \b
    Example:
      occfactory evaluate-houses --real data/runs/houses --generated data/runs/drawn --weights W --out data/runs/checked
    """
    from flows.evaluate_houses import HousesRecipe, table, write_house_evaluation
    from flows.evaluate_houses import evaluate_houses as evaluate
    from flows.recipes import validated
    from pipeline.scene.files import require_empty

    require_empty(out)
    fields: dict[str, object] = {"real": real, "generated": generated, "split": split, "houses": houses}
    recipe = validated(HousesRecipe, fields | {"weights": weights, "maps": maps, "draws": draws, "seed": seed})
    found = evaluate(recipe)
    write_house_evaluation(found, out, shlex.join(["occfactory", *sys.argv[1:]]))
    if not quiet:
        print(table(found))
