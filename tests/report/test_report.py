"""A build's report in a real browser, from disk, at a desktop's and a phone's width."""

import re
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
    seen = drawn(page)
    start = (box["x"] + 0.3 * box["width"], box["y"] + 0.35 * box["height"])
    before = seen
    page.drag(start, (start[0] + 60, start[1] + 30))
    for _ in range(100):
        seen = page.picture("iframe")
        if (np.abs(seen.astype(int) - before) > 8).any(-1).mean() > 0.02:
            break
    else:
        raise AssertionError("the viewer didn't turn")
    assert page.errors == []
    assert all(url.startswith(index.parents[1].as_uri()) for url in page.requests)
    assert any(re.search(r"viewer\.html#scene-1$", str(link)) for link in Page(index).links)


def drawn(page) -> np.ndarray:
    """The viewer's picture once its scene is drawn: many colours in its middle."""
    for _ in range(400):
        picture = page.picture("iframe")
        height = picture.shape[0]
        middle = picture[height // 5 : height // 2]
        if (np.ptp(middle.astype(int), axis=-1) > 60).mean() > 0.02:
            return picture
    raise AssertionError("the viewer drew nothing")
