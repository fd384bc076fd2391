"""A report's tables and figures: stages and their cost, classes, images, scenes, semantic scene completion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flows.report_samples import Measured
from flows.timing import Timing
from pipeline.datasets.checked_files import read_json
from pipeline.datasets.formats import detect
from pipeline.datasets.manifest import Manifest
from pipeline.datasets.statistics import Statistics, dataset_statistics
from pipeline.report.evaluation import Table
from pipeline.report.report import ClassRow, ClassTable, Section
from pipeline.scene.errors import InputError
from pipeline.scene.taxonomy import EMPTY, Taxonomy

LARGEST_TABLE = 1 << 26  # bytes
TRAIN = "train"


def duration(seconds: float) -> str:
    """In the unit that reads best."""
    if seconds < 100:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes in the unit that reads best."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def percent(share: float) -> str:
    """Two digits that tell, at least."""
    return f"{100 * share:.2f} %" if share >= 0.001 or not share else f"{100 * share:.1g} %"


def stage_table(timing: Timing, samples: int) -> Table:
    """What each stage took, and what 1,000 samples of it would."""
    rows = [
        [
            stage.name,
            str(stage.jobs),
            duration(stage.seconds),
            f"{100 * stage.core_s / max(timing.core_s, 1e-9):.0f} %",
            duration(stage.core_s / samples),
            duration(1000 * stage.core_s / samples),
        ]
        for stage in timing.stages
    ]
    whole = timing.core_s
    total = ["all", "", "", "100 %", duration(whole / samples), duration(1000 * whole / samples)]
    runs = "one run" if timing.runs == 1 else f"{timing.runs} runs, one after another"
    note = (
        f"{duration(timing.elapsed_s)} in {runs}, {timing.workers} worker{'s' * (timing.workers > 1)} on "
        f"{'; '.join(timing.machines)}. Cost is time of one core; jobs that were stopped midway aren't counted."
    )
    heads = ["stage", "jobs", "work", "of the cost", "cost a sample", "cost of 1,000"]
    return Table("Time and cost by stage", note, heads, [*rows, total])


def disk_table(manifest: Manifest) -> Table:
    """Files and bytes by the folder that they lie in."""
    kinds: dict[str, list[int]] = {}
    for record in manifest.files:
        *folders, _ = record.path.split("/")
        kind = folders[2] if len(folders) > 2 else (folders[0] if folders and folders[0] != "sequences" else "others")
        kinds.setdefault(kind, []).append(record.bytes)
    rows = [[kind, str(len(found)), size(sum(found)), size(sum(found) / len(found))] for kind, found in kinds.items()]
    return Table("On disk", "", ["files", "number", "together", "each"], sorted(rows))


def real_statistics(root: Path) -> tuple[Taxonomy, Statistics]:
    """Classes and counts of a real root's training split. Raises InputError."""
    dataset = detect(root).open(root)
    return dataset.taxonomy, dataset_statistics(dataset, TRAIN, thorough=False)


def class_table(
    taxonomy: Taxonomy, samples: Sequence[Measured], real: tuple[str, Taxonomy, Statistics] | None
) -> ClassTable:
    """Shares of the occupied voxels here, in a real root (matched by class names) and as published."""
    counts = np.sum([sample.counts for sample in samples], axis=0)
    within = np.mean([sample.counts > 0 for sample in samples], axis=0)
    columns: dict[str, np.ndarray] = {"this build": _solid(counts)}
    frames: dict[str, np.ndarray] = {"samples with it": within}
    if real is not None:
        name, others, found = real
        columns[name] = _matched(taxonomy, others, found.occupied_frequencies)
        frames[f"frames of {name} with it"] = _matched(taxonomy, others, found.frame_shares)
    elif taxonomy.voxel_counts:
        columns["published"] = _solid(np.array(taxonomy.voxel_counts))
    reference = list(columns.values())[1] if len(columns) > 1 else None
    longest = max(float(np.nanmax(column)) for column in columns.values()) or 1.0
    rows = []
    for k in range(EMPTY + 1, len(taxonomy.classes)):
        cells = [_known(column[k], percent) for column in columns.values()]
        if reference is not None:
            cells.insert(2, _ratio(columns["this build"][k], reference[k]))
        cells += [_known(column[k], lambda share: f"{100 * share:.0f} %") for column in frames.values()]
        bars = tuple(float(np.nan_to_num(column[k])) / longest for column in columns.values())
        rows.append(ClassRow(taxonomy.classes[k], taxonomy.colors[k], tuple(cells), bars))
    names = list(columns)
    heads = [*names, *(["ratio"] if reference is not None else []), *frames]
    return ClassTable(_class_note(samples, real), heads, rows, names)


