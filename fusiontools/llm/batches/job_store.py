"""The notes of batch jobs as a run uses them: a file of this machine, or one that follows the notes of all machines.

Where machines share a state, every change is a note there, in one order for all, and each machine's file makes the
changes in that order, its own among them: so all files hold the same, and what a change finds is found alike by all.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from msgspec.structs import astuple

from fusiontools.errors import CallFailed
from fusiontools.llm.batches.job_file import BatchJob, JobFile, NewCall
from fusiontools.llm.state.store import KEPT_S, Lease, StateAway

if TYPE_CHECKING:
    from fusiontools.llm.state.flights import Flights
    from fusiontools.llm.state.store import Notes

_NAME = "batches"
#: How soon somebody who waits for another process looks again.
_LOOK_S, _SOON_S = 0.05, 0.002
#: So many notes are read in one go.
_AT_ONCE = 100
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (BatchJob, NewCall)}
_CHANGES = ("make", "set_job", "drop", "answer", "end", "set_bought", "set_failed", "forget", "learn_queue", "disown")

Told = ParamSpec("Told")
Outcome = TypeVar("Outcome")


class JobStore(JobFile):
    """The open file. What it holds is read from it; a change goes through `write`.

    Args:
        path: the file.
        notes: where the changes of all machines stand; None where only this one sends jobs.
        flights: the turns at calls, by which one process at a time sends.

    Raises:
        UsageError: the file cannot be opened.
    """

    def __init__(self, path: Path, notes: Notes | None = None, flights: Flights | None = None) -> None:
        super().__init__(path)
        self._notes, self._flights = notes, flights
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Let nobody else send anything meanwhile; waits for who does. A process that dies lets go.

        Raises:
            CallFailed: the state cannot be reached.
        """
        if self._flights is None:
            async with self._locked(".lock", _LOOK_S):
                yield
            return
        turn = await self._flights.enter(hashlib.sha256(_NAME.encode()).digest(), replays=False)
        if not isinstance(turn, Lease):
            raise _away("nobody can know who sends batch jobs now")
        try:
            await self.catch_up()
            yield
        finally:
            await self._flights.leave(turn, bought=False)

    async def write(
        self, change: Callable[Concatenate[Any, Told], Outcome], *told: Told.args, **named: Told.kwargs
    ) -> Outcome:
        """Make a change, one of `JobFile`'s, for all who share the notes; returns what it returns.

        Raises:
            CallFailed: the state cannot be reached; whether it has the change is heard later.
        """
        if self._notes is None:
            return change(self, *told, **named)
        said = [change.__name__, told, named]
        packed = zlib.compress(json.dumps(said, default=_as_json).encode())
        async with self._writing, self._locked(".hearing", _SOON_S):
            try:
                number = await self._notes.note(_NAME, packed, KEPT_S)
            except StateAway as away:
                raise _away(str(away)) from None
            outcome: Outcome = await self._hear(self._notes, number)
            return outcome

    async def catch_up(self) -> None:
        """Make the changes of others.

        Raises:
            CallFailed: the state cannot be reached.
        """
        if self._notes is not None:
            async with self._writing, self._locked(".hearing", _SOON_S):
                await self._hear(self._notes)

    async def _hear(self, notes: Notes, mine: int | None = None) -> Any:
        """Make the changes that are not made yet; returns what came of the one with this number."""
        outcome = None
        while True:
            try:
                found = await notes.notes_after(_NAME, self.heard, _AT_ONCE)
            except StateAway as away:
                raise _away(str(away)) from None
            for number, packed in found:
                change, told, named = json.loads(zlib.decompress(packed), object_hook=_from_json)
                if change not in _CHANGES:
                    raise CallFailed(
                        "bad_response", f"{self.path}: a newer fusiontools notes batch jobs here: {change}"
                    )
                with self.hearing(number):
                    made = getattr(self, change)(*told, **named)
                outcome = made if number == mine else outcome
            if len(found) < _AT_ONCE:
                return outcome

    @asynccontextmanager
    async def _locked(self, suffix: str, look_s: float) -> AsyncIterator[None]:
        """Keep the other processes of this machine out."""
        lock = os.open(self.path.with_name(self.path.name + suffix), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            while not _locks(lock):  # noqa: ASYNC110 - another process tells nobody when it lets go
                await asyncio.sleep(look_s)
            yield
        finally:
            os.close(lock)


def _locks(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _away(reason: str) -> CallFailed:
    return CallFailed("connect", f"the state, where batch jobs are noted, is away: {reason}", retryable=True)


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    kind = type(value).__name__
    return {"kind": kind, "with": [*astuple(value)]}


def _from_json(said: dict[str, Any]) -> Any:
    if said.keys() == {"bytes"}:
        return base64.b64decode(said["bytes"])
    if said.keys() == {"kind", "with"}:
        return _KINDS[said["kind"]](*said["with"])
    return said
