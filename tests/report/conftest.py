"""A real browser for pages, started once; tests that need it are skipped visibly where there is none."""

from collections.abc import Iterator

import pytest

from tests.browser import Page, find_browser, new_page, running_browser


@pytest.fixture(scope="session")
def browser() -> Iterator[str]:
    """The address of a running headless browser."""
    command = find_browser()
    if command is None:
        pytest.skip("no Chromium on the PATH (Debian: apt install chromium); CHROMIUM names another")
    with running_browser(command) as address:
        yield address


@pytest.fixture
def page(browser: str) -> Iterator[Page]:
    """A tab that moves its camera at once instead of smoothly."""
    with new_page(browser) as tab:
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
        yield tab
