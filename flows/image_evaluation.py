"""`occfactory images evaluate`: are drawn images near photographs, do they keep the structure, do seeds differ?

OUT/evaluation.json   every figure, with the recipe that the images were drawn by
OUT/evaluation.md     the same as tables
OUT/rows.jpg          frames evenly spaced: render, depth, images of up to three seeds, photograph

The folder is one of `images sample`: all sets show the same frames. FID and KID are against these frames' photographs;
of several images a frame, the k-th ones are a set, and the figure is their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from flows.evaluate_jobs import Encoders, image_encoder
from flows.image_distances import Distance, Features, distances, mean_pairwise, too_few
from flows.image_evaluation_report import recall_of, sheet, to_markdown
from flows.image_judge import judge_digest
from flows.image_samples import Judged, Samples, evenly
from flows.image_scores import SHUFFLED, check_folder
from flows.show import depth_picture
from pipeline.datasets.image_files import write_image
from pipeline.metrics.encoder2d import ImageEncoder
from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_folder, require_empty, write_atomic, write_json

ROWS, SEEDS_SHOWN = 16, 3  # of the picture
SETS = ("render", "reconstruction")  # of each frame one image, beside generated ones
Image = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Measures:
    """What is measured how. inception: file of Inception weights; None: the offline encoder, `features` numbers."""

    critic: Path | None = None  # a critic's folder; None: structure isn't checked
    inception: Path | None = None
    features: int = 48
    seed: int = 0  # of subsets and halves


@dataclass(frozen=True, eq=False)
class _Encoded:
    """Features: a row a frame by kind, and of each frame's drawn images; rows of the picture."""

    kinds: Mapping[str, Features]
    generated: Float[np.ndarray, "n k d"]
    rows: list[list[Image]]


def evaluate_images(
    folder: Path,
    out: Path,
    measures: Measures,
    command: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure a folder of `images sample` and write; what evaluation.json holds.

    progress(done, total): of frames, judged and then encoded. Raises InputError.
    """
    require_empty(out)
    encoder = image_encoder(Encoders(None, measures.inception, measures.features))
    frames = Samples(folder)
    if len(frames) < 2:
        raise InputError(folder, "at least 2 frames", str(len(frames)), "draw more: images sample --frames")
    structure = None if measures.critic is None else check_folder(folder, measures.critic, progress=progress)
    found = _encoded(encoder, frames, progress)
    table = {
        "command": command,
        "drawn": frames.recipe,
        "taxonomy": frames.taxonomy,
        "frames": len(frames),
        "images_a_frame": found.generated.shape[1],
        "seed": measures.seed,
        "encoder": {"name": encoder.name, "digest": encoder.digest, "features": encoder.dimension},
        "note": too_few(encoder, len(frames)),
        "distances": _distances(found, measures.seed),
        "structure": structure,
        "ratios": None if structure is None else _ratios(structure),
        "critic_digest": None if measures.critic is None else judge_digest(measures.critic),
        "diversity": _diversity(found),
    }
    with atomic_folder(out) as new:
        write_json(new / "evaluation.json", table)
        write_atomic(new / "evaluation.md", to_markdown(table))
        write_image(new / "rows.jpg", sheet(found.rows), quality=88)
    return table


def _encoded(encoder: ImageEncoder, frames: Sequence[Judged], progress: Callable[[int, int], None]) -> _Encoded:
    shown = evenly(len(frames), ROWS)
    kinds: dict[str, list[np.ndarray]] = {}
    generated, rows = [], []
    for place, one in enumerate(frames):
        for kind in (*SETS, "photograph"):
            kinds.setdefault(kind, []).append(encoder.features(one.images[kind][0][None])[0])
        generated.append([encoder.features(image[None])[0] for image in one.images["generated"]])
        if place in shown:
            seeds = one.images["generated"][:SEEDS_SHOWN]
            rows.append([one.images["render"][0], depth_picture(one.depth), *seeds, one.images["photograph"][0]])
        progress(place + 1, len(frames))
    if len({len(images) for images in generated}) > 1:
        raise InputError("samples", "as many images of every frame", "unequal numbers", "draw them in one call")
    return _Encoded({kind: np.array(found) for kind, found in kinds.items()}, np.array(generated), rows)


def _distances(found: _Encoded, seed: int) -> list[dict[str, Any]]:
    """Rows of generated (mean over images of a frame), renders, reconstructions, and the floor."""
    photographs, count = found.kinds["photograph"], found.generated.shape[1]
    drawn = {f"generated {k}": found.generated[:, k] for k in range(count)}
    rows = distances(photographs, drawn | {kind: found.kinds[kind] for kind in SETS}, seed)
    return [_mean(rows[:count]), *(asdict(row) for row in rows[count:])]


def _mean(rows: list[Distance]) -> dict[str, Any]:
    """Of the sets that one image of each frame makes; their own figures beside it."""
    fids = [row.fid for row in rows if row.fid is not None]
    mean = {"fid": float(np.mean(fids)) if fids else None, "kid": float(np.mean([row.kid for row in rows]))}
    return {**asdict(rows[0]), **mean, "name": "generated", "sets": [asdict(row) for row in rows]}


def _ratios(structure: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """mIoU and mean foreground recall of one kind over another's."""
    pairs = {
        "reconstruction / photograph": ("reconstruction", "photograph"),
        "generated / reconstruction": ("generated", "reconstruction"),
        "generated / photograph": ("generated", "photograph"),
        "shuffled / photograph": (SHUFFLED, "photograph"),
    }
    measured = {"miou": lambda row: row["miou"], "recall": recall_of}
    return {
        name: {key: _over(of(structure[own]), of(structure[other])) for key, of in measured.items()}
        for name, (own, other) in pairs.items()
        if own in structure
    }


def _over(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def _diversity(found: _Encoded) -> dict[str, float] | None:
    """Mean distances of features; None where a frame has one image."""
    count = found.generated.shape[1]
    if count < 2:
        return None
    one = [mean_pairwise(images) for images in found.generated]
    several = [mean_pairwise(found.generated[:, k]) for k in range(count)]
    return {
        "one scene": float(np.mean(one)),
        "least of a scene": float(np.min(one)),
        "different scenes": float(np.mean(several)),
        "photographs of different scenes": mean_pairwise(found.kinds["photograph"]),
    }
