"""Money that many calls, and several processes, spend together: reserved before a call, settled after it.

What those who spend from one purse must know of each other stands in one store (`state/`), or in memory where there is
one process: what is spent, what is in flight, and what calls to a model have cost beside what was reserved for them. So
a limit holds over all of them, and an endpoint that charges more than it should surprises them once. What is in flight
has an owner and an end, which the owner puts off for as long as it lives: what a killed process had reserved counts as
spent soon after. Where the store is away, nothing is bought.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from fusiontools.errors import CallCode, CallFailed
from fusiontools.llm.state.sqlite_purses import BUSY_S, SqlitePurses
from fusiontools.llm.state.store import Purchase, PurseStore, Reservation, Settlement, Shortage, StateAway, end_tasks

#: How long what a process has reserved is in flight after its last sign of life.
_LEASE_S = 15.0
#: How soon a call that waits sees what other processes have done, and how soon that one of them is dead.
_LOOK_S, _LOOKS = 0.05, 20
#: How soon what could not be written is tried again.
_SETTLE_S = 1.0


def default_purses_path() -> Path:
    """Return the place of the purses that all processes of a user share: beside the journal's."""
    from fusiontools.llm.journal import default_path

    return default_path().with_name("spending.db")


class Budget(Struct, eq=False):
    """A limit over all that is spent under a name, counted in `purses`.

    Args:
        limit_usd: what may be spent; None is no limit.
        code: how a call fails that would pass the limit.
        whose: whose money it is, for a person.
    """

    purses: Purses
    name: str
    limit_usd: float | None = None
    code: CallCode = "budget"
    whose: str = "the run"
    #: Whether a call was refused for want of this money.
    stopped: bool = False

    async def committed_usd(self) -> float:
        """Return what has been spent, and what is reserved.

        Raises:
            CallFailed: nobody can know it now.
        """
        return await self.purses.committed_usd(self)

    async def book(self, usd: float) -> None:
        """Add what was spent without having been reserved."""
        await self.purses.settle(Reservation("", (self.name,)), usd)

    def refusal(self, spent_usd: float, usd: float) -> CallFailed:
        """Return the failure of a call that would pass the limit."""
        self.stopped = True
        return refusal(self.code, self.whose, self.limit_usd, spent_usd, usd)


class Claim(Struct, frozen=True):
    """What a call wants before it is made: money of some budgets, and a turn at a model.

    Args:
        bound_usd: what it may cost at most, by its tokens.
    """

    budgets: tuple[Budget, ...]
    endpoint: str
    model: str
    bound_usd: float


