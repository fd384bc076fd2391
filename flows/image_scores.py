"""`occfactory images check`: how far images keep the structure of their voxels, beside ceiling and floor.

photograph      real ones: what the critic can see at all          reconstruction  through the pipeline's VAE
generated       the pipeline's images                              render          the shaded renders themselves
shuffled        images held against another frame's voxels: what chance gives
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.image_critic import THRESHOLDS_NAME
from flows.image_judge import judge_size, load_judge
from flows.image_pairs import ImagePairs, PairsConfig
from flows.image_samples import TABLE, Judged, Samples, evenly
from flows.image_weights import check_independent
from flows.recipes import SplitSource
from pipeline.images.config import FidelityConfig
from pipeline.images.critic import check_classes
from pipeline.images.fidelity import Agreement, accept, agreement, read_thresholds, summed
from pipeline.scene.taxonomy import Taxonomy, load_taxonomy

KINDS = ("photograph", "reconstruction", "generated", "render")
SHUFFLED = "shuffled"


def check_folder(
    folder: Path,
    critic: Path,
    split: str = "val",
    frames: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Scores by kind of image, of a folder of `images sample` or of a data set's images. Raises InputError.

    frames: of a data set, so many evenly over the split; None: all. progress(done, total): of frames.
    """
    bounds = read_thresholds(critic / THRESHOLDS_NAME)
    taxonomy, judged = _judged(folder, critic, split, frames)
    judge = load_judge(critic, taxonomy)
    check_classes(judge, taxonomy.classes)
    config = FidelityConfig()
    found: dict[str, list[Agreement]] = {}
    for number, one in enumerate(judged):
        shown = {kind: one.images[kind] for kind in KINDS if kind in one.images}
        other = judged[(number + len(judged) // 2) % len(judged)]
        shown[SHUFFLED] = other.images.get("generated", other.images.get("photograph", []))
        for kind, images in shown.items():
            for image in images:
                scores = agreement(one.labels, one.depth, judge.predict(image), taxonomy, config)
                found.setdefault(kind, []).append(scores)
        progress(number + 1, len(judged))
    if len(judged) < 2:
        del found[SHUFFLED]
    return {
        kind: summed(scores, taxonomy).figures()
        | {
            "images": len(scores),
            "mean_miou": _mean([one.miou for one in scores if one.miou is not None]),
            "accepted": _mean([float(accept(one, bounds).accepted) for one in scores]),
        }
        for kind, scores in found.items()
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _judged(folder: Path, critic: Path, split: str, frames: int | None) -> tuple[Taxonomy, Sequence[Judged]]:
    if (folder / TABLE).is_file():
        samples = Samples(folder)
        check_independent("critic", critic, samples.taught_by)
        return load_taxonomy(samples.taxonomy), samples
    height, width = judge_size(critic)
    pairs = ImagePairs(SplitSource(root=folder, split=split), PairsConfig(width_px=width, height_px=height))
    return pairs.taxonomy, [_pair(pairs, index) for index in evenly(len(pairs), frames)]


def _pair(pairs: ImagePairs, index: int) -> Judged:
    view = pairs.view(index)
    images = {"photograph": [pairs.photograph(index)], "render": [view.rgb]}
    return Judged("_".join(pairs.frames[index]), view.semantics, view.depth, images)


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table for a terminal. mIoU: over all pixels; an image: the mean of images' own; recall: foreground's."""
    head = f"{'':16}{'images':>8}{'mIoU':>8}{'an image':>10}{'recall':>8}{'depth error':>13}{'accepted':>10}"
    return [head, *(_line(kind, row) for kind, row in found.items())]


def _line(kind: str, row: Mapping[str, Any]) -> str:
    recall = _mean(list(row["recall"].values()))
    values = (row["miou"], row["mean_miou"], recall, row["depth_error"], row["accepted"])
    cells = [f"{value:.3f}" if value is not None else "-" for value in values]
    return f"{kind:16}{row['images']:8}" + "".join(f"{c:>{w}}" for c, w in zip(cells, (8, 10, 8, 13, 10), strict=True))
