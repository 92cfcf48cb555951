"""Have pages and PDFs read by a process of their own: what breaks an extractor breaks nothing else."""

from __future__ import annotations

import asyncio
import os
import sys
from types import TracebackType
from typing import Literal

from msgspec import Struct

from fusiontools.record import jsonl

#: What the process gets of the environment: where Python finds its packages.
_KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "HOME", "LANG")
_LINE_LIMIT_BYTES = 64 << 20
#: A process is replaced after so many documents: its time and memory are bounded for its whole life.
_DOCUMENTS = 50


class Document(Struct, frozen=True):
    """What was read; `failed` says why nothing was."""

    text: str = ""
    title: str = ""
    head_title: str = ""
    date: str = ""
    failed: str = ""


class PageReader:
    """Reads documents one at a time; the process starts with the first one.

    Args:
        wall_s: how long one document may take.
    """

    def __init__(self, wall_s: float = 15.0) -> None:
        self._wall_s = wall_s
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._read = 0

    async def __aenter__(self) -> PageReader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def read(self, kind: Literal["html", "pdf"], data: bytes, url: str = "", charset: str = "") -> Document:
        """Return what is in a document; one that is too much for the process is `failed`, and ends it."""
        async with self._turn:
            if self._read >= _DOCUMENTS:
                await self._end()
            done = False
            try:
                async with asyncio.timeout(self._wall_s):
                    line = await self._ask({"kind": kind, "url": url, "charset": charset, "size": len(data)}, data)
                done = line.endswith(b"\n")
            except TimeoutError:
                return Document(failed=f"it could not be read within {self._wall_s:g} s")
            except (ConnectionError, ValueError):  # it is gone, or its line is too long
                return Document(failed="it is too much to be read")
            finally:
                if not done:
                    await self._end()
            return Document(**jsonl.loads(line)) if done else Document(failed="it is too much to be read")

    async def _ask(self, job: dict[str, object], data: bytes) -> bytes:
        if self._process is None:
            environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
            self._read = 0
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "fusiontools.tools.page_text"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
                limit=_LINE_LIMIT_BYTES,
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        self._read += 1
        process.stdin.write(jsonl.dumps(job) + b"\n" + data)
        await process.stdin.drain()
        return await process.stdout.readline()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()
