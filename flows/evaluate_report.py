"""An evaluation on disk: table.md, table.json, plots, and index.html that holds all of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.evaluate import FLOOR_HALVES, FLOOR_TRAIN, KERNEL_SUBSETS, CountRow, Evaluation, Row
from flows.scene_sets import folder_set, grid_of, split_set
from pipeline.report.evaluation import Page, Table, write_page
from pipeline.report.figures import Panel, class_histogram, metric_bars
from pipeline.scene.files import atomic_folder, require_empty, write_atomic, write_json

UP, DOWN = "higher is better", "lower is better"
MEASURES = (  # key of Row.figures, column's heading, note
    ("F3D", "F3D ↓", DOWN),
    ("K3D", "K3D ↓", DOWN),
    ("FID above", "FID above ↓", DOWN),
    ("FID oblique", "FID oblique ↓", DOWN),
    ("FID both", "FID both ↓", DOWN),
    ("KID above", "KID above ↓", DOWN),
    ("KID oblique", "KID oblique ↓", DOWN),
    ("KID both", "KID both ↓", DOWN),
    ("IS", "IS ↑", UP),
    ("class KL", "class KL ↓", DOWN),
    ("foreground share", "foreground", "as in real scenes"),
    ("invasion", "invasion ↑", "0 to 10, higher is better"),
    ("nearest", "nearest", "to the nearest training scene"),
    ("copied", "copied", "nearer to training than 99 % of held-out scenes are"),
)
PLOTTED = ("F3D", "K3D", "FID both", "KID both", "class KL", "invasion", "foreground share", "nearest")
SHOWN = 8  # scenes a set on the page


def write_evaluation(found: Evaluation, out: Path, command: str = "", pictures: bool = True) -> None:
    """Write the folder, whole or not at all. pictures: first scenes of each set on the page. Raises InputError."""
    require_empty(out)
    plots = {"classes.png": _histogram(found), "measures.png": _bars(found)}
    with atomic_folder(out) as folder:
        write_json(folder / "table.json", to_json(found, command))
        write_atomic(folder / "table.md", to_markdown(found, command))
        for name, content in plots.items():
            write_atomic(folder / name, content)
        shown = scene_pictures(found) if pictures else {}
        write_page(folder / "index.html", _page(found, command, plots, shown))


def to_json(found: Evaluation, command: str) -> dict[str, Any]:
    """Everything, null where there is no figure."""
    real = split_set(found.recipe.real, "val")
    grid, _ = grid_of(real)
    table = {
        "command": command,
        "recipe": found.recipe.model_dump(mode="json"),
        "grid": {"shape": grid.shape, "voxel_size_m": grid.voxel_size_m, "origin_m": grid.origin_m},
        "taxonomy": found.taxonomy.name,
        "encoders": dict(found.encoders),
        "camera": camera_facts(),
        "kernel": {"subsets": KERNEL_SUBSETS, "subset_size": "half of the smaller set"},
        "sets": [dict(zip(("name", "folder", "scenes", "labels_sha256"), row, strict=True)) for row in found.sets],
        "rows": [asdict(row) for row in found.rows],
        "counts": [{**asdict(row), "within_15_percent": near_marks(row)} for row in found.counts],
        "real_class_shares": found.real_shares,
        "notes": found.notes,
    }
    return dict(_finite(table))


def near_marks(row: CountRow) -> list[bool]:
    """Whether each set's value is near the real one."""
    return [row.near(k) for k in range(len(row.values))]


