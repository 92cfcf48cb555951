"""One small web for all tests of tools."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from webbing import Web, start_web


@pytest.fixture(scope="session")
def web_process() -> Iterator[Web]:
    with start_web() as web:
        yield web


@pytest.fixture
def web(web_process: Web) -> Web:
    """The web, with what was asked and scripted before forgotten."""
    web_process.reset()
    return web_process