class Purses(Struct):
    """What is spent and what is in flight, of every purse, and how far endpoints keep to their prices.

    An endpoint's first call goes alone, and so does the first to each model. Every call that costs no more than was
    reserved lets one more run at once, so that there are soon as many as ever; one that costs more lets few or only
    one, and is what the next to its model may cost. Near a limit, too, fewer calls run: there must be room for each of
    those in flight to cost twice what it should, or a call runs alone. All of this holds over everybody who shares the
    store.

    Args:
        path: a file, whose folder is made; None is memory, for one process.
        lease_s: how long after its last sign of life a process is taken for dead.
        clock: Unix time, which processes that share a file share.
        busy_s: how long the file is waited for.
        store: what counts instead of a file or memory; whoever opened it closes it.
        say_away: told why that cannot be reached, which the failures of calls then do not say.

    Raises:
        UsageError: the file cannot be written.
    """

    path: Path | None = None
    lease_s: float = _LEASE_S
    clock: Callable[[], float] = time.time
    busy_s: float = BUSY_S
    store: PurseStore = None  # type: ignore[assignment]  # one is made where none is given
    say_away: Callable[[str], None] | None = None
    _own_store: SqlitePurses | None = None
    _held: set[str] = set()
    #: What has been paid and is not written yet.
    _due: list[Settlement] = []
    _flushing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: What goes on beside the calls: looking, renewing, settling after all.
    _tasks: dict[str, asyncio.Task[None]] = {}

    def __post_init__(self) -> None:
        if self.store is None:
            self.store = self._own_store = SqlitePurses(self.path, self.clock, self.busy_s)

    async def reserve(self, claim: Claim) -> Reservation | None:
        """Set aside what a call may cost; None where it has to wait until something has `changed`.

        Raises:
            CallFailed: a limit would be passed whatever the calls in flight come to, or nobody can know it now.
        """
        purses = tuple((budget.name, budget.limit_usd) for budget in claim.budgets)
        purchase = Purchase(purses, claim.endpoint, claim.model, claim.bound_usd)
        try:
            if self._due:
                await self._flush()
            made = await self.store.reserve(purchase, self.lease_s)
        except StateAway as away:
            raise self._unknown(away, claim.budgets) from away
        if isinstance(made, Shortage):
            short = next(budget for budget in claim.budgets if budget.name == made.purse)
            raise short.refusal(made.spent_usd, made.usd)
        if made is not None:
            self._held.add(made.id)
            if self._is_shared:
                self._begin("renew", self._renew)
        return made

    async def settle(self, reservation: Reservation, paid_usd: float | None, *, answered: bool = True) -> None:
        """Put what was paid in the place of what was reserved; an unknown cost stays at the reservation.

        What cannot be written now is written before anything else is bought.

        Args:
            answered: whether the endpoint did what it is paid for: what was free for having failed says nothing of its
                prices.
        """
        self._held.discard(reservation.id)
        self._due.append(Settlement(reservation, paid_usd, answered))
        try:
            await self._flush()
        except StateAway:
            self._begin("settle", self._settle_later)
        except asyncio.CancelledError:
            self._begin("settle", self._settle_later)
            raise
        finally:
            self._wake()

    async def changed(self) -> None:
        """Wait until a call that had to wait may try again."""
        if self._is_shared:
            self._begin("look", self._look)
        await self._changed.wait()

    async def committed_usd(self, budget: Budget) -> float:
        """Return what has been spent of a budget, and what is reserved.

        Raises:
            CallFailed: nobody can know it now.
        """
        try:
            await self._flush()
            return await self.store.committed_usd(budget.name)
        except StateAway as away:
            raise self._unknown(away, (budget,)) from away

    async def aclose(self) -> None:
        """Write what is due, and close the file where it is our own."""
        await end_tasks(*self._tasks.values())
        with suppress(StateAway):
            if self._due:
                await self._flush()
        if self._own_store is not None:
            self._own_store.close()

    @property
    def _is_shared(self) -> bool:
        return self._own_store is None or self.path is not None

    def _begin(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Let one task of this name work beside the calls."""
        if name not in self._tasks or self._tasks[name].done():
            self._tasks[name] = asyncio.create_task(work())

    async def _flush(self) -> None:
        """Write what is due, each once."""
        async with self._flushing:
            due, self._due = self._due, []
            try:
                if due:
                    await self.store.settle(due)
            except (StateAway, asyncio.CancelledError):
                # Whether it was written nobody knows; the store takes each once.
                self._due = due + self._due
                raise

    async def _settle_later(self) -> None:
        """Write what is due, as soon as that is possible."""
        while self._due:
            with suppress(StateAway):
                await self._flush()
                return
            await asyncio.sleep(_SETTLE_S)

    async def _renew(self) -> None:
        """Give signs of life while something is in flight."""
        while self._held:
            await asyncio.sleep(self.lease_s / 3)
            with suppress(StateAway):
                await self.store.renew_reservations(tuple(self._held), self.lease_s)

    async def _look(self) -> None:
        """Wake those who wait when another process has done something, or may be dead."""
        seen = await self._changes()
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_S)
            if await self._changes() != seen:
                break
        self._wake()

    async def _changes(self) -> int:
        with suppress(StateAway):
            return await self.store.changes()
        return -1

    def _unknown(self, away: StateAway, budgets: Sequence[Budget]) -> CallFailed:
        """Return the failure of a call whose money nobody can count now."""
        why = "what has been spent cannot be looked up, so nothing more is bought"
        if self.say_away is None:
            why = f"{why}: {away}"
        else:
            self.say_away(str(away))  # where it is concerns no client of a server
        return CallFailed(budgets[0].code if budgets else "budget", why)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def refusal(code: CallCode, whose: str, limit_usd: float | None, spent_usd: float, usd: float) -> CallFailed:
    """Return the failure of a call that would pass a limit."""
    return CallFailed(code, f"{whose} has committed ${spent_usd:.4f} of ${limit_usd:g}; this call may cost ${usd:.4f}")
