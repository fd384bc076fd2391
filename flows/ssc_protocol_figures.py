"""Plots of the protocols' table: scores against the share of real frames, and against the number of synthetic ones."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pipeline.report.figures import COLOURS, DPI, FAINT, GRID, REAL, STYLE
from ssc_eval.protocol_table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOTTED = ("IoU", "mIoU")
LEVELS = {  # horizontal lines: (protocol, how, image, has real) -> caption, style
    ("real", "trained", "image", True): ("real 100 %", "-"),
    ("zero-shot", "trained", "image", False): ("synthetic alone", "--"),
    ("floors", "trained", "render", False): ("renders alone", "-."),
    ("floors", "prior", "image", True): ("constant prior of real", ":"),
}


def fraction_plot(rows: Sequence[Row]) -> bytes | None:
    """PNG: scores by share of real frames, real alone, mixed and finetuned; None where there is no figure at all."""
    arms = {
        "real alone": [row for row in rows if row.protocol == "fractions" and not row.synthetic],
        "real + synthetic": [row for row in rows if row.protocol == "fractions" and row.synthetic],
        "synthetic, then real": [row for row in rows if row.protocol == "finetune"],
    }
    curves = {name: [(100 * row.real, row) for row in found if row.done] for name, found in arms.items()}
    levels = [row for row in rows if row.protocol != "real"]  # it is the last point of a curve
    return _drawn(curves, levels, "share of the real training frames [%]") if any(curves.values()) else None


def count_plot(rows: Sequence[Row]) -> bytes | None:
    """PNG: scores by number of synthetic frames, zero-shot; None where there is no figure at all."""
    found = [(float(row.synthetic), row) for row in rows if row.protocol == "counts" and row.done]
    levels = [row for row in rows if row.protocol != "zero-shot"]
    return _drawn({"synthetic alone": found}, levels, "synthetic training frames") if found else None


def _drawn(curves: dict[str, list[tuple[float, Row]]], levels: Sequence[Row], what: str) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = BytesIO()
    with matplotlib.rc_context(dict(STYLE)):
        figure = Figure(figsize=(10.5, 4.6), dpi=DPI)
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)  # inches
        for axes, measure in zip(figure.subplots(1, 2), PLOTTED, strict=True):
            for color, (name, points) in zip(COLOURS, curves.items(), strict=False):
                _curve(axes, name, points, measure, color)
            for row in levels:
                _level(axes, row, measure)
            _dress(axes, measure, what, sorted({x for points in curves.values() for x, _ in points}))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _curve(axes: Axes, name: str, points: Sequence[tuple[float, Row]], measure: str, color: str) -> None:
    if not points:
        return
    positions = [x for x, _ in points]
    means = [100 * row.mean[measure] for _, row in points]
    spreads = [100 * (row.spread[measure] or 0.0) for _, row in points]
    axes.errorbar(positions, means, spreads, color=color, marker="o", markersize=4, capsize=3, label=name)


def _level(axes: Axes, row: Row, measure: str) -> None:
    key = (row.protocol, row.how, row.image, bool(row.real))
    if key in LEVELS and row.done and not row.switches:
        caption, style = LEVELS[key]
        color = REAL if row.real else FAINT
        axes.axhline(100 * row.mean[measure], color=color, linestyle=style, linewidth=1.1, label=caption, zorder=1)


def _dress(axes: Axes, measure: str, what: str, ticks: Sequence[float]) -> None:
    axes.set_title(f"{measure} on held-out real sequences [%]")
    axes.set_xlabel(what)
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(_no_ticks())
    axes.set_ylim(bottom=0)
    axes.grid(True, color=GRID, linewidth=0.7)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
