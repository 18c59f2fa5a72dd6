"""Debian's Chromium, driven by Playwright; and pages that take down whatever goes wrong in them."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.console.visits import Visit

OpenPage = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of one module.

    No longer, as Playwright's loop runs for as long, beside which no other test could run its own.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no `chromium` command (Debian, Ubuntu: apt-get install chromium)")
    # Its sandbox refuses to be run by root, as whom containers run their tests.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[OpenPage]:
    """Return a function that opens an address as a new visitor; at its end nothing went wrong."""
    visits: list[Visit] = []

    def open_page(
        address: str, *, width: int = 1440, expects: tuple[str, ...] = (), **options: Any
    ) -> Visit:
        viewport = {"width": width, "height": 900}
        context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)
        visits.append(Visit(context, address, expects))
        return visits[-1].opened()

    yield open_page
    for visited in visits:
        visited.context.close()
    for visited in visits:
        assert visited.troubles == []


@pytest.fixture
def page(visit: OpenPage, edge: Any) -> Page:
    """The page of a gateway that has one model, `m`, and asks for no key."""
    return visit(edge.address).page
