"""Shared state in Redis or Valkey: each step is one script, which the server runs whole.

A script names all of its keys, and those of one script carry one hash tag, so that a cluster or a proxy can tell where
they lie. Time is the server's. Money is counted in whole billionths of a dollar, which add up exactly.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import math
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from fusiontools.errors import UsageError, install_line
from fusiontools.llm.state import redis_scripts as scripts
from fusiontools.llm.state.address import masked, take_namespace
from fusiontools.llm.state.store import (
    DONE_S,
    KEPT_S,
    NANO,
    TRUSTED_S,
    Done,
    Grant,
    Held,
    KeptCall,
    Lease,
    Purchase,
    Reservation,
    Settlement,
    Shortage,
    StateAway,
    nano_of,
)

try:
    import redis.asyncio as redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import MovedError, NoScriptError, RedisError
except ImportError as error:
    raise UsageError(f"a state in Redis needs redis-py: {install_line('redis')}") from error

#: How long one step may take, and a connection to be made.
_ANSWER_S, _CONNECT_S = 5.0, 2.0
#: A server has 10,000 for all processes of a cluster.
_CONNECTIONS = 4
#: So many entries are looked at in one go, where old ones are forgotten.
_AT_ONCE = 500
#: Notes of one millisecond: two to this are more than can be.
_OF_A_MS = 20
#: Of a cluster of more than one node, which answers each key at one of them only.
_NODE = "is one node of a Redis Cluster, whose other nodes are not asked: name a single Redis, or a proxy before them"
#: What would end a hash tag.
_BRACES = re.compile(r"[{}]")


class RedisStore:
    """Redis or Valkey.

    Args:
        url: `redis://` or `rediss://`, with `?namespace=NAME` where several share a server.

    Raises:
        UsageError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        self.place = masked(url)
        address, self._namespace = take_namespace(url)
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        try:
            self._redis = redis.Redis.from_url(
                address,
                socket_timeout=_ANSWER_S,
                socket_connect_timeout=_CONNECT_S,
                retry=Retry(NoBackoff(), 1),  # a connection that has gone in the meantime is made anew
                protocol=2,
            )
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.place}: is no address of Redis: {masked(str(error))}") from None

    async def check(self) -> str:
        """Return in words what answers there."""
        async with self._asking():
            said = await self._redis.info("server")
        return f"{said.get('server_name', 'redis')} {said.get('valkey_version') or said.get('redis_version')}"

    async def fetch(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the bodies of finished calls."""
        async with self._asking():
            pipe = self._redis.pipeline(transaction=False)
            for key in keys:
                pipe.get(self._call(key))
            found = await pipe.execute()
        return [None if data is None else data.partition(b" ")[2] for data in found]

    async def keep(self, calls: Sequence[KeptCall]) -> None:
        """Keep finished calls, and end the leases under which they were bought."""
        async with self._asking():
            pipe = self._redis.pipeline(transaction=False)
            for call in calls:
                value = f"{call.created_s:.3f} ".encode() + call.body
                if call.fence is None:
                    pipe.set(self._call(call.key), value)
                else:
                    keys = (self._lease(call.key), self._call(call.key))
                    pipe.eval(scripts.KEEP, 2, *keys, call.fence, int(DONE_S * 1000), value)
            await pipe.execute()

    async def acquire(
        self, key: bytes, lease_s: float, *, waited: int = 0, replays: bool = False
    ) -> Lease | Held | Done:
        """Take the lease of a call, where nobody has it."""
        keys = [self._lease(key), self._call(key)]
        what, fence = await self._run(scripts.ACQUIRE, keys, int(lease_s * 1000), waited, int(replays))
        if what == b"lease":
            return Lease(key, int(fence))
        return Held(int(fence)) if what == b"held" else Done()

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> None:
        """Put the end of leases off; those that others have taken are left alone."""
        async with self._asking():
            pipe = self._redis.pipeline(transaction=False)
            for lease in leases:
                pipe.eval(scripts.RENEW, 1, self._lease(lease.key), lease.fence, int(lease_s * 1000))
            await pipe.execute()

    async def release(self, lease: Lease) -> None:
        """End a lease without a result: whoever waits may take it."""
        await self._run(scripts.RELEASE, [self._lease(lease.key)], lease.fence)

    async def grant(
        self, name: str, owner: str, least: int, most: int, limit: int, window_s: float, valid_s: float
    ) -> Grant:
        """Take between `least` and `most` of a limit over a sliding window; none where `least` does not fit."""
        made = uuid.uuid4().hex
        keys = self._limit(name, "ends", "counts", "workers", "used")
        count, wait_s, workers = await self._run(
            scripts.GRANT, keys, made, owner, least, most, limit, window_s, valid_s
        )
        return Grant(made if count else "", count, float(wait_s), workers)

    async def give_back(self, name: str, grant: str, unused: int) -> None:
        """Return what of a grant was not used."""
        await self._run(scripts.GIVE_BACK, self._limit(name, "ends", "counts", "workers", "used"), grant, unused)

    async def hold(self, name: str, owner: str, busy: int, wanted: int, limit: int, lease_s: float) -> int:
        """Hold places of a bounded number, until they are given back or the lease ends; return how many may be used."""
        return int(
            await self._run(scripts.HOLD, self._limit(name, "holders", "held"), owner, busy, wanted, limit, lease_s)
        )

    async def reserve(self, purchase: Purchase, lease_s: float) -> Reservation | Shortage | None:
        """Set money aside; None where it may be tried again once something has settled."""
        made = uuid.uuid4().hex
        limits = [
            text for purse, usd in purchase.purses for text in (purse, "" if usd is None else nano_of(usd, math.floor))
        ]
        told = (purchase.endpoint, purchase.model, nano_of(purchase.bound_usd), lease_s)
        keys = self._money(purchase.endpoint, purchase.model)
        script = asyncio.ensure_future(self._run(scripts.RESERVE, keys, made, *told, *limits))
        try:
            what, *more = await asyncio.shield(script)
        except asyncio.CancelledError:
            # Whoever has left cannot settle it.
            await asyncio.wait([script])
            with suppress(StateAway):
                await self.settle([Settlement(Reservation(made, ()), 0.0, answered=False)])
            raise
        if what == b"short":
            return Shortage(more[0].decode(), int(more[1]) / NANO, int(more[2]) / NANO)
        if what == b"wait":
            return None
        names = tuple(purse for purse, _ in purchase.purses)
        usd = int(more[0]) / NANO
        return Reservation(made, names, purchase.endpoint, purchase.model, purchase.bound_usd, usd)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Put what was paid in the place of what was reserved, once however often it is said."""
        for settlement in settlements:
            made, paid_usd = settlement.reservation, settlement.paid_usd
            paid = "" if paid_usd is None else nano_of(paid_usd)
            told = (made.id, paid, int(settlement.answered), nano_of(made.bound_usd), int(TRUSTED_S))
            await self._run(scripts.SETTLE, self._money(made.endpoint, made.model), *told, *made.purses)

    async def renew_reservations(self, ids: Sequence[str], lease_s: float) -> None:
        """Put off the end of what is reserved."""
        await self._run(scripts.RENEW_MONEY, [self._money()[4]], lease_s, *ids)

    async def committed_usd(self, name: str) -> float:
        """Return what has been spent from a purse, and what is reserved."""
        spent, in_flight = await self._run(scripts.COMMITTED, self._money(), name)
        return (int(spent) + int(in_flight)) / NANO

    async def changes(self) -> int:
        """Return a number that rises with every change."""
        async with self._asking():
            return int(await self._redis.get(self._money()[7]) or 0)

    async def value_of(self, name: str) -> bytes | None:
        """Return a value that is still kept."""
        async with self._asking():
            return await self._redis.get(f"{self._namespace}:value:{name}")  # type: ignore[return-value]  # as bytes

    async def keep_value(self, name: str, value: bytes, keep_s: float) -> None:
        """Keep a value for some seconds."""
        async with self._asking():
            await self._redis.set(f"{self._namespace}:value:{name}", value, px=max(1, int(keep_s * 1000)))

    async def note(self, name: str, note: bytes, keep_s: float) -> int:
        """Add a note after all that are there; returns its number, which is greater than theirs."""
        return _number_of(await self._run(scripts.NOTE, [self._notes(name)], note, int(keep_s * 1000)))

    async def notes_after(self, name: str, number: int, most: int) -> list[tuple[int, bytes]]:
        """Return the first notes after this number, each with its own."""
        after = f"({number >> _OF_A_MS}-{number & (1 << _OF_A_MS) - 1}"
        async with self._asking():
            found: Any = await self._redis.xrange(self._notes(name), min=after, count=most)
        return [(_number_of(said), fields[b""]) for said, fields in found]

    async def count_before(self, before_s: float) -> int:
        """Return how many finished calls are older than a moment, in Unix time."""
        count = 0
        async for keys in self._all_calls():
            async with self._asking():
                pipe = self._redis.pipeline(transaction=False)
                for key in keys:
                    pipe.getrange(key, 0, 19)
                heads = await pipe.execute()
            count += sum(1 for head in heads if head and float(head.split(b" ")[0]) < before_s)
        return count

    async def forget_before(self, before_s: float) -> int:
        """Forget the finished calls that are older than a moment, a few at a time; return how many went."""
        await self._run(scripts.PRUNE, self._money(), KEPT_S, TRUSTED_S)
        count = 0
        async for keys in self._all_calls():
            async with self._asking():
                pipe = self._redis.pipeline(transaction=False)
                for key in keys:
                    pipe.eval(scripts.FORGET, 1, key, before_s)
                count += sum(await pipe.execute())
        return count

    async def aclose(self) -> None:
        """Close its connections."""
        await self._redis.aclose()

    async def _all_calls(self) -> AsyncIterator[list[bytes]]:
        """Yield the keys of all finished calls, some at a time; one may come twice."""
        at = 0
        while True:
            async with self._asking():
                at, keys = await self._redis.scan(at, match=f"{self._namespace}:*:call", count=_AT_ONCE)
            if keys:
                yield keys  # type: ignore[misc]  # as bytes
            if at == 0:
                return

    def _call(self, key: bytes) -> str:
        return f"{self._namespace}:{{{key.hex()}}}:call"

    def _lease(self, key: bytes) -> str:
        return f"{self._namespace}:{{{key.hex()}}}:lease"

    def _notes(self, name: str) -> str:
        return f"{self._namespace}:notes:{{{name}}}"

    def _limit(self, name: str, *parts: str) -> list[str]:
        name = _BRACES.sub("_", name)
        return [f"{self._namespace}:limit:{{{name}}}:{part}" for part in parts]

    def _money(self, endpoint: str = "", model: str = "") -> list[str]:
        start = f"{self._namespace}:{{money}}"
        return [
            *(f"{start}:{name}" for name in scripts.MONEY),
            f"{start}:of:{endpoint}",
            f"{start}:of:{endpoint} {model}",
        ]

    async def _run(self, script: str, keys: Sequence[str], *values: Any) -> Any:
        """Run a script, by its digest where the server knows it."""
        async with self._asking():
            try:
                return await self._redis.evalsha(_digest(script), len(keys), *keys, *values)
            except NoScriptError:
                return await self._redis.eval(script, len(keys), *keys, *values)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        try:
            async with self._turns:
                yield
        except MovedError:
            raise StateAway(f"{self.place}: {_NODE}") from None
        except (RedisError, OSError) as error:
            raise StateAway(f"{self.place}: {masked(str(error)) or type(error).__name__}") from None


def _number_of(said: bytes) -> int:
    """Return the number of a note from what Redis calls it: its time in milliseconds, and which one of these it is."""
    at_ms, _, which = said.partition(b"-")
    return int(at_ms) << _OF_A_MS | int(which)


@functools.cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()  # noqa: S324 - what the server calls a script
