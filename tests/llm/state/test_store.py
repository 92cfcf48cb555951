"""One contract for every store: each test is a rule that SQLite, Redis and PostgreSQL keep alike.

Each `State` here stands for a process of its own: it has its own connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar, cast

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from scripted import MESSAGES, said
from stores import StoreServer

from fusiontools.llm.completion import CompletionRequest
from fusiontools.llm.state.shared import State, open_state
from fusiontools.llm.state.sqlite_store import SqliteStore
from fusiontools.llm.state.store import (
    CallStore,
    Done,
    Grant,
    Held,
    Lease,
    Purchase,
    Reservation,
    Settlement,
    Shortage,
    StateAway,
    Store,
)

Something = TypeVar("Something")
REQUEST = CompletionRequest("there", "m", MESSAGES)
KEY, OTHER = b"k" * 16, b"o" * 16
LONG_S, SHORT_S = 30.0, 0.05


def play(url: str, work: Callable[..., Awaitable[Any]], count: int = 1) -> Any:
    """Let so many processes, each with a state of its own, do something; return what comes of it."""

    async def opened() -> Any:
        async with AsyncExitStack() as stack:
            states = []
            for _ in range(count):
                state = open_state(url, pytest.fail)
                stack.push_async_callback(state.aclose)
                assert state.journal is not None
                stack.push_async_callback(state.journal.aclose)
                states.append(state)
            return await work(*states)

    return asyncio.run(opened())


async def until(ask: Callable[[], Awaitable[Something | None]]) -> Something:
    """Ask again and again until there is something: nobody tells."""
    while (found := await ask()) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return found


async def keep(state: State, text: str, lease: Lease | None = None, key: bytes = KEY) -> None:
    assert state.journal is not None
    await state.journal.put(key, REQUEST, said(text), 0.25, lease)


async def kept(state: State, key: bytes = KEY) -> str | None:
    assert state.journal is not None
    found = await state.journal.find(key)
    return None if found is None else found[0].content


async def take(state: State, lease_s: float = LONG_S, key: bytes = KEY) -> Lease:
    """Take a lease; waits for one that runs out."""

    async def ask() -> Lease | None:
        turn = await state.store.acquire(key, lease_s)
        return turn if isinstance(turn, Lease) else None

    return await until(ask)


# --- Finished calls ---


def test_what_one_keeps_another_finds(state_url: str) -> None:
    async def work(one: State, other: State) -> list[Any]:
        before = await kept(other)
        await keep(one, "Paris.")
        assert other.journal is not None
        found = await other.journal.find(KEY)
        return [before, found and found[0].content, found and found[1], await kept(other, OTHER)]

    assert play(state_url, work, 2) == [None, "Paris.", 0.25, None]


def test_what_is_old_is_counted_and_forgotten_and_nothing_else(state_url: str) -> None:
    async def work(state: State) -> list[Any]:
        await keep(state, "old")
        await asyncio.sleep(0.01)
        moment = time.time()
        await asyncio.sleep(0.01)
        await keep(state, "new", key=OTHER)
        counted = await state.store.count_before(moment)
        gone = await state.store.forget_before(moment)
        return [counted, gone, await kept(state), await kept(state, OTHER)]

    assert play(state_url, work) == [1, 1, None, "new"]


# --- Turns at calls ---


def test_one_has_the_lease_and_who_waits_hears_that_it_ended_with_a_result(state_url: str) -> None:
    async def work(one: State, other: State) -> list[Any]:
        lease = await take(one)
        waiting = await other.store.acquire(KEY, LONG_S)
        await keep(one, "Paris.", lease)
        after = await other.store.acquire(KEY, LONG_S, waited=lease.fence)
        return [waiting == Held(lease.fence), after, await kept(other)]

    assert play(state_url, work, 2) == [True, Done(), "Paris."]


def test_a_lease_that_ends_without_a_result_is_the_next_ones(state_url: str) -> None:
    async def work(one: State, other: State) -> list[Any]:
        lease = await take(one)
        await one.store.release(lease)
        following = await other.store.acquire(KEY, LONG_S, waited=lease.fence)
        await one.store.release(lease)  # by somebody who has none any more
        return [isinstance(following, Lease), await one.store.acquire(KEY, LONG_S) == Held(following.fence)]

    assert play(state_url, work, 2) == [True, True]


def test_who_has_not_waited_buys_anew_and_who_replays_takes_what_is_there(state_url: str) -> None:
    async def work(state: State) -> list[type]:
        await keep(state, "Paris.", await take(state))
        replayed = await state.store.acquire(KEY, LONG_S, replays=True)
        return [type(replayed), type(await state.store.acquire(KEY, LONG_S))]

    assert play(state_url, work) == [Done, Lease]


def test_a_later_lease_has_a_later_fence_and_stays_with_whoever_took_it(state_url: str) -> None:
    async def work(slow: State, next_: State) -> list[Any]:
        first = await take(slow, SHORT_S)
        second = await take(next_)
        await slow.store.renew([first], LONG_S)
        await slow.store.release(first)
        return [second.fence > first.fence, await slow.store.acquire(KEY, LONG_S) == Held(second.fence)]

    assert play(state_url, work, 2) == [True, True]


def test_who_comes_late_takes_nobodys_place(state_url: str) -> None:
    async def work(slow: State, next_: State) -> list[Any]:
        first = await take(slow, SHORT_S)
        second = await take(next_)
        await keep(slow, "late", first)
        while_next_buys = await kept(next_)
        await keep(next_, "in time", second)
        await keep(slow, "later still", first)
        return [while_next_buys, await kept(slow)]

    assert play(state_url, work, 2) == ["late", "in time"]


def test_whoever_gives_signs_of_life_keeps_the_lease(state_url: str) -> None:
    async def work(one: State, other: State) -> list[Any]:
        lease, seen = await take(one, 1.0), []
        await one.store.renew([lease], LONG_S)
        until = time.monotonic() + 1.1
        while time.monotonic() < until:
            seen.append(await other.store.acquire(KEY, LONG_S) == Held(lease.fence))
            await asyncio.sleep(0.02)
        await one.store.renew([lease], 0.01)
        return [all(seen), isinstance(await take(other), Lease)]

    assert play(state_url, work, 2) == [True, True]


def test_however_short_the_leases_no_two_have_one_fence_and_the_last_one_stands(state_url: str) -> None:
    async def work(*states: State) -> list[Any]:
        leases: list[Lease] = []

        async def buy(state: State) -> None:
            for _ in range(5):
                lease = await take(state, 0.005)
                leases.append(lease)
                await asyncio.sleep(0.004)  # some are late by then, some not
                await keep(state, str(lease.fence), lease)

        await asyncio.gather(*map(buy, states))
        fences = [lease.fence for lease in leases]
        return [len(set(fences)), fences == sorted(fences)]

    assert play(state_url, work, 4) == [20, True]


# --- Limits ---


async def grant(store: Store, name: str, least: int, most: int, limit: int, **more: float) -> Grant:
    return await store.grant(name, more.pop("owner", "me"), least, most, limit, more.get("window_s", 0.3), 0.05)  # type: ignore[arg-type]


def test_what_is_granted_in_a_window_is_at_most_the_limit_whoever_asks(state_url: str) -> None:
    limit, window_s = 40, 0.15

    async def work(*states: State) -> list[tuple[float, float, int]]:
        granted: list[tuple[float, float, int]] = []

        async def ask(state: State, owner: str) -> None:
            # Twice the limit, which takes more than one window however slow the machine is.
            while sum(count for _, _, count in granted) < 2 * limit:
                asked = time.monotonic()
                made = await state.store.grant("there {x}", owner, 1, 8, limit, window_s, 0.03)
                granted.append((asked, time.monotonic(), made.count))
                await asyncio.sleep(0.002 if made.count else 0.01)

        async with asyncio.timeout(60):
            await asyncio.gather(*(ask(state, str(i)) for i, state in enumerate(states)))
        return granted

    granted = play(state_url, work, 3)

    # When a part was granted nobody knows but that it was between the asking and the telling.
    for begin, _, _ in granted:
        within = [count for asked, told, count in granted if begin <= asked and told < begin + window_s]
        assert sum(within) <= limit


def test_what_is_given_back_may_be_had_again(state_url: str) -> None:
    async def work(state: State) -> list[int]:
        first = await grant(state.store, "there", 10, 10, 10, window_s=60)
        refused = await grant(state.store, "there", 1, 10, 10, window_s=60)
        await state.store.give_back("there", first.id, 4)
        again = await grant(state.store, "there", 4, 10, 10, window_s=60)
        return [first.count, refused.count, round(refused.wait_s), again.count]

    assert play(state_url, work) == [10, 0, 60, 4]


def test_a_block_is_what_flows_in_while_it_may_be_used_shared_by_who_asks(state_url: str) -> None:
    async def work(state: State) -> list[tuple[int, int]]:
        asked = [await state.store.grant("there", owner, 1, 600, 600, 60.0, 2.0) for owner in "aabb"]
        return [(made.count, made.workers) for made in asked]

    assert play(state_url, work) == [(20, 1), (20, 1), (10, 2), (10, 2)]


def test_what_is_larger_than_the_limit_goes_alone(state_url: str) -> None:
    async def work(state: State) -> list[int]:
        asked = [await grant(state.store, "there", least, 10, 10, window_s=60) for least in (25, 1)]
        return [made.count for made in asked]

    assert play(state_url, work) == [25, 0]


def test_places_are_as_many_as_there_are_and_each_has_an_even_share(state_url: str) -> None:
    async def work(state: State) -> list[int]:
        async def hold(owner: str, busy: int, wanted: int, lease_s: float = LONG_S) -> int:
            return await state.store.hold("there", owner, busy, wanted, 10, lease_s)

        alone = await hold("a", 0, 100)
        too_late = await hold("b", 0, 100)
        shrunk = await hold("a", 6, 100)
        freed = await hold("b", 0, 100)
        modest = await hold("b", 1, 2)
        rest = await hold("a", 6, 100)
        left = await hold("b", 0, 0)
        return [alone, too_late, shrunk, freed, modest, rest, left, await hold("a", 8, 100)]

    assert play(state_url, work) == [10, 0, 5, 4, 2, 8, 0, 10]


def test_where_there_are_more_of_them_than_places_somebody_has_one(state_url: str) -> None:
    async def work(state: State) -> list[int]:
        return [await state.store.hold("there", owner, 0, 5, 2, LONG_S) for owner in "aabcda"]

    held = play(state_url, work)

    assert held[0] == 2
    assert sum(held[2:5]) == 0  # `a` has them until it says that it uses fewer
    assert held[5] == 1  # it uses none of its two and leaves one


def test_the_places_of_the_dead_come_back(state_url: str) -> None:
    async def work(state: State) -> int:
        await state.store.hold("there", "dead", 3, 3, 3, SHORT_S)

        async def ask() -> int | None:
            return await state.store.hold("there", "alive", 0, 3, 3, LONG_S) or None

        return await until(ask)

    assert play(state_url, work) == 3


# --- Money ---


def buying(usd: float, *purses: tuple[str, float | None], model: str = "m") -> Purchase:
    return Purchase(purses or (("day", 10.0),), "there", model, usd)


async def learn(store: Store, calls: int = 30) -> None:
    """Let an endpoint keep to its prices for so many calls, that as many may run at once."""
    for _ in range(calls):
        made = await store.reserve(buying(0.0, ("lessons", None)), LONG_S)
        assert isinstance(made, Reservation)
        await store.settle([Settlement(made, 0.0, answered=True)])


def test_of_many_who_want_money_at_once_those_get_it_for_whom_there_is_some(state_url: str) -> None:
    async def work(*states: State) -> tuple[int, int, float]:
        await learn(states[0].store)

        async def buy(i: int) -> str:
            store = states[i % len(states)].store
            made = await until(lambda: store.reserve(buying(0.01, ("day", 0.2)), LONG_S))
            if isinstance(made, Shortage):
                return made.purse
            await store.settle([Settlement(made, 0.01, answered=True)])
            return "bought"

        ends = await asyncio.gather(*(buy(i) for i in range(64)))
        return ends.count("bought"), ends.count("day"), round(await states[0].store.committed_usd("day"), 9)

    assert play(state_url, work, 4) == (20, 44, 0.2)


def test_what_is_short_says_how_much_was_spent_and_how_much_it_would_be(state_url: str) -> None:
    async def work(state: State) -> Any:
        made = await state.store.reserve(buying(7.25, ("run", None), ("day", 10.0)), LONG_S)
        await state.store.settle([Settlement(made, 7.25, answered=True)])  # type: ignore[arg-type]
        return await state.store.reserve(buying(7.25, ("run", None), ("day", 10.0)), LONG_S)

    assert play(state_url, work) == Shortage("day", 7.25, 7.25)


@pytest.mark.parametrize(("paid_usd", "committed"), [(1.5, 1.5), (None, 4.0), (6.0, 6.0), (0.0, 0.0)])
def test_a_reservation_is_settled_once_however_often_it_is_said(
    state_url: str, paid_usd: float | None, committed: float
) -> None:
    async def work(state: State) -> list[float]:
        made = await state.store.reserve(buying(4.0), LONG_S)
        assert isinstance(made, Reservation)
        seen = [await state.store.committed_usd("day")]
        for _ in range(2):
            await state.store.settle([Settlement(made, paid_usd, answered=True)])
            seen.append(await state.store.committed_usd("day"))
        return seen

    assert play(state_url, work) == [4.0, committed, committed]


def test_what_the_dead_had_reserved_counts_as_spent_until_it_is_known_what_it_was(state_url: str) -> None:
    async def work(dead: State, living: State) -> list[float]:
        made = await dead.store.reserve(buying(4.0), SHORT_S)
        assert isinstance(made, Reservation)
        await until(lambda: living.store.reserve(buying(0.5), LONG_S))  # the first call of all goes alone
        seen = [await living.store.committed_usd("day")]
        for _ in range(2):
            await dead.store.settle([Settlement(made, 1.0, answered=True)])
            seen.append(await living.store.committed_usd("day"))
        return seen

    assert play(state_url, work, 2) == [4.5, 1.5, 1.5]


def test_whoever_lives_keeps_what_is_reserved(state_url: str) -> None:
    async def work(one: State, other: State) -> list[Any]:
        made = await one.store.reserve(buying(4.0), 1.0)
        assert isinstance(made, Reservation)
        await one.store.renew_reservations([made.id], LONG_S)
        until, seen = time.monotonic() + 1.1, []
        while time.monotonic() < until:
            seen.append(await other.store.reserve(buying(0.5), LONG_S))
            await asyncio.sleep(0.03)
        return [set(seen)]

    assert play(state_url, work, 2) == [{None}]


def test_who_charges_more_than_was_reserved_is_asked_one_at_a_time_and_at_that_price(state_url: str) -> None:
    async def work(state: State) -> list[Any]:
        await learn(state.store)
        first = await state.store.reserve(buying(1.0), LONG_S)
        assert isinstance(first, Reservation)
        await state.store.settle([Settlement(first, 3.0, answered=True)])
        second = await state.store.reserve(buying(1.0), LONG_S)
        assert isinstance(second, Reservation)
        beside = await state.store.reserve(buying(1.0), LONG_S)
        return [first.usd, second.usd, beside]

    assert play(state_url, work) == [1.0, 3.0, None]


def test_somebody_who_waits_sees_that_another_one_has_settled(state_url: str) -> None:
    async def work(one: State, other: State) -> bool:
        made = await one.store.reserve(buying(4.0), LONG_S)
        assert isinstance(made, Reservation)
        before = await other.store.changes()
        await one.store.settle([Settlement(made, 1.0, answered=True)])
        return before != await other.store.changes()

    assert play(state_url, work, 2) is True


# --- Values ---


def test_a_value_is_kept_for_its_time(state_url: str) -> None:
    async def work(one: State, other: State) -> list[bytes | None]:
        await one.store.keep_value("answer", b"first", 60)
        await one.store.keep_value("answer", b"Paris.\x00", 60)
        await one.store.keep_value("short", b"x", SHORT_S)
        found = [await other.store.value_of(name) for name in ("answer", "none")]

        async def ask() -> bool | None:
            return True if await other.store.value_of("short") is None else None

        await until(ask)
        return found

    assert play(state_url, work, 2) == [b"Paris.\x00", None]


def test_a_store_says_what_it_is(state_url: str) -> None:
    async def work(state: State) -> str:
        return await state.store.check()

    assert play(state_url, work).split()[0].lower() in ("sqlite", "redis", "valkey", "postgresql")


# --- Limits, by a clock that is moved ---


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqliteStore, Clock]]:
    clock = Clock()
    store = SqliteStore(tmp_path_factory.mktemp("limits") / "journal.db", clock)
    yield store, clock
    store.close()


@given(
    asks=st.lists(
        st.tuples(st.floats(0, 40), st.sampled_from("abc"), st.integers(1, 30), st.integers(0, 10)), max_size=40
    ),
    limit=st.integers(1, 50),
)
def test_no_window_sees_more_than_the_limit_however_they_ask(
    asks: Sequence[tuple[float, str, int, int]], limit: int, counting: tuple[SqliteStore, Clock]
) -> None:
    store, clock = counting
    window_s, valid_s, name = 60.0, 2.0, uuid.uuid4().hex

    async def work() -> list[tuple[float, int]]:
        used: list[tuple[float, int]] = []
        for wait_s, owner, most, unused in asks:
            clock.now += wait_s
            made = await store.grant(name, owner, 1, most, limit, window_s, valid_s)
            back = min(unused, made.count)
            if made.count:
                await store.give_back(name, made.id, back)
            # Whoever has a block uses it at the last moment.
            used.append((clock.now + valid_s, made.count - back))
        return used

    used = asyncio.run(work())

    for begin, _ in used:
        assert sum(count for at, count in used if begin <= at < begin + window_s) <= limit


# --- Machines ---


@pytest.fixture(params=["redis", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cluster", "postgres"))])
def remote_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty state that several machines may use."""
    server: StoreServer = request.getfixturevalue(f"{request.param}_server")
    return server.own()


