"""The table: mean and spread against numpy, cells without a result, shares of real, Markdown and JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ssc_eval.metrics import scores, tally_frame
from ssc_eval.protocol_table import MEASURES, Found, Row, measures, table_rows, to_json, to_markdown
from ssc_eval.protocols import Cell, Run
from tests.ssc_eval.toy_root import GRID

REAL = [Cell(protocol="real", run=Run(real=1.0, seed=seed)) for seed in range(3)]
ZERO = [Cell(protocol="zero-shot", run=Run(synthetic=40, seed=seed)) for seed in range(3)]
RENDERS = [Cell(protocol="floors", run=Run(synthetic=40, image="render"), obstacle="no renders")]


def found(**scores_: float) -> Found:
    return Found({**dict.fromkeys(MEASURES, 0.5), **{k.replace("_", " "): v for k, v in scores_.items()}}, 7)


def by_arm(rows: list[Row]) -> dict[str, Row]:
    return {row.arm: row for row in rows}


def test_mean_and_spread_equal_numpys() -> None:
    rng = np.random.default_rng(0)
    ious, mious = rng.random((2, 2, 3))
    runs = {
        cell.run: found(IoU=iou, mIoU=miou)
        for cell, iou, miou in zip([*REAL, *ZERO], ious.ravel(), mious.ravel(), strict=True)
    }
    rows = by_arm(table_rows([*REAL, *ZERO], runs))
    for row, k in ((rows["real 100 %"], 0), (rows["synthetic"], 1)):
        for name, values in (("IoU", ious[k]), ("mIoU", mious[k])):
            assert row.values[name] == tuple(values)
            assert row.mean[name] == pytest.approx(np.mean(values), rel=1e-12)
            assert row.spread[name] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
            assert row.of_real[name] == pytest.approx(np.mean(values) / np.mean((ious, mious)[name == "mIoU"][0]))


def test_cells_without_figures_stay_and_say_why() -> None:
    runs = {REAL[1].run: found(IoU=0.25), ZERO[0].run: Found(fault="loss | not finite")}
    rows = table_rows([*REAL, *ZERO, *RENDERS], runs)
    real, zero, renders = rows
    assert (real.done, real.spread["IoU"]) == ((1,), None)
    assert real.missing == ("not run", "not run")
    assert zero.missing == ("failed: loss | not finite", "not run", "not run")
    assert zero.mean == {}
    assert renders.missing == ("not run: no renders",)
    lines = to_markdown(rows, ["a fact"]).splitlines()
    table = {line.split("|")[1].strip(): [w.strip() for w in line.split("|")[2:-1]] for line in lines if "|" in line}
    assert table["real 100 %"][3:] == ["25.00", "50.00", "50.00", "50.00", "50.00", "100 / 100", "1 of 3 (2 not run)"]
    assert table["synthetic"][3:8] == ["not run"] * 5
    assert table["synthetic"][-1] == "0 of 3 (1 failed: loss / not finite; 2 not run)"
    assert table["renders"][-1] == "0 of 1 (1 not run: no renders)"
    assert "- a fact" in lines


def test_a_cell_of_two_protocols_has_the_same_figures_in_both() -> None:
    again = Cell(protocol="fractions", run=REAL[0].run)
    rows = table_rows([REAL[0], again], {REAL[0].run: found(IoU=0.3)})
    assert [(row.protocol, row.mean["IoU"]) for row in rows] == [("real", 0.3), ("fractions", 0.3)]


def test_measures_are_the_benchmarks() -> None:
    rng = np.random.default_rng(1)
    target, guess = rng.integers(0, 4, (2, *GRID.shape), dtype=np.uint8)
    regions: dict[str, Any] = scores(tally_frame(target, guess, GRID, 4, target % 2 == 0), ("empty", "a", "b", "c"))
    got = measures(regions)
    assert got["IoU"] == ((target > 0) & (guess > 0)).sum() / ((target > 0) | (guess > 0)).sum()
    seen = target % 2 == 0
    per_class = [
        ((target == c) & (guess == c) & seen).sum() / (((target == c) | (guess == c)) & seen).sum() for c in (1, 2, 3)
    ]
    assert got["mIoU in view"] == pytest.approx(np.mean(per_class))
    assert got["IoU in view"] != got["IoU out of view"]


def test_json_holds_all() -> None:
    rows = table_rows([*REAL, *RENDERS], {REAL[0].run: found(IoU=0.5)})
    table = json.loads(json.dumps(to_json(rows), allow_nan=False))
    assert [row["arm"] for row in table] == ["real 100 %", "renders"]
    assert table[0]["seeds"] == [0, 1, 2]
    assert table[0]["values"]["IoU"] == [0.5]
    assert table[1]["missing"] == ["not run: no renders"]