def _class_note(samples: Sequence[Measured], real: tuple[str, Taxonomy, Statistics] | None) -> str:
    counts = np.sum([sample.counts for sample in samples], axis=0)
    valid, voxels = counts.sum(), sum(sample.voxels for sample in samples)
    note = (
        f"Shares of the occupied, valid voxels. Valid: {100 * valid / max(voxels, 1):.1f} % of the grid; "
        f"occupied: {100 * counts[1:].sum() / max(valid, 1):.2f} % of the valid ones."
    )
    if real is not None:
        name, _, found = real
        note += f" In {name}: {100 * found.valid_share:.1f} % and {100 * found.occupied_share:.2f} %."
    return note


def _solid(counts: np.ndarray) -> np.ndarray:
    solid = np.array(counts, np.float64)
    solid[EMPTY] = 0
    return solid / max(solid.sum(), 1)


def _matched(taxonomy: Taxonomy, others: Taxonomy, values: np.ndarray) -> np.ndarray:
    """Values of another taxonomy's classes by this one's ids; nan for a class it doesn't have."""
    place = {name: k for k, name in enumerate(others.classes)}
    return np.array([values[place[name]] if name in place else math.nan for name in taxonomy.classes])


def _known(value: float, told: Any) -> str:
    return str(told(value)) if math.isfinite(value) else "not there"


def _ratio(here: float, there: float) -> str:
    return f"{here / there:.2f}" if math.isfinite(there) and there > 0 else "-"


def image_section(
    samples: Sequence[Measured], dropped: int = 0, rates: Mapping[str, Any] | None = None
) -> Section | None:
    """How images kept to their voxels, where the build checked them: accepted, draws, the critic's scores.

    dropped: how many others were left out of the build; rates: image_statistics.json.
    """
    checked = [sample for sample in samples if isinstance(sample.image.get("accepted"), bool)]
    figures = {"mIoU": "miou", "depth error": "depth_error", "draws": "attempts"}
    rows = []
    for told, key in figures.items():
        values = [value for sample in samples if (value := sample.figure(key)) is not None]
        if values:
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
            rows.append([told, str(len(values)), *(f"{value:.3g}" for value in (np.mean(values), low, middle, high))])
    if not (checked or rows):
        return None
    kept = sum(sample.image["accepted"] for sample in checked)
    note = f"The structure check accepted {kept} of {len(checked) + dropped} samples." if checked else ""
    note += f" The {dropped} without an accepted draw are left out." if dropped else ""
    tables = [Table("The critic's scores", "", ["score", "samples", "mean", "5 %", "median", "95 %"], rows)]
    recalls = _recall_rows(samples)
    heads = ["class", "samples", "mean recall"]
    tables += [Table("Recall by class", "Share of a class's pixels that the critic finds.", heads, recalls)] * bool(
        recalls
    )
    if rates is not None:
        tables.append(_reject_table(rates))
    return Section("images", "Images", note, tables)


