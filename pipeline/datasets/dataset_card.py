"""A dataset card, README.md: what an export holds, how to load it, what it was made from, licences, class statistics.

The front matter is what dataset hubs and `datasets` read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.parquet_columns import card_features
from pipeline.scene.files import write_atomic
from pipeline.scene.taxonomy import Taxonomy

CARD_NAME = "README.md"
TAGS = ("synthetic", "3d", "semantic-scene-completion")
LOADING = {
    "semantickitti": """\
The layout is SemanticKITTI's, with MonoScene's arrays beside it: a loader of either reads it unchanged.

```python
labels = np.load("labels/SEQUENCE/FRAME_1_1.npy")  # uint8 (x, y, z), 255 = not scored
```""",
    "webdataset": """\
```python
import webdataset
samples = webdataset.WebDataset(["train-00000.tar"], shardshuffle=False).decode("pil")
for sample in samples:
    sample["image_2.png"], sample["voxels.npz"]["labels"], sample["json"]["cameras"]
```""",
    "parquet": """\
```python
import zlib, datasets, numpy
row = datasets.load_dataset("FOLDER", split="train")[0]  # FOLDER holds this card
image, depth_m = row["image_2"], numpy.asarray(row["depth_2"]) / 256
labels = numpy.frombuffer(zlib.decompress(row["labels"]), numpy.uint8).reshape(row["grid_shape"])
bits = numpy.frombuffer(zlib.decompress(row["invalid"]), numpy.uint8)  # occluded and scan likewise; None: not known
invalid = numpy.unpackbits(bits, count=labels.size).reshape(labels.shape)
```
`croissant.json` describes every file, column and class, and mlcroissant reads its record set `samples`.""",
    "occ3d": """\
```python
arrays = numpy.load("gts/SCENE/TOKEN/labels.npz")  # semantics, mask_lidar, mask_camera: uint8 (200, 200, 16)
```
Labels are Occ3D's classes on its grid; both masks say which voxels are valid. `annotations.json` has images and
cameras; images lie in `imgs/`.""",
}


@dataclass(frozen=True)
class Source:
    """Something that the data was made from: its part, what it is, its SHA-256 and its licence, "" where none."""

    role: str
    what: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class Card:
    """What is said of an export. licence: an SPDX id, a URL or words; synthetic: what was made, and what recorded;
    published: YYYY-MM-DD or ""; splits: (samples, scenes) by name; split_bytes: of their files; cameras: suffixes of
    those with images; classes: rows of (name, voxels, share of the occupied ones, samples with it); checked, accepted,
    prompted: samples."""

    name: str
    description: str
    synthetic: str
    target: str
    licence: str
    published: str
    version: str
    manifest_digest: str
    sources: tuple[Source, ...]
    splits: Mapping[str, tuple[int, int]]
    split_bytes: Mapping[str, int]
    cameras: tuple[str, ...]
    classes: tuple[tuple[str, int, float, int], ...]
    checked: int
    accepted: int
    prompted: int
    recipe: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def samples(self) -> int:
        return sum(count for count, _ in self.splits.values())

    @property
    def summary(self) -> str:
        """The description in one line, or what any export is."""
        return _plain(self.description) or "Synthetic 3D-semantics samples: images paired with labelled voxels."


def class_rows(taxonomy: Taxonomy, notes: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, float, int]]:
    """A row a class from samples' notes: name, valid voxels, share of the occupied ones, samples with it."""
    counts = np.array([note["class_voxels"] for note in notes], np.int64).reshape(-1, len(taxonomy.classes))
    totals, seen = counts.sum(axis=0), (counts > 0).sum(axis=0)
    solid = max(int(totals[1:].sum()), 1)
    shares = [0.0, *(float(count) / solid for count in totals[1:])]
    return [
        (name, int(total), share, int(frames))
        for name, total, share, frames in zip(taxonomy.classes, totals, shares, seen, strict=True)
    ]


def write_card(root: Path, card: Card) -> list[str]:
    """Write README.md; the path written, relative to `root`."""
    write_atomic(root / CARD_NAME, card_text(card))
    return [CARD_NAME]


def card_text(card: Card) -> str:
    """The card in Markdown."""
    digest = f"`{card.manifest_digest}`"
    parts = [
        _front_matter(card),
        f"# {_plain(card.name)}",
        card.summary,
        f"**Synthetic data.** {card.synthetic} Images are paired with the voxels that occfactory made them from.",
        "## Splits\n\nNo scene is in two splits.",
        _table(("split", "samples", "scenes"), [(name, *counts) for name, counts in card.splits.items()]),
        f"## Loading\n\n{LOADING[card.target]}",
        "`samples.jsonl` has a line a sample: split, scene, cameras, class counts, prompt, accept scores, provenance.",
        f"## Licences and provenance\n\nLicence of this dataset: {_plain(card.licence)}.",
        _table(("part", "what", "SHA-256", "licence"), [(s.role, s.what, s.sha256, s.licence) for s in card.sources]),
        f"SHA-256 of the build's manifest: {digest}. Images: {_images(card)}.",
        "## Classes\n\nValid voxels; shares are of the occupied ones.",
        _table(("class", "voxels", "share", "samples with it"), [_class_row(*row) for row in card.classes]),
        f"## Recipe\n\n```json\n{json.dumps(card.recipe, indent=1, sort_keys=True)}\n```",
        "Made with " + ", ".join(f"{name} {number}" for name, number in sorted(card.versions.items())) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(card: Card) -> str:
    """YAML, whose strings are written as JSON strings."""
    spdx = card.licence.isascii() and not card.licence.startswith("http") and " " not in card.licence
    lines = [f"license: {json.dumps(card.licence.lower() if spdx else 'other')}"]
    if not spdx:
        lines.append(f"license_name: {json.dumps(card.licence)}")
    lines += [f"pretty_name: {json.dumps(card.name)}", f"tags: {json.dumps(TAGS)}"]
    if card.target == "parquet":
        lines += _parquet_matter(card)
    return "\n".join(["---", *lines, "---"])


def _parquet_matter(card: Card) -> list[str]:
    """Where the splits' files lie, and their columns; lists and tables in YAML's flow style, which is JSON's."""
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in card.splits]
    splits = [
        {"name": split, "num_bytes": card.split_bytes[split], "num_examples": count}
        for split, (count, _) in card.splits.items()
    ]
    info = ["dataset_info:", "  features:", *(f"  - {json.dumps(row)}" for row in card_features(card.cameras))]
    info += ["  splits:", *(f"  - {json.dumps(row)}" for row in splits)]
    return ["configs:", "- config_name: default", "  data_files:", *(f"  - {json.dumps(row)}" for row in files), *info]


def _images(card: Card) -> str:
    checked = f"{card.accepted} of {card.checked} checked ones passed their structure check" if card.checked else ""
    prompted = f"{card.prompted} were made from a prompt" if card.prompted else ""
    return "; ".join(part for part in (checked, prompted) if part) or "shaded renders of the voxels, or photographs"


def _class_row(name: str, voxels: int, share: float, frames: int) -> tuple[str, str, str, str]:
    return name, f"{voxels}", f"{100 * share:.3f} %" if name != "empty" else "-", f"{frames}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_plain(str(cell)) or "-" for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text in one line that no Markdown table or heading breaks on."""
    return " ".join(text.replace("|", "/").split())
