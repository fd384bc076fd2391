"""What `occfactory scaffold-table` writes: table.json, table.md and quality.png from what was measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from flows.generators import new_generator
from flows.scaffold_recipes import COMPARED
from flows.scaffold_table import (
    DRAWN,
    Houses,
    TableRecipe,
    compare_samplers,
    configs_of,
    drawn_at,
    finished,
    measure_all,
)
from pipeline.generators.autoregressive import Autoregressive
from pipeline.generators.tokens import placed, tokens_of
from pipeline.learning.machine import device_name
from pipeline.metrics.structures import structure
from pipeline.report.figures import COLOURS, DPI, GRID, REAL, STYLE
from pipeline.scene.files import write_atomic, write_json
from pipeline.scene.grid import VoxelGrid

FIGURES = ("occupied", "classes", "entropy", "alike")
WITHOUT = {
    "craft_latent": "none: it draws map and classes together, and a voxel is its code's likeliest class",
    "craft_dit3d": "none: its bound is of the whole grid, air and all, not of classes given the map",
}
Judge = Callable[[UInt8[np.ndarray, "x y z"]], float]  # nats a token


def write_table(
    recipe: TableRecipe,
    out: Path,
    command: str,
    methods: Sequence[str] = COMPARED,
    workers: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Train and measure what isn't yet, and write OUT/table.md, table.json and quality.png; the path of table.md.

    The samplers are compared once both Scaffold and the autoregressive model, which judges draws, are measured.
    """
    houses = measure_all(recipe, out, methods, workers, say)
    measured = finished(recipe, houses, out)
    judge = judge_of(Path(out), measured)
    rows = {
        name: {**value, **figures(drawn_at(Path(out) / name / DRAWN), judge if value["likelihood"] else None)}
        for name, value in measured.items()
    }
    samplers = {}
    if judge and COMPARED[0] in measured:
        for name, value in compare_samplers(recipe, houses, out, say).items():
            labels = drawn_at(Path(out) / "samplers" / f"{name}.npz")
            samplers[name] = {**value, **figures(labels, judge)}
    device = new_generator(configs_of(recipe, COMPARED[:1])[COMPARED[0]]).config.sampling.torch_device()
    table = {
        "command": command,
        "recipe": recipe.model_dump(mode="json"),
        "machine": f"{device_name(device)}, {os.cpu_count()} CPU cores",
        "houses": about(houses),
        "real": real_figures(houses, judge),
        "methods": rows,
        "samplers": samplers,
    }
    write_json(Path(out) / "table.json", table)
    write_atomic(Path(out) / "table.md", markdown(table))
    if samplers:
        write_atomic(Path(out) / "quality.png", picture(table))
    return Path(out) / "table.md"


def about(houses: Houses) -> dict[str, Any]:
    """How many houses and classes there are; unseen: the share of held-out blocks of classes that aren't learned."""
    learned, held_out = (
        np.concatenate([scene.labels[scene.labels > 0] for scene in part]) for part in (houses.train, houses.held_out)
    )
    return {
        "train": len(houses.train),
        "held_out": len(houses.held_out),
        "left_out": houses.left_out,
        "split": houses.split,
        "classes": len(houses.train[0].taxonomy.classes) - 1,
        "unseen": float((~np.isin(held_out, learned)).mean()),
    }


def judge_of(out: Path, measured: Mapping[str, Any]) -> Judge | None:
    """Exact nats a token of a house by the autoregressive model, if it is measured."""
    if COMPARED[2] not in measured:
        return None
    model = Autoregressive.load(out / COMPARED[2] / "weights")

    def judge(labels: UInt8[np.ndarray, "x y z"]) -> float:
        tokens = tokens_of(labels)
        return model.nll(tokens) / len(tokens.classes)

    return judge


def figures(volumes: Iterable[np.ndarray], judge: Judge | None) -> dict[str, Any]:
    """Mean and standard error over houses of each figure, and of the judge's nats a token."""
    volumes = list(volumes)
    found = [structure(labels) for labels in volumes]
    columns = {name: [getattr(one, name) for one in found] for name in FIGURES}
    if judge is not None:
        columns["judged"] = [judge(labels) for labels in volumes]
    return {"figures": {name: mean_and_error(values) for name, values in columns.items()}, "samples": len(found)}


def mean_and_error(values: Sequence[float]) -> list[float | None]:
    """[mean, its standard error], of values that are numbers; None where there are too few."""
    kept = np.array([v for v in values if np.isfinite(v)], float)
    mean = float(kept.mean()) if len(kept) else None
    return [mean, float(kept.std(ddof=1) / len(kept) ** 0.5) if len(kept) > 1 else None]


def real_figures(houses: Houses, judge: Judge | None) -> dict[str, Any]:
    """The same of the held-out houses themselves."""
    edge = max(max(scene.labels.shape) for scene in houses.held_out)
    grid = VoxelGrid((max(edge, 32),) * 3, 1.0, (0.0, 0.0, 0.0))
    return figures([placed(scene, grid) for scene in houses.held_out], judge)


