"""The command `occfactory`: the same functions as the Python API and the flows, with progress and one-line errors."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows import (
    edit_cli,
    evaluate_cli,
    export_cli,
    factory_cli,
    flow_cli,
    houses_cli,
    image_cli,
    report_cli,
    scaffold_table_cli,
    scene_cli,
    ssc_protocol_cli,
    ssc_score_cli,
    ssc_train_cli,
    view_cli,
)
from flows.quiet import quiet_environment
from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID

if TYPE_CHECKING:
    from flows.recipes import BuildRecipe

app = typer.Typer(
    name="occfactory",
    help="A factory for synthetic 3D-semantics datasets: scenes, renders, images, paired occupancy.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
factory_cli.register(app)  # first in the list

Out = Annotated[Path, typer.Option("--out", help="Folder to write; new, empty, or of the same run (which goes on).")]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Worker processes; the bytes don't depend on it.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Engine = Annotated[Literal["prefect", "none"], typer.Option(help="A Prefect flow, or a plain loop.")]
Seed = Annotated[int, typer.Option(min=0, help="Root of the seed tree.")]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # that we may use


@app.command()
def town(
    *,
    out: Out,
    frames: Annotated[int, typer.Option(min=3, help="Labelled frames in all.")],
    seed: Seed = 0,
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Photographs' size.")] = "1220x370",
    voxel_m: Annotated[float, typer.Option("--voxel", help="Voxel size [m]: 0.4, or 0.2 as published.")] = 0.4,
    truth: Annotated[
        Literal["surface", "scans"], typer.Option(help="Labels from geometry, or from 71 scans.")
    ] = "surface",
    scans: Annotated[bool, typer.Option("--scans", help="Also write velodyne/ and labels/ of every scan.")] = False,
    scenes_only: Annotated[
        bool, typer.Option("--scenes-only", help="To train scene generators: no photographs, no test split.")
    ] = False,
    area: Annotated[
        Literal["default", "comparison"], typer.Option(help="51.2 x 51.2 m, or 25.6 x 25.6 m, 0.4 m voxels.")
    ] = "default",
    step: Annotated[int, typer.Option(min=1, help="Scans (0.1 s) between labelled frames.")] = 5,
    workers: Workers = CORES,
    engine: Engine = "none",
    quiet: Quiet = False,
) -> None:
    """Write the embedded world as a SemanticKITTI-layout root: voxels, masks, photographs, calibration, poses.

    \b
    Examples:
      occfactory town --out data/runs/town --frames 2000 --size 384x128
      occfactory town --out data/runs/scans --frames 20 --truth scans --scans
      occfactory town --out data/runs/town_small --frames 3000 --step 15 --area comparison --scenes-only
    """
    from flows.recipes import TownRecipe, validated
    from flows.town import make_town

    width, height = _size(size)
    grid = _box(voxel_m) if area == "default" else asdict(COMPARISON_GRID)
    fields: dict[str, object] = {"frames": frames, "seed": seed, "width_px": width, "height_px": height, "grid": grid}
    fields |= {"truth": truth, "scans": scans, "frame_step": step}
    if scenes_only:
        fields |= {"photographs": False, "test_share": 0.0}
    make_town(validated(TownRecipe, fields), out, engine, workers, quiet)


@app.command()
def voxelize(
    root: Annotated[Path, typer.Argument(help="A root with velodyne/, labels/, calib.txt and poses.txt a sequence.")],
    *,
    out: Out,
    sequence: Annotated[list[str] | None, typer.Option(help="Only this sequence; may be given again.")] = None,
    voxel_m: Annotated[float, typer.Option("--voxel", help="Voxel size [m] in SemanticKITTI's box.")] = 0.2,
    taxonomy: Annotated[str, typer.Option(help="A shipped taxonomy, or a .toml file.")] = "semantic_kitti",
    scans_ahead: Annotated[int, typer.Option(min=0, help="Later scans that join the current one.")] = 70,
    stride: Annotated[int, typer.Option(min=1, help="Scans from frame to frame.")] = 5,
    workers: Workers = CORES,
    engine: Engine = "none",
    quiet: Quiet = False,
) -> None:
    """Make .bin .label .invalid .occluded from your own labelled scans and poses, as SemanticKITTI does.

    \b
    Examples:
      occfactory voxelize /data/my_scans --out /data/my_voxels
      occfactory voxelize /data/my_scans --out /data/coarse --voxel 0.4 --taxonomy my_classes.toml
    """
    from flows.recipes import VoxelizeRecipe, validated
    from flows.voxelize import voxelize_root

    fields = {"root": root, "sequences": tuple(sequence or ()), "grid": _box(voxel_m), "taxonomy": taxonomy}
    recipe = validated(VoxelizeRecipe, {**fields, "scans_ahead": scans_ahead, "stride": stride})
    voxelize_root(recipe, out, engine, workers, quiet)


@app.command()
def render(
    root: Annotated[Path, typer.Argument(help="A SemanticKITTI-layout root.")],
    *,
    out: Out,
    split: Annotated[str, typer.Option(help="The root's split.")] = "val",
    frames: Annotated[int | None, typer.Option(min=1, help="The first frames alone.")] = None,
    workers: Workers = CORES,
    engine: Engine = "none",
    quiet: Quiet = False,
) -> None:
    """Render a dataset's voxels through their own calibration: RGB, depth and semantics of every frame.

    \b
    Example:
      occfactory render /data/semantic_kitti --split val --frames 20 --out runs/renders
    """
    from flows.recipes import RenderRecipe, validated
    from flows.render import render_root

    recipe = validated(RenderRecipe, {"source": {"root": root, "split": split}, "frames": frames})
    render_root(recipe, out, engine, workers, quiet)


@app.command()
def sheet(
    root: Annotated[Path, typer.Argument(help="A SemanticKITTI-layout root.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="The PNG or JPEG to write.")],
    split: Annotated[str, typer.Option(help="The root's split.")] = "train",
    frames: Annotated[int, typer.Option(min=1, max=64, help="So many frames, evenly over the split.")] = 16,
    first: Annotated[bool, typer.Option("--first", help="The split's first frames instead.")] = False,
) -> None:
    """Draw a contact sheet, a row a frame: image, render, depth, semantics, from above. Uncurated.

    \b
    Example:
      occfactory sheet data/runs/town --split val --out val.png
    """
    from flows.sheet import write_sheet

    write_sheet(root, split, frames, out, first)


@app.command()
def convert(
    root: Annotated[Path, typer.Argument(help="The dataset to read; its format is recognised.")],
    *,
    out: Out,
    to: Annotated[str, typer.Option(help="semantic_kitti, kitti_360, carla_sc or occ3d.")],
    split: Annotated[str | None, typer.Option(help="This split alone.")] = None,
    workers: Workers = CORES,
    engine: Engine = "none",
    quiet: Quiet = False,
) -> None:
    """Write a dataset's labelled scenes in another format, and say what its classes lose.

    \b
    Examples:
      occfactory convert data/runs/town --to carla_sc --out data/runs/town_carla
      occfactory convert /data/Occ3D-nuScenes --to semantic_kitti --split val --out occ_as_kitti
    """
    from flows.convert import convert_dataset
    from flows.recipes import ConvertRecipe, validated

    convert_dataset(validated(ConvertRecipe, {"root": root, "to": to, "split": split}), out, engine, workers, quiet)


@app.command()
def info(
    root: Annotated[Path, typer.Argument(help="A dataset's root.")],
    *,
    split: Annotated[str | None, typer.Option(help="This split's class table alone.")] = None,
    quiet: Quiet = False,
) -> None:
    """Tell what a dataset holds: frames a split, classes beside the published shares, validity, occupancy.

    \b
    Example:
      occfactory info data/runs/town --split val
    """
    from flows.inspect import describe_root

    print(describe_root(root, split, quiet))


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Show this one whole, as JSON.")] = None) -> None:
    """List the recipes, or show one whole.

    \b
    Examples:
      occfactory recipes
      occfactory recipes town_demo
    """
    from flows.generator_recipes import GENERATOR_RECIPES, generator_recipe
    from flows.recipes import RECIPES, load_recipe

    if name is None:
        _list_recipes()
        return
    if name in GENERATOR_RECIPES:  # some are of both kinds
        print(generator_recipe(name).model_dump_json(indent=2))
    if name not in GENERATOR_RECIPES or name in RECIPES:
        print(_whole(load_recipe(name, Path("ROOT") if name == "semantic_kitti" else None)))


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="A finished build.")],
    files_only: Annotated[bool, typer.Option("--files-only", help="Don't hold views against voxels.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check a build: changed, missing and extra files; then that each sample's depth, semantics and calibration say
    what its voxels say. Exit status 1 on a fault.

    \b
    Example:
      occfactory verify runs/demo
    """
    from flows.inspect import verify_dataset

    faults = verify_dataset(directory, quiet, not files_only)
    for path, fault in faults:
        print(f"{directory / path}: {fault}")
    if faults:
        raise typer.Exit(1)


