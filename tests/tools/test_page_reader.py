"""The process that reads pages: bounded, without keys, and replaced when it fails."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from web_pages import ARTICLE

from fusiontools.tools.page_reader import Document, PageReader


def children() -> list[Path]:
    """Return the processes that this one has started, as /proc has them."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [Path("/proc") / pid for pid in found]


def test_a_document_that_takes_too_long_is_given_up_with_its_process() -> None:
    async def work() -> Document:
        async with PageReader(wall_s=0.01) as reader:
            return await reader.read("html", ARTICLE.encode())

    assert asyncio.run(work()) == Document(failed="it could not be read within 0.01 s")


def test_a_reader_that_reads_nothing_starts_nothing() -> None:
    async def work() -> list[Path]:
        before = children()
        async with PageReader():
            return [child for child in children() if child not in before]

    assert asyncio.run(work()) == []


def test_the_process_has_no_key_and_ends_with_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-secret")

    async def work() -> list[Path]:
        before = children()
        async with PageReader(wall_s=60) as reader:
            assert "Merging" in (await reader.read("html", ARTICLE.encode())).text
            started = [child for child in children() if child not in before]
            assert started
            for child in started:
                assert b"sk-or-secret" not in (child / "environ").read_bytes()
        return [child for child in started if child.exists()]

    assert asyncio.run(work()) == []


def test_a_cancelled_read_leaves_no_process_and_no_half_answer() -> None:
    async def work() -> Document:
        async with PageReader(wall_s=60) as reader:
            first = asyncio.create_task(reader.read("html", ARTICLE.encode()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return await reader.read("html", b"<p>another page</p>")

    assert asyncio.run(work()).text == "another page"
