"""Single flight over processes and machines: of those who want the same call, one buys it and the others get it.

Whoever buys holds the call's lease, and puts its end off every third of its time for as long as it lives. Whoever
waits gets the journal's entry, or the lease where that ended without one: its holder failed, was cancelled, or is dead.
A store that is away keeps nobody from buying.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from fusiontools.llm.state.store import Done, Held, Lease, Leases, StateAway, end_tasks

_LEASE_S = 15.0
#: How soon, and at the latest, a call that waits looks again.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.02, 0.5


class Flights:
    """The leases that this process holds.

    Args:
        lease_s: how long after its last sign of life a holder is taken for dead.
        away: told why the store cannot be reached.
    """

    def __init__(self, leases: Leases, away: Callable[[str], None], lease_s: float = _LEASE_S) -> None:
        self._leases, self._away, self._lease_s = leases, away, lease_s
        self._held: set[Lease] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def enter(self, key: bytes, *, replays: bool) -> Lease | Done | None:
        """Wait for the turn to buy a call; None where the store is away, so that nobody can wait for anybody.

        Args:
            replays: whether an entry that the journal had before will do.
        """
        waited, look_s = 0, _FIRST_LOOK_S
        try:
            while isinstance(turn := await self._acquire(key, waited, replays), Held):
                waited = turn.fence
                await asyncio.sleep(random.uniform(look_s / 2, look_s))  # noqa: S311 - jitter, no secret
                look_s = min(_LAST_LOOK_S, look_s * 1.5)
        except StateAway as away:
            self._away(str(away))
            return None
        if isinstance(turn, Lease):
            self._held.add(turn)
            if self._renewing is None:
                self._renewing = asyncio.create_task(self._renew())
        return turn

    async def leave(self, lease: Lease, *, bought: bool) -> None:
        """End a turn: the lease has ended with what was put into the journal under it, else it ends here."""
        self._held.discard(lease)
        if not bought:
            with suppress(StateAway):  # it ends by itself
                await self._leases.release(lease)

    async def _acquire(self, key: bytes, waited: int, replays: bool) -> Lease | Held | Done:
        asked = asyncio.ensure_future(self._leases.acquire(key, self._lease_s, waited=waited, replays=replays))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            # Whoever has left cannot end it.
            with suppress(StateAway):
                if isinstance(turn := await asked, Lease):
                    await self._leases.release(turn)
            raise

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(self._lease_s / 3)
            with suppress(StateAway):
                await self._leases.renew(tuple(self._held), self._lease_s)
        self._renewing = None

    async def aclose(self) -> None:
        """Put off no lease any more; what was being said to the store is over, so that it can be closed."""
        await end_tasks(self._renewing)
