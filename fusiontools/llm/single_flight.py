"""Identical calls under way at once are bought once: in this process, and in all that share a state.

Whoever asks first buys; the others wait, each until its own deadline, and have what the first has bought. Where that
one is cut off, or fails for reasons of its own, the next one buys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from fusiontools.errors import CallFailed
from fusiontools.llm.ledger import deadline_failure
from fusiontools.llm.state.store import Done, KeptCalls, Lease

if TYPE_CHECKING:
    from fusiontools.config.stage_table import LimitOptions
    from fusiontools.llm.completion import Completion
    from fusiontools.llm.state.shared import State

#: Failures of the record or the caller that asked first: those who wait have time and money of their own.
_OF_THE_FIRST = ("deadline", "record_budget", "caller_budget")
#: Buys a call, under its lease where it has one.
Buy = Callable[[Lease | None], Awaitable["Completion"]]


class Shared(Struct, frozen=True):
    """What somebody else has bought.

    Args:
        saved_usd: what it cost; None where nobody knows.
    """

    completion: Completion
    saved_usd: float | None


class SingleFlight:
    """The calls under way.

    Args:
        journal: where what other processes have bought is found.
        state: where the turns at calls are shared with other processes, if they are.
    """

    def __init__(self, journal: KeptCalls | None, state: State | None) -> None:
        self._journal, self._state = journal, state
        self._under_way: dict[bytes, asyncio.Future[Completion]] = {}

    async def join_or_buy(
        self, key: bytes, buy: Buy, remaining_s: Callable[[], float], limits: LimitOptions, *, replays: bool
    ) -> Completion | Shared:
        """Buy a call, or wait for the identical one that is under way.

        Args:
            remaining_s: how long whoever asks may still wait.
            limits: what is named where that is over.
            replays: whether what another process had bought before will do.

        Raises:
            CallFailed: `deadline`, or as `buy`, by whomever it was called.
        """
        while (under_way := self._under_way.get(key)) is not None:
            try:
                async with asyncio.timeout(remaining_s()):
                    return Shared(await asyncio.shield(under_way), None)
            except TimeoutError:
                raise deadline_failure(limits) from None
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not under_way.cancelled() or (task is not None and task.cancelling()):
                    raise
                # Whoever was buying it has been cut off; it is our turn, or the next waiter's.
            except CallFailed as failure:
                if failure.code not in _OF_THE_FIRST:
                    raise
        under_way = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            if self._state is None or self._journal is None:
                bought: Completion | Shared = await buy(None)
            else:
                bought = await self._buy_in_turn(key, self._state, self._journal, buy, remaining_s, limits, replays)
            under_way.set_result(bought.completion if isinstance(bought, Shared) else bought)
            return bought
        except CallFailed as failure:
            under_way.set_exception(failure)
            under_way.exception()  # nobody may be waiting
            raise
        finally:
            under_way.cancel()
            del self._under_way[key]

    async def _buy_in_turn(
        self,
        key: bytes,
        state: State,
        journal: KeptCalls,
        buy: Buy,
        remaining_s: Callable[[], float],
        limits: LimitOptions,
        replays: bool,
    ) -> Completion | Shared:
        """Buy the call while no other process does, or take what that has bought."""
        while True:
            try:
                async with asyncio.timeout(remaining_s()):
                    turn = await state.flights.enter(key, replays=replays)
            except TimeoutError:
                raise deadline_failure(limits) from None
            if turn is None:
                return await buy(None)
            if isinstance(turn, Done):
                if (found := await journal.find(key)) is not None:
                    return Shared(*found)
                replays = False  # it has been forgotten since, or cannot be read
                continue
            bought = False
            try:
                completion = await buy(turn)
                bought = True
                return completion
            finally:
                await state.flights.leave(turn, bought=bought)
