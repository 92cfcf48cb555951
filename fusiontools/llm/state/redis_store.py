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
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from fusiontools.errors import UsageError, install_line
from fusiontools.llm.state.address import masked, take_namespace
from fusiontools.llm.state.store import (
    DONE_S,
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
)

try:
    import redis.asyncio as redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError, RedisError
except ImportError as error:
    raise UsageError(f"a state in Redis needs redis-py: {install_line('redis')}") from error

#: How long one step may take, and a connection to be made.
_ANSWER_S, _CONNECT_S = 5.0, 2.0
_NANO = 1e9
_DAY_S = 86_400
#: For how long a purse that nobody uses is remembered, and what an endpoint has been like.
_KEPT_S, _TRUSTED_S = 31 * _DAY_S, _DAY_S
#: So many entries are looked at in one go, where old ones are forgotten.
_AT_ONCE = 500
#: What would end a hash tag.
_BRACES = re.compile(r"[{}]")

_NOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""
# The lease of a call is `h` (held) or `d` (done) and its fence. A fence is the time in microseconds: later leases have
# later ones, also where the key of an earlier one has run out.
_ACQUIRE = """
local kept = redis.call('GET', KEYS[1])
local last = 0
if kept then
  last = tonumber(string.sub(kept, 2))
  if string.sub(kept, 1, 1) == 'h' then return {'held', string.sub(kept, 2)} end
  local waited = tonumber(ARGV[2])
  if waited > 0 and waited <= last then return {'done', '0'} end
end
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then return {'done', '0'} end
local time = redis.call('TIME')
local fence = math.max(tonumber(time[1]) * 1000000 + tonumber(time[2]), last + 1)
local said = string.format('%.0f', fence)
redis.call('SET', KEYS[1], 'h' .. said, 'PX', ARGV[1])
return {'lease', said}
"""
_RENEW = """
if redis.call('GET', KEYS[1]) == 'h' .. ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == 'h' .. ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
_KEEP = """
if redis.call('GET', KEYS[1]) == 'h' .. ARGV[1] then
  redis.call('SET', KEYS[1], 'd' .. ARGV[1], 'PX', ARGV[2])
  redis.call('SET', KEYS[2], ARGV[3])
else
  redis.call('SET', KEYS[2], ARGV[3], 'NX')
end
"""
_FORGET = """
local made = tonumber(string.match(redis.call('GETRANGE', KEYS[1], 0, 19), '^%S+'))
if made and made < tonumber(ARGV[1]) then return redis.call('DEL', KEYS[1]) end
return 0
"""
# Of what is granted: when each part comes back, how much it is, who was granted any, and the sum.
_GRANT = (
    _NOW
    + """
local least, most, limit = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local window, valid = tonumber(ARGV[6]), tonumber(ARGV[7])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('DECRBY', KEYS[4], redis.call('HGET', KEYS[2], id) or 0)
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[1], id)
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local used = tonumber(redis.call('GET', KEYS[4]) or 0)
local workers = redis.call('ZCARD', KEYS[3])
if not redis.call('ZSCORE', KEYS[3], ARGV[2]) then workers = workers + 1 end
if used > 0 and used + least > limit then
  local wanted, free = used + least - limit, now + window
  local parts = redis.call('ZRANGE', KEYS[1], 0, 99, 'WITHSCORES')
  for i = 1, #parts, 2 do
    wanted = wanted - tonumber(redis.call('HGET', KEYS[2], parts[i]) or 0)
    free = tonumber(parts[i + 1])
    if wanted <= 0 then break end
  end
  return {0, tostring(free - now), workers}
end
local block = math.floor(limit * valid / window / workers)
local count = math.max(least, math.min(most, block, limit - used))
redis.call('ZADD', KEYS[1], now + valid + window, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], count)
redis.call('ZADD', KEYS[3], now + valid + window, ARGV[2])
redis.call('INCRBY', KEYS[4], count)
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], math.ceil((window + valid) * 1000) + 1000) end
return {count, '0', workers}
"""
)
_GIVE_BACK = """
local count = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
local back = math.min(count, tonumber(ARGV[2]))
if back > 0 then
  redis.call('HSET', KEYS[2], ARGV[1], count - back)
  redis.call('DECRBY', KEYS[4], back)
