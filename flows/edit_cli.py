"""The commands `inpaint`, `outpaint`, `tile` and `refine`: options in, one library call, a line or two out."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.scene.errors import InputError

if TYPE_CHECKING:
    from pipeline.generators.protocol import Generator
    from pipeline.generators.seams import SeamReport

Weights = Annotated[Path, typer.Option("--weights", help="A generator's folder, from `occfactory train-generator`.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.")]
Seed = Annotated[int, typer.Option(min=0, help="Root of the seed tree.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Root = Annotated[Path, typer.Argument(help="A SemanticKITTI-layout root: a dataset, or generated scenes.")]
Frame = Annotated[str | None, typer.Option("--frame", metavar="SEQ/NAME", help="This frame; -n variants of it.")]
Split = Annotated[str | None, typer.Option("--split", help="A split's frames; the first -n, else all.")]
Count = Annotated[int | None, typer.Option("-n", "--count", min=1, help="How many scenes.")]
Overlap = Annotated[float | None, typer.Option("--overlap", min=0, help="Known strip [m]; default: an eighth.")]


def register(app: typer.Typer) -> None:
    """Give `app` the four commands."""
    for command in (inpaint, outpaint, tile, refine):
        app.command()(command)


def inpaint(
    root: Root,
    *,
    weights: Weights,
    out: Out,
    frame: Frame = None,
    split: Split = None,
    n: Count = None,
    box: Annotated[str | None, typer.Option(metavar="x0,y0,z0,x1,y1,z1", help="Regenerate this box [m].")] = None,
    classes: Annotated[str | None, typer.Option(help="Regenerate these classes, such as car,person.")] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Regenerate all but the background.")] = False,
    dilate: Annotated[int, typer.Option(min=0, help="Voxels around --classes that go with them.")] = 1,
    only: Annotated[str | None, typer.Option(help="New voxels take these classes, or empty.")] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Regenerate a part of scenes; every other valid voxel survives exactly. Pictures lie in OUT/pictures.

    \b
    Examples:
      occfactory inpaint data/runs/town --weights data/weights/comp_d3pm --frame 08/000000 -n 4 \\
        --box 8,-4,-2,16,4,4.4 --out runs/box
      occfactory inpaint data/runs/town --weights data/weights/comp_d3pm --split val -n 20 --classes car --out runs/cars
      occfactory inpaint data/runs/town --weights data/weights/comp_d3pm --split val --foreground --out runs/traffic
    """
    from flows.edit import Frames, Region, inpaint_root

    region = Region(_box(box), _names(classes), foreground, dilate, _names(only))
    generator, note = _loaded(weights)
    made = inpaint_root(generator, Frames(root, frame, split, n), region, seed, out, note=note, quiet=quiet)
    _tell(f"{out}: {made} scenes", quiet)


