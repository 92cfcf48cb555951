"""What only PostgreSQL does: tables that are made while others work, and deadlocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from stores import StoreServer

from fusiontools.llm.state.postgres_store import PostgresStore
from fusiontools.llm.state.postgres_tables import VERSION, making

pytestmark = pytest.mark.slow


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url)
    try:
        yield store
    finally:
        await store.aclose()


async def until_one_waits(watcher: psycopg.AsyncConnection, checking: asyncio.Task[str]) -> None:
    """Return once the turn of making tables is waited for."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while not (await (await watcher.execute(waiting)).fetchone() or (0,))[0]:
        assert not checking.done()
        await asyncio.sleep(0)


def test_who_waited_for_tables_locks_none_that_are_in_use_by_then(postgres_server: StoreServer) -> None:
    async def work() -> None:
        async with (
            opened(postgres_server.own("tables_in_use")) as first,
            opened(postgres_server.own("tables_in_use")) as second,
            await psycopg.AsyncConnection.connect(postgres_server.url) as maker,
            await psycopg.AsyncConnection.connect(postgres_server.url) as user,
            await psycopg.AsyncConnection.connect(postgres_server.url, autocommit=True) as watcher,
        ):
            await first.check()
            await watcher.execute("CREATE TABLE tables_in_use.last AS SELECT * FROM tables_in_use.version")
            await watcher.execute("DELETE FROM tables_in_use.version")
            await maker.execute("SELECT pg_advisory_xact_lock(hashtextextended('tables_in_use tables', 0))")
            await maker.execute("INSERT INTO tables_in_use.version SELECT * FROM tables_in_use.last")
            await user.execute("LOCK TABLE tables_in_use.lease IN ROW EXCLUSIVE MODE")
            checking = asyncio.create_task(second.check())
            await until_one_waits(watcher, checking)

            await maker.commit()
            await checking

    asyncio.run(work())


def test_who_found_no_schema_and_waited_does_not_make_it_again(postgres_server: StoreServer) -> None:
    async def work() -> int:
        async with (
            opened(postgres_server.own("made_meanwhile")) as store,
            await psycopg.AsyncConnection.connect(postgres_server.url) as maker,
            await psycopg.AsyncConnection.connect(postgres_server.url, autocommit=True) as watcher,
        ):
            await maker.execute("SELECT pg_advisory_xact_lock(hashtextextended('made_meanwhile tables', 0))")
            checking = asyncio.create_task(store.check())
            await until_one_waits(watcher, checking)
            await maker.execute(making("made_meanwhile"))
            # Making them again would write the number anew.
            await maker.execute("UPDATE made_meanwhile.version SET number = number + 1")
            await maker.commit()
            await checking
            found = await watcher.execute("SELECT number FROM made_meanwhile.version")
            return (await found.fetchone() or (0,))[0]

    assert asyncio.run(work()) == VERSION + 1


def test_what_a_deadlock_undid_is_done_again(postgres_server: StoreServer) -> None:
    async def work() -> float:
        async with (
            opened(postgres_server.own("deadlocked")) as store,
            await psycopg.AsyncConnection.connect(postgres_server.url, autocommit=True) as db,
        ):
            await store.check()
            await db.execute("CREATE SEQUENCE deadlocked.tries")
            await db.execute("""
                CREATE OR REPLACE FUNCTION deadlocked.committed(purse_ text) RETURNS bigint LANGUAGE plpgsql AS $$
                BEGIN
                    IF nextval('deadlocked.tries') = 1 THEN
                        RAISE 'a deadlock' USING ERRCODE = 'deadlock_detected';
                    END IF;
                    RETURN 7000000000;
                END $$;
            """)
            return await store.committed_usd("day")

    assert asyncio.run(work()) == 7.0