def _reject_table(rates: Mapping[str, Any]) -> Table:
    """Draws that the critic turned down, by class in view."""
    try:
        found = {"all": rates["draws"], **rates["classes"]}
        rows = [
            [
                name,
                *(str(row[key]) for key in ("attempts", "rejected", "blamed")),
                _part(row["rejected"], row["attempts"]),
            ]
            for name, row in found.items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError("image_statistics.json", "counts of draws by class", f"{error!r}", "build again") from None
    note = "Of draws with the class in view; blamed: its own recall was too low."
    return Table("Draws rejected", note, ["class in view", "draws", "rejected", "blamed", "share"], rows)


def _part(count: float, whole: float) -> str:
    return f"{100 * count / whole:.0f} %" if whole else "-"


def _recall_rows(samples: Sequence[Measured]) -> list[list[str]]:
    found: dict[str, list[float]] = {}
    for sample in samples:
        recall = sample.image.get("recall")
        for name, value in recall.items() if isinstance(recall, Mapping) else ():
            found.setdefault(str(name), []).append(float(value))
    return [[name, str(len(values)), f"{np.mean(values):.2f}"] for name, values in sorted(found.items())]


def scene_section(path: Path) -> Section:
    """An evaluate-scenes table.json: measures of each set, and counts beside real ones. Raises InputError."""
    from flows.evaluate_report import MEASURES

    table = _read(path, "evaluate-scenes' table.json", ("rows", "counts"))
    try:
        rows, counts = table["rows"], table["counts"]
        used = [(key, head) for key, head, _ in MEASURES if any(key in row["figures"] for row in rows)]
        measures = Table(
            "Measures",
            "The last row is real scenes against real ones. ± is a standard deviation or error.",
            ["scenes", "N", *(head for _, head in used)],
            [
                [row["name"], f"{row['scenes']} : {row['reference_scenes']}", *(_measure(row, key) for key, _ in used)]
                for row in rows
            ],
        )
        names = [row["name"] for row, _ in zip(rows, counts[0]["values"] if counts else (), strict=False)]
        beside = Table(
            "Counts beside real scenes",
            "✓ is within 15 % of the real figure.",
            ["figure", "real", *names],
            [[row["name"], _number(row["real"]), *_near(row)] for row in counts],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, "evaluate-scenes' table.json", f"{error!r}") from None
    command = f"Command: {table['command']}" if table.get("command") else ""
    return Section("scenes", "Scenes", command, [measures, beside])


def _near(row: Mapping[str, Any]) -> list[str]:
    pairs = zip(row["values"], row["within_15_percent"], strict=True)
    return [_number(value) + (" ✓" if near else "") for value, near in pairs]


def _measure(row: Mapping[str, Any], key: str) -> str:
    error = row["errors"].get(key)
    return _number(row["figures"].get(key)) + (f" ± {_number(error)}" if error is not None else "")


def _number(value: object) -> str:
    from flows.evaluate_report import number

    return number(float(value)) if isinstance(value, int | float) else "-"


def protocol_tables(path: Path) -> list[Table]:
    """`ssc protocols`' table.json, a table a protocol, in percent. Raises InputError."""
    from ssc_eval.protocol_table import SHOWN, TITLES

    table = _read(path, "table.json of `occfactory ssc protocols`", ("rows", "facts"))
    try:
        rows = table["rows"]
        names = dict.fromkeys(row["protocol"] for row in rows)
        found = [
            Table(
                TITLES.get(name, name),
                "",
                ["arm", *SHOWN, "seeds"],
                [_protocol_row(row, SHOWN) for row in rows if row["protocol"] == name],
            )
            for name in names
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, "table.json of `occfactory ssc protocols`", f"{error!r}") from None
    return found


def _protocol_row(row: Mapping[str, Any], measures: Sequence[str]) -> list[str]:
    if not row["done"]:
        return [row["arm"], *(["not run"] * len(measures)), f"0 of {len(row['seeds'])}"]
    spread = {name: row["spread"].get(name) for name in measures}
    figures = [
        f"{100 * row['mean'][name]:.2f}" + ("" if spread[name] is None else f" ± {100 * spread[name]:.2f}")
        for name in measures
    ]
    return [row["arm"], *figures, f"{len(row['done'])} of {len(row['seeds'])}"]


def _read(path: Path, what: str, keys: Sequence[str]) -> dict[str, Any]:
    table = read_json(path, what, LARGEST_TABLE)
    if not isinstance(table, dict) or not set(keys) <= table.keys():
        raise InputError(path, what, "something else")
    return table
