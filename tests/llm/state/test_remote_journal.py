"""What becomes of a run whose store goes away: the journal is done without, money is not, and all is well again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from calling import DEAR, FOUR, ask
from scripted import MESSAGES, Scripted, open_door, said
from stores import StoreServer, start_postgres, start_redis

from fusiontools.errors import CallFailed, UsageError
from fusiontools.llm.client import Client
from fusiontools.llm.completion import CompletionRequest
from fusiontools.llm.purses import Purses
from fusiontools.llm.state.address import masked
from fusiontools.llm.state.shared import open_state

KEY = b"k" * 16


@pytest.fixture(params=["redis", pytest.param("postgresql", marks=pytest.mark.slow)])
def mortal(request: pytest.FixtureRequest) -> Iterator[StoreServer]:
    """A store of the test's own, which it may kill."""
    start = start_redis if request.param == "redis" else start_postgres
    with start() as server:
        yield server


async def until(seen: Any) -> None:
    while not seen():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


# The client leaves the socket of a server that has died to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_store_that_goes_away_is_said_once_and_gets_what_it_missed_when_it_is_back(mortal: StoreServer) -> None:
    told: list[str] = []

    async def work() -> list[Any]:
        backend = Scripted(m=said("Paris.", cost_usd=1.0))
        state = open_state(mortal.own("here"), told.append)
        purses = Purses(store=state.store)
        client = open_door(backend, journal=state.journal, state=state, replay=True)
        limited = open_door(backend, limits={"max_cost_usd": 100}, purses=purses, run="budget b")
        await ask(limited, DEAR, params=FOUR)
        await ask(client, sample=1)

        mortal.kill()
        answers = [(await ask(client, sample=sample)).content for sample in (2, 3)]
        with pytest.raises(CallFailed) as refused:
            await ask(limited, DEAR, params=FOUR, sample=4)
        said_then = list(told)
        mortal.start()
        assert state.journal is not None
        await until(lambda: state.journal is None or state.journal.broken is None)
        bought = len(backend.requests)
        answers += [(await ask(client, sample=sample)).content for sample in (2, 3)]
        after = len(backend.requests) - bought
        last = (await ask(limited, DEAR, params=FOUR, sample=5)).content
        for each in (client, limited):
            await each.aclose()
        return [answers, refused.value.code, refused.value.message, said_then, after, last]

    answers, code, message, said_then, after, last = asyncio.run(work())

    assert answers == ["Paris."] * 4
    assert (code, after, last) == ("budget", 0, "Paris.")
    assert "nothing more is bought" in message
    assert len(said_then) == 1
    assert "is done without, but for money" in said_then[0]
    assert told[1:] == [f"the state {mortal.own('here')} is reached again, with the calls that waited for it"]


def test_what_waits_when_a_run_ends_is_said_to_be_lost() -> None:
    told: list[str] = []

    async def work() -> None:
        state = open_state("redis://127.0.0.1:1", told.append)
        client: Client = open_door(Scripted(m=said("Paris.")), journal=state.journal, state=state)
        await ask(client)
        await client.aclose()

    asyncio.run(work())

    assert len(told) == 2
    assert told[1].startswith("warning: 1 finished calls are not in the journal: redis://127.0.0.1:1")


def test_an_entry_that_cannot_be_read_counts_as_missing_and_is_said(redis_server: StoreServer) -> None:
    told: list[str] = []

    async def work() -> Any:
        from fusiontools.llm.state.store import KeptCall

        state = open_state(redis_server.own(), told.append)
        assert state.journal is not None
        await state.store.keep([KeptCall(KEY, 1.0, "there", "m", b'{"content": 7}')])  # type: ignore[attr-defined]
        found = [await state.journal.find(KEY), await state.journal.find(KEY)]
        await state.journal.aclose()
        await state.aclose()
        return found

    assert asyncio.run(work()) == [None, None]
    assert len(told) == 1


def test_look_ups_at_the_same_time_are_one_journey(redis_server: StoreServer) -> None:
    async def work() -> int:
        state = open_state(redis_server.own(), pytest.fail)
        assert state.journal is not None
        await state.journal.put(KEY, CompletionRequest("there", "m", MESSAGES), said("Paris."), None)
        before = (await state.store._redis.info("stats"))["total_net_input_bytes"]  # type: ignore[attr-defined]
        found = await asyncio.gather(*(state.journal.find(KEY) for _ in range(100)))
        after = (await state.store._redis.info("stats"))["total_net_input_bytes"]  # type: ignore[attr-defined]
        await state.journal.aclose()
        await state.aclose()
        assert all(each is not None and each[0].content == "Paris." for each in found)
        return int(after - before)

    assert asyncio.run(work()) < 300


def test_a_server_that_forgets_its_scripts_is_told_them_again(redis_server: StoreServer) -> None:
    async def work() -> list[Any]:
        state = open_state(redis_server.own(), pytest.fail)
        first = await state.store.acquire(KEY, 30.0)
        await state.store._redis.script_flush()  # type: ignore[attr-defined]
        second = await state.store.acquire(b"o" * 16, 30.0)
        await state.aclose()
        return [type(first).__name__, type(second).__name__]

    assert asyncio.run(work()) == ["Lease", "Lease"]


def test_a_thousand_leases_leave_no_key_that_stays(redis_server: StoreServer) -> None:
    async def work() -> int:
        url = redis_server.own()
        state = open_state(url, pytest.fail)
        for first in range(0, 1_000, 500):
            keys = [number.to_bytes(16, "big") for number in range(first, first + 500)]
            leases = await asyncio.gather(*(state.store.acquire(key, 30.0) for key in keys))
            await asyncio.gather(*(state.store.release(lease) for lease in leases))  # type: ignore[arg-type]
        namespace = url.partition("namespace=")[2]
        left = [key async for key in state.store._redis.scan_iter(f"{namespace}:*")]  # type: ignore[attr-defined]
        await state.aclose()
        return len(left)

    assert asyncio.run(work()) == 0


# --- Addresses ---

SECRET = "sesame:opens"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:sesame@127.0.0.1:1/0",
        "redis://me:sesame@127.0.0.1:1/0?namespace=x",
        "postgresql://me:sesame@127.0.0.1:1/there",
        "postgresql://127.0.0.1:1/there?user=me&password=sesame",
        "redis://me:sesame@/not a url?db=x",
        "postgresql://me:sesame@127.0.0.1:1/there?sslmode=nonsense&what=",
        "mysql://me:sesame@127.0.0.1/there",
        "redis://me:sesame@127.0.0.1:notaport/0",
    ],
)
def test_no_password_of_a_url_is_ever_shown(url: str) -> None:
    told: list[str] = []

    async def work() -> None:
        try:
            state = open_state(url, told.append)
        except UsageError as error:
            told.append(error.message)
            return
        told.append(repr(state) + state.place + repr(state.store))
        client = open_door(Scripted(m=said("Paris.")), journal=state.journal, state=state)
        await ask(client)
        told.append(repr(client))
        await client.aclose()

    asyncio.run(work())

    assert told
    assert "sesame" not in "".join(told)


def test_a_masked_url_stays_one() -> None:
    assert (
        masked("see redis://me:a:b@there/0 and x?password=c&y=1") == "see redis://me:***@there/0 and x?password=***&y=1"
    )


@pytest.mark.parametrize("url", ["redis://h/0?namespace=a-b", "redis://h/0?namespace=", "there.db", "sqlite"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(UsageError):
        open_state(url, pytest.fail)
