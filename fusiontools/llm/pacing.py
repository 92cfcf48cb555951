"""The turns of one endpoint: how many calls at once, how many requests and tokens a minute, and when it wants none.

A call waits here before anything is sent, so that no timeout runs meanwhile and no other endpoint is held up. What an
endpoint says to one call (429 with `Retry-After`, or a limit that is used up) holds for all: they wait, or fail at once
where their record's time would be over first. Such a limit may be one model's own, which nobody can tell: so the others
wait a minute at most.

Where a server loads each model that it is asked for (`one_model`), calls for the model that is loaded go first, until
those for another one have waited long enough.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.errors import CallFailed
from fusiontools.llm import prices
from fusiontools.llm.state.store import end_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fusiontools.config.models import Endpoint
    from fusiontools.llm.state.blocks import Blocks
    from fusiontools.llm.state.shared import State
    from fusiontools.record.types import Message, Usage

_MINUTE_S = 60.0
#: How long the other models of an endpoint wait for a limit that may be one model's own.
_OTHERS_WAIT_S = 60.0
#: A gateway's words for the limit of one provider behind it.
_ONE_MODEL = re.compile(r"rate-?limited upstream", re.IGNORECASE)
#: So many calls in a row are for the model that is loaded, while those for another one wait.
_CALLS_IN_A_ROW = 32
#: What an answer is taken to have where nobody bounds it, until it is there.
_GUESSED_TOKENS = 500


class PaceTurn(Struct, eq=False):
    """One call's turn, waited for or taken.

    Args:
        tokens: what it is estimated at; what it took, once that is known.
        until: when whoever waits for it has no more time, in the loop's time.
        began: when it was let go.
    """

    model: str
    until: float
    tokens: int
    granted: asyncio.Future[None]
    began: float = 0.0


class Pace:
    """The turns of one endpoint; used from one event loop only, whose clock counts.

    Most endpoints have no bounds: `holds` says whether there is anything to wait for, or to give back.

    Args:
        state: where the limits are counted together with other processes, which each keeps to by itself, too.
    """

    def __init__(self, endpoint: Endpoint, state: State | None = None) -> None:
        self._name = endpoint.name
        self._most = endpoint.max_concurrency or (1 if endpoint.runs_program else None)
        self._rpm, self._tpm, self._one_model = endpoint.rpm, endpoint.tpm, endpoint.one_model
        self.holds = self._bounded = any((self._most, self._rpm, self._tpm, self._one_model))
        self._running: set[PaceTurn] = set()
        self._waiting: list[PaceTurn] = []
        self._minute: deque[PaceTurn] = deque()
        #: Until when nobody, or this model, may begin.
        self._held, self._held_models = 0.0, dict[str, float]()
        self._loaded = ""
        self._in_a_row = 0
        self._timer: asyncio.TimerHandle | None = None
        self._blocks = None if state is None else _blocks_of(endpoint, self._most, state)
        self._refilling: asyncio.Task[None] | None = None

    async def begin(
        self, model: str, messages: Sequence[Message], params: Mapping[str, Any], within_s: float
    ) -> PaceTurn | None:
        """Wait for a turn; None where nothing bounds the endpoint, and nothing is to be given back.

        Raises:
            CallFailed: `rate_limited`, where the endpoint wants to be left alone for longer than `within_s`.
            TimeoutError: no turn came within that time.
        """
        if not self.holds:
            return None
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[None] = loop.create_future()
        tokens = _estimate(messages, params) if self._tpm else 0
        turn = PaceTurn(model, loop.time() + within_s, tokens, granted)
        self._waiting.append(turn)
        self._refuse_in_vain(loop.time())
        self._let_go(loop)
        try:
            async with asyncio.timeout(None if granted.done() else within_s):
                await granted
        except (asyncio.CancelledError, CallFailed, TimeoutError):
            self._give_up(turn, loop)
            raise
        return turn

    def end(self, turn: PaceTurn | None, usage: Usage | None = None) -> None:
        """Give a turn back, with what it took in tokens where that is known."""
        if turn is None:
            return
        self._running.discard(turn)
        if usage is not None:
            estimated, turn.tokens = turn.tokens, usage["prompt_tokens"] + usage["completion_tokens"]
            if self._blocks is not None:
                self._blocks.correct(estimated - turn.tokens)
        self._let_go(asyncio.get_running_loop())

    def heed(self, failure: CallFailed, model: str) -> None:
        """Hold back what comes next where the endpoint has said for how long."""
        wait_s = failure.retry_after_s
        if failure.code != "rate_limited" or not wait_s:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._held_models[model] = max(self._held_models.get(model, 0.0), now + wait_s)
        if not _ONE_MODEL.search(failure.message):
            self._held = max(self._held, now + min(wait_s, _OTHERS_WAIT_S))
        self.holds = True
        self._refuse_in_vain(now)
        self._let_go(loop)

    def _refuse_in_vain(self, now: float) -> None:
        """Fail the calls that wait for longer than they have time."""
        for turn in self._waiting:
            free_at = max(self._held, self._held_models.get(turn.model, 0.0))
            if free_at >= turn.until and not turn.granted.done():
                wait_s = free_at - now
                said = f"the endpoint {self._name} wants no call for another {wait_s:.0f} s, longer than there is time"
                turn.granted.set_exception(CallFailed("rate_limited", said, status=429, retry_after_s=wait_s))
        self._waiting = [turn for turn in self._waiting if not turn.granted.done()]

    def _give_up(self, turn: PaceTurn, loop: asyncio.AbstractEventLoop) -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
        self._running.discard(turn)
        self._let_go(loop)

    def _let_go(self, loop: asyncio.AbstractEventLoop) -> None:
        """Grant every turn that may be taken now; see to it that this is looked at again when time alone is missing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = loop.time()
        self._forget(now)
        while self._waiting:
            turn, free_at = self._next(now)
            if turn is None or free_at > now:
                if free_at < float("inf"):
                    self._timer = loop.call_at(free_at, self._let_go, loop)
                return
            if self._blocks is not None:
                self._blocks.note(len(self._running), len(self._waiting))
                if not self._blocks.has_room(len(self._running), turn.tokens):
                    if self._refilling is None:
                        self._refilling = loop.create_task(self._refill(turn.tokens, loop))
                    return
                self._blocks.use(turn.tokens)
            self._grant(turn, now)
        if self._blocks is not None:
            self._blocks.note(len(self._running), 0)

    async def _refill(self, tokens: int, loop: asyncio.AbstractEventLoop) -> None:
        """Get room from those who share the limits, and look again."""
        assert self._blocks is not None  # noqa: S101 - whoever calls has looked
        try:
            wait_s = await self._blocks.refill(tokens)
        finally:
            self._refilling = None
        if wait_s:
            self._timer = self._timer or loop.call_later(wait_s, self._let_go, loop)
        else:
            self._let_go(loop)

    async def aclose(self) -> None:
        """Give back what is held of limits that others share."""
        await end_tasks(self._refilling)
        if self._blocks is not None:
            await self._blocks.aclose()

    def _grant(self, turn: PaceTurn, now: float) -> None:
        self._waiting.remove(turn)
        self._running.add(turn)
        turn.began = now
        if self._rpm or self._tpm:
            self._minute.append(turn)
        self._in_a_row = self._in_a_row + 1 if turn.model == self._loaded else 1
        self._loaded = turn.model
        if not turn.granted.done():
            turn.granted.set_result(None)

    def _next(self, now: float) -> tuple[PaceTurn | None, float]:
        """Return whose turn is next and from when on; nobody's, where a call under way must end first."""
        never = float("inf")
        if self._most is not None and len(self._running) >= self._most:
            return None, never
        ready = [turn for turn in self._waiting if self._held_models.get(turn.model, 0.0) <= now]
        if self._held > now:
            return None, self._held
        turn = (self._preferred(ready) if self._one_model else ready[0]) if ready else None
        if turn is None:
            return None, min(self._held_models.values(), default=never)
        return turn, self._minute_frees(turn, now)

    def _preferred(self, ready: list[PaceTurn]) -> PaceTurn | None:
        """Return the first call for the model that is loaded, or for the next one when that is done."""
        if self._in_a_row < _CALLS_IN_A_ROW or all(turn.model == self._loaded for turn in ready):
            for turn in ready:
                if turn.model == self._loaded:
                    return turn
        others = (turn for turn in ready if turn.model != self._loaded)
        return None if self._running else next(others)

    def _minute_frees(self, turn: PaceTurn, now: float) -> float:
        """Return from when on the requests and tokens of a minute leave room; what fits into none goes alone."""
        begun, tokens = len(self._minute), sum(earlier.tokens for earlier in self._minute) if self._tpm else 0
        free_at = now
        for earlier in self._minute:
            fits = begun < (self._rpm or begun + 1) and (not self._tpm or tokens + turn.tokens <= self._tpm)
            if fits:
                break
            begun, tokens, free_at = begun - 1, tokens - earlier.tokens, earlier.began + _MINUTE_S
        return free_at

    def _forget(self, now: float) -> None:
        while self._minute and self._minute[0].began + _MINUTE_S <= now:
            self._minute.popleft()
        if self._held <= now:
            self._held = 0.0
        if self._held_models:
            self._held_models = {model: until for model, until in self._held_models.items() if until > now}
        self.holds = self._bounded or bool(self._held or self._held_models)


def _blocks_of(endpoint: Endpoint, most: int | None, state: State) -> Blocks | None:
    """Return this process's part of an endpoint's limits; None where it has none."""
    if not (most or endpoint.rpm or endpoint.tpm) or endpoint.runs_program:
        return None
    from fusiontools.llm.state.blocks import Blocks

    name = hashlib.sha256(endpoint.identity.encode()).hexdigest()[:16]
    return Blocks(state.store, name, most, endpoint.rpm, endpoint.tpm, state.say_away)


def _estimate(messages: Sequence[Message], params: Mapping[str, Any]) -> int:
    bound = params.get("max_tokens") or params.get("max_completion_tokens") or _GUESSED_TOKENS
    return prices.prompt_tokens(messages, params) + bound
