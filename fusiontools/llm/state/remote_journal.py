"""The journal in a store that is a journey away: look-ups and writes go together, as many as have piled up.

A store that is away stops nobody: it is said once, calls count as missing, what is bought waits in memory, up to a
bound, and every second it is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.journal import WAITING_BYTES
from fusiontools.llm.journal_entry import kept_call, read_body
from fusiontools.llm.state.store import CallStore, Found, KeptCall, Lease, StateAway, end_tasks

_RETRY_S = 1.0
#: So many entries go in one step.
_AT_ONCE = 200


class RemoteJournal:
    """Finished calls in a store.

    Args:
        warn: told in words what goes wrong, and when it is well again.
    """

    remote = True

    def __init__(self, store: CallStore, warn: Callable[[str], None]) -> None:
        self.place = store.place
        #: Why the store cannot be reached now; None where it can.
        self.broken: str | None = None
        self._store, self._warn = store, warn
        self._asked: dict[bytes, asyncio.Future[bytes | None]] = {}
        self._written: list[tuple[KeptCall, asyncio.Future[None]]] = []
        #: Finished calls that wait for the store.
        self._waiting: dict[bytes, KeptCall] = {}
        self._waiting_bytes = self._lost = 0
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._said_unreadable = False

    def get(self, key: bytes) -> Found | None:
        """Return a finished call that waits for the store; it knows of no other."""
        waiting = self._waiting.get(key)
        return None if waiting is None else read_body(waiting.body)

    async def find(self, key: bytes) -> Found | None:
        """Return a finished call, or None; one that cannot be read is none, which is said."""
        if (waiting := self.get(key)) is not None:
            return waiting
        if self.broken:
            return None
        if key not in self._asked:
            self._asked[key] = asyncio.get_running_loop().create_future()
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())
        body = await asyncio.shield(self._asked[key])
        try:
            return None if body is None else read_body(body)
        except ValueError as error:
            if not self._said_unreadable:
                self._said_unreadable = True
                self._warn(
                    f"warning: the journal {self.place} has an entry that cannot be read ({error}); "
                    "each such call counts as missing"
                )
            return None

    async def put(
        self,
        key: bytes,
        request: CompletionRequest,
        completion: Completion,
        paid_usd: float | None,
        lease: Lease | None = None,
    ) -> None:
        """Keep a finished call; returns when the store has it, or waits in memory for one that is away."""
        try:
            call = kept_call(key, request, completion, paid_usd, lease)
        except ValueError as error:
            self._warn(f"warning: a finished call cannot be kept in the journal {self.place}: {error}")
            return
        if self.broken:
            self._hold([call])
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._written.append((call, done))
        self._begin_writing()
        await done

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Finish the writes under way; what cannot be kept then is said to be lost."""
        if self._writer is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    if self.broken:
                        await self._try_again()
                    else:
                        await asyncio.shield(self._writer)
        await end_tasks(self._writer, self._reader)
        if lost := self._lost + len(self._waiting):
            self._lost, self._waiting = 0, {}
            self._warn(f"warning: {lost} finished calls are not in the journal: {self.broken}")

    def say_away(self, reason: str) -> None:
        """Note that the store cannot be reached, and say so once; it is tried again until it can be."""
        if not self.broken:
            self._warn(
                f"warning: the state {reason}; what is shared there is done without, but for money: finished calls "
                "wait in memory until it can be reached, and are lost where this run ends before"
            )
        self.broken = reason
        self._begin_writing()

    async def _read(self) -> None:
        """Look up what has been asked for, until nobody asks."""
        try:
            await asyncio.sleep(0)  # whoever asks at the same time comes along
            while self._asked:
                asked = dict(list(self._asked.items())[:_AT_ONCE])
                try:
                    found = await self._store.fetch(list(asked))
                except StateAway as away:
                    self.say_away(str(away))
                    found = [None] * len(asked)
                for (key, future), body in zip(asked.items(), found, strict=True):
                    del self._asked[key]
                    future.set_result(body)
        finally:
            self._reader = None

    def _begin_writing(self) -> None:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Write what has piled up, until there is nothing more and the store is there."""
        try:
            while self._written or self.broken:
                if self.broken:
                    await asyncio.sleep(_RETRY_S)
                    await self._try_again()
                    continue
                batch, self._written = self._written[:_AT_ONCE], self._written[_AT_ONCE:]
                try:
                    await self._store.keep([call for call, _ in batch])
                except StateAway as away:
                    self.say_away(str(away))
                    batch, self._written = [*batch, *self._written], []
                    self._hold([call for call, _ in batch])
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)
        finally:
            self._writer = None

    async def _try_again(self) -> None:
        """Reach the store, and write what waits for it."""
        with suppress(StateAway):
            await self._store.check()
            while self._waiting:
                calls = list(self._waiting.values())[:_AT_ONCE]
                await self._store.keep(calls)
                for call in calls:
                    del self._waiting[call.key]
                    self._waiting_bytes -= len(call.body)
            self.broken = None
            self._warn(f"the state {self.place} is reached again, with the calls that waited for it")

    def _hold(self, calls: list[KeptCall]) -> None:
        """Let finished calls wait in memory, while there is room."""
        for call in calls:
            if self._waiting_bytes + len(call.body) > WAITING_BYTES:
                if not self._lost:
                    self._warn(f"warning: {WAITING_BYTES >> 20} MiB wait for the journal; what comes now is not kept")
                self._lost += 1
            elif call.key not in self._waiting:
                self._waiting[call.key] = call
                self._waiting_bytes += len(call.body)
