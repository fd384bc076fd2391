"""A report's part on semantic scene completion: the build's network beside the constant prior; a matrix's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.report_tables import protocol_tables
from pipeline.datasets.checked_files import read_json
from pipeline.datasets.image_files import image_size
from pipeline.report.evaluation import Table
from pipeline.report.report import Picture, Section
from pipeline.scene.errors import InputError

SCORES = {"IoU": "iou", "precision": "precision", "recall": "recall", "mIoU": "miou", "mIoU of present": "miou_present"}
WHO = {"network": "network", "adapted": "network, adapted", "prior": "constant prior"}  # what a test scores
ALL, IN_VIEW = "all", "in view"  # regions, as ssc_eval.metrics calls them; importing it takes torch
WHAT = "the table of a build's SSC step"
LARGEST = 1 << 26  # bytes


def read_ssc(path: Path) -> dict[str, Any] | None:
    """The table, None where there is none. Raises InputError."""
    if not Path(path).exists():
        return None
    table = read_json(path, WHAT, LARGEST)
    if not isinstance(table, dict) or not isinstance(table.get("tests"), list):
        raise InputError(path, WHAT, "something else", "remove it and build again")
    return table


def ssc_section(table: Mapping[str, Any] | None, folder: Path, matrix: Path | None) -> Section | None:
    """Scores, classes and pictures (which lie in FOLDER), then the protocols' tables. Raises InputError."""
    tables = [] if matrix is None else protocol_tables(matrix)
    if table is None:
        return Section("ssc", "Completion", "Semantic scene completion, in percent.", tables) if tables else None
    try:
        pictures = [_picture(folder, row) for row in table["pictures"]]
        return Section("ssc", "Completion", _note(table), [*ssc_tables(table), *tables], pictures)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError("ssc.json", WHAT, f"{error!r}", "build again") from None


def ssc_tables(table: Mapping[str, Any]) -> list[Table]:
    """Scores of network and prior on every test, and of each class."""
    rows = [
        [
            f"{who}, {test['short']}",
            f"{test['frames']}",
            *_scores(test[key]["regions"][ALL]),
            *_in_view(test[key]["regions"]),
        ]
        for test in table["tests"]
        for key, who in WHO.items()
        if key in test
    ]
    heads = ["", "frames", *SCORES, "IoU in view", "mIoU in view"]
    meant = "; ".join(f"{test['short']}: {test['on']}" for test in table["tests"])
    note = f"{meant}. mIoU is the official one: a class that neither labels nor predictions have counts 0."
    return [Table("Scores in percent", note, heads, rows), _classes(table["tests"], table["classes"])]


def _scores(region: Mapping[str, Any]) -> list[str]:
    return [f"{100 * region[key]:.2f}" for key in SCORES.values()]


def _in_view(regions: Mapping[str, Any]) -> list[str]:
    found = regions.get(IN_VIEW)
    return [f"{100 * found[key]:.2f}" if found else "-" for key in ("iou", "miou")]


def _classes(tests: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    columns = [
        (f"{who}, {test['short']}", test[key]["regions"][ALL])
        for test in tests
        for key, who in WHO.items()
        if key in test
    ]
    rows = [
        [name, *(f"{100 * region['classes'][name]:.2f}" + _absent(name, region) for _, region in columns)]
        for name in names
    ]
    note = "In percent; (-) where no label of the tested frames has the class."
    return Table("IoU by class", note, ["class", *(name for name, _ in columns)], rows)


def _absent(name: str, region: Mapping[str, Any]) -> str:
    return "" if name in region["present"] else " (-)"


def _note(table: Mapping[str, Any]) -> str:
    trained, note = table["trained"], ""
    for images in (test["adapted_to"] for test in table["tests"] if "adapted" in test):
        note = f" Adapted, as in its pictures: batch norms' statistics are of {images} real images, labels unused."
    return (
        f"A network ({table['step']['recipe']}) trained on this build alone: {trained['frames']} frames, "
        f"{trained['steps']} steps, {table['hardware']}. The constant prior says each voxel's most frequent class, "
        "whatever the image shows: what is above it was learnt from images."
    ) + note


def _picture(folder: Path, row: Mapping[str, Any]) -> Picture:
    width, height = image_size(folder / row["file"])
    return Picture(row["caption"], row["file"], row["file"], width, height)
