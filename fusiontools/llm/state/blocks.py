"""What a process holds of an endpoint's limits: taken from the store in blocks, and given back where it is not used.

A block of requests or tokens may be used for two seconds and counts for a minute from then on, so that no minute sees
more than the limit, whoever asks; it is at most what flows in those seconds, divided by those who ask. Places for calls
in flight are held for as long as their process gives signs of life.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from fusiontools.llm.state.store import Counters, StateAway, end_tasks

WINDOW_S, VALID_S = 60.0, 2.0
_LEASE_S = 6.0
#: How often what is held is looked through.
_TEND_S = 1.0
#: How soon a place that nobody had is asked for again.
_AGAIN_S = 0.1


class _Block(Struct):
    """So much of one limit, to be used until a moment of the loop's time."""

    name: str
    limit: int
    id: str = ""
    left: int = 0
    until: float = 0.0


class Blocks:
    """A process's part of the limits of one endpoint.

    Args:
        name: what everybody calls the endpoint.
        most: calls in flight at once.
        rpm, tpm: requests and tokens in a window; None is no limit.
        say_away: told why the store cannot be reached; then there is room for everything.
    """

    def __init__(
        self,
        counters: Counters,
        name: str,
        most: int | None,
        rpm: int | None,
        tpm: int | None,
        say_away: Callable[[str], None],
        window_s: float = WINDOW_S,
        valid_s: float = VALID_S,
    ) -> None:
        self._counters, self._name, self._most, self._say_away = counters, name, most, say_away
        self._window_s, self._valid_s = window_s, valid_s
        self._owner = uuid.uuid4().hex
        self._requests = _Block(f"{name} requests", rpm) if rpm else None
        self._tokens = _Block(f"{name} tokens", tpm) if tpm else None
        self._places = self._busy = self._waiting = 0
        #: Until when the store is not asked, because it was away.
        self._away_until = 0.0
        self._tending: asyncio.Task[None] | None = None

    def has_room(self, busy: int, tokens: int) -> bool:
        """Return whether one more call of so many tokens may begin beside those in flight."""
        now = asyncio.get_running_loop().time()
        if now < self._away_until:
            return True
        return not (
            (self._most is not None and busy >= self._places)
            or (self._requests is not None and not (self._requests.left >= 1 and now < self._requests.until))
            or (self._tokens is not None and not (self._tokens.left >= tokens and now < self._tokens.until))
        )

    def use(self, tokens: int) -> None:
        """Begin a call."""
        for block, count in ((self._requests, 1), (self._tokens, tokens)):
            if block is not None:
                block.left -= count

    def correct(self, tokens: int) -> None:
        """Take back what a call was estimated at and has not used; below nothing, what it has used on top."""
        if self._tokens is not None:
            self._tokens.left += tokens

    def note(self, busy: int, waiting: int) -> None:
        """Hear how many calls are in flight, and how many wait."""
        self._busy, self._waiting = busy, waiting

    async def refill(self, tokens: int) -> float:
        """Ask the store for what the next call lacks; return how soon to ask again, 0 where there may be room now."""
        wait_s = 0.0
        try:
            if self._most is not None and self._busy >= self._places:
                await self._hold()
                wait_s = 0.0 if self._busy < self._places else _AGAIN_S
            for block, least in ((self._requests, 1), (self._tokens, tokens)):
                if block is not None and wait_s == 0.0:
                    wait_s = await self._take(block, least)
        except StateAway as away:
            self._away_until = asyncio.get_running_loop().time() + _TEND_S
            self._say_away(str(away))
            return 0.0
        if self._tending is None:
            self._tending = asyncio.create_task(self._tend())
        return wait_s

    async def aclose(self) -> None:
        """Give everything back."""
        await end_tasks(self._tending)
        self._busy = self._waiting = 0
        with suppress(StateAway):
            await self._give_back(always=True)
            if self._places:
                await self._hold()

    async def _hold(self) -> None:
        assert self._most is not None  # noqa: S101 - whoever calls has looked
        wanted = self._busy + self._waiting
        self._places = await self._counters.hold(self._name, self._owner, self._busy, wanted, self._most, _LEASE_S)

    async def _take(self, block: _Block, least: int) -> float:
        """Take a block, where the one at hand does not do; return how soon to ask again."""
        now = asyncio.get_running_loop().time()
        if block.left >= least and now < block.until:
            return 0.0
        debt = min(0, block.left)
        await self._return(block)
        made = await self._counters.grant(
            block.name, self._owner, least - debt, block.limit, block.limit, self._window_s, self._valid_s
        )
        if not made.count:
            block.left = debt
            return max(made.wait_s, _AGAIN_S)
        block.id, block.left, block.until = made.id, made.count + debt, now + self._valid_s
        return 0.0

    async def _return(self, block: _Block) -> None:
        unused, block.left = block.left, min(0, block.left)
        if unused > 0 and block.id:
            await self._counters.give_back(block.name, block.id, unused)

    async def _give_back(self, *, always: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        for block in (self._requests, self._tokens):
            if block is not None and block.left > 0 and (always or now >= block.until):
                await self._return(block)

    async def _tend(self) -> None:
        """Return what has run out, and hold what is used, until there is nothing left."""
        while True:
            await asyncio.sleep(_TEND_S)
            with suppress(StateAway):
                await self._give_back()
                if self._places:
                    await self._hold()
            held = [block for block in (self._requests, self._tokens) if block is not None and block.left > 0]
            if not (held or self._places):
                self._tending = None
                return
