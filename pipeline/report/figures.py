"""Figures of an evaluation, as PNG: class histograms, and bars of measures with the real-against-real floor.

Drawn on the Agg canvas without pyplot, so nothing is global and no display is touched; one style, fixed here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.scene.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1c1e22", "#60646c", "#d9dce1"
COLOURS = ("#3b6ea8", "#d1762c", "#3f9463", "#9a5fb0", "#b8483f", "#7a7d85")  # the sets, in order
REAL = "#22252b"
DPI = 120
PATCH = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}  # behind figures that lines cross
STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "figure.facecolor": "white",
    "svg.hashsalt": "occfactory",
}


@dataclass(frozen=True)
class Panel:
    """Bars of one measure, one a set.

    note: what is better, or a unit; values: nan where there is none; errors: standard deviations, or (); floor: the
    real-against-real figure, drawn as a line; nan: none.
    """

    title: str
    note: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    errors: tuple[float, ...] = ()
    floor: float = float("nan")

    def __post_init__(self) -> None:
        if len(self.values) != len(self.names) or len(self.errors) not in (0, len(self.names)):
            raise InputError(f"panel {self.title}", f"{len(self.names)} values", f"{len(self.values)}")


def class_histogram(
    classes: Sequence[str], colors: Sequence[tuple[int, int, int]], series: Mapping[str, Sequence[float]]
) -> bytes:
    """PNG: each class's share on a logarithmic axis, a dot a set; the first series is the real one.

    classes, colors and every series go by class, without empty; shares in 0..1. Raises InputError.
    """
    if not series or any(len(shares) != len(classes) for shares in series.values()):
        raise InputError("class histogram", f"{len(classes)} shares a set", str({k: len(v) for k, v in series.items()}))
    with _styled():
        figure = _figure((7.6, 0.9 + 0.28 * len(classes)))
        _dots(figure.subplots(), classes, colors, series)
        return _png(figure)


def _dots(
    axes: Axes,
    classes: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
    series: Mapping[str, Sequence[float]],
) -> None:
    rows = np.arange(len(classes))
    positive = [share for shares in series.values() for share in shares if share > 0]
    lowest = 10 ** np.floor(np.log10(min(positive, default=1e-4)))
    names = list(series)
    for k, name in enumerate(names):
        shares = np.asarray(series[name], float)
        shift = (k - 1) * 0.62 / max(len(names) - 1, 1) - 0.15 if k else 0.0
        style: dict[str, Any] = (
            {"marker": "|", "s": 170, "color": REAL, "linewidths": 2.2}
            if k == 0
            else {"marker": "o", "s": 24, "color": COLOURS[(k - 1) % len(COLOURS)]}
        )
        axes.scatter(np.maximum(shares, lowest / 2), rows + shift, label=name, zorder=3, **style)
    axes.set_xscale("log")
    axes.set_xlim(lowest / 2.6, 1.3)
    axes.set_yticks(rows, classes)
    for label, color in zip(axes.get_yticklabels(), colors, strict=True):
        label.set_bbox({"boxstyle": "square,pad=0.15", "facecolor": _tint(color), "edgecolor": "none"})
        label.set_color(INK)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_xlabel("share of occupied voxels (a dot at the left edge: none)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)


def _tint(color: tuple[int, int, int]) -> tuple[float, ...]:
    """A class's colour, light enough to write on."""
    return tuple(0.55 + 0.45 * c / 255 for c in color)


def metric_bars(panels: Sequence[Panel], columns: int = 4) -> bytes:
    """PNG: a small chart a panel, with every value written out and the floor as a dashed line. Raises InputError."""
    if not panels:
        raise InputError("metric bars", "at least one panel", "none")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with _styled():
        figure = _figure((2.9 * columns, (1.1 + 0.3 * max(len(p.names) for p in panels)) * rows))
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _bars(axes, panel)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        return _png(figure)


def _bars(axes: Axes, panel: Panel) -> None:
    values = np.asarray(panel.values, float)
    known = np.isfinite(values)
    rows = np.arange(len(values))
    colours = [COLOURS[k % len(COLOURS)] for k in rows]
    errors = np.where(known, panel.errors, 0.0) if panel.errors else None
    axes.barh(rows, np.where(known, values, 0), 0.66, color=colours, xerr=errors, error_kw={"ecolor": INK, "lw": 1})
    reach = np.where(known, np.maximum(values, 0), 0) + (0 if errors is None else errors)
    top = max(float(reach.max(initial=0)), panel.floor if np.isfinite(panel.floor) else 0.0) or 1.0
    for row, value in enumerate(values):
        text = f"{value:.3g}" if np.isfinite(value) else "none"
        axes.text(reach[row] + 0.02 * top, row, text, va="center", fontsize=8, bbox=PATCH, zorder=4)
    if np.isfinite(panel.floor):
        axes.axvline(panel.floor, color=REAL, linestyle=(0, (4, 2)), linewidth=1.2)
    axes.set_xlim(min(0.0, float(np.where(known, values, 0).min(initial=0))), 1.28 * top)
    axes.set_yticks(rows, panel.names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.xaxis.set_major_locator(_few_ticks())
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_title(panel.title, pad=14)
    axes.text(0, 1.03, panel.note, transform=axes.transAxes, fontsize=7.5, color=FAINT)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3)


def _styled() -> AbstractContextManager[None]:
    """The style, for as long as a figure is made: artists take it up when they are made, text when it is drawn."""
    import matplotlib

    return matplotlib.rc_context(dict(STYLE))


def _figure(size_inches: tuple[float, float]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(size_inches, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})  # the same bytes from any version
    return content.getvalue()