end
"""
# Of who holds places: until when, and `count wanted`.
_HOLD = (
    _NOW
    + """
local busy, wanted, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], owner)
  redis.call('HDEL', KEYS[2], owner)
end
local all = redis.call('HGETALL', KEYS[2])
local others = #all / 2
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then others = others - 1 end
local even = math.max(1, math.floor(limit / (others + 1)))
local left, free = limit, limit
for i = 1, #all, 2 do
  if all[i] ~= ARGV[1] then
    local held, theirs = string.match(all[i + 1], '(%d+) (%d+)')
    left = left - math.max(tonumber(held), math.min(tonumber(theirs), even))
    free = free - tonumber(held)
  end
end
local count = math.max(busy, math.min(wanted, math.max(left, math.min(1, free))))
if wanted > 0 then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[5]), ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f %.0f', count, wanted))
  for i = 1, 2 do redis.call('PEXPIRE', KEYS[i], math.ceil(tonumber(ARGV[5]) * 1000) + 1000) end
else
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return count
"""
)
# What is spent of each purse, and when it was last; what is in flight of each; reservations, the end of each, and when
# one was swept; calls in flight to each endpoint and model; a number that rises with every change.
_MONEY = ("spent", "used", "flying", "reserved", "ends", "swept", "calls", "changes")
_BOOKING = (
    _NOW
    + """
local function spend(purse, nano)
  local sum = redis.call('HINCRBY', KEYS[1], purse, string.format('%.0f', nano))
  if sum < 0 then redis.call('HSET', KEYS[1], purse, 0) end
  redis.call('ZADD', KEYS[2], now, purse)
end
local function land(made)
  for _, purse in ipairs(made.purses) do
    if redis.call('HINCRBY', KEYS[3], purse, string.format('%.0f', -made.nano)) <= 0 then
      redis.call('HDEL', KEYS[3], purse)
    end
  end
  for _, call in ipairs({made.endpoint, made.endpoint .. '\\n' .. made.model}) do
    if redis.call('HINCRBY', KEYS[7], call, -1) <= 0 then redis.call('HDEL', KEYS[7], call) end
  end
end
local function read(text)
  local made = cjson.decode(text)
  made.nano = tonumber(made.nano)
  return made
end
local function sweep()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', '(' .. now)) do
    local made = read(redis.call('HGET', KEYS[4], id))
    land(made)
    for _, purse in ipairs(made.purses) do spend(purse, made.nano) end
    redis.call('ZREM', KEYS[5], id)
    redis.call('ZADD', KEYS[6], now, id)
    redis.call('INCR', KEYS[8])
  end
end
"""
)
_RESERVE = (
    _BOOKING
    + """
sweep()
local endpoint, model, bound = ARGV[2], ARGV[3], tonumber(ARGV[4])
local at_once = tonumber(redis.call('GET', KEYS[9]) or 1)
local known = redis.call('GET', KEYS[10])
local excess, least = 1, 0
if known then
  local e, l = string.match(known, '(%S+) (%S+)')
  excess, least = tonumber(e), tonumber(l)
end
local nano = math.max(math.ceil(bound * excess), least)
local function in_flight(call) return tonumber(redis.call('HGET', KEYS[7], call) or 0) end
local wait = in_flight(endpoint) >= at_once
wait = wait or (not known and in_flight(endpoint .. '\\n' .. model) > 0)
local purses = {}
for i = 6, #ARGV, 2 do
  local purse, limit = ARGV[i], tonumber(ARGV[i + 1])
  purses[#purses + 1] = purse
  if limit then
    local spent = tonumber(redis.call('HGET', KEYS[1], purse) or 0)
    local flying = tonumber(redis.call('HGET', KEYS[3], purse) or 0)
    if not (spent + nano <= limit) then
      return {'short', purse, string.format('%.0f', spent), string.format('%.0f', nano)}
    end
    wait = wait or (flying > 0 and not (spent + 2 * flying + nano <= limit))
  end
end
if wait then return {'wait'} end
for _, purse in ipairs(purses) do redis.call('HINCRBY', KEYS[3], purse, string.format('%.0f', nano)) end
redis.call('HINCRBY', KEYS[7], endpoint, 1)
redis.call('HINCRBY', KEYS[7], endpoint .. '\\n' .. model, 1)
local said = string.format('%.0f', nano)
local made = {purses = purses, endpoint = endpoint, model = model, nano = said}
redis.call('HSET', KEYS[4], ARGV[1], cjson.encode(made))
redis.call('ZADD', KEYS[5], now + tonumber(ARGV[5]), ARGV[1])
return {'made', said}
"""
)
_SETTLE = (
    _BOOKING
    + """
local id, paid, answered, bound = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])
local text = redis.call('HGET', KEYS[4], id)
if id == '' then
  for i = 6, #ARGV do spend(ARGV[i], paid or 0) end