def test_machines_whose_clocks_are_apart_keep_to_the_same_limits_and_leases(
    remote_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times are the store's own."""
    right, apart = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: right() + apart[0])

    async def work(late: State, early: State) -> list[Any]:
        said: list[Any] = []
        for state, apart[0] in ((late, -90.0), (early, 90.0), (late, -90.0)):
            granted = await state.store.grant("calls", str(apart[0]), 1, 4, 10, 60.0, 60.0)
            said.append(granted.count)
        for state, apart[0] in ((early, 90.0), (late, -90.0), (early, 90.0)):
            said.append(await state.store.hold("places", str(apart[0]), 0, 6, 8, LONG_S))
        apart[0] = -90.0
        lease = await take(late)
        place = await late.store.reserve(Purchase((("p", 1.0),), "there", "m", 0.6), LONG_S)
        apart[0] = 90.0
        said.append(type(await early.store.acquire(KEY, LONG_S)))
        said.append(await early.store.reserve(Purchase((("p", 1.0),), "there", "n", 0.6), LONG_S))
        await late.store.keep_value("v", b"kept", LONG_S)
        said.append(await early.store.value_of("v"))
        assert isinstance(place, Reservation)
        await late.store.release(lease)
        return said

    granted, held, rest = (lambda said: (said[:3], said[3:6], said[6:]))(play(remote_url, work, 2))

    assert sum(granted) <= 10
    assert granted[:2] == [4, 4]
    assert held[1] + held[2] <= 8
    assert rest == [Held, None, b"kept"]


