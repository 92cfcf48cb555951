"""What a store of shared state can do: one interface over SQLite, Redis (or Valkey) and PostgreSQL.

Each method is one atomic step of the store's own, so that a process that stops anywhere leaves nothing half done, and
nothing is locked while a model is asked. Times are the store's, where it has a clock.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from fusiontools.llm.completion import Completion, CompletionRequest

#: A completion from the journal, and what it cost when it was bought; None where nobody knows.
Found = tuple["Completion", float | None]
#: Billionths of a dollar add up exactly.
NANO = 1e9
#: For how long those who have waited for a call hear that it was bought.
DONE_S = 60.0
_DAY_S = 86_400.0
#: For how long a purse that nobody uses is remembered, and what an endpoint has been like.
KEPT_S, TRUSTED_S = 31 * _DAY_S, _DAY_S


class StateAway(Exception):
    """The store cannot be reached, or does not do what it is asked; the message names no password."""


async def end_tasks(*tasks: asyncio.Task[None] | None) -> None:
    """End what speaks to a store beside the calls, and wait for it: a store is closed when nobody speaks to it."""
    under_way = [task for task in tasks if task is not None and not task.done()]
    for task in under_way:
        task.cancel()
    if under_way:
        await asyncio.wait(under_way)


class KeptCall(NamedTuple):
    """A finished call as it is kept.

    Args:
        created_s: Unix time.
        body: the completion, as JSON.
        fence: that of the lease under which it was bought; None where there was none.
    """

    key: bytes
    created_s: float
    endpoint: str
    model: str
    body: bytes
    fence: int | None = None


class Lease(Struct, frozen=True):
    """The right to buy a call while nobody else does.

    Args:
        fence: a number that no earlier lease has had, of any call.
    """

    key: bytes
    fence: int


class Held(Struct, frozen=True):
    """Somebody else has the lease, with this fence."""

    fence: int


class Done(Struct, frozen=True):
    """Whoever had the lease has bought the call: the journal has it."""


class Grant(Struct, frozen=True):
    """A part of a limit over a window of time.

    Args:
        id: by which what is not used is given back; empty where nothing is granted.
        count: how much of it may be used.
        wait_s: where nothing is granted, how soon to ask again.
        workers: how many have been granted a part of the limit within the window.
    """

    id: str
    count: int
    wait_s: float
    workers: int


class Purchase(Struct, frozen=True):
    """What a call wants before it is made: money of some purses, and a turn at a model.

    Args:
        purses: their names, and what may be spent from each; None is no limit.
        bound_usd: what the call may cost at most, by its tokens.
    """

    purses: tuple[tuple[str, float | None], ...]
    endpoint: str
    model: str
    bound_usd: float


class Shortage(Struct, frozen=True):
    """Why a purchase cannot be: by what was spent from a purse, it would pass the limit."""

    purse: str
    spent_usd: float
    usd: float


class Reservation(Struct, frozen=True):
    """Money that is set aside for a call, in the purses of these names; without an endpoint nothing is learned."""

    id: str
    purses: tuple[str, ...]
    endpoint: str = ""
    model: str = ""
    bound_usd: float = 0.0
    usd: float = 0.0


class Settlement(Struct, frozen=True):
    """What became of a reservation.

    Args:
        paid_usd: None where nobody knows: it stays at what was reserved.
        answered: whether the endpoint did what it is paid for.
    """

    reservation: Reservation
    paid_usd: float | None
    answered: bool


class KeptCalls(Protocol):
    """A journal: every finished call under what was asked.

    Args:
        place: where it is, for a person; without a password.
        broken: why nothing can be kept now; None where it can.
        remote: whether looking into it takes a journey, so that `get` knows nothing.
    """

    place: str
    broken: str | None
    remote: bool

    def get(self, key: bytes) -> Found | None:
        """Return a finished call that can be had without waiting."""

    async def find(self, key: bytes) -> Found | None:
        """Return a finished call, or None; one that cannot be read is none, which is said."""

    async def put(
        self,
        key: bytes,
        request: CompletionRequest,
        completion: Completion,
        paid_usd: float | None,
        lease: Lease | None = None,
    ) -> None:
        """Keep a finished call; returns when it is safe, or waits in memory for a store that is `broken`.

        Args:
            lease: under which it was bought: it ends in the same step. Where another one has followed it, what that
                one has bought stays.
        """

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Finish the writes under way; what cannot be kept then is said to be lost."""


class Leases(Protocol):
    """Turns at buying calls."""

    async def acquire(
        self, key: bytes, lease_s: float, *, waited: int = 0, replays: bool = False
    ) -> Lease | Held | Done:
        """Take the lease of a call, where nobody has it.

        Args:
            key: what the journal keeps the call under.
            waited: the fence that was waited for: where it has ended with an entry, the call is `Done`.
            replays: whether any entry of the journal will do.

        Raises:
            StateAway: nobody can know.
        """

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> None:
        """Put the end of leases off; those that others have taken are left alone.

        Raises:
            StateAway: it cannot be done now.
        """

    async def release(self, lease: Lease) -> None:
        """End a lease without a result: whoever waits may take it.

        Raises:
            StateAway: it cannot be done now.
        """


