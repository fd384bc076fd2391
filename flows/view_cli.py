"""The commands `view`, `mesh` and `blocks`: scenes as a page to turn, as meshes, as Minecraft structures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.scene.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("view")(view)
    app.command("mesh")(mesh)
    app.command("blocks")(blocks)


def view(
    source: Annotated[
        Path | None, typer.Argument(help="A root, a house's folder, a .npy schematic or a .label file.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", help="The page to write, .html.")],
    split: Annotated[str | None, typer.Option(help="A root's split; default: all of it.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many of its scenes, evenly spread.")] = 12,
    first: Annotated[bool, typer.Option("--first", help="The first ones.")] = False,
    frame: Annotated[
        list[str] | None, typer.Option(help="This scene alone, as SEQUENCE/FRAME or a house's name; repeatable.")
    ] = None,
    like: Annotated[Path | None, typer.Option(help="A root on whose grid a .label file lies.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Draw scenes from these weights, step by step.")] = None,
    samples: Annotated[int, typer.Option("-n", min=1, max=16, help="How many to draw.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Root of the seed tree.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps shown of each draw.")] = 16,
    estimates: Annotated[bool, typer.Option("--estimates", help="Show what the network takes for x_0.")] = False,
    beside: Annotated[int | None, typer.Option(min=1, max=16, help="Scenes side by side at first.")] = None,
    pictures: Annotated[bool, typer.Option(help="What the camera saw, where there is one.")] = True,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write scenes as one page that turns them in 3D, opens from disk and needs no network.

    \b
    Examples:
      occfactory view data/runs/town --split val --frames 8 --out town.html
      occfactory view houses/00123 --out house.html --open
      occfactory view --weights data/runs/comp/weights -n 4 --out draws.html
    """
    from pipeline.report.viewer import write_viewer

    if out.suffix not in (".html", ".htm"):
        raise InputError(out, "a name ending in .html", repr(out.suffix))
    if source is not None and weights is None:
        from flows.view import scenes_at

        scenes = scenes_at(source, split, frames, first=first, names=tuple(frame or ()), like=like, pictures=pictures)
        title = source.resolve().name
    elif weights is not None and source is None:
        from flows.view_draws import drawn_scenes

        scenes = drawn_scenes(weights, samples, seed, steps, estimates)
        title = f"{weights.resolve().parent.name}, seed {seed}"
    else:
        raise InputError("view", "a path, or --weights", "neither" if source is None else "both")
    write_viewer(out, scenes, title, beside or (len(scenes) if weights else 1))
    print(f"{out}: {len(scenes)} scene{'s' * (len(scenes) > 1)}, {out.stat().st_size / 1000:.0f} kB")
    if open_page:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())


Scene = Annotated[Path, typer.Argument(help="A root, a house's folder, a .npy schematic or a .label file.")]
Frame = Annotated[str | None, typer.Option(help="Which of a root's scenes: SEQUENCE/FRAME or a house's name.")]


def mesh(
    source: Scene,
    *,
    out: Annotated[Path, typer.Option("--out", help="The mesh to write, .ply or .glb.")],
    frame: Frame = None,
    like: Annotated[Path | None, typer.Option(help="A root on whose grid a .label file lies.")] = None,
) -> None:
    """Write a scene's faces as a mesh with class colours: PLY, or glTF with a part a class. Needs trimesh.

    \b
    Examples:
      occfactory mesh data/runs/town --frame 08/000000 --out street.glb
      occfactory mesh houses/00123 --out house.ply
    """
    from flows.scene_paths import one_scene
    from pipeline.datasets.scene_meshes import WRITERS

    if out.suffix not in WRITERS:
        raise InputError(out, f"a name ending in {' or '.join(WRITERS)}", repr(out.suffix))
    WRITERS[out.suffix](out, one_scene(source, frame, like).scene)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def blocks(
    source: Scene,
    *,
    out: Annotated[Path, typer.Option("--out", help="The file to write: .nbt for the game, .npy as 3D-Craft has it.")],
    frame: Frame = None,
) -> None:
    """Write a house as a Minecraft structure (.nbt, needs nbtlib) or as 3D-Craft's schematic (.npy).

    \b
    Examples:
      occfactory blocks data/runs/houses --frame 00/000003 --out house.nbt
      occfactory blocks houses/00123 --out schematic.npy
    """
    from flows.scene_paths import one_house
    from pipeline.datasets.craft3d import write_schematic
    from pipeline.datasets.minecraft_nbt import write_structure

    writers = {".nbt": write_structure, ".npy": write_schematic}
    if out.suffix not in writers:
        raise InputError(out, f"a name ending in {' or '.join(writers)}", repr(out.suffix))
    house = one_house(source, frame)
    writers[out.suffix](out, house)
    print(f"{out}: {house.occupied} blocks")
