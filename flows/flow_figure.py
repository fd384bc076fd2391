"""The picture of `occfactory flow-collapse`: what a step moves between foreground and background, over t."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pipeline.report.figures import COLOURS, DPI, FAINT, GRID, STYLE
from pipeline.scene.files import write_atomic

Line = tuple[str, str, Mapping[str, Any]]  # caption, colour, a stage's figures
FULL_RESOLUTION = ("fine", "fusion")  # the stages that make the scene itself
DOTTED = {"linestyle": ":", "linewidth": 1.6}
KINDS = {"with_empty": "everything else, empty included", "classes": "the background classes"}


def draw_flows(report: Mapping[str, Any], out: Path, background: str = "with_empty") -> list[Path]:
    """flow_full.png of the stages that make the scene, flow_coarse.png of the others if there are any; their paths."""
    lines: dict[str, list[Line]] = {"full": [], "coarse": []}
    for name, measured in report["generators"].items():
        for stage, figures in measured["stages"].items():
            chosen = lines["full" if stage in FULL_RESOLUTION else "coarse"]
            chosen.append((f"{name}: {stage}", COLOURS[len(chosen) % len(COLOURS)], figures))
    paths = {label: Path(out) / f"flow_{label}.png" for label, found in lines.items() if found}
    for label, path in paths.items():
        write_atomic(path, _drawn(report, lines[label], background))
    return list(paths.values())


def _drawn(report: Mapping[str, Any], lines: Sequence[Line], background: str) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = BytesIO()
    with matplotlib.rc_context(dict(STYLE)):
        figure = Figure(figsize=(13.5, 7.8), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 3)
        for row, draw in enumerate((_forced, _own)):
            for line in lines:
                draw(axes[row], line, background)
            for axis, title in zip(axes[row], _titles(row), strict=True):
                _dress(axis, title, ("x_t from held-out scenes", "the generator's own draws")[row])
            axes[row, 0].set_ylim(0, 1)
            axes[row, 1].set_yscale("log")
        axes[1, 2].set_yscale("log")
        axes[0, 2].axhline(0, color=FAINT, linewidth=0.8)
        _legend(axes)
        what = f"{report['scenes']} scenes, {report['steps']} steps from T to 0"
        figure.suptitle(f"What reverse steps move between foreground and {KINDS[background]} ({what})", fontsize=11)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _titles(row: int) -> tuple[str, str, str]:
    last = ("net loss beyond the exact one [voxels]", "foreground's share of x_t")
    return "alpha_t: leaves, a foreground voxel", "beta_t: enters, a background voxel", last[row]


def _dress(axis: Any, title: str, setting: str) -> None:
    axis.set_title(title, pad=16)
    axis.text(0, 1.02, setting, transform=axis.transAxes, fontsize=8, color=FAINT)
    axis.set_xlabel("t")
    axis.invert_xaxis()  # the reverse process runs from T to 0, left to right
    axis.grid(True, color=GRID, linewidth=0.7)


def _forced(axes: Any, line: Line, background: str) -> None:
    caption, color, figures = line
    model, exact = figures["forced"]["model"][background], figures["forced"]["exact"][background]
    for axis, key in zip(axes, ("alpha_rate", "beta_rate"), strict=False):
        axis.plot(model["t"], model[key], color=color, label=caption)
        axis.plot(exact["t"], exact[key], color=color, **DOTTED)
    excess = [a - b for a, b in zip(model["lost"], exact["lost"], strict=True)]
    axes[2].plot(model["s"], excess, color=color, label=caption)


def _own(axes: Any, line: Line, background: str) -> None:
    caption, color, figures = line
    own, exact = figures["own"][background], figures["forced"]["exact"][background]
    for axis, key in zip(axes, ("alpha_rate", "beta_rate"), strict=False):
        axis.plot(own["t"], own[key], color=color, label=caption)
        axis.plot(exact["t"], exact[key], color=color, **DOTTED)
    times = [*own["t"], own["s"][-1]]
    axes[2].plot(times, [*own["foreground_share"], figures["own_last_share"]], color=color, label=caption)
    axes[2].fill_between(times, *figures["real_shares"].values(), color=color, alpha=0.18, linewidth=0)


def _legend(axes: Any) -> None:
    axes[0, 0].plot([], [], color=FAINT, label="dotted: the exact posterior of real scenes", **DOTTED)
    axes[1, 2].fill_between(
        [], [], color=FAINT, alpha=0.3, label="x_t of real scenes, hidden voxels left out to filled"
    )
    for axis in (axes[0, 0], axes[1, 2]):
        axis.legend(fontsize=8, frameon=False)