def markdown(table: Mapping[str, Any]) -> str:
    """The tables, with what they need to be read."""
    houses, recipe = table["houses"], table["recipe"]
    lines = [
        "# Scaffold Diffusion and its baselines",
        "",
        f"`{table['command']}`",
        "",
        f"{houses['train']} houses to train on, {houses['held_out']} held out ({houses['split']}); "
        f"{houses['left_out']} are too large and left out. Seed {recipe['seed']}; {table['machine']}.",
        "",
        "## Likelihood of held-out houses",
        "",
        "-log p(classes | map) [nats a block], with 95 % intervals over houses. A bound lies above the true value.",
        "",
        "| method | weights | steps | NLL | perplexity | kind |",
        "| --- | ---: | ---: | --- | --- | --- |",
        *(_likelihood_row(name, value) for name, value in table["methods"].items()),
        f"| all classes as likely | 0 | | {np.log(houses['classes']):.3f} | {houses['classes']} | exact |",
        "",
        f"{100 * houses['unseen']:.1f} % of the held-out blocks are of a class that no house trained on has.",
        "",
        "## Drawn houses",
        "",
        "Means over houses ± standard error. entropy: of a house's blocks [nats]; alike: neighbours of one class; "
        "judged: nats a block by the autoregressive model. Methods with a likelihood fill the maps of held-out houses, "
        "the others draw from nothing.",
        "",
        "| houses | N | blocks | classes | entropy | alike | judged | seconds a house |",
        "| --- | ---: | --- | --- | --- | --- | --- | ---: |",
        _drawn_row("held out, real", table["real"], None),
        *(_drawn_row(name, value, value["seconds_a_sample"]) for name, value in table["methods"].items()),
    ]
    return "\n".join([*lines, *_sampler_lines(table["samplers"])]) + "\n"


def _likelihood_row(name: str, value: Mapping[str, Any]) -> str:
    weights = f"{(value['weights'] - value['positions']) / 1e6:.2f} M"
    weights += f" + {value['positions'] / 1e6:.2f} M of positions" if value["positions"] else ""
    steps = " + ".join(str(count) for count in value["steps"].values())
    found = value["likelihood"]
    if found is None:
        return f"| {name} | {weights} | {steps} | | | {WITHOUT[name]} |"
    ends = [found["nll"], max(found["low"], 0.0), found["high"]]  # few houses: Student's interval may go below 0
    nll = "{:.3f} ({:.3f} to {:.3f})".format(*ends)
    perplexity = "{:.3g} ({:.3g} to {:.3g})".format(*np.exp(ends))
    noise = f", {found['draws']} estimates a house, noise ± {found['noise']:.3f}" if found["kind"] == "bound" else ""
    return f"| {name} | {weights} | {steps} | {nll} | {perplexity} | {found['kind']}{noise} |"


def _drawn_row(name: str, value: Mapping[str, Any], seconds: float | None) -> str:
    cells = [_cell(value["figures"].get(column)) for column in (*FIGURES, "judged")]
    return f"| {name} | {value['samples']} | {' | '.join(cells)} | {'' if seconds is None else f'{seconds:.2f}'} |"


def _cell(pair: Sequence[float | None] | None) -> str:
    if pair is None or pair[0] is None:
        return ""
    return f"{pair[0]:.3g}" + ("" if pair[1] is None else f" ± {pair[1]:.2g}")


def _sampler_lines(samplers: Mapping[str, Any]) -> list[str]:
    if not samplers:
        return ["", "Samplers are compared once craft_scaffold and craft_autoregressive are both measured."]
    head = "| sampler | steps | network calls, all houses | seconds a house | judged | entropy | alike |"
    lines = ["", "## Samplers of craft_scaffold", "", "The maps, seeds and weights are the same.", "", head]
    lines.append("| --- | ---: | ---: | ---: | --- | --- | --- |")
    for value in samplers.values():
        name = value["sampler"] + ("" if value["cached"] else ", uncached")
        steps = "one a block" if value["steps"] is None else value["steps"]
        cells = [_cell(value["figures"][column]) for column in ("judged", "entropy", "alike")]
        lines.append(f"| {name} | {steps} | {value['calls']} | {value['seconds_a_sample']:.2f} | {' | '.join(cells)} |")
    return lines


def picture(table: Mapping[str, Any]) -> bytes:
    """PNG: the judge's nats, entropy and share of alike neighbours of each sampler against calls of the network."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    buffer = BytesIO()
    with matplotlib.rc_context(dict(STYLE)):
        figure = Figure(figsize=(11, 3.8), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        titles = {"judged": "judged [nats a block]", "entropy": "entropy [nats]", "alike": "neighbours alike"}
        for axes, (column, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
            _curves(axes, table, column)
            axes.set_title(title)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.set_xlabel("network calls, all houses")
            axes.grid(color=GRID, linewidth=0.8)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _curves(axes: Any, table: Mapping[str, Any], column: str) -> None:
    drawn = [value for value in table["samplers"].values() if value["cached"]]  # uncached ones draw the same
    for colour, sampler in zip(COLOURS, dict.fromkeys(value["sampler"] for value in drawn), strict=False):
        points = [value for value in drawn if value["sampler"] == sampler]
        points.sort(key=lambda v: v["calls"])
        x = [v["calls"] for v in points]
        y, error = zip(*((v["figures"][column][0], v["figures"][column][1] or 0) for v in points), strict=True)
        style = {"marker": "o", "markersize": 4, "capsize": 2, "linewidth": 1.2, "color": colour}
        axes.errorbar(x, y, error, label=sampler, **style)
    axes.axhline(table["real"]["figures"][column][0], color=REAL, linestyle=(0, (4, 2)), label="held out, real")
