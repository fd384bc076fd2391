"""The commands `images adopt-critic` and `images evaluate`: options in, one library call, a few lines out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def adopt_critic(  # a command has as many parameters as options
    root: Annotated[Path, typer.Argument(help="A SemanticKITTI-layout root with photographs.")],
    *,
    segmentation: Annotated[Path, typer.Option(help="Folder of a transformers semantic segmentation model.")],
    depth: Annotated[Path, typer.Option(help="Folder of a transformers depth estimation model.")],
    out: Annotated[Path, typer.Option("--out", help="Critic's folder to write; new or empty.")],
    depth_kind: Annotated[
        str | None, typer.Option(help="metric or inverse, where the depth model's config doesn't tell.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="LABEL=CLASS", help="Class of a label whose name doesn't tell; repeat."),
    ] = None,
    width: Annotated[int, typer.Option(min=16, help="Of photographs and renders [px].")] = 384,
    height: Annotated[int, typer.Option(min=16, help="Of photographs and renders [px].")] = 128,
    held_out: Annotated[str, typer.Option("--held-out", help="The split that thresholds come from.")] = "val",
    quantile: Annotated[float, typer.Option(help="Of held-out photographs below each threshold.")] = 0.05,
) -> None:
    """Make two models of others a critic: copies, and thresholds from their own agreement with held-out photographs.

    The folder serves wherever one of `train-critic` does: images.critic of a build, `images check`, `images evaluate`.

    \b
    Example:
      occfactory images adopt-critic /data/semantic_kitti --segmentation /models/segformer-cityscapes \\
        --depth /models/depth-anything-metric --label person=person --width 1280 --height 384 --out runs/adopted
    """
    from flows.image_judge import Models
    from flows.image_judge import adopt_critic as adopted
    from flows.recipes import validated
    from pipeline.images.config import FidelityConfig

    table = {"segmentation": segmentation, "depth": depth, "depth_kind": depth_kind, "labels": _labels(labels or [])}
    models, fidelity = validated(Models, table), validated(FidelityConfig, {"quantile": quantile})
    critic, bounds = adopted(root, out, (width, height), models, held_out, fidelity)
    typer.echo(f"labels that count as nothing: {', '.join(critic.unmapped) or 'none'}")
    typer.echo(
        f"thresholds at quantile {bounds.quantile}: mIoU {bounds.miou:.3f}, depth error {bounds.depth_error:.3f}; "
        f"{bounds.passed} of {bounds.photographs} photographs pass"
    )


def _labels(given: list[str]) -> dict[str, str]:
    from pipeline.scene.errors import InputError

    for text in given:
        if not all(text.partition("=")[::2]):
            raise InputError("--label", "LABEL=CLASS, such as bus=other-vehicle", repr(text))
    return dict(text.split("=", 1) for text in given)


def evaluate(
    folder: Annotated[Path, typer.Argument(help="What `images sample` wrote; --images 2 or more there for diversity.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.")],
    critic: Annotated[Path | None, typer.Option(help="A critic's folder; without one, structure isn't judged.")] = None,
    inception: Annotated[
        Path | None, typer.Option(help="Inception-v3 weights of FID; without them, the offline encoder.")
    ] = None,
    features: Annotated[int, typer.Option(min=1, help="Features of the offline encoder.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Of KID's subsets and of the photographs' halves.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Measure drawn images: FID and KID beside the renders', structure kept, diversity of seeds, rows to look at.

    \b
    Example:
      occfactory images sample runs/images/weights data/runs/town --out runs/drawn --frames 400 --images 3
      occfactory images evaluate runs/drawn --critic runs/critic --out runs/evaluated
    """
    from flows.image_evaluation import Measures, evaluate_images
    from flows.image_evaluation_report import lines
    from flows.ssc_score import told

    command = shlex.join(["occfactory", *sys.argv[1:]])
    with told("judging and encoding", quiet) as progress:
        table = evaluate_images(folder, out, Measures(critic, inception, features, seed), command, progress)
    typer.echo("\n".join([*lines(table), f"{out}/evaluation.md, evaluation.json, rows.jpg"]))
