"""What money may do: a limit is a limit, whatever an endpoint says, does or charges."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from calling import (
    BOUND_USD,
    CUT,
    DEAR,
    FOUR,
    PAID_USD,
    REFUSED,
    SILENT,
    UNPRICED,
    ask,
    ask_once,
    turns,
)
from scripted import ENDPOINT, HANG, MESSAGES, USAGE, Scripted, model, open_door, said

from fusiontools.config.models import Endpoint
from fusiontools.errors import CallFailed
from fusiontools.llm import prices
from fusiontools.llm.budget import Payment, RecordBudget
from fusiontools.llm.completion import Completion
from fusiontools.llm.purses import Purses


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
        client = open_door(Scripted(m=UNPRICED), limits={"max_cost_usd": 2 * PAID_USD})
        committed = []
        for sample in range(2):
            await ask(client, DEAR, params=FOUR, sample=sample)
            committed.append(await client.budget.committed_usd())
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
        return await client.budget.committed_usd()

    assert asyncio.run(work()) == committed


def test_a_cancelled_call_keeps_its_reservation() -> None:
    async def work() -> float:
        client = open_door(Scripted(m=HANG()), limits={"max_cost_usd": 100})
        task = asyncio.create_task(ask(client, DEAR, params=FOUR))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return await client.budget.committed_usd()

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


# --- Ceilings ---


def run_many(
    count: int, step: Any, limit_usd: float, asked: Any = DEAR, **limits: Any
) -> tuple[Scripted, Any, list[str]]:
    """Ask so often at once; return who was asked, the client, and how each call ended."""
    backend = Scripted(m=step)

    async def work() -> tuple[Any, list[str]]:
        client = open_door(backend, limits={"max_cost_usd": limit_usd, **limits})
        calls = [ask(client, asked, params=FOUR, sample=sample) for sample in range(count)]
        return client, [getattr(r, "code", "ok") for r in await asyncio.gather(*calls, return_exceptions=True)]

    client, codes = asyncio.run(work())
    return backend, client, codes


def test_an_endpoint_that_costs_more_than_it_may_says_so_once() -> None:
    backend, client, codes = run_many(200, said("x", cost_usd=500.0), limit_usd=400.0)

    assert (len(backend.requests), asyncio.run(client.budget.committed_usd())) == (1, 500.0)
    assert codes == ["ok"] + ["budget"] * 199
    assert client.budget.stopped


def test_failures_that_cost_nothing_vouch_for_nobody() -> None:
    backend = Unhurried(m=[REFUSED] * 20 + [said("x", cost_usd=500.0)] * 20)

    spent_usd = run_in_turn(backend, 400.0, (DEAR, FOUR))

    assert spent_usd == 500


def test_what_a_call_has_cost_is_what_the_next_may_cost() -> None:
    backend, client, _ = run_many(200, said("x", cost_usd=500.0), limit_usd=1400.0)

    assert (len(backend.requests), asyncio.run(client.budget.committed_usd())) == (2, 1000.0)


class Unhurried(Scripted):
    """Answers when every other call that may run is under way."""

    async def complete(self, request: Any, on_delta: Any = None) -> Completion:
        await turns()
        return await super().complete(request, on_delta)


def run_in_turn(backend: Scripted, limit_usd: float, *rounds: tuple[Any, Any]) -> float:
    """Ask models with these parameters, 50 times at once in each round; return what was spent."""

    async def work() -> float:
        client = open_door(backend, limits={"max_cost_usd": limit_usd})
        for number, (asked, params) in enumerate(rounds):
            calls = [ask(client, asked, params=params, sample=100 * number + i) for i in range(50)]
            await asyncio.gather(*calls, return_exceptions=True)
        return await client.budget.committed_usd()

    return asyncio.run(work())


def test_a_model_that_keeps_to_its_prices_vouches_for_no_other_one() -> None:
    backend = Unhurried(m=said("x", cost_usd=1.0), n=said("x", cost_usd=500.0))
    other = model("n", price_usd_per_mtok=DEAR.price_usd_per_mtok)

    spent_usd = run_in_turn(backend, 1000.0, (DEAR, FOUR), (other, FOUR))

    assert spent_usd == 50 * 1 + 500


def test_what_every_call_has_cost_at_least_is_set_aside_however_short_the_answer_may_be() -> None:
    backend = Unhurried(m=said("x", cost_usd=50.0))

    spent_usd = run_in_turn(backend, 3000.0, (DEAR, {"max_tokens": 94}), (DEAR, FOUR))

    assert spent_usd == 3000


def test_who_keeps_to_its_prices_is_asked_to_the_end() -> None:
    _, client, codes = run_many(300, said("x", cost_usd=1.0), limit_usd=100_000.0)

    assert codes == ["ok"] * 300
    assert asyncio.run(client.budget.committed_usd()) == 300.0


def test_a_call_waits_for_room_that_others_leave() -> None:
    _, client, codes = run_many(20, said("x", cost_usd=1.0), limit_usd=BOUND_USD + 15)

    assert codes.count("ok") == 16
    assert asyncio.run(client.budget.committed_usd()) == 16.0


def test_no_price_is_below_nothing() -> None:
    for params in ({"n": -5}, {"max_tokens": -5}, {"n": "5"}, {"n": True, "max_tokens": True}, {"max_tokens": float("nan")}):  # fmt: skip  # noqa: E501
        bound = prices.upper_bound_usd(ENDPOINT, DEAR, MESSAGES, params)
        assert bound is not None
        assert bound > 0


def pay(limit_usd: float, bound_usd: float | None) -> None:
    """Set aside what one call may cost."""
    payment = Payment([RecordBudget(limit_usd)], Purses(), ENDPOINT, DEAR, bound_usd)
    asyncio.run(payment.open())


@pytest.mark.parametrize("usd", [-1.0, float("nan"), float("inf"), None])
def test_what_is_no_price_reserves_nothing(usd: float | None) -> None:
    with pytest.raises(CallFailed, match="price"):
        pay(9, usd)


@pytest.mark.parametrize("limit_usd", [float("nan"), -1.0])
def test_a_limit_that_is_none_lets_nothing_pass(limit_usd: float) -> None:
    with pytest.raises(CallFailed):
        pay(limit_usd, 0.5)


@pytest.mark.parametrize(
    ("params", "sent"),
    [({}, 4096), ({"max_tokens": None}, 4096), ({"max_tokens": 7}, 7), ({"max_completion_tokens": 8}, None)],
)
def test_where_money_is_limited_the_tokens_that_are_reserved_are_the_bound(params: Any, sent: int | None) -> None:
    backend = Scripted()

    ask_once(backend, DEAR, params=params, limits={"max_cost_usd": 1e9})

    assert backend.requests[0].params.get("max_tokens") == sent


def test_where_money_is_not_limited_nobody_bounds_an_answer() -> None:
    backend = Scripted()

    ask_once(backend, DEAR)

    assert "max_tokens" not in backend.requests[0].params