elseif text then
  local made = read(text)
  local nano = paid or made.nano
  local swept = redis.call('ZREM', KEYS[6], id) == 1
  if not swept then land(made) end
  for _, purse in ipairs(made.purses) do spend(purse, swept and nano - made.nano or nano) end
  redis.call('HDEL', KEYS[4], id)
  redis.call('ZREM', KEYS[5], id)
  if answered or not paid or paid > made.nano then
    local at_once = tonumber(redis.call('GET', KEYS[9]) or 1)
    local excess, least = string.match(redis.call('GET', KEYS[10]) or '1 0', '(%S+) (%S+)')
    excess, least = tonumber(excess), tonumber(least)
    if paid and paid > 0 then least = least > 0 and math.min(least, paid) or paid end
    if not paid or paid <= made.nano then
      at_once = at_once + 1
    else
      at_once = paid <= 2 * made.nano and math.max(1, math.floor(at_once / 2)) or 1
      if bound > 0 then excess = math.max(excess, paid / bound) end
    end
    redis.call('SET', KEYS[9], string.format('%.0f', at_once), 'EX', ARGV[5])
    redis.call('SET', KEYS[10], string.format('%.17g %.0f', excess, least), 'EX', ARGV[5])
  end
end
redis.call('INCR', KEYS[8])
"""
)
_RENEW_MONEY = (
    _NOW
    + """
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[1]), ARGV[i]) end
"""
)
_COMMITTED = (
    _BOOKING
    + """
sweep()
return {redis.call('HGET', KEYS[1], ARGV[1]) or '0', redis.call('HGET', KEYS[3], ARGV[1]) or '0'}
"""
)
# What nobody has used for a month, and what was swept a day ago and has never settled.
_PRUNE = (
    _NOW
    + """
for _, purse in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, 500)) do
  redis.call('HDEL', KEYS[1], purse)
  redis.call('ZREM', KEYS[2], purse)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', now - tonumber(ARGV[2]), 'LIMIT', 0, 500)) do
  redis.call('HDEL', KEYS[4], id)
  redis.call('ZREM', KEYS[6], id)
