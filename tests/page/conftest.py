"""A real browser before a real server: Debian's Chromium, driven by Playwright over the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from desk import ALL, Desk, watch
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright
from serving import Server
from workdir import Serve, Upstream

CHROMIUM = shutil.which("chromium")
# A busy machine is no failure.
expect.set_options(timeout=30_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/page/" in str(item.path):
            item.add_marker(pytest.mark.slow)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip("no chromium on this machine; `make system` installs it"))


# Not of the session: while it is open this thread has an event loop, and tests of other folders run their own.
# Not for longer than a module: while it stands no other test of the process can run a loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    as_root = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=as_root)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def desks(context: BrowserContext) -> Iterator[Any]:
    """Open pages of servers; what any of them complains of, unless it is expected, fails the test."""
    opened: list[Desk] = []

    def sit_down(server: Server) -> Desk:
        desk = Desk(context.new_page(), server)
        watch(desk.page, desk)
        opened.append(desk)
        return desk

    yield sit_down
    for desk in opened:
        left = [text for text in desk.complaints if not any(words in text for words in desk.expected)]
        assert left == []
        strangers = [url for url in desk.asked if not url.startswith((desk.server.url, "data:", "blob:"))]
        assert strangers == []


@pytest.fixture
def desk(desks: Any, standing: Serve, upstream: Upstream) -> Desk:
    """The page of a server whose clients may name any fake model."""
    desk: Desk = desks(standing(*ALL))
    desk.open()
    return desk
