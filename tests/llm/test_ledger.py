"""What is written down of a call, and what money may do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from calling import (
    BOUND_USD,
    BUSY,
    CUT,
    DEAR,
    ENTRY,
    FOUR,
    PAID_USD,
    REFUSED,
    SILENT,
    UNPRICED,
    ask,
    ask_once,
    attempts,
    steady,
    turns,
)
from scripted import HANG, USAGE, Scripted, model, open_door, said

from fusiontools.config.models import Endpoint
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion


def test_a_call_is_entered_with_its_slot_tokens_and_cost() -> None:
    completion, [call] = ask_once(Scripted(m=said("Paris.", "real/m")))

    assert completion == said("Paris.", "real/m")
    assert steady(call) == {
        **ENTRY, "model": "real/m", "usage": USAGE, "cost_usd": 0.001, "cost_source": "upstream",
        "status": "ok", "replayed": False,
    }  # fmt: skip
    assert call["latency_s"] >= 0


def test_a_backend_that_lets_calls_wait_says_itself_how_long_one_took() -> None:
    _, [call] = ask_once(Scripted(m=said("Paris.", latency_s=7.5)))

    assert call["latency_s"] == 7.5


def test_every_attempt_is_entered_whatever_becomes_of_it() -> None:
    completion, calls = ask_once(Scripted(m=[BUSY, CUT, "Paris."]))

    assert isinstance(completion, Completion)
    assert attempts(calls) == [(1, "rate_limited"), (2, "connection"), (3, "ok")]


def test_a_call_that_may_pass_the_limit_is_not_made() -> None:
    backend = Scripted(m=UNPRICED, n="x")

    failure, calls = ask_once(
        backend,
        model(price_usd_per_mtok=DEAR.price_usd_per_mtok, fallbacks=("n",)),
        params=FOUR,
        limits={"max_cost_usd": 9},
    )

    assert (failure.code, calls, backend.requests) == ("budget", [], [])  # type: ignore[union-attr]
    assert failure.message == "the run has committed $0.0000 of $9; this call may cost $10.0000"  # type: ignore[union-attr]


def test_what_was_paid_stands_in_the_place_of_what_was_reserved() -> None:
    async def work() -> tuple[list[float], str, bool]:
        client = open_door(Scripted(m=UNPRICED), limits={"max_cost_usd": PAID_USD + BOUND_USD})
        committed = []
        for sample in range(2):
            await ask(client, DEAR, params=FOUR, sample=sample)
            committed.append(client.budget.committed_usd)
        [failure] = await asyncio.gather(ask(client, DEAR, params=FOUR, sample=2), return_exceptions=True)
        return committed, failure.code, client.budget.stopped  # type: ignore[union-attr]

    assert asyncio.run(work()) == ([PAID_USD, 2 * PAID_USD], "budget", True)


def test_calls_at_once_reserve_at_once() -> None:
    async def work() -> list[str]:
        client = open_door(Scripted(m=UNPRICED), limits={"max_cost_usd": 2 * BOUND_USD})
        calls = [ask(client, DEAR, params=FOUR, sample=sample) for sample in range(3)]
        return [getattr(r, "code", "ok") for r in await asyncio.gather(*calls, return_exceptions=True)]

    assert sorted(asyncio.run(work()))[:1] == ["budget"]


@pytest.mark.parametrize(
    ("step", "committed"),
    [
        (REFUSED, 0.0),
        (CUT, BOUND_USD),
        (SILENT, BOUND_USD),
        (said("x", cost_usd=0.5), 0.5),
        (CallFailed("empty", "", usage=dict(USAGE), cost_usd=0.25), 0.25),
    ],
)
def test_a_reservation_is_settled_by_what_is_known_to_be_paid(step: Any, committed: float) -> None:
    async def work() -> float:
        client = open_door(Scripted(m=step), limits={"max_cost_usd": 100, "retries": 0})
        await asyncio.gather(ask(client, DEAR, params=FOUR), return_exceptions=True)
        return client.budget.committed_usd

    assert asyncio.run(work()) == committed


def test_a_cancelled_call_keeps_its_reservation() -> None:
    async def work() -> float:
        client = open_door(Scripted(m=HANG()), limits={"max_cost_usd": 100})
        task = asyncio.create_task(ask(client, DEAR, params=FOUR))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return client.budget.committed_usd

    assert asyncio.run(work()) == BOUND_USD


def test_a_limit_cannot_be_held_without_a_price() -> None:
    backend = Scripted()

    failure, calls = ask_once(backend, limits={"max_cost_usd": 9})

    assert (failure.code, calls, backend.requests) == ("price_unknown", [], [])  # type: ignore[union-attr]


def test_a_free_endpoint_needs_no_price_and_no_money() -> None:
    free = Endpoint("there", "http://h/v1", free=True)

    completion, _ = ask_once(Scripted(), endpoint=free, limits={"max_cost_usd": 0})

    assert isinstance(completion, Completion)


def test_a_record_has_a_limit_of_its_own() -> None:
    async def work() -> tuple[list[str], bool]:
        client = open_door(Scripted(m=UNPRICED), limits={"max_record_cost_usd": PAID_USD + 1})
        one, other = client.ledger("panel", "1"), client.ledger("panel", "2")
        codes = []
        for sample, ledger in enumerate((one, one, other)):
            [result] = await asyncio.gather(ask(client, DEAR, params=FOUR, sample=sample, ledger=ledger), return_exceptions=True)  # fmt: skip  # noqa: E501
            codes.append(getattr(result, "code", "ok"))
        return codes, client.budget.stopped

    assert asyncio.run(work()) == (["ok", "record_budget", "ok"], False)