end
"""
)


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
                    pipe.eval(_KEEP, 2, *keys, call.fence, int(DONE_S * 1000), value)
            await pipe.execute()

    async def acquire(
        self, key: bytes, lease_s: float, *, waited: int = 0, replays: bool = False
    ) -> Lease | Held | Done:
        """Take the lease of a call, where nobody has it."""
        keys = [self._lease(key), self._call(key)]
        what, fence = await self._run(_ACQUIRE, keys, int(lease_s * 1000), waited, int(replays))
        if what == b"lease":
            return Lease(key, int(fence))
        return Held(int(fence)) if what == b"held" else Done()

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> None:
        """Put the end of leases off; those that others have taken are left alone."""
        async with self._asking():
            pipe = self._redis.pipeline(transaction=False)
            for lease in leases:
                pipe.eval(_RENEW, 1, self._lease(lease.key), lease.fence, int(lease_s * 1000))
            await pipe.execute()

    async def release(self, lease: Lease) -> None:
        """End a lease without a result: whoever waits may take it."""
        await self._run(_RELEASE, [self._lease(lease.key)], lease.fence)

    async def grant(
        self, name: str, owner: str, least: int, most: int, limit: int, window_s: float, valid_s: float
    ) -> Grant:
        """Take between `least` and `most` of a limit over a sliding window; none where `least` does not fit."""
        made = uuid.uuid4().hex
        keys = self._limit(name, "ends", "counts", "workers", "used")
        count, wait_s, workers = await self._run(_GRANT, keys, made, owner, least, most, limit, window_s, valid_s)
        return Grant(made if count else "", count, float(wait_s), workers)

    async def give_back(self, name: str, grant: str, unused: int) -> None:
        """Return what of a grant was not used."""
        await self._run(_GIVE_BACK, self._limit(name, "ends", "counts", "workers", "used"), grant, unused)

    async def hold(self, name: str, owner: str, busy: int, wanted: int, limit: int, lease_s: float) -> int:
        """Hold places of a bounded number, until they are given back or the lease ends; return how many are held."""
        return int(await self._run(_HOLD, self._limit(name, "holders", "held"), owner, busy, wanted, limit, lease_s))

    async def reserve(self, purchase: Purchase, lease_s: float) -> Reservation | Shortage | None:
        """Set money aside; None where it may be tried again once something has settled."""
        made = uuid.uuid4().hex
        limits = [
            text for purse, usd in purchase.purses for text in (purse, "" if usd is None else _nano(usd, math.floor))
        ]
        told = (purchase.endpoint, purchase.model, _nano(purchase.bound_usd), lease_s)
        keys = self._money(purchase.endpoint, purchase.model)
        script = asyncio.ensure_future(self._run(_RESERVE, keys, made, *told, *limits))
        try:
            what, *more = await asyncio.shield(script)
        except asyncio.CancelledError:
            # Whoever has left cannot settle it.
            await asyncio.wait([script])
            with suppress(StateAway):
                await self.settle([Settlement(Reservation(made, ()), 0.0, answered=False)])
            raise
        if what == b"short":
            return Shortage(more[0].decode(), int(more[1]) / _NANO, int(more[2]) / _NANO)
        if what == b"wait":
            return None
        names = tuple(purse for purse, _ in purchase.purses)
        usd = int(more[0]) / _NANO
        return Reservation(made, names, purchase.endpoint, purchase.model, purchase.bound_usd, usd)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Put what was paid in the place of what was reserved, once however often it is said."""
        for settlement in settlements:
            made, paid_usd = settlement.reservation, settlement.paid_usd
            paid = "" if paid_usd is None else _nano(paid_usd)
            told = (made.id, paid, int(settlement.answered), _nano(made.bound_usd), _TRUSTED_S)
            await self._run(_SETTLE, self._money(made.endpoint, made.model), *told, *made.purses)

    async def renew_reservations(self, ids: Sequence[str], lease_s: float) -> None:
        """Put off the end of what is reserved."""
        await self._run(_RENEW_MONEY, [self._money()[4]], lease_s, *ids)

    async def committed_usd(self, name: str) -> float:
        """Return what has been spent from a purse, and what is reserved."""
        spent, in_flight = await self._run(_COMMITTED, self._money(), name)
        return (int(spent) + int(in_flight)) / _NANO

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
        await self._run(_PRUNE, self._money(), _KEPT_S, _DAY_S)
        count = 0
        async for keys in self._all_calls():
            async with self._asking():
                pipe = self._redis.pipeline(transaction=False)
                for key in keys:
                    pipe.eval(_FORGET, 1, key, before_s)
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

    def _limit(self, name: str, *parts: str) -> list[str]:
        name = _BRACES.sub("_", name)
        return [f"{self._namespace}:limit:{{{name}}}:{part}" for part in parts]

    def _money(self, endpoint: str = "", model: str = "") -> list[str]:
        start = f"{self._namespace}:{{money}}"
        return [*(f"{start}:{name}" for name in _MONEY), f"{start}:of:{endpoint}", f"{start}:of:{endpoint} {model}"]

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
            yield
        except (RedisError, OSError) as error:
            raise StateAway(f"{self.place}: {masked(str(error)) or type(error).__name__}") from None


@functools.cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()  # noqa: S324 - what the server calls a script


def _nano(usd: float, rounded: Callable[[float], int] = math.ceil) -> int:
    """Return whole billionths of a dollar; what is above all bounds becomes a number that is, too."""
    return rounded(min(usd * _NANO, 2.0**53))
