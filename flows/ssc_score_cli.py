"""The commands `ssc check`, `evaluate`, `bounds`, `submission` and `pictures`: options in, a few lines out."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

Predictions = Annotated[Path, typer.Argument(help="A folder with sequences/XX/predictions/NNNNNN.label.")]
Root = Annotated[Path, typer.Argument(help="The dataset's root.")]
Split = Annotated[str, typer.Option(help="The root's split.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # that we may use


def register(ssc: typer.Typer) -> None:
    """Give `ssc` the commands."""
    ssc.command("check")(check)
    ssc.command("evaluate")(evaluate)
    ssc.command("bounds")(bounds)
    ssc.command("submission")(submission)
    ssc.command("pictures")(pictures)


def check(
    root: Root,
    *,
    split: Split = "train",
    frames: Annotated[int, typer.Option(min=1, max=200, help="Frames to render, evenly over the split.")] = 12,
    out: Annotated[Path, typer.Option("--out", help="The overlay to write, .png or .jpg.")] = Path("ssc_check.png"),
    overfit: Annotated[bool, typer.Option(help="Learn one frame by heart, as the last check.")] = True,
    recipe: Annotated[str, typer.Option(help="What learns: small, surfaces, published or tiny.")] = "small",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change the recipe.")
    ] = None,
    frame: Annotated[
        str, typer.Option(metavar="SEQUENCE/NAME", help="The frame to learn; default: a middle one.")
    ] = "",
    quiet: Quiet = False,
) -> None:
    """Check a dataset before training: labels, masks, calibration, axes; then whether one frame can be learnt.

    A line a check, ok, note (look at it) or FAULT with what to do; exit status 1 on a fault. Every label is read; axes
    are judged by photographs, and drawn: look at the picture.

    \b
    Examples:
      occfactory ssc check data/runs/town_ssc
      occfactory ssc check my_root --split val --frames 24 --no-overfit --out overlay.png
    """
    from flows.ssc_check import all_facts, check_root, learn_one, open_for_check
    from flows.ssc_score import told

    opened = open_for_check(root, split)
    with told("reading labels", quiet) as progress:
        facts = all_facts(opened.files, progress)
    faults = 0
    for finding in check_root(opened, facts, frames, out):
        print(finding.line(), flush=True)
        faults += finding.verdict == "FAULT"
    if overfit and not faults:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if quiet else sys.stderr):  # a line a few steps
            finding = learn_one(opened, recipe, tuple(changes or ()), frame)
        print(finding.line())
        faults += finding.verdict == "FAULT"
    elif overfit:
        print("note   one frame    not tried: put the faults right first")
    if faults:
        raise typer.Exit(1)


def evaluate(
    predictions: Predictions,
    root: Root,
    *,
    split: Split = "val",
    out: Annotated[Path | None, typer.Option("--out", help="Write scores and confusions here, as JSON.")] = None,
    allow_extra: Annotated[
        bool, typer.Option("--allow-extra", help="Pass over predictions of frames without labels.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes; scores don't depend on it.")] = CORES,
    report: Annotated[Path | None, typer.Option("--report", help="Folder to write a page with pictures to.")] = None,
    frames: Annotated[int, typer.Option(min=1, max=64, help="Frames on the page.")] = 8,
    quiet: Quiet = False,
) -> None:
    """Score a folder of predictions as the benchmark does, and by range, and in and out of view; a table in Markdown.

    \b
    Examples:
      occfactory ssc evaluate runs/predicted data/runs/town_ssc --out scores.json --report runs/page
      occfactory ssc evaluate theirs /data/semantic_kitti --split val --allow-extra
    """
    from flows.ssc_score import score_folder, to_json, told
    from pipeline.scene.files import require_empty, write_json
    from ssc_eval.metrics import markdown

    if report is not None:
        require_empty(report)
    with told("scoring", quiet) as progress:
        scored = score_folder(predictions, root, split, allow_extra, workers, progress)
    found = to_json(scored, command())
    print(f"{predictions} against {root}, split {split}: {markdown(found)}", end="")
    if scored.note and not quiet:
        print(f"Not split into in and out of view: {scored.note}", file=sys.stderr)
    if out is not None:
        write_json(out, found)
    if report is not None:
        from flows.ssc_pictures import write_report

        write_report(scored, frames, report, command())


def pictures(
    predictions: Predictions,
    root: Root,
    *,
    out: Annotated[Path, typer.Option("--out", help="The .png or .jpg to write.")],
    split: Split = "val",
    frames: Annotated[int, typer.Option(min=1, max=64, help="Frames, evenly over the split.")] = 8,
    quiet: Quiet = False,
) -> None:
    """Draw a contact sheet: input image, prediction and ground truth, from the camera and oblique. No display needed.

    \b
    Example:
      occfactory ssc pictures runs/predicted data/runs/town_ssc --out predicted.jpg
    """
    from flows.ssc_pictures import write_pictures

    shown = write_pictures(predictions, root, split, frames, out)
    if not quiet:
        print(f"{out}: {shown} frames")


def bounds(
    root: Root,
    *,
    split: Split = "val",
    frames: Annotated[int | None, typer.Option(min=1, help="A fixed choice of so many frames; else all.")] = None,
    quiet: Quiet = False,
) -> None:
    """How much one image can tell: the training frames' prior, and that with all that is seen known; in Markdown.

    Lines of sight go through the pixels of images of 384x128 (recipe `small`).

    \b
    Example:
      occfactory ssc bounds data/runs/town_ssc
    """
    from flows.ssc_bounds import bounds_of
    from flows.ssc_score import told

    with told("looking", quiet) as progress:
        found = bounds_of(root, split, frames, progress)
    print(found, end="")


def submission(
    source: Annotated[Path, typer.Argument(help="A folder of predictions to pack, or a .zip to check.")],
    root: Annotated[Path, typer.Argument(help="The root that holds the .bin files of sequences 11 to 21.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", help="The .zip to write.")] = None,
    quiet: Quiet = False,
) -> None:
    """Pack predictions for SemanticKITTI's completion benchmark and check the zip, or check one; exit 1 on a fault.

    \b
    Examples:
      occfactory ssc submission runs/predicted /data/semantic_kitti --out submission.zip
      occfactory ssc submission theirs.zip /data/semantic_kitti
    """
    from flows.ssc_score import told
    from pipeline.scene.errors import InputError
    from ssc_eval.submission import strange_grid, submission_faults, write_submission

    path = source if source.is_file() else out
    if path is None:
        raise InputError("--out", "a .zip to write", "none", "or give a .zip to check")
    if path is out:
        with told("packing", quiet) as progress:
            write_submission(source, root, path, progress)
    with told("checking", quiet) as progress:
        faults = list(submission_faults(path, root, progress))
    print("\n".join([*faults, f"{path}: {_verdict(faults, path, strange_grid(root))}"]))
    if faults:
        raise typer.Exit(1)


def _verdict(faults: list[str], path: Path, strange: str) -> str:
    if faults:
        return f"{len(faults)} faults; the benchmark would refuse it"
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    return f"{size}, whole, but {strange}" if strange else f"{size}, as the benchmark takes it"


def command() -> str:
    """The command line as it was given."""
    return shlex.join(["occfactory", *sys.argv[1:]])
