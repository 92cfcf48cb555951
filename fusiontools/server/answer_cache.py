"""The cache of answers: equal questions get what was made for one of them, or join the job that makes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from cachetools import TTLCache

from fusiontools.llm.state.shared import State
from fusiontools.llm.state.store import StateAway
from fusiontools.record import jsonl
from fusiontools.record.types import Record
from fusiontools.server.jobs import Job

#: What `degraded` says that no second try would change.
_NO_FAILURES = ("judge_on_panel",)


class Cache:
    """Finished records by key, and the jobs under way that equal questions may join.

    Args:
        keep_s: how long an answer is kept; 0 keeps none.
        entries: how many are kept, at most; the one that was used longest ago makes room.
        clock: seconds, rising.
        most_bytes: how much they may have together, as JSON.
        state: where other processes find them, and this one theirs; they go by age there.
    """

    def __init__(
        self,
        keep_s: float,
        entries: int,
        clock: Callable[[], float] = time.monotonic,
        most_bytes: int = 2**26,
        state: State | None = None,
    ) -> None:
        #: Whether there is a cache at all.
        self.keeps = keep_s > 0
        self._keep_s, self._state = keep_s, state
        self._sharing: set[asyncio.Task[None]] = set()
        # No record is counted as less than the share of one among so many: so one bound holds both.
        share = max(1, most_bytes // entries)
        self._kept: TTLCache[bytes, Record] = TTLCache(
            share * entries, keep_s, clock, getsizeof=lambda record: max(share, len(jsonl.dumps(record)))
        )
        self._running: dict[bytes, Job] = {}

    async def get(self, key: bytes) -> Record | None:
        """Return a finished record that is still fresh."""
        if (kept := self._kept.get(key)) is not None or self._state is None:
            return kept
        try:
            shared = await self._state.store.value_of(_value_name(key))
        except StateAway as away:
            self._state.say_away(str(away))
            return None
        return None if shared is None else jsonl.loads(shared)

    def find_running(self, key: bytes) -> Job | None:
        """Return the job of this key, where one can still be joined."""
        job = self._running.get(key)
        return job if job is not None and not job.task.done() and not job.task.cancelling() else None

    def begin(self, key: bytes, work: Callable[[Job], Awaitable[Record]]) -> Job:
        """Return a new job, which others may join."""
        job = self._running[key] = Job(work)
        job.task.add_done_callback(lambda _: self._finish(key, job))
        return job

    def _finish(self, key: bytes, job: Job) -> None:
        if self._running.get(key) is job:
            del self._running[key]
        if job.task.cancelled() or job.task.exception() is not None:
            return
        record = job.task.result()
        failed = [note for note in record.get("degraded", []) if note["code"] not in _NO_FAILURES]
        if self.keeps and "error" not in record and not failed:  # another try may do better
            with suppress(ValueError):  # it alone is larger than all may be
                self._kept[key] = record
            if self._state is not None:
                sharing = asyncio.ensure_future(self._share(key, record, self._state))
                self._sharing.add(sharing)
                sharing.add_done_callback(self._sharing.discard)

    async def _share(self, key: bytes, record: Record, state: State) -> None:
        try:
            await state.store.keep_value(_value_name(key), jsonl.dumps(record), self._keep_s)
        except StateAway as away:
            state.say_away(str(away))


def _value_name(key: bytes) -> str:
    return f"answer {key.hex()}"
