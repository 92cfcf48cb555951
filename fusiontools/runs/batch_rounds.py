"""Take records through a chain by batch jobs: rounds of asking, submitting and fetching, until nothing waits.

Each round takes every record as far as what has been bought carries it, and throws away what comes of it: at the end
the chain runs once more, over answers that are all in the journal. Records are read anew in each round, so memory does
not grow with their number.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from msgspec import Struct

from fusiontools.errors import CallFailed, UsageError
from fusiontools.llm.batches.batch_api import REFUSED
from fusiontools.llm.batches.batch_money import BatchMoney
from fusiontools.llm.batches.desk import Desk, waits
from fusiontools.llm.batches.job_file import BatchJob
from fusiontools.llm.batches.job_store import JobStore
from fusiontools.llm.journal import Journal, default_path
from fusiontools.record.types import Record
from fusiontools.runs.chain import over
from fusiontools.stages.runtime import Runtime, Stage

if TYPE_CHECKING:
    from fusiontools.llm.client import Client
    from fusiontools.llm.state.store import CallStore

#: A job is looked at again after this share of the time that it has taken, so the first looks come sooner.
_SHARE, _SOONEST_S = 0.1, 1.0
#: So often is a job looked at that its provider still checks, a second after each other.
_CHECKS = 60
#: The name of a budget that no other run shares.
OWN_RUN = "run"


class BatchProgress(Struct, frozen=True):
    """How far the jobs under way are.

    Args:
        done: calls that have been made, as far as providers count them.
        left_s: about how long it still takes; None where nobody knows.
        ends_s: Unix time at which the last one expires; None where nobody says so.
    """

    jobs: int
    calls: int
    done: int
    left_s: float | None
    ends_s: float | None


class BatchStanding(Struct, frozen=True):
    """Where a run stands.

    Args:
        records: how many there are.
        waiting: how many of them wait for a job.
        jobs: how many jobs they wait for.
        calls: how many of their calls are in these.
        unsent: how many are in none.
    """

    records: int
    waiting: int
    jobs: int
    calls: int
    unsent: int


@dataclass(slots=True)
class BatchRounds:
    """The rounds of one run.

    Args:
        records: gives the records, from the first one, each time.
        at_once: so many records are looked at at once.
    """

    client: Client
    desk: Desk
    stage: Stage
    records: Callable[[], AsyncIterator[Sequence[Record]]]
    at_once: int = 8
    _records: int = field(default=0, init=False)
    _waiting: int = field(default=0, init=False)

    async def submit(self) -> BatchStanding:
        """Send what the records need next, after fetching what is ready.

        Raises:
            CallFailed: a provider refuses a job, or cannot be reached.
        """
        await self.collect()
        async with self.desk.store.alone():
            unsent = await self.desk.submit()
        return self._standing(unsent)

    async def submit_and_check(self) -> BatchStanding:
        """Submit, and wait for some time until the providers have looked through what they were sent.

        What they refuse is sent again without the calls at fault.

        Raises:
            CallFailed: a provider refuses a job, or cannot be asked.
        """
        began_s = time.time()
        standing = await self.submit()
        for _ in range(self.client.limits.retries + 1):
            if not await self._some_refused(began_s):
                break
            standing = await self.submit()
        return standing

    async def _some_refused(self, since_s: float) -> bool:
        """Return whether a job that was sent since then is refused; one that is checked for too long is left."""
        jobs = {job.id: job for job in self.desk.jobs() if job.made_s >= since_s}
        refused = False
        for _ in range(_CHECKS):
            for job in list(jobs.values()):
                standing = await self.desk.dispatch.look(job)
                if standing is not None and not standing.checking:
                    refused |= standing.end == REFUSED
                    del jobs[job.id]
            if not jobs:
                return refused
            await asyncio.sleep(min(_SOONEST_S, self.desk.poll_s(jobs.values())))
        for job in jobs.values():
            self.desk.say(
                f"{job.endpoint} still checks {job.remote}; the next `--batch collect` says whether it is taken"
            )
        return refused

    async def collect(self) -> BatchStanding:
        """Fetch what is ready, and send nothing.

        Raises:
            CallFailed: a provider cannot be asked.
        """
        async with self.desk.store.alone():
            await self.desk.dispatch.recover()
        await self._round()
        while any([await self._look(job) for job in self.desk.jobs()]):
            await self._round()
        if self.desk.money.has_settled:
            await self._round()  # now that it is known what all of them have cost
        return self._standing(len(self.desk.spool))

    async def wait(self, tell: Callable[[BatchProgress], None]) -> None:
        """Send and fetch until no record waits.

        Args:
            tell: told how far the jobs are, each time they are looked at.

        Raises:
            CallFailed: a provider refuses a job, or cannot be asked.
        """
        while (await self._submit_at_last()).waiting:
            jobs = {job.id: job for job in self.desk.jobs()}
            if not jobs:
                await asyncio.sleep(self.desk.poll_s(()))  # another run's jobs fill the queue
            standings: dict[str, BatchProgress] = {}
            while jobs:
                for job in list(jobs.values()):
                    if await self._look(job, standings):
                        del jobs[job.id]
                tell(_sum(standings.values(), len(jobs)))
                if jobs:
                    taken_s = time.time() - min(job.made_s for job in jobs.values())
                    await asyncio.sleep(min(self.desk.poll_s(jobs.values()), max(_SOONEST_S, _SHARE * taken_s)))

    async def _submit_at_last(self) -> BatchStanding:
        """Submit; a provider that cannot be reached is asked again, as a call would be made again."""
        for left in reversed(range(self.client.limits.retries + 1)):
            try:
                return await self.submit()
            except CallFailed as failure:
                if not (failure.retryable and left):
                    raise
                await asyncio.sleep(self.desk.poll_s(()))
        raise AssertionError  # the last try returns or raises

    async def _round(self) -> None:
        await self.desk.store.catch_up()
        self.desk.begin_round()
        self._records = self._waiting = 0
        # Nobody is told of calls that are told of again when the records leave.
        told = self.client.notify, self.client.traces
        self.client.notify = self.client.traces = None
        try:
            async for results in over(self.records(), self._take, jobs=self.at_once):
                self._records += len(results)
                self._waiting += sum(results)
        finally:
            self.client.notify, self.client.traces = told
        await self.desk.money.end_round()

    async def _take(self, record: Record) -> bool:
        """Take a record as far as it comes; returns whether it waits."""
        return await waits(lambda: self.stage(record, Runtime(self.client)))

    async def _look(self, job: BatchJob, standings: dict[str, BatchProgress] | None = None) -> bool:
        """Look at a job; returns whether it has ended, and all that came of it is kept."""
        await self.desk.store.catch_up()
        current = self.desk.store.job(job.id)
        if current is not None and current.state == "open" and self.desk.or_buy_s is not None:
            await self.desk.dispatch.cut_late(current, self.desk.or_buy_s)
            current = self.desk.store.job(job.id)
        if current is None or current.state == "ended":
            return True
        if current.state != "open":
            # Another process is sending it, or has left it behind; or it was taken for another one.
            async with self.desk.store.alone():
                await self.desk.dispatch.recover()
            return self.desk.store.job(job.id) is None
        standing = await self.desk.dispatch.look(current)
        ended = standing is not None and standing.end is not None
        if standings is not None:
            done = job.calls if ended else (standing.done if standing is not None else None) or 0
            taken_s = time.time() - job.made_s
            left_s = 0.0 if ended else taken_s / done * (job.calls - done) if done else None
            ends_s = standing.ends_s if standing is not None else None
            standings[job.id] = BatchProgress(1, job.calls, done, left_s, ends_s)
        return ended

    def _standing(self, unsent: int) -> BatchStanding:
        jobs = self.desk.jobs()
        return BatchStanding(
            self._records, self._waiting, len(jobs), sum(job.calls for job in jobs), unsent + len(self.desk.held)
        )


def _sum(each: Iterable[BatchProgress], jobs: int) -> BatchProgress:
    all_of_them = list(each)
    left = [one.left_s for one in all_of_them]
    known = [left_s for left_s in left if left_s is not None]
    return BatchProgress(
        jobs,
        sum(one.calls for one in all_of_them),
        sum(one.done for one in all_of_them),
        max(known, default=0.0) if len(known) == len(left) else None,
        max((one.ends_s for one in all_of_them if one.ends_s is not None), default=None),
    )


def open_desk(client: Client, say: Callable[[str], None], or_buy_s: float | None = None) -> Desk:
    """Open the batch jobs of a client, and have its calls go there; they are noted beside its journal, or in its state.

    Args:
        say: tells a person what goes on.
        or_buy_s: how long a job may take; what it then lacks is bought at once.

    Raises:
        UsageError: it keeps no journal, or the notes cannot be written.
    """
    journal = client.journal
    if journal is None:
        raise UsageError("--batch needs the journal, in which the answers are kept; leave --no-journal out")
    state = client.state
    if state is None or isinstance(journal, Journal):
        store = JobStore((journal.path if isinstance(journal, Journal) else default_path()).with_suffix(".batches.db"))
    else:
        place = hashlib.sha256(state.place.encode()).hexdigest()[:12]
        store = JobStore(default_path().with_name(f"{place}.batches.db"), cast("CallStore", state.store), state.flights)
    money = BatchMoney(client.budget, client.run != OWN_RUN and client.limits.max_cost_usd is not None)
    client.batch = Desk(client.endpoints, client.limits, money, journal, store, say, or_buy_s)
    client.replay = True
    return client.batch
