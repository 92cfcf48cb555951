"""Single flight over processes: each client here has a state of its own on the same store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from calling import BUSY, ask
from scripted import ENDPOINT, HANG, MESSAGES, Scripted, model, open_door, said

from fusiontools.errors import CallFailed
from fusiontools.llm.client import Client
from fusiontools.llm.journal_entry import request_key
from fusiontools.llm.state.flights import Flights
from fusiontools.llm.state.shared import State, open_state
from fusiontools.llm.state.store import Held, Lease


class Watched(Flights):
    """Counts how often it was told to wait."""

    told_to_wait = 0

    async def _acquire(self, *asked: Any) -> Any:
        turn = await super()._acquire(*asked)
        self.told_to_wait += isinstance(turn, Held)
        return turn


def play(
    url: str, backends: list[Scripted], work: Callable[..., Awaitable[Any]], lease_s: float = 5.0, **more: Any
) -> Any:
    """Let clients, one for each backend, do something; return what comes of it."""

    async def opened() -> Any:
        clients = []
        for backend in backends:
            state = open_state(url, pytest.fail)
            state.flights = Watched(state.store, state.say_away, lease_s)
            clients.append(open_door(backend, journal=state.journal, state=state, **more))
        try:
            return await work(*clients)
        finally:
            for client in clients:
                await client.aclose()

    return asyncio.run(opened())


async def under_way(backend: Scripted) -> None:
    while not backend.requests:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.005)


async def waits(client: Client) -> None:
    assert client.state is not None
    while not client.state.flights.told_to_wait:  # type: ignore[attr-defined]  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.005)


def test_of_identical_calls_of_two_processes_one_is_made_and_both_have_its_answer(state_url: str) -> None:
    gate = asyncio.Event()
    first, second = Scripted(m=[gate, said("Paris.")]), Scripted(m=said("Lyon."))

    async def work(one: Client, other: Client) -> list[Any]:
        ledger = other.ledger("panel", "2")
        bought = asyncio.create_task(ask(one))
        await under_way(first)
        waiting = asyncio.create_task(ask(other, ledger=ledger))
        await waits(other)
        gate.set()
        answers = [(await bought).content, (await waiting).content]
        return [*answers, [(call["replayed"], call["cost_usd"]) for call in ledger.calls]]

    assert play(state_url, [first, second], work) == ["Paris.", "Paris.", [(True, 0.0)]]
    assert (len(first.requests), len(second.requests)) == (1, 0)


@pytest.mark.parametrize("ends", ["fails", "is cancelled"])
def test_where_whoever_buys_fails_or_is_cut_off_somebody_who_waits_buys(state_url: str, ends: str) -> None:
    gate = asyncio.Event()
    first, second = Scripted(m=[gate, CallFailed("refused", "no")]), Scripted(m=said("Lyon."))

    async def work(one: Client, other: Client) -> str:
        bought = asyncio.create_task(ask(one))
        await under_way(first)
        waiting = asyncio.create_task(ask(other))
        await waits(other)
        if ends == "fails":
            gate.set()
        else:
            bought.cancel()
        await asyncio.gather(bought, return_exceptions=True)
        return (await waiting).content

    assert play(state_url, [first, second], work) == "Lyon."


class Slow:
    """The turns of a store, of which each is told of late."""

    def __init__(self, leases: Any) -> None:
        self._leases = leases
        self.taken, self.told = asyncio.Event(), asyncio.Event()

    async def acquire(self, *asked: Any, **more: Any) -> Any:
        turn = await self._leases.acquire(*asked, **more)
        self.taken.set()
        await self.told.wait()
        return turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leases, name)


def test_whoever_is_cut_off_while_it_takes_its_turn_leaves_it_to_others(state_url: str) -> None:
    async def work(one: Client, other: Client) -> Any:
        assert one.state is not None
        assert other.state is not None
        slow = Slow(one.state.store)
        entering = asyncio.create_task(Flights(slow, pytest.fail, 60.0).enter(b"k" * 16, replays=False))
        await slow.taken.wait()
        entering.cancel()
        held = await other.state.store.acquire(b"k" * 16, 60.0)
        slow.told.set()
        await asyncio.gather(entering, return_exceptions=True)
        return [entering.cancelled(), held, await other.state.store.acquire(b"k" * 16, 60.0)]

    cancelled, held, free = play(state_url, [Scripted(), Scripted()], work)

    assert cancelled
    assert isinstance(held, Held)
    assert isinstance(free, Lease)


def test_who_waits_keeps_to_its_own_deadline(state_url: str) -> None:
    first, second = Scripted(m=HANG()), Scripted()

    async def work(one: Client, other: Client) -> str:
        bought = asyncio.create_task(ask(one))
        await under_way(first)
        ledger = other.ledger("panel", "2")
        ledger.deadline -= other.limits.deadline_s - 0.1
        with pytest.raises(CallFailed) as failed:
            await ask(other, ledger=ledger)
        bought.cancel()
        await asyncio.gather(bought, return_exceptions=True)
        return failed.value.code

    assert play(state_url, [first, second], work) == "deadline"


# Longer than anything that keeps a busy machine from putting a lease's end off.
@pytest.mark.slow
def test_a_call_that_takes_longer_than_a_lease_is_made_once(state_url: str) -> None:
    gate = asyncio.Event()
    first, second = Scripted(m=[gate, said("Paris.")]), Scripted()

    async def work(one: Client, other: Client) -> str:
        bought = asyncio.create_task(ask(one))
        await under_way(first)
        waiting = asyncio.create_task(ask(other))
        await asyncio.sleep(4)
        gate.set()
        await bought
        return (await waiting).content

    assert play(state_url, [first, second], work, lease_s=3) == "Paris."
    assert second.requests == []


def test_what_the_dead_were_buying_is_bought_when_their_lease_has_run_out(state_url: str) -> None:
    async def work(other: Client) -> str:
        dead: State = open_state(state_url, pytest.fail)
        key = request_key(other.request(model(), MESSAGES, {}), ENDPOINT.identity)
        await dead.store.acquire(key, 0.1)
        await dead.aclose()
        return (await ask(other)).content

    assert play(state_url, [Scripted(m=said("Lyon."))], work) == "Lyon."


def test_a_run_that_replays_buys_nothing_that_was_finished_in_between(state_url: str) -> None:
    first, second = Scripted(m=said("Paris.")), Scripted()

    async def work(one: Client, other: Client) -> list[Any]:
        await ask(one)
        return [(await ask(other)).content, (await ask(one)).content]

    assert play(state_url, [first, second], work, replay=True) == ["Paris.", "Paris."]
    assert (len(first.requests), second.requests) == (1, [])


def test_a_run_that_does_not_replay_buys_what_another_one_bought_before(state_url: str) -> None:
    first, second = Scripted(m=said("Paris.")), Scripted(m=said("Lyon."))

    async def work(one: Client, other: Client) -> list[str]:
        return [(await ask(one)).content, (await ask(other)).content]

    assert play(state_url, [first, second], work) == ["Paris.", "Lyon."]


def test_a_call_that_is_tried_again_stays_one_call(state_url: str) -> None:
    first = Scripted(m=[BUSY, said("Paris.")])

    async def work(one: Client) -> str:
        return (await ask(one)).content

    assert play(state_url, [first], work, limits={"backoff_s": 0}) == "Paris."
    assert len(first.requests) == 2