def _whole(recipe: BuildRecipe) -> str:
    """A build's recipe with the fields that a dump leaves out at their defaults, without paths, as JSON."""
    from flows.recipes import left_out

    table = recipe.model_dump(mode="json")
    for part, config in ((table["source"], recipe.source), (table["views"], recipe.views), (table, recipe)):
        missing = {k: v for k, v in left_out(config).items() if k not in part and not isinstance(v, Path)}
        part.update(missing)
    return json.dumps(table, indent=2)


def _list_recipes() -> None:
    from flows.generator_recipes import GENERATOR_RECIPES
    from flows.recipes import RECIPES
    from flows.ssc_protocol_recipes import PROTOCOL_RECIPES
    from flows.ssc_recipes import SSC_RECIPES

    kinds: dict[str, Iterable[Callable[..., object]]] = {
        "build": RECIPES.values(),
        "train-generator": GENERATOR_RECIPES.values(),
        "ssc train": SSC_RECIPES.values(),
        "ssc protocols": PROTOCOL_RECIPES.values(),
    }
    for title, known in kinds.items():
        print(f"occfactory {title}:")
        for recipe in known:
            print(f"  {recipe.__name__:16} {(recipe.__doc__ or '').strip().splitlines()[0]}")


def _box(voxel_m: float) -> dict[str, object]:
    """SemanticKITTI's box in voxels of another size, as GridConfig's fields."""
    cells = round(51.2 / voxel_m) if 0.05 <= voxel_m <= 3.2 else 0
    if not cells or cells % 8 or abs(cells * voxel_m - 51.2) > 1e-6:
        raise InputError("--voxel", "a size that divides 51.2 m and 6.4 m, such as 0.1, 0.2, 0.4 or 0.8", f"{voxel_m}")
    return {"shape": (cells, cells, cells // 8), "voxel_size_m": voxel_m}


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InputError("--size", "WIDTHxHEIGHT in pixels, such as 384x128", repr(text))
    return int(width), int(height)


scene_cli.register(app)
edit_cli.register(app)
evaluate_cli.register(app)
flow_cli.register(app)
houses_cli.register(app)
view_cli.register(app)
export_cli.register(app)
report_cli.register(app)
image_cli.register(app)
scaffold_table_cli.register(app)
ssc = typer.Typer(
    help="Monocular semantic scene completion: check, train, predict, score, and what synthetic data buys.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
ssc_train_cli.register(ssc)
ssc_score_cli.register(ssc)
ssc_protocol_cli.register(ssc)
app.add_typer(ssc, name="ssc")


def main() -> None:
    """Entry point: faults of input, work and disk end in one line and status 2, an incomplete build in status 3."""
    quiet_environment()
    from flows.jobs import IncompleteError, JobError

    try:
        app()
    except IncompleteError as error:
        print(f"occfactory: {error}; to go on: {shlex.join(['occfactory', *sys.argv[1:]])}", file=sys.stderr)
        sys.exit(3)
    except (InputError, JobError, OSError) as error:
        print(f"occfactory: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("occfactory: stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