def outpaint(
    root: Root,
    *,
    weights: Weights,
    out: Out,
    frame: Frame = None,
    split: Split = None,
    n: Count = None,
    to: Annotated[list[str] | None, typer.Option("--to", metavar="+x|-x|+y|-y", help="Direction; repeatable.")] = None,
    overlap: Overlap = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Continue scenes past their edge; the old part stays as it was. Several --to are done one after another.

    \b
    Examples:
      occfactory outpaint data/runs/town --weights data/weights/comp_d3pm --frame 08/000000 --to +x --out runs/ahead
      occfactory outpaint data/runs/town --weights data/weights/comp_d3pm --split val --to +x --to +y --out runs/more
    """
    from flows.edit import Frames, outpaint_root

    generator, note = _loaded(weights)
    frames, directions = Frames(root, frame, split, n), tuple(to or ["+x"])
    made, seams = outpaint_root(generator, frames, directions, overlap, seed, out, note=note, quiet=quiet)
    _tell(f"{out}: {made} scenes; {_seams(seams)}", quiet)


def tile(
    *,
    weights: Weights,
    out: Out,
    size: Annotated[str, typer.Option(metavar="XxY", help="Length (ahead) and width [m], such as 204.8x25.6.")],
    start: Annotated[Path | None, typer.Option(help="A root whose --frame the street begins with.")] = None,
    frame: Annotated[str | None, typer.Option("--frame", metavar="SEQ/NAME", help="The frame of --start.")] = None,
    overlap: Overlap = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Generate a long street or a district from overlapping windows, and measure its seams.

    \b
    Examples:
      occfactory tile --weights data/weights/comp_d3pm --size 204.8x25.6 --out runs/street
      occfactory tile --weights data/weights/comp_d3pm --size 102.4x64 --seed 3 --out runs/district
    """
    from flows.edit import Frames, tile_root
    from flows.generators import with_batch

    size_m = _size_m(size)
    if (start is None) != (frame is None):
        raise InputError("--start", "--start ROOT and --frame SEQ/NAME together, or neither", "one of them")
    generator, note = _loaded(weights)
    begin = None if start is None else Frames(start, frame)
    generator = with_batch(generator, _widest_front(generator, size_m))
    seams = tile_root(generator, size_m, overlap, seed, out, start=begin, note=note, quiet=quiet)
    _tell(f"{out}: {'one window, no seam' if seams is None else _seams(seams)}", quiet)


def refine(
    predictions: Annotated[Path, typer.Argument(help="sequences/XX/predictions/NNNNNN.label, or a root of voxels.")],
    *,
    weights: Weights,
    out: Out,
    truth: Annotated[Path | None, typer.Option(help="The ground truth's root, for scores alone.")] = None,
    trust: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Keep voxels of at least this confidence (confidence/NNNNNN.npy)."),
    ] = None,
    n: Count = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Rebuild the shapes in a completion network's predictions; scores before and after where there is ground truth.

    \b
    Example:
      occfactory refine runs/monoscene --truth data/runs/town --weights data/weights/comp_d3pm --out runs/refined
    """
    from flows.refine import Predictions, refine_root

    generator, note = _loaded(weights)
    gain = refine_root(generator, Predictions(predictions, trust, truth, n), seed, out, note=note, quiet=quiet)
    if gain is not None:
        print("\n".join(gain.lines()))


def _widest_front(generator: Generator, size_m: tuple[float, float]) -> int:
    """At most how many windows of a tile are drawn at once."""
    own = generator.grid
    windows = [m / (n * own.voxel_size_m) for m, n in zip(size_m, own.shape, strict=False)]
    return min(16, *(1 if count <= 1 else math.ceil(2 * count) for count in windows))


def _loaded(weights: Path) -> tuple[Generator, dict[str, Any]]:
    """The generator of a weights folder, and the digests of its files for edit.json."""
    from flows.generators import load_generator
    from pipeline.scene.files import sha256_file

    generator = load_generator(weights)
    return generator, {"weights": {p.name: sha256_file(p) for p in sorted(weights.glob("*.safetensors"))}}


def _seams(report: SeamReport) -> str:
    change = f"{100 * report.seam_change:.1f} % across seams, {100 * report.interior_change:.1f} % elsewhere"
    return f"of neighbours differ {change} (ratio {report.ratio:.2f})"


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _box(text: str | None) -> tuple[float, float, float, float, float, float] | None:
    if text is None:
        return None
    try:
        x0, y0, z0, x1, y1, z1 = (float(number) for number in text.split(","))
    except ValueError:
        raise InputError("--box", "six numbers x0,y0,z0,x1,y1,z1 in metres", repr(text)) from None
    return x0, y0, z0, x1, y1, z1


def _size_m(text: str) -> tuple[float, float]:
    try:
        x, y = (float(number) for number in text.lower().split("x"))
    except ValueError:
        raise InputError("--size", "XxY in metres, such as 204.8x25.6", repr(text)) from None
    return x, y


def _tell(text: str, quiet: bool) -> None:
    if not quiet:
        print(text, file=sys.stderr)
