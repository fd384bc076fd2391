"""A build's report in a real browser, from disk, at a desktop's and a phone's width."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.report import write_report
from tests.flows.finished_build import write_finished_build
from tests.flows.reported_build import Page, scored, ssc_table, timed


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    """The page of a build that has all parts."""
    dataset = write_finished_build(tmp_path_factory.mktemp("built"))
    for step in (scored, timed, ssc_table):
        step(dataset)
    return write_report(dataset)


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
def test_pictures_are_shown_and_the_viewer_turns(index: Path, page, width: int, phone: bool) -> None:
    page.open(index, width, 860, phone=phone)
    assert page.run("document.documentElement.scrollWidth") <= width
    page.run("document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; })")
    page.wait("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.run("document.images.length") > 30
    page.run("document.querySelectorAll('[data-in3d]')[1].click()")  # loads the viewer at the second sample
    page.wait("document.activeElement.tagName === 'IFRAME'")
    box = page.box("iframe")
    assert box["y"] >= 0
    assert box["width"] > 0.9 * width
    before = until(page, lambda picture: colourful(picture) > 0.02)
    start = (box["x"] + 0.3 * box["width"], box["y"] + 0.35 * box["height"])
    page.drag(start, (start[0] + 60, start[1] + 30))
    until(page, lambda picture: (np.abs(picture.astype(int) - before) > 8).any(-1).mean() > 0.01)
    assert page.errors == []
    assert all(url.startswith(index.parents[1].as_uri()) for url in page.requests)
    assert any(re.search(r"viewer\.html#scene-1$", str(link)) for link in Page(index).links)


def colourful(picture: np.ndarray) -> float:
    """The share of strong colours, as classes have and the page doesn't."""
    return float((np.ptp(picture.astype(int), axis=-1) > 60).mean())


def until(page, looks: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The viewer's stage, the upper part of its frame, once it looks so."""
    for _ in range(60):
        whole, box = page.picture(), page.box("iframe")
        scale = whole.shape[1] / page.run("innerWidth")
        rows = slice(*(round(scale * (box["y"] + part * box["height"])) for part in (0.25, 0.5)))
        picture = whole[rows, : round(0.7 * whole.shape[1])]
        if looks(picture):
            return picture
        time.sleep(0.5)
    raise AssertionError("the viewer didn't come to look as it should")
