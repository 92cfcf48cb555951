"""Shared state in PostgreSQL: each step is one statement, most of them a function that the database runs whole.

So no transaction is open while a model is asked, nothing belongs to a session, and a pooler in transaction mode may
stand between. Time is the database's. Money is counted in whole billionths of a dollar.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from fusiontools.errors import UsageError, install_line
from fusiontools.llm.state.address import masked, take_namespace
from fusiontools.llm.state.postgres_tables import PRUNE, TURN, VERSION, in_schema, making
from fusiontools.llm.state.store import (
    DONE_S,
    NANO,
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
    import psycopg
except ImportError as error:
    raise UsageError(f"a state in PostgreSQL needs psycopg: {install_line('postgres')}") from error

#: How long one step may take, and a connection to be made.
_ANSWER_S, _CONNECT_S = 5.0, 2
#: So many entries are forgotten in one step.
_AT_ONCE = 500


class PostgresStore:
    """A schema of a PostgreSQL database, which is made where it is missing.

    Args:
        url: `postgresql://…`, as libpq reads it, with `?namespace=SCHEMA` where it is not to be `fusion`.

    Raises:
        UsageError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        self.place = masked(url)
        self._url, self._schema = take_namespace(url)
        try:
            psycopg.conninfo.conninfo_to_dict(self._url)
        except psycopg.Error as error:
            raise UsageError(f"{self.place}: is no address of PostgreSQL: {masked(str(error).strip())}") from None
        #: One for what is small and waited for, one for the journal's batches.
        self._quick, self._bulk = _Line(self._connect), _Line(self._connect)

    async def check(self) -> str:
        """Return in words what answers there."""
        [version] = await self._one("SELECT current_setting('server_version')")
        return f"PostgreSQL {version}"

    async def fetch(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the bodies of finished calls."""
        query = "SELECT key, body FROM NS.completion WHERE key = ANY (%s)"
        found = {bytes(key): bytes(body) for key, body in await self._ask(query, [list(keys)], self._bulk)}
        return [found.get(key) for key in keys]

    async def keep(self, calls: Sequence[KeptCall]) -> None:
        """Keep finished calls, and end the leases under which they were bought."""
        latest = {call.key: call for call in calls}.values()
        columns = [[call[i] for call in latest] for i in range(6)]
        query = _call("keep", "bytea[]", "float8[]", "text[]", "text[]", "bytea[]", "bigint[]", "float8")
        await self._ask(query, [*columns, DONE_S], self._bulk)

    async def acquire(
        self, key: bytes, lease_s: float, *, waited: int = 0, replays: bool = False
    ) -> Lease | Held | Done:
        """Take the lease of a call, where nobody has it."""
        query = "SELECT * FROM NS.acquire(%s::bytea, %s::float8, %s::bigint, %s)"
        what, fence = await self._one(query, key, lease_s, waited, replays)
        if what == "lease":
            return Lease(key, fence)
        return Held(fence) if what == "held" else Done()

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> None:
        """Put the end of leases off; those that others have taken are left alone."""
        query = """
            UPDATE NS.lease l SET ends = clock_timestamp() + make_interval(secs => %s)
            FROM unnest(%s::bytea[], %s::bigint[]) AS mine (key, fence)
            WHERE l.key = mine.key AND l.fence = mine.fence AND NOT l.done
        """
        await self._ask(query, [lease_s, [lease.key for lease in leases], [lease.fence for lease in leases]])

    async def release(self, lease: Lease) -> None:
        """End a lease without a result: whoever waits may take it."""
        query = "DELETE FROM NS.lease WHERE key = %s AND fence = %s AND NOT done"
        await self._ask(query, [lease.key, lease.fence])

    async def grant(
        self, name: str, owner: str, least: int, most: int, limit: int, window_s: float, valid_s: float
    ) -> Grant:
        """Take between `least` and `most` of a limit over a sliding window; none where `least` does not fit."""
        made = uuid.uuid4().hex
        query = _call("granting", "text", "text", "text", "bigint", "bigint", "bigint", "float8", "float8")
        count, wait_s, workers = await self._one(query, made, name, owner, least, most, limit, window_s, valid_s)
        return Grant(made if count else "", count, float(wait_s), workers)

    async def give_back(self, name: str, grant: str, unused: int) -> None:
        """Return what of a grant was not used."""
        await self._ask("UPDATE NS.granted SET count = greatest(0, count - %s) WHERE id = %s", [unused, grant])

    async def hold(self, name: str, owner: str, busy: int, wanted: int, limit: int, lease_s: float) -> int:
        """Hold places of a bounded number, until they are given back or the lease ends; return how many may be used."""
        query = "SELECT NS.holding(%s, %s, %s::bigint, %s::bigint, %s::bigint, %s::float8)"
        [count] = await self._one(query, name, owner, busy, wanted, limit, lease_s)
        return int(count)

    async def reserve(self, purchase: Purchase, lease_s: float) -> Reservation | Shortage | None:
        """Set money aside; None where it may be tried again once something has settled."""
        made = uuid.uuid4().hex
        names = [purse for purse, _ in purchase.purses]
        limits = [None if usd is None else nano_of(usd, math.floor) for _, usd in purchase.purses]
        told = (made, purchase.endpoint, purchase.model, nano_of(purchase.bound_usd), lease_s, names, limits)
        query = _call("reserve", "text", "text", "text", "bigint", "float8", "text[]", "bigint[]")
        asked = asyncio.ensure_future(self._one(query, *told))
        try:
            what, short, spent, nano = await asyncio.shield(asked)
        except asyncio.CancelledError:
            # Whoever has left cannot settle it.
            await asyncio.wait([asked])
            with suppress(StateAway):
                await self.settle([Settlement(Reservation(made, ()), 0.0, answered=False)])
            raise
        if what == "short":
            return Shortage(short, spent / NANO, nano / NANO)
        if what == "wait":
            return None
        return Reservation(made, tuple(names), purchase.endpoint, purchase.model, purchase.bound_usd, nano / NANO)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Put what was paid in the place of what was reserved, once however often it is said."""
        query = _call("settle", "text", "bigint", "boolean", "bigint", "text[]")
        for settlement in settlements:
            made, paid_usd = settlement.reservation, settlement.paid_usd
            paid = None if paid_usd is None else nano_of(paid_usd)
            told = [made.id, paid, settlement.answered, nano_of(made.bound_usd), list(made.purses)]
            await self._ask(query, told)

    async def renew_reservations(self, ids: Sequence[str], lease_s: float) -> None:
        """Put off the end of what is reserved."""
        query = """
            UPDATE NS.reservation SET ends = clock_timestamp() + make_interval(secs => %s)
            WHERE id = ANY (%s) AND NOT swept
        """
        await self._ask(query, [lease_s, list(ids)])

    async def committed_usd(self, name: str) -> float:
        """Return what has been spent from a purse, and what is reserved."""
        [nano] = await self._one("SELECT NS.committed(%s)", name)
        return float(nano) / NANO

    async def changes(self) -> int:
        """Return a number that rises with every change."""
        [number] = await self._one("SELECT last_value + is_called::int FROM NS.changes")
        return int(number)

    async def value_of(self, name: str) -> bytes | None:
        """Return a value that is still kept."""
        found = await self._ask("SELECT value FROM NS.value WHERE name = %s AND ends > clock_timestamp()", [name])
        return bytes(found[0][0]) if found else None

    async def keep_value(self, name: str, value: bytes, keep_s: float) -> None:
        """Keep a value for some seconds."""
        query = """
            WITH gone AS (DELETE FROM NS.value WHERE ends <= clock_timestamp() AND name <> %s)
            INSERT INTO NS.value VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s))
            ON CONFLICT (name) DO UPDATE SET value = excluded.value, ends = excluded.ends
        """
        await self._ask(query, [name, name, value, keep_s])

    async def note(self, name: str, note: bytes, keep_s: float) -> int:
        """Add a note after all that are there; returns its number, which is greater than theirs."""
        [number] = await self._one(_call("noting", "text", "bytea", "float8"), name, note, keep_s)
        return int(number)

    async def notes_after(self, name: str, number: int, most: int) -> list[tuple[int, bytes]]:
        """Return the first notes after this number, each with its own."""
        query = "SELECT number, body FROM NS.note WHERE name = %s AND number > %s ORDER BY number LIMIT %s"
        return [(number, bytes(body)) for number, body in await self._ask(query, [name, number, most], self._bulk)]

    async def count_before(self, before_s: float) -> int:
        """Return how many finished calls are older than a moment, in Unix time."""
        [count] = await self._one("SELECT count(*) FROM NS.completion WHERE created_s < %s", before_s)
        return int(count)

    async def forget_before(self, before_s: float) -> int:
        """Forget the finished calls that are older than a moment, a few at a time; return how many went."""
        await self._ask(PRUNE, [])
        query = """
            DELETE FROM NS.completion WHERE key IN (SELECT key FROM NS.completion WHERE created_s < %s LIMIT %s)
            AND created_s < %s RETURNING 1
        """
        count = 0
        while gone := len(await self._ask(query, [before_s, _AT_ONCE, before_s], self._bulk)):
            count += gone
        return count

    async def aclose(self) -> None:
        """Close its connections."""
        for line in (self._quick, self._bulk):
            await line.aclose()

    async def _one(self, query: str, *values: Any) -> Any:
        return (await self._ask(query, values))[0]

    async def _ask(self, query: str, values: Sequence[Any], line: _Line | None = None) -> list[tuple[Any, ...]]:
        try:
            async with asyncio.timeout(_ANSWER_S + _CONNECT_S):
                return await (line or self._quick).run(in_schema(self._schema, query), values)
        except TimeoutError:
            raise StateAway(f"{self.place}: no answer within {_ANSWER_S:g} s") from None
        except (psycopg.Error, OSError) as error:
            said = " ".join(masked(str(error)).split()) or type(error).__name__
            raise StateAway(f"{self.place}: {said}") from None

    async def _connect(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        db = await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,  # each step is a transaction of its own
            prepare_threshold=None,  # a prepared statement is a session's, and a pooler has many
            connect_timeout=_CONNECT_S,
            application_name="fusiontools",
        )
        ready = False
        try:
            if not await self._is_made(db):
                async with db.transaction():
                    await db.execute(in_schema(self._schema, TURN))
                    # Another may have made them meanwhile, and works: making them again would lock its tables.
                    if not await self._is_made(db):
                        await db.execute(making(self._schema))
            ready = True
        finally:
            if not ready:
                await db.close()
        return db

    async def _is_made(self, db: psycopg.AsyncConnection[tuple[Any, ...]]) -> bool:
        # The catalog itself: `to_regclass` goes on to say what a session knew when its transaction began.
        query = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = 'version'"
        if await (await db.execute(query, [self._schema])).fetchone() is None:
            return False
        found = await db.execute(in_schema(self._schema, "SELECT max(number) FROM NS.version"))
        [number] = await found.fetchone() or (None,)
        return (number or 0) >= VERSION


class _Line:
    """One connection, made when it is needed and made anew where it has broken."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._db: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._turn = asyncio.Lock()

    async def run(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement; one that a deadlock has undone, or that found its connection gone, is run once more."""
        async with self._turn:
            fresh = self._db is None
            try:
                return await self._run(query, values)
            except psycopg.errors.DeadlockDetected:
                pass
            except psycopg.OperationalError:
                if fresh or self._db is not None:
                    raise
            return await self._run(query, values)

    async def _run(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._db is None:
            self._db = await self._connect()
        db = self._db
        try:
            found = await db.execute(query, values)
            return await found.fetchall() if found.description else []
        finally:
            if db.closed or db.broken:
                self._db = None

    async def aclose(self) -> None:
        """Close the connection."""
        if self._db is not None:
            await self._db.close()
            self._db = None


def _call(function: str, *types: str) -> str:
    """Return the call of a function with arguments of these types."""
    return f"SELECT * FROM NS.{function}({', '.join(f'%s::{each}' for each in types)})"  # noqa: S608 - our own names
