"""The matrix's table: seeds of an arm become mean and spread; cells without a result stay in it and say so.

The spread is the sample standard deviation over seeds (n - 1), none for one seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from ssc_eval.metrics import ALL, IN_VIEW, OUT_OF_VIEW
from ssc_eval.protocols import Cell, Run

MEASURES = {  # name -> (region, score)
    "IoU": (ALL, "iou"),
    "mIoU": (ALL, "miou"),
    "mIoU of present": (ALL, "miou_present"),
    "precision": (ALL, "precision"),
    "recall": (ALL, "recall"),
    "IoU in view": (IN_VIEW, "iou"),
    "mIoU in view": (IN_VIEW, "miou"),
    "IoU out of view": (OUT_OF_VIEW, "iou"),
    "mIoU out of view": (OUT_OF_VIEW, "miou"),
}
SHOWN = ("IoU", "mIoU", "mIoU of present", "IoU in view", "mIoU in view")
TITLES = {
    "real": "Real to real",
    "zero-shot": "Synthetic to real, zero-shot",
    "fractions": "Real fractions, with and without synthetic, at equal iterations",
    "finetune": "Synthetic pretraining, then real finetuning",
    "counts": "Number of synthetic samples, zero-shot",
    "floors": "Floors",
    "switches": "Zero-shot with one switch more",
}
NOT_RUN = "not run"


@dataclass(frozen=True)
class Found:
    """What there is of a run: its scores by measure, or its fault; neither: not run."""

    scores: Mapping[str, float] | None = None
    updates: int = 0  # of the weights, those of the run it begins with included
    fault: str = ""


@dataclass(frozen=True)
class Row:
    """An arm of a protocol over its seeds. mean and spread by measure; spread None for fewer than two seeds."""

    protocol: str
    arm: str
    real: float  # share of real training frames
    synthetic: int  # frames
    image: str  # of the synthetic frames
    how: str
    switches: tuple[str, ...]
    seeds: tuple[int, ...]  # planned
    done: tuple[int, ...]
    missing: tuple[str, ...]  # why each of the others has no figures
    updates: int
    values: Mapping[str, tuple[float, ...]]  # by measure, in order of `done`
    mean: Mapping[str, float]
    spread: Mapping[str, float | None]
    of_real: Mapping[str, float]  # mean / mean of real to real at 100 %


def measures(found: Mapping[str, Any]) -> dict[str, float]:
    """The table's measures from metrics.scores' regions, in 0..1."""
    return {name: float(found["regions"][region][key]) for name, (region, key) in MEASURES.items()}


def table_rows(cells: Sequence[Cell], found: Mapping[Run, Found]) -> list[Row]:
    """A row an arm, in the cells' order; cells whose run `found` lacks were not run."""
    arms: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        arms.setdefault((cell.protocol, cell.arm), []).append(cell)
    whole = {cell.run for cell in cells if cell.run == Run(real=1.0, seed=cell.run.seed)}
    reference = _means([scores for run in whole if (scores := found.get(run, Found()).scores)])
    return [_row(members, found, reference) for members in arms.values()]


def _row(cells: Sequence[Cell], found: Mapping[Run, Found], reference: Mapping[str, float]) -> Row:
    results = [found.get(cell.run, Found()) for cell in cells]
    done = [(cell.run.seed, result) for cell, result in zip(cells, results, strict=True) if result.scores]
    scores = [result.scores for _, result in done if result.scores]
    mean, run = _means(scores), cells[0].run
    return Row(
        protocol=cells[0].protocol,
        arm=cells[0].arm,
        real=run.real,
        synthetic=run.synthetic,
        image=run.image,
        how=run.how,
        switches=run.switches.names,
        seeds=tuple(cell.run.seed for cell in cells),
        done=tuple(seed for seed, _ in done),
        missing=tuple(_why(cell, f) for cell, f in zip(cells, results, strict=True) if not f.scores),
        updates=max((result.updates for _, result in done), default=0),
        values={name: tuple(row[name] for row in scores) for name in mean},
        mean=mean,
        spread={name: stdev(row[name] for row in scores) if len(scores) > 1 else None for name in mean},
        of_real={name: mean[name] / reference[name] for name in mean if reference.get(name, 0) > 0},
    )


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: fmean(row[name] for row in scores) for name in MEASURES} if scores else {}


def _why(cell: Cell, found: Found) -> str:
    if found.fault:
        return f"failed: {found.fault}"
    return f"{NOT_RUN}: {cell.obstacle}" if cell.obstacle else NOT_RUN


def to_markdown(rows: Sequence[Row], facts: Sequence[str]) -> str:
    """The table in percent, a part a protocol; facts: lines above it, such as the command and N."""
    parts = ["# What synthetic data is worth\n", *(f"- {fact}" for fact in facts), ""]
    parts += [
        "In percent, mean ± standard deviation over seeds. mIoU is the official one: a class that neither targets nor "
        'predictions have counts 0. "Of real": share of IoU / mIoU of real 100 %.\n'
    ]
    for protocol in dict.fromkeys(row.protocol for row in rows):
        head = ("arm", "real", "synthetic", "updates", *SHOWN, "of real", "seeds")
        cells = [_cells(row) for row in rows if row.protocol == protocol]
        parts += [f"## {TITLES[protocol]}\n", *(f"| {' | '.join(line)} |" for line in (head, _rule(head), *cells)), ""]
    return "\n".join(parts)


def _rule(head: Sequence[str]) -> list[str]:
    return ["---", *["---:"] * (len(head) - 2), "---"]


def _cells(row: Row) -> list[str]:
    figures = [_figure(row.mean[name], row.spread[name]) if row.done else NOT_RUN for name in SHOWN]
    share = " / ".join(f"{100 * row.of_real[name]:.0f}" for name in ("IoU", "mIoU")) if row.of_real else ""
    counts = [f"{100 * row.real:g} %" if row.real else "", f"{row.synthetic}" if row.synthetic else ""]
    updates = f"{row.updates}" if row.done and row.how != "prior" else ""
    return [row.arm, *counts, updates, *figures, share, _seeds(row)]


def _figure(mean: float, spread: float | None) -> str:
    return f"{100 * mean:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _seeds(row: Row) -> str:
    """ "3", or "1 of 3 (2 not run)"."""
    if row.how == "prior" and row.done:
        return "exact"
    if not row.missing:
        return f"{len(row.seeds)}"
    why = [f"{row.missing.count(text)} {text}" for text in dict.fromkeys(row.missing)]
    return f"{len(row.done)} of {len(row.seeds)} ({'; '.join(why)})".replace("|", "/")


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON values."""
    assert all(math.isfinite(value) for row in rows for value in row.mean.values())
    return [asdict(row) for row in rows]
