"""The streams under way, so that one member of a run can be stopped, whichever of the server's workers has the run.

Each worker listens at a socket in the folder that all workers of one server share, and which nobody else may enter.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fusiontools.record import jsonl
from fusiontools.server.protocols.exchange import ApiError

if TYPE_CHECKING:
    from fusiontools.server.jobs import Job

#: How long another worker may take to answer.
_ANSWER_S = 2.0
#: No name of a run or of a member is longer.
_NAME_CHARS = 1000
Outcome = Literal["stopped", "no run", "no member"]


class RunsUnderWay:
    """The streams of this process, each by its caller and its name, and the way to those of the other workers.

    Args:
        folder: what the workers of this server share; None where this is the only process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._jobs: dict[tuple[str, str], Job] = {}

    @contextmanager
    def running(self, caller: str, run: str, job: Job) -> Iterator[None]:
        """Let a run be found until the block ends."""
        self._jobs[caller, run] = job
        try:
            yield
        finally:
            del self._jobs[caller, run]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Let the other workers ask until the block ends."""
        if self._folder is None:
            yield
            return
        path = self._folder / f"{secrets.token_hex(8)}.runs"
        try:
            server = await asyncio.start_unix_server(self._answer, path)
        except OSError as error:
            why = f"{path}: {error}: of a run here, another worker cannot stop a member"
            sys.stderr.write(f"fuse-serve: {why}\n")
            yield
            return
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def stop(self, caller: str, run: str, member: str) -> None:
        """Cut a member of a run off.

        Raises:
            ApiError: there is no such run of this caller, or nobody of this name is writing in it.
        """
        outcome = self._stop_here(caller, run, member)
        if outcome == "no run" and self._folder is not None and max(len(run), len(member)) <= _NAME_CHARS:
            question = jsonl.dumps([caller, run, member])
            answers = await asyncio.gather(*(_ask(path, question) for path in self._folder.glob("*.runs")))
            outcome = next((answer for answer in answers if answer != "no run"), outcome)
        if outcome == "no run":
            why = f"no run {run[:100]!r} of this key is under way: it has ended, or never began"
            raise ApiError(404, "run_not_found", why, "run")
        if outcome == "no member":
            raise ApiError(404, "run_not_found", f"no member {member[:100]!r} is writing", "member")

    def _stop_here(self, caller: str, run: str, member: str) -> Outcome:
        job = self._jobs.get((caller, run))
        if job is None:
            return "no run"
        return "stopped" if job.drafts is not None and job.drafts.stop(member) else "no member"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer another worker."""
        try:
            caller, run, member = jsonl.loads(await reader.read())
            writer.write(self._stop_here(caller, run, member).encode())
        finally:
            writer.close()


async def _ask(path: Path, question: bytes) -> Outcome:
    """Return what the worker at this socket says; one that does not answer has no run."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(question)
                writer.write_eof()
                answer = (await reader.read()).decode()
            finally:
                writer.close()
                await writer.wait_closed()
            if answer == "stopped":
                return "stopped"
            if answer == "no member":
                return "no member"
    return "no run"
