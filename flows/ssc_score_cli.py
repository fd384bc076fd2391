"""The commands `ssc evaluate` and `ssc submission`: options in, one library call, a table or a line out."""

from __future__ import annotations

import os
import shlex
import sys
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
    ssc.command("evaluate")(evaluate)
    ssc.command("submission")(submission)


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
    quiet: Quiet = False,
) -> None:
    """Score a folder of predictions as the benchmark does, and by range, and in and out of view; a table in Markdown.

    \b
    Examples:
      occfactory ssc evaluate runs/predicted data/runs/town_ssc --out scores.json
      occfactory ssc evaluate theirs /data/semantic_kitti --split val --allow-extra
    """
    from flows.ssc_score import score_folder, to_json, told
    from pipeline.scene.files import write_json
    from ssc_eval.metrics import markdown

    with told("scoring", quiet) as progress:
        scored = score_folder(predictions, root, split, allow_extra, workers, progress)
    found = to_json(scored, command())
    print(f"{predictions} against {root}, split {split}: {markdown(found)}", end="")
    if scored.note and not quiet:
        print(f"Not split into in and out of view: {scored.note}", file=sys.stderr)
    if out is not None:
        write_json(out, found)


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