@pytest.mark.slow
def test_nothing_is_left_of_many_leases(state_url: str) -> None:
    """Keys for fences that had no end once piled up to 25 millions."""
    calls = 1_000 if state_url.startswith("postgres") else 10_000

    async def work(state: State) -> int:
        async def one(number: int) -> None:
            key = number.to_bytes(16, "big")
            lease = await state.store.acquire(key, LONG_S)
            assert isinstance(lease, Lease)
            await state.store.release(lease)

        for begin in range(0, calls, 100):
            await asyncio.gather(*(one(number) for number in range(begin, begin + 100)))
        return await _leases_in(state_url)

    assert play(state_url, work) == 0


async def _leases_in(url: str) -> int:
    """Return how many leases a store remembers, as it keeps them."""
    place, _, namespace = url.partition("?namespace=")
    if url.startswith("sqlite:"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:"))) as db:
            return int(db.execute("SELECT COUNT(*) FROM lease").fetchone()[0])
    if url.startswith("redis:"):
        redis = Redis.from_url(place)
        try:
            return len([key async for key in redis.scan_iter(f"{namespace}:*", count=5_000)])
        finally:
            await redis.aclose()
    async with await psycopg.AsyncConnection.connect(place, prepare_threshold=None) as pg:
        found = await pg.execute(f"SELECT COUNT(*) FROM {namespace}.lease")  # noqa: S608 - our own name
        row = await found.fetchone()
        return int(row[0]) if row else -1


def test_one_node_of_a_cluster_of_redis_is_refused_in_words() -> None:
    """It answers for a part of the keys only, and says where the others are."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while line := await reader.readline():
                for _ in range(int(line[1:])):
                    await reader.readexactly(int((await reader.readline())[1:]) + 2)
                writer.write(b"-MOVED 3999 127.0.0.1:6381\r\n")
        writer.close()

    async def work() -> str:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        state = open_state(f"redis://127.0.0.1:{port}", lambda _: None)
        try:
            with pytest.raises(StateAway) as away:
                await state.store.acquire(KEY, LONG_S)
            return str(away.value)
        finally:
            await state.aclose()
            server.close()

    assert "is one node of a Redis Cluster, whose other nodes are not asked" in asyncio.run(work())


def test_notes_stand_in_one_order_for_all(remote_url: str) -> None:
    async def work(*states: State) -> Any:
        stores = [cast("CallStore", state.store) for state in states]
        written = await asyncio.gather(
            *(s.note("x", b"%d %d" % (i, n), 60) for n in range(20) for i, s in enumerate(stores))
        )
        read = [await each.notes_after("x", 0, 1000) for each in stores]
        rest = await stores[0].notes_after("x", read[0][29][0], 7)
        return [written, read, rest, await stores[0].notes_after("y", 0, 9)]

    written, read, rest, others = play(remote_url, work, 3)

    assert read[0] == read[1] == read[2]
    assert [number for number, _ in read[0]] == sorted(set(written))
    assert {note for _, note in read[0]} == {b"%d %d" % (i, n) for n in range(20) for i in range(3)}
    assert (rest, others) == (read[0][30:37], [])


def test_notes_go_when_they_are_old(remote_url: str) -> None:
    async def work(state: State) -> Any:
        store = cast("CallStore", state.store)
        for number in range(300):  # Redis forgets them by the hundred
            await store.note("x", b"%d" % number, 60)
        await asyncio.sleep(0.02)
        await store.note("x", b"last", 0.01)
        return [note for _, note in await store.notes_after("x", 0, 1000)]

    kept = play(remote_url, work)

    assert kept[-1] == b"last"
    assert b"0" not in kept
