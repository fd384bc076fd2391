"""A matrix's table on disk: table.md, table.json and plots, from the results that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from flows.ssc_protocol_figures import count_plot, fraction_plot
from flows.ssc_protocols import FAULT, Matrix, folder_of, read_cell, read_matrix
from pipeline.datasets.checked_files import read_json
from pipeline.scene.files import write_atomic, write_json
from ssc_eval.protocol_table import Found, measures, table_rows, to_json, to_markdown
from ssc_eval.protocols import Data, Run, planned

PLOTS = {"fractions.png": fraction_plot, "counts.png": count_plot}


def write_table(out: Path) -> Path:
    """Write table.md, table.json and the plots into a matrix's folder; table.md. Raises InputError."""
    out = Path(out)
    matrix = read_matrix(out)
    cells = matrix.cells()
    digests = {cell.run: planned(matrix.recipe, matrix.data, cell.run).digest for cell in cells if not cell.obstacle}
    results = {run: result for run, digest in digests.items() if (result := read_cell(out, digest))}
    found = {run: _found(out, digest, results.get(run)) for run, digest in digests.items()}
    rows = table_rows(cells, found)
    facts = _facts(matrix, results, len({digests[run] for run in results}), len(set(digests.values())))
    drawn = {name: content for name, plot in PLOTS.items() if (content := plot(rows)) is not None}
    for name in PLOTS:
        (out / name).unlink(missing_ok=True)
    for name, content in drawn.items():
        write_atomic(out / name, content)
    listed = [{"name": cell.name, "digest": digests.get(cell.run), "obstacle": cell.obstacle} for cell in cells]
    table = {"facts": facts, "matrix": matrix.model_dump(mode="json"), "rows": to_json(rows), "cells": listed}
    write_json(out / "table.json", table)
    pictures = "".join(f"\n![{name}]({name})\n" for name in drawn)
    write_atomic(out / "table.md", to_markdown(rows, facts) + pictures)
    return out / "table.md"


def _found(out: Path, digest: str, result: Mapping[str, Any] | None) -> Found:
    if result is not None:
        return Found(measures(result["scores"]), result["updates"])
    path = folder_of(out, digest) / FAULT
    return Found(fault=str(read_json(path, "a run's fault")["fault"]) if path.exists() else "")


def _facts(matrix: Matrix, results: Mapping[Run, Mapping[str, Any]], done: int, all_: int) -> list[str]:
    """What has to be known of the figures: the command, N, seeds, setting, hardware."""
    recipe, data = matrix.recipe, matrix.data
    scored = {result["scores"]["frames"] for result in results.values()}
    training, network, samples = recipe.training, recipe.network, recipe.samples
    facts = [
        f"command: `{matrix.command}`" if matrix.command else "",
        f"real: {_told(data.real)}; scored: {', '.join(map(str, sorted(scored))) or 'no'} frames of split "
        f"{recipe.split}, sequences that no run learns from",
        f"synthetic: {'; '.join(map(_told, data.synthetic))}",
        "".join(f"variant {name}: {_told(found)}; " for name, found in data.variants.items()).removesuffix("; "),
        f"seeds: {', '.join(map(str, recipe.seeds))}; {done} of {all_} runs done",
        f"every run: {training.steps} steps of {training.batch_size} at {training.learning_rate:g}, images "
        f"{samples.width_px}x{samples.height_px}, encoder {network.encoder}, feature {network.feature}; mixed batches: "
        f"{100 * recipe.real_share:g} % real" + _finetune(matrix),
        f"switches on in every arm with synthetic data: {', '.join(recipe.switches.names) or 'none'}",
        _hardware(list(results.values())),
    ]
    return [fact for fact in facts if fact]


def _told(data: Data) -> str:
    kinds = {"images": ", its images are shaded renders", "beside": ", with renders beside its images", "": ""}
    marks = "" if data.accepted is None else f", {data.accepted} of them accepted by its structure check"
    return f"{data.root.name}, {data.frames} training frames{kinds[data.renders]}{marks}"


def _finetune(matrix: Matrix) -> str:
    tuned = matrix.recipe.finetune
    if "finetune" not in matrix.recipe.protocols:
        return ""
    how = f"{tuned.steps} steps at {tuned.learning_rate:g}" if tuned else "as many steps again"
    return f"; finetuning comes after pretraining: {how}, see updates"


def _hardware(results: Sequence[Mapping[str, Any]]) -> str:
    machines = sorted({result["hardware"] for result in results})
    times = [sum(result["seconds"].values()) for result in results if result["updates"]]
    if not machines:
        return ""
    return f"hardware: {'; '.join(machines)}" + (f"; a run took {median(times):.0f} s (median)" if times else "")
