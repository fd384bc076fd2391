"""A critic's folder, as builds and checks use it: our own, or two models of others with thresholds of their own.

CRITIC/weights, CRITIC/thresholds.json                what `images train-critic` writes
CRITIC/{segmentation,depth}, foreign.json, thresholds.json   `images adopt-critic`: copies of two transformers models

Whoever judges is held to the same rule: thresholds are quantiles of its own agreement with held-out photographs.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError

from flows.image_critic import THRESHOLDS_NAME
from flows.image_pairs import ImagePairs, PairsConfig
from flows.recipes import Config, SplitSource
from pipeline.images.config import FidelityConfig
from pipeline.images.critic import Critic, Judge
from pipeline.images.fidelity import Thresholds, agreements, thresholds, write_thresholds
from pipeline.images.foreign_critic import DepthKind, ForeignCritic, load_foreign_critic
from pipeline.images.loading import CONTENTS
from pipeline.learning.checkpoint import read_card
from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_folder, digest_of, require_empty, safe_join, sha256_file, write_json
from pipeline.scene.taxonomy import Taxonomy

FOREIGN_NAME = "foreign.json"
MODELS = ("segmentation", "depth")


class Models(Config):
    """Two transformers models."""

    segmentation: Path  # their folders
    depth: Path
    depth_kind: DepthKind | None = None  # what the depth model gives; None: as its config says
    labels: dict[str, str] = Field(
        default_factory=dict
    )  # class name by the segmentation's label, where names don't tell


@dataclass(frozen=True)
class Adopted:
    """foreign.json. size_px: (height, width) of the photographs that thresholds come from; files: SHA-256 by path."""

    taxonomy: str
    depth_kind: DepthKind
    labels: dict[str, str]
    size_px: tuple[int, int]
    files: dict[str, str]
    format: Literal["occfactory-foreign-critic-1"] = "occfactory-foreign-critic-1"


def adopt_critic(
    root: Path, out: Path, size_px: tuple[int, int], models: Models, held_out: str, fidelity: FidelityConfig
) -> tuple[ForeignCritic, Thresholds]:
    """Make OUT a critic's folder of models of others: copies, and thresholds from ROOT's held-out photographs.

    size_px: (width, height) that photographs and renders are judged at. Raises InputError.
    """
    require_empty(out)
    shape = PairsConfig(width_px=size_px[0], height_px=size_px[1])
    pairs = ImagePairs(SplitSource(root=root, split=held_out), shape)
    if len(pairs) < fidelity.min_photographs:
        what = f"at least {fidelity.min_photographs} photographs in split {held_out}"
        raise InputError(root, what, str(len(pairs)), "thresholds need them")
    critic = load_foreign_critic(
        models.segmentation, models.depth, pairs.taxonomy, mapping=models.labels, depth_kind=models.depth_kind
    )
    bounds = thresholds(agreements(critic, pairs, pairs.taxonomy, fidelity), fidelity)
    with atomic_folder(out) as folder:
        files = {
            f"{name}/{file}": sha for name in MODELS for file, sha in _copied(getattr(models, name), folder / name)
        }
        size = size_px[1], size_px[0]
        told = Adopted(pairs.taxonomy.name, critic.depth_kind, models.labels, size, files)
        write_json(folder / FOREIGN_NAME, asdict(told))
        write_thresholds(bounds, folder / THRESHOLDS_NAME)
    return critic, bounds


def _copied(source: Path, folder: Path) -> Sequence[tuple[str, str]]:
    """(name, SHA-256) of a model's files, which lie in the folder now."""
    folder.mkdir()
    names = sorted(path.name for path in Path(source).iterdir() if path.suffix in CONTENTS and path.is_file())
    for name in names:
        shutil.copyfile(Path(source) / name, folder / name)
    return [(name, sha256_file(folder / name)) for name in names]


def load_judge(folder: Path, taxonomy: Taxonomy) -> Judge:
    """The critic of a folder, ours or others'. Raises InputError: damaged, or of other classes."""
    if (told := _adopted(folder)) is None:
        return Critic.load(Path(folder) / "weights")
    if told.taxonomy != taxonomy.name:
        raise InputError(folder, f"a critic of {taxonomy.name}'s classes", f"one of {told.taxonomy}'s", "adopt another")
    for name, digest in told.files.items():
        path = safe_join(Path(folder), name)
        if not path.is_file() or sha256_file(path) != digest:
            raise InputError(path, f"SHA-256 {digest[:12]}...", "other content" if path.is_file() else "nothing")
    segmentation, depth = (Path(folder) / name for name in MODELS)
    return load_foreign_critic(segmentation, depth, taxonomy, mapping=told.labels, depth_kind=told.depth_kind)


def judge_size(folder: Path) -> tuple[int, int]:
    """(height, width) [px] of the photographs that a critic's thresholds come from. Raises InputError."""
    if (told := _adopted(folder)) is not None:
        return told.size_px
    size = read_card(Path(folder) / "weights").get("data", {}).get("size", ())
    if len(size) != 2:
        raise InputError(folder, "a critic's card that tells the photographs' size", "none")
    return int(size[0]), int(size[1])


def judge_digest(folder: Path) -> str:
    """SHA-256 of the table that names every file's own (card or foreign.json), and of the thresholds."""
    own = Path(folder) / FOREIGN_NAME
    paths = (own if own.is_file() else Path(folder) / "weights" / "card.json", Path(folder) / THRESHOLDS_NAME)
    for path in paths:
        if not path.is_file():
            raise InputError(path, "a folder that `occfactory images train-critic` or `adopt-critic` wrote", "none")
    return digest_of([sha256_file(path) for path in paths])


def _adopted(folder: Path) -> Adopted | None:
    """What foreign.json says, None where there is none. Raises InputError."""
    path = Path(folder) / FOREIGN_NAME
    if not path.is_file():
        return None
    try:
        return TypeAdapter(Adopted).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        found = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InputError(path, "what `occfactory images adopt-critic` wrote", found) from None
