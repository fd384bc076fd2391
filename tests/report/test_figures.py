"""Figures: what they show follows the numbers, they leave no state behind, and they are the same again."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.report.evaluation import Page, Table, write_page
from pipeline.report.figures import COLOURS, Panel, class_histogram, metric_bars
from pipeline.scene.errors import InputError

CLASSES, COLORS = ("car", "road", "tree"), ((0, 0, 200), (200, 0, 200), (0, 160, 0))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def columns_of(picture: np.ndarray, colour: str) -> np.ndarray:
    """Columns with a pixel of a colour."""
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return np.flatnonzero((np.abs(picture - rgb).max(axis=2) <= 2).any(axis=0))


def test_bars_are_as_long_as_their_values() -> None:
    picture = pixels(metric_bars([Panel("F3D", "lower is better", ("a", "b"), (2.0, 1.0), (), 0.5)]))
    a, b = (columns_of(picture, COLOURS[k]) for k in (0, 1))
    assert abs(np.ptp(a) / np.ptp(b) - 2) < 0.1


def test_values_may_be_missing_or_negative() -> None:
    panels = [Panel("KID", "", ("a", "b"), (-0.1, float("nan")), (0.01, 0.0)), Panel("IS", "", ("a", "b"), (0.0, 0.0))]
    assert columns_of(pixels(metric_bars(panels)), COLOURS[0]).size


def test_a_dot_lies_further_right_for_a_larger_share() -> None:
    shares = {"real": (0.1, 0.8, 0.1), "ours": (0.0, 0.99, 0.01)}
    more = {**shares, "ours": (0.9, 0.99, 0.9)}
    low, high = (columns_of(pixels(class_histogram(CLASSES, COLORS, s)), COLOURS[0]) for s in (shares, more))
    assert low.min() < high.min()


def test_figures_are_the_same_again_and_change_no_settings() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    panel = Panel("F3D", "lower is better", ("a",), (2.0,), (0.1,), 0.5)
    assert metric_bars([panel]) == metric_bars([panel])
    assert dict(matplotlib.rcParams) == before


def test_refusals() -> None:
    with pytest.raises(InputError, match="2 values"):
        Panel("F3D", "", ("a", "b"), (1.0,))
    with pytest.raises(InputError, match="at least one panel"):
        metric_bars([])
    with pytest.raises(InputError, match="3 shares a set"):
        class_histogram(CLASSES, COLORS, {"real": (0.1,)})


def test_a_page_is_one_file_and_escapes(tmp_path) -> None:
    table = Table("T", "note", ["name", "value"], [["<b>x</b>", "1"]])
    write_page(tmp_path / "index.html", Page("a & b", ["fact"], [table], [("cap", "image/png", b"abc")]))
    text = (tmp_path / "index.html").read_text()
    assert "&lt;b&gt;x" in text
    assert "a &amp; b" in text
    assert 'src="data:image/png;base64,YWJj"' in text