class Counters(Protocol):
    """Limits that are used up in blocks, and come back with time or when they are given back."""

    async def grant(
        self, name: str, owner: str, least: int, most: int, limit: int, window_s: float, valid_s: float
    ) -> Grant:
        """Take between `least` and `most` of a limit over a sliding window; none where `least` does not fit.

        The sum of what is granted in any window is at most the limit; alone, a single grant may be more.

        Args:
            valid_s: for how long a grant may be used: it counts for the window from then on.

        Raises:
            StateAway: nobody can know.
        """

    async def give_back(self, name: str, grant: str, unused: int) -> None:
        """Return what of a grant was not used.

        Raises:
            StateAway: it cannot be done now.
        """

    async def hold(self, name: str, owner: str, busy: int, wanted: int, limit: int, lease_s: float) -> int:
        """Hold places of a bounded number, until they are given back or the lease ends; return how many may be used.

        Args:
            busy: how many this owner uses: so many are held in any case, also where fewer may be from now on.
            wanted: how many it would use; 0 gives all back. While others want some, it gets its even share.

        Raises:
            StateAway: nobody can know.
        """


class PurseStore(Protocol):
    """Money that is reserved before a call and settled after it, and what endpoints have charged."""

    async def reserve(self, purchase: Purchase, lease_s: float) -> Reservation | Shortage | None:
        """Set money aside; None where it may be tried again once something has settled.

        What those had reserved who have given no sign of life within their lease counts as spent.

        Raises:
            StateAway: nobody can know.
        """

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Put what was paid in the place of what was reserved, once however often it is said.

        Raises:
            StateAway: it cannot be done now.
        """

    async def renew_reservations(self, ids: Sequence[str], lease_s: float) -> None:
        """Put off the end of what is reserved.

        Raises:
            StateAway: it cannot be done now.
        """

    async def committed_usd(self, name: str) -> float:
        """Return what has been spent from a purse, and what is reserved.

        Raises:
            StateAway: nobody can know.
        """

    async def changes(self) -> int:
        """Return a number that is another one when somebody else may have changed something.

        Raises:
            StateAway: nobody can know.
        """


class Values(Protocol):
    """Values that are kept for a while, and may be forgotten before."""

    async def value_of(self, name: str) -> bytes | None:
        """Return a value that is still kept.

        Raises:
            StateAway: nobody can know.
        """

    async def keep_value(self, name: str, value: bytes, keep_s: float) -> None:
        """Keep a value for some seconds.

        Raises:
            StateAway: it cannot be kept.
        """


class Notes(Protocol):
    """Notes that stand one after another, in one order for all who read them."""

    async def note(self, name: str, note: bytes, keep_s: float) -> int:
        """Add a note after all that are there; returns its number, which is greater than theirs.

        Args:
            keep_s: for how long it may be read; a longer time is no harm.

        Raises:
            StateAway: it cannot be known whether it is there.
        """

    async def notes_after(self, name: str, number: int, most: int) -> list[tuple[int, bytes]]:
        """Return the first notes after this number, each with its own.

        Raises:
            StateAway: nobody can know.
        """


class Store(Leases, Counters, PurseStore, Values, Protocol):
    """All of it, in one place.

    Args:
        place: where it is, for a person; without a password.
    """

    place: str

    async def check(self) -> str:
        """Return in words what answers there.

        Raises:
            StateAway: nobody does.
        """

    async def count_before(self, before_s: float) -> int:
        """Return how many finished calls are older than a moment, in Unix time.

        Raises:
            StateAway: nobody can know.
        """

    async def forget_before(self, before_s: float) -> int:
        """Forget the finished calls that are older than a moment, a few at a time; return how many went.

        Raises:
            StateAway: it cannot be done now.
        """

    async def aclose(self) -> None:
        """Close its connections."""


class CallStore(Store, Notes, Protocol):
    """A store that keeps finished calls itself, and notes for all machines, where no file does."""

    async def fetch(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the bodies of finished calls.

        Raises:
            StateAway: nobody can know.
        """

    async def keep(self, calls: Sequence[KeptCall]) -> None:
        """Keep finished calls, and end the leases under which they were bought.

        Raises:
            StateAway: they cannot be kept now.
        """


def nano_of(usd: float, rounded: Callable[[float], int] = math.ceil) -> int:
    """Return a sum in whole billionths of a dollar; what is above all bounds becomes a number that is, too."""
    return rounded(min(usd * NANO, 2.0**53))