def camera_facts() -> dict[str, Any]:
    """How the pictures behind FID and KID are taken."""
    from renderers.bird_eye import OBLIQUE_EYE, OBLIQUE_FOV_DEG, OBLIQUE_SIZE_PX, OBLIQUE_TARGET

    oblique = {"size_px": OBLIQUE_SIZE_PX, "fov_deg": OBLIQUE_FOV_DEG, "eye": OBLIQUE_EYE, "target": OBLIQUE_TARGET}
    return {"above": {"metres_per_px": 0.2}, "oblique": {**oblique, "unit": "grid extents, see renderers/bird_eye.py"}}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_markdown(found: Evaluation, command: str) -> str:
    """The tables, and what they rest on."""
    parts = [
        f"# Generated scenes against {found.recipe.real.name}, {found.recipe.reference} split",
        *basis(found, command),
    ]
    for table in tables(found):
        parts += [f"## {table.title}", table.note, markdown_table(table)]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """Heads and rows alone, numbers at the right."""
    rows = [table.heads, ["---", *["---:"] * (len(table.heads) - 1)], *table.rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def basis(found: Evaluation, command: str) -> list[str]:
    """What the figures rest on, a sentence each."""
    encoders = "; ".join(
        f"{what} {facts['name']} ({facts['features']} features, digest {facts['digest'][:16]})"
        for what, facts in found.encoders.items()
    )
    sets = ", ".join(f"{name} {count}" for name, _, count, _ in found.sets)
    missing = sorted({f"{name}: {why}" for row in found.rows for name, why in row.notes.items()})
    return [
        *([f"Command: `{command}`"] if command else []),
        f"Scenes: {sets}. Seed {found.recipe.seed}. Encoders: {encoders}.",
        *(f"Missing: {why}." for why in missing),
        *(f"Note: {note}." for note in found.notes),
    ]


def tables(found: Evaluation) -> list[Table]:
    """Measures, counts beside real, and memorisation."""
    used = [m for m in MEASURES if any(m[0] in row.figures or m[0] in row.notes for row in found.rows)]
    measures = Table(
        "Measures",
        f"Every row against {_reference(found)}, the last one a half of it against the other: what real scenes score. "
        "± is a standard deviation over kernel subsets, or invasion's standard error. Compare rows of equal N only.",
        ["scenes", "N", *(head for _, head, _ in used)],
        [[row.name, _size(row), *(_cell(row, key) for key, _, _ in used)] for row in found.rows],
    )
    names = [row.name for row in found.rows if row.name != FLOOR_HALVES]
    good = [sum(row.near(k) for row in found.counts) for k in range(len(names))]
    within = ", ".join(f"{name} {n}" for name, n in zip(names, good, strict=True))
    counts = Table(
        "Counts beside real scenes",
        f"✓ is within 15 % of the reference's figure; of {len(found.counts)} figures: {within}.",
        ["figure", "real", *names],
        [[row.name, number(row.real), *(_gap(row, k) for k in range(len(names)))] for row in found.counts],
    )
    return [measures, counts, _classes(found), _memorisation(found)]


def _reference(found: Evaluation) -> str:
    held_out = found.recipe.reference == "val"
    return "the held-out val split" if held_out else "scenes of one half of the training drives (floor: of the other)"


def _size(row: Row) -> str:
    return f"{row.scenes} : {row.reference_scenes}"


def _cell(row: Row, key: str) -> str:
    if key not in row.figures:
        return "-"
    error = row.errors.get(key)
    return number(row.figures[key]) + (f" ± {number(error)}" if error is not None and math.isfinite(error) else "")


def number(value: float) -> str:
    """Three significant digits; - for nothing."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _gap(row: CountRow, k: int) -> str:
    value = row.values[k]
    if row.near(k):
        return f"{number(value)} ✓"
    return f"{number(value)} ({value / row.real - 1:+.0%})" if row.real and math.isfinite(value) else number(value)


def _classes(found: Evaluation) -> Table:
    chosen = range(1, len(found.taxonomy.classes))
    return Table(
        "Classes",
        "Shares of the occupied voxels, in per cent.",
        ["class", "real", *(row.name for row in found.rows)],
        [
            [
                found.taxonomy.classes[k],
                number(100 * found.real_shares[k]),
                *(number(100 * row.composition.shares[k]) for row in found.rows),
            ]
            for k in chosen
        ],
    )


def _memorisation(found: Evaluation) -> Table:
    heads = [
        "scenes",
        "nearest training scene (median)",
        "nearer than 99 % of held-out",
        "nearer than 99 % of training",
    ]
    keys = ("nearest", "copied", "copied (train)")
    rows = [[row.name, *(_cell(row, key) for key in keys)] for row in found.rows if "nearest" in row.figures]
    note = (
        "Share of known, occupied voxels that differ from the nearest of all training scenes (0: a copy). Held-out "
        "scenes set the scale, and training scenes against those of other drives; 0.01 is what a scale gives itself."
    )
    return Table("Memorisation", note, heads, rows)


def _histogram(found: Evaluation) -> bytes:
    chosen = range(1, len(found.taxonomy.classes))
    series = {f"real ({found.recipe.reference})": [found.real_shares[k] for k in chosen]}
    series |= {row.name: [row.composition.shares[k] for k in chosen] for row in found.generated}
    return class_histogram(found.taxonomy.classes[1:], found.taxonomy.colors[1:], series)


def _bars(found: Evaluation) -> bytes:
    notes = {key: note for key, _, note in MEASURES}
    floor = next(row for row in found.rows if row.name == FLOOR_TRAIN)
    rows = found.generated
    panels = [
        Panel(
            title=key,
            note=notes[key] + "; dashed: real",
            names=tuple(row.name for row in rows),
            values=tuple(row.figures.get(key, math.nan) for row in rows),
            errors=tuple(_error(row, key) for row in rows),
            floor=floor.figures.get(key, math.nan),
        )
        for key in PLOTTED
        if any(key in row.figures for row in rows)
    ]
    return metric_bars(panels)


def _error(row: Row, key: str) -> float:
    error = row.errors.get(key, 0.0)
    return error if math.isfinite(error) else 0.0


def scene_pictures(found: Evaluation) -> dict[str, bytes]:
    """JPEG of the first scenes of each generated folder, and of real ones evenly spaced, by caption."""
    from flows.scene_sheet import column, evenly

    real = split_set(found.recipe.real, "val")
    names = [row.name for row in found.generated]
    shown = {f"real, held out: {SHOWN} evenly spaced": evenly(real, SHOWN)}
    for name, path in zip(names, found.recipe.generated, strict=True):
        scenes = folder_set(path, name)
        shown[f"{name}: the first {SHOWN}"] = scenes.part(range(min(SHOWN, len(scenes))))
    return {caption: _jpeg(column(scenes, caption)) for caption, scenes in shown.items()}


def _jpeg(picture: Any) -> bytes:
    import io

    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", quality=85)
    return content.getvalue()


def _page(found: Evaluation, command: str, plots: dict[str, bytes], shown: dict[str, bytes]) -> Page:
    pictures: Sequence[tuple[str, str, bytes]] = [
        (f"Measures; dashed: {FLOOR_TRAIN}, see also {FLOOR_HALVES}", "image/png", plots["measures.png"]),
        ("Classes", "image/png", plots["classes.png"]),
        *((caption, "image/jpeg", content) for caption, content in shown.items()),
    ]
    title = f"Generated scenes against {found.recipe.real.name}"
    return Page(title, basis(found, command), tables(found), pictures)
