"""What `images evaluate` writes for people: its tables as Markdown, and rows of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from flows.evaluate_report import markdown_table, number
from flows.image_distances import FLOOR
from flows.scene_pictures import FAINT, beside, fitted, stacked, text_strip
from pipeline.report.evaluation import Table

SHEET_PX, GAP_PX, HEADING_PX = 1800, 4, 18  # of the picture's width; between pictures; of its headings' letters
TITLES = {"generated": "generated", "render": "bare renders", "reconstruction": "VAE's reconstructions"}
Image = UInt8[np.ndarray, "h w 3"]


def sheet(rows: Sequence[Sequence[Image]]) -> Image:
    """The rows as they come, with headings, at most SHEET_PX wide."""
    columns = len(rows[0])
    height, width = rows[0][0].shape[:2]
    wide = min(width, (SHEET_PX - (columns - 1) * GAP_PX) // columns)
    high = max(1, round(height * wide / width))
    small = [[fitted(picture, high) for picture in row] for row in rows]
    names = ["render", "depth", *(f"image {k}" for k in range(columns - 3)), "photograph"]
    heads = [text_strip(name, small[0][0].shape[1], HEADING_PX, FAINT) for name in names]
    return stacked([beside(heads, GAP_PX), *(beside(row, GAP_PX) for row in small)], GAP_PX)


def to_markdown(table: Mapping[str, Any]) -> str:
    """The figures as tables, with what they rest on."""
    drawn, encoder = table["drawn"], table["encoder"]
    images = f"{table['frames']} frames, {table['images_a_frame']} images a frame"
    parts = [
        "# Drawn images against held-out photographs",
        *([f"Command: `{table['command']}`"] if table["command"] else []),
        f"Images: {images}, split {drawn['source']['split']}, seed {drawn['seed']}, {drawn['synthesis']['scheduler']} "
        f"in {drawn['synthesis']['steps']} steps, guidance {drawn['synthesis']['guidance']}; weights "
        f"{drawn['weights_digest'][:16]}. Encoder: {encoder['name']}, {encoder['features']} features, digest "
        f"{encoder['digest'][:16]}.",
    ]
    for found in tables(table):
        parts += [f"## {found.title}", found.note, markdown_table(found)]
    return "\n\n".join(part for part in parts if part) + "\n\n![Uncurated rows](rows.jpg)\n"


def tables(table: Mapping[str, Any]) -> list[Table]:
    """Distances; structure, where a critic judged it; diversity, where frames have several images."""
    found = [distance_table(table["distances"], table["note"])]
    if table["structure"] is not None:
        found += [_structure_table(table["structure"]), _ratio_table(table["ratios"])]
    if table["diversity"] is not None:
        rows = [[name, number(value)] for name, value in table["diversity"].items()]
        note = "Mean distance of two images' features: of one scene's seeds, and of scenes."
        found.append(Table("Diversity", note, ["images of", "distance"], rows))
    return found


def distance_table(rows: Sequence[Mapping[str, Any]], note: str) -> Table:
    """FID and KID by set. rows: as `Distance`, in a dictionary; the bare renders are among them."""
    renders = next(row for row in rows if row["name"] == "render")
    cells = [
        [
            TITLES.get(row["name"], row["name"]),
            f"{row['images']} : {row['photographs']}",
            "-" if row["fid"] is None else number(row["fid"]),
            _share(row["fid"], renders["fid"]) if row["name"] != FLOOR else "-",
            f"{number(row['kid'])} ± {number(row['kid_spread'])}",
        ]
        for row in rows
    ]
    said = "Against photographs, lower is nearer; ± is over subsets. The last row is what photographs score"
    said += ", from half as many." if rows[-1]["name"] == FLOOR else "."
    heads = ["images", "N", "FID ↓", "of the renders'", "KID ↓"]
    return Table("Near photographs", f"{said} {note}".strip(), heads, cells)


def _share(value: float | None, other: float | None) -> str:
    return "-" if value is None or not other else f"{value / other:.2f}"


def _structure_table(structure: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        [
            kind,
            str(row["images"]),
            *(_cell(value) for value in (row["miou"], row["mean_miou"], recall_of(row), row["depth_error"])),
            _cell(row["accepted"]),
        ]
        for kind, row in structure.items()
    ]
    note = "What the critic finds in images of what they were to show; shuffled: of another frame's, the floor."
    heads = ["images", "N", "mIoU", "mIoU an image", "foreground recall", "depth error", "accepted"]
    return Table("Structure", note, heads, rows)


def _ratio_table(ratios: Mapping[str, Mapping[str, float | None]]) -> Table:
    rows = [[name, _cell(row["miou"]), _cell(row["recall"])] for name, row in ratios.items()]
    return Table("Structure kept", "", ["share", "mIoU", "foreground recall"], rows)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def recall_of(row: Mapping[str, Any]) -> float | None:
    """Mean over foreground classes in view."""
    values = list(row["recall"].values())
    return float(np.mean(values)) if values else None


def lines(table: Mapping[str, Any]) -> list[str]:
    """A few lines for a terminal."""
    found = []
    for row in table["distances"]:
        fid = "-" if row["fid"] is None else number(row["fid"])
        found.append(f"{TITLES.get(row['name'], row['name'])}: N {row['images']}, FID {fid}, KID {number(row['kid'])}")
    for name, row in (table["ratios"] or {}).items():
        found.append(f"{name}: mIoU {_cell(row['miou'])}, foreground recall {_cell(row['recall'])}")
    found += [f"distance, {name}: {number(value)}" for name, value in (table["diversity"] or {}).items()]
    return found + ([table["note"]] if table["note"] else [])
