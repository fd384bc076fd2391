"""The datasets of a matrix: whether they go together, what they hold, and what they are known by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flows.ssc_accepted import accepted_frames, write_accepted
from pipeline.datasets.kitti_root import KittiRoot, sequence_path
from pipeline.datasets.manifest import MANIFEST_NAME
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of, sha256_file
from ssc_eval.protocols import VARIANT_NAME, Data, Datasets
from ssc_eval.samples import Source, chosen_frames
from ssc_eval.views import RENDERS, open_scenes, render_path

TRAIN = "train"  # the split that runs draw from


class Variant(NamedTuple):
    """A synthetic dataset that was built with one switch more, to be compared."""

    name: str
    root: Path


def datasets(real: Path, synthetic: Sequence[Path | Variant], out: Path, split: str) -> Datasets:
    """What there is to draw from. Raises InputError on datasets that don't go together."""
    variants = [given for given in synthetic if isinstance(given, Variant)]
    plain = [given for given in synthetic if isinstance(given, Path)]
    root, _ = open_scenes(real)
    chosen_frames(root, Source(root=real, split=split), 0)  # there are held-out frames
    if split == TRAIN:
        raise InputError("split", "held-out sequences", f"{TRAIN}, which runs learn from")
    paths = [*plain, *(variant.root for variant in variants)]
    if len({path.resolve() for path in paths}) < len(paths) or len({v.name for v in variants}) < len(variants):
        raise InputError("--synthetic and --variant", "each dataset once, and each name", "one of them twice")
    others = [open_scenes(path)[0] for path in paths]
    for other in others:
        if other.grid != root.grid or other.taxonomy != root.taxonomy:
            expected = f"the grid and classes of {real}, {root.grid}, {root.taxonomy.name}"
            found = f"{other.grid}, {other.taxonomy.name}"
            raise InputError(other.path, expected, found, "`occfactory convert` resamples")
    made = [_synthetic(other, out) for other in others]
    named = {variant.name: data for variant, data in zip(variants, made[len(plain) :], strict=True)}
    return Datasets(real=_data(root, (TRAIN, split)), synthetic=tuple(made[: len(plain)]), variants=named)


def variant_of(text: str) -> Variant:
    """A variant from NAME=DIR. Raises InputError."""
    name, _, folder = text.partition("=")
    if not re.fullmatch(VARIANT_NAME, name) or not folder:
        raise InputError("--variant", "NAME=DIR, the name of letters, digits and _.-", repr(text))
    return Variant(name, Path(folder))


def _data(root: KittiRoot, splits: Sequence[str]) -> Data:
    frames = chosen_frames(root, Source(root=root.path, split=TRAIN), 0)
    return Data(root=root.path, digest=content(root, splits), frames=len(frames))


def _synthetic(root: KittiRoot, out: Path) -> Data:
    data = _data(root, (TRAIN,))
    kept = accepted_frames(root)
    changes: dict[str, Any] = {"renders": _renders(root)}
    if kept is not None:
        changes["accepted"] = len(kept & {f"{s}/{f}" for s, f in root.frames(TRAIN)})
        if changes["accepted"]:
            place = Path(out) / "accepted" / data.digest[:16] / root.path.name
            changes["accepted_root"] = place if place.exists() else write_accepted(root, kept, place)
    return data.model_copy(update=changes)


def _renders(root: KittiRoot) -> str:
    """Which renders lie in a dataset; see Data."""
    try:
        path = render_path(root, *root.frames(TRAIN)[0])
    except InputError:
        return ""
    return "beside" if path.parent.name == RENDERS else "images"


def content(root: KittiRoot, splits: Sequence[str]) -> str:
    """A digest of a dataset: of its manifest, which hashes every file, else of its labels' and images' sizes."""
    if (root.path / MANIFEST_NAME).exists():
        return sha256_file(root.path / MANIFEST_NAME)
    rows = []
    for sequence, frame in (key for split in splits for key in root.frames(split)):
        image = sequence_path(root.path, root.layout, sequence, root.layout.images, f"{frame}.png")
        sizes = [path.stat().st_size for path in (*root.label_files(sequence, frame), image) if path.exists()]
        rows.append([sequence, frame, sizes])
    grid = [list(root.grid.shape), root.grid.voxel_size_m, list(root.grid.origin_m)]
    return digest_of([root.taxonomy.name, grid, rows])
