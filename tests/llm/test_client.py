"""The door to a model: the journal before the retries before the ledger before the endpoint; and what money may do."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ENDPOINT, HANG, MESSAGES, USAGE, Scripted, model, open_door, said
from workdir import Upstream

from fusiontools.config.models import Endpoint, Model, environment_endpoints
from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import CallFailed, UsageError
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.http import HttpBackend
from fusiontools.llm.journal import Journal
from fusiontools.llm.ledger import Event, Ledger, Slot
from fusiontools.llm.quirks import Quirks
from fusiontools.record.types import Call

SLOT = Slot("m", 0, 1)
M = model()
#: A dollar a token: what a call may cost is the number of its tokens.
DEAR = model(price_usd_per_mtok={"prompt": 1e6, "completion": 1e6})
#: What the question and four tokens of an answer are estimated at, and what `USAGE` comes to.
BOUND_USD, PAID_USD = 10.0, 14.0
FOUR = {"max_tokens": 4}
UNPRICED = said("Paris.", cost_usd=None)
SILENT = said("Paris.", cost_usd=None, usage=None)
BUSY = CallFailed("rate_limited", "HTTP 429: busy", status=429, retryable=True)
REFUSED = CallFailed("bad_request", "HTTP 400: no", status=400)
CUT = CallFailed("connection", "closed", retryable=True)
ENTRY = {"stage": "panel", "layer": 1, "member": "m", "sample": 0, "attempt": 1, "model": "m", "endpoint": "there"}


async def ask(door: Client, asked: Model = M, *, ledger: Ledger | None = None, **more: Any) -> Completion:
    request = door.request(asked, MESSAGES, more.get("params", {}), more.get("sample", 0))
    mine = ledger or door.ledger("panel", "1")
    return await door.complete(request, asked, mine, SLOT, more.get("on_delta"))


def ask_once(backend: Scripted, asked: Model = M, **settings: Any) -> tuple[Completion | CallFailed, list[Call]]:
    """Return what comes of one call, and what is entered."""
    params, on_delta = settings.pop("params", {}), settings.pop("on_delta", None)

    async def work() -> tuple[Completion | CallFailed, list[Call]]:
        door = open_door(backend, **settings)
        ledger = door.ledger("panel", "1")
        try:
            return await ask(door, asked, ledger=ledger, params=params, on_delta=on_delta), ledger.calls
        except CallFailed as failure:
            return failure, ledger.calls
        finally:
            if door.journal is not None:
                door.journal.close()

    return asyncio.run(work())


def attempts(calls: list[Call]) -> list[tuple[int, str]]:
    return [(call["attempt"], call["status"]) for call in calls]


def steady(call: Call) -> dict[str, Any]:
    """Return a call without what differs from run to run."""
    return {key: value for key, value in call.items() if key not in ("latency_s", "ttft_s")}


async def turns() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


# The ledger


def test_a_call_is_entered_with_its_slot_tokens_and_cost() -> None:
    completion, [call] = ask_once(Scripted(m=said("Paris.", "real/m")))

    assert completion == said("Paris.", "real/m")
    assert steady(call) == {
        **ENTRY, "model": "real/m", "usage": USAGE, "cost_usd": 0.001, "cost_source": "upstream",
        "status": "ok", "replayed": False,
    }  # fmt: skip
    assert call["latency_s"] >= 0


@pytest.mark.parametrize(
    ("asked", "endpoint", "completion", "cost", "source"),
    [
        (M, ENDPOINT, said("x"), 0.001, "upstream"),
        (M, ENDPOINT, said("x", cost_usd=0.0), 0.0, "upstream"),
        (DEAR, ENDPOINT, said("x"), 0.001, "upstream"),
        (DEAR, ENDPOINT, UNPRICED, PAID_USD, "table"),
        (DEAR, ENDPOINT, SILENT, None, None),
        (M, ENDPOINT, UNPRICED, None, None),
        (M, ENDPOINT, SILENT, None, None),
        (M, Endpoint("there", "http://h/v1", free=True), SILENT, 0.0, "free"),
        (model("gpt-4o-mini"), Endpoint("there", "https://api.openai.com/v1"), UNPRICED, 3.45e-6, "table"),
        (model("gpt-4o-mini"), ENDPOINT, UNPRICED, None, None),
    ],
)
def test_a_cost_is_the_endpoints_word_else_the_recipes_else_the_lists_else_unknown(
    asked: Model, endpoint: Endpoint, completion: Completion, cost: float | None, source: str | None
) -> None:
    _, [call] = ask_once(Scripted(**{asked.model: completion}), asked, endpoint=endpoint)

    assert (call["cost_usd"], call["cost_source"]) == (pytest.approx(cost) if cost else cost, source)


@pytest.mark.parametrize(
    ("failure", "cost", "source"),
    [
        (REFUSED, 0.0, "free"),
        (CallFailed("connect", "no route"), 0.0, "free"),
        (CallFailed("connection", "closed half way"), None, None),
        (CallFailed("empty", "nothing", usage=dict(USAGE), cost_usd=0.25), 0.25, "upstream"),
        (CallFailed("empty", "nothing", usage=dict(USAGE)), None, None),
        (CallFailed("upstream", "broke off after text", status=None), None, None),
    ],
)
def test_a_failed_attempt_costs_what_is_known_and_never_nothing_by_guess(
    failure: CallFailed, cost: float | None, source: str | None
) -> None:
    result, [call] = ask_once(Scripted(m=failure))

    assert result is failure
    assert (call["status"], call["cost_usd"], call["cost_source"]) == (failure.code, cost, source)


def test_a_backend_that_lets_calls_wait_says_itself_how_long_one_took() -> None:
    _, [call] = ask_once(Scripted(m=said("Paris.", latency_s=7.5)))

    assert call["latency_s"] == 7.5


def test_every_attempt_is_entered_whatever_becomes_of_it() -> None:
    completion, calls = ask_once(Scripted(m=[BUSY, CUT, "Paris."]))

    assert isinstance(completion, Completion)
    assert attempts(calls) == [(1, "rate_limited"), (2, "connection"), (3, "ok")]


# Retries


def test_a_failure_that_may_pass_is_tried_again_as_often_as_allowed() -> None:
    backend = Scripted(m=BUSY)

    failure, calls = ask_once(backend, limits={"retries": 2})

    assert failure is BUSY
    assert attempts(calls) == [(1, "rate_limited"), (2, "rate_limited"), (3, "rate_limited")]


@pytest.mark.parametrize("failure", [REFUSED, CallFailed("empty", "nothing")])
def test_a_failure_that_stays_is_not_tried_again(failure: CallFailed) -> None:
    _, calls = ask_once(Scripted(m=[failure, "Paris."]))

    assert attempts(calls) == [(1, failure.code)]


def test_many_retries_without_a_wait_end_all_the_same() -> None:
    _, calls = ask_once(Scripted(m=BUSY), limits={"retries": 1200})

    assert len(calls) == 1201


def test_the_wait_that_an_endpoint_asks_for_is_kept() -> None:
    patient = CallFailed("rate_limited", "busy", status=429, retryable=True, retry_after_s=0.02)

    started = time.monotonic()
    completion, _ = ask_once(Scripted(m=[patient, "Paris."]))

    assert isinstance(completion, Completion)
    assert time.monotonic() - started >= 0.02


def test_a_wait_past_the_deadline_is_not_begun() -> None:
    patient = CallFailed("rate_limited", "busy", status=429, retryable=True, retry_after_s=1000)

    failure, calls = ask_once(Scripted(m=[patient, "Paris."]))

    assert failure is patient
    assert len(calls) == 1


def test_a_lesson_is_tried_at_once_and_is_no_retry() -> None:
    lesson = CallFailed("bad_request", "no temperature", status=400)
    lesson.adapted = True

    completion, calls = ask_once(Scripted(m=[lesson, "Paris."]), limits={"retries": 0})

    assert isinstance(completion, Completion)
    assert attempts(calls) == [(1, "bad_request"), (2, "ok")]


# Time


def test_a_call_has_its_own_timeout() -> None:
    backend = Scripted(m=HANG())

    failure, [call] = ask_once(backend, limits={"timeout_s": 0.02})

    assert (failure.code, failure.message) == ("timeout", "no answer within 0.02 s (--timeout)")  # type: ignore[union-attr]
    assert (call["status"], call["cost_usd"], call["cost_source"]) == ("timeout", None, None)
    assert backend.cancelled == ["m"]


def test_a_record_has_a_deadline_over_all_its_calls() -> None:
    failure, [call] = ask_once(Scripted(m=HANG()), limits={"deadline_s": 0.02})

    assert (failure.code, failure.message) == ("deadline", "the record's 0.02 s were over (--deadline)")  # type: ignore[union-attr]
    assert call["status"] == "deadline"


def test_a_call_that_was_never_sent_is_not_entered() -> None:
    async def work() -> tuple[list[Call], list[Call], str]:
        backend = Scripted(m=HANG())
        door = open_door(backend, limits={"max_concurrency": 1, "deadline_s": 60})
        late = Ledger("panel", "2", time.monotonic() + 0.02)
        cut = door.ledger("panel", "3")
        first = asyncio.create_task(ask(door))
        await turns()
        waiting = asyncio.create_task(ask(door, sample=1, ledger=cut))
        await turns()
        waiting.cancel()
        [failure] = await asyncio.gather(ask(door, sample=2, ledger=late), return_exceptions=True)
        assert len(backend.requests) == 1
        first.cancel()
        return late.calls, cut.calls, failure.code  # type: ignore[union-attr]

    assert asyncio.run(work()) == ([], [], "deadline")


def test_no_more_calls_are_in_flight_than_allowed() -> None:
    async def work() -> int:
        gate = asyncio.Event()
        backend = Scripted(m=[gate, gate, gate, "Paris."])
        door = open_door(backend, limits={"max_concurrency": 2})
        tasks = [asyncio.create_task(ask(door, sample=i)) for i in range(5)]
        await turns()
        gate.set()
        await asyncio.gather(*tasks)
        return backend.max_in_flight

    assert asyncio.run(work()) == 2


def test_cancelling_whoever_asks_cancels_the_call() -> None:
    async def work() -> tuple[list[str], list[Call]]:
        backend = Scripted(m=HANG())
        door = open_door(backend)
        ledger = door.ledger("panel", "1")
        task = asyncio.create_task(ask(door, ledger=ledger))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return backend.cancelled, ledger.calls

    cancelled, [call] = asyncio.run(work())

    assert cancelled == ["m"]
    assert (call["status"], call["cost_usd"], call["cost_source"]) == ("cancelled", None, None)


# The journal


def test_a_finished_call_is_answered_from_the_journal(tmp_path: Path) -> None:
    first, again = Scripted(m=[BUSY, said("Paris.", "real/m")]), Scripted()
    ask_once(first, journal=Journal(tmp_path / "j.db"))

    completion, [call] = ask_once(again, journal=Journal(tmp_path / "j.db"), replay=True)

    assert again.requests == []
    assert completion == said("Paris.", "real/m")
    assert steady(call) == {
        **ENTRY, "model": "real/m", "usage": USAGE, "cost_usd": 0.0, "cost_source": "free", "saved_usd": 0.001,
        "status": "ok", "replayed": True,
    }  # fmt: skip


def test_without_replay_the_journal_is_written_and_not_read(tmp_path: Path) -> None:
    for backend in (Scripted(m="one"), Scripted(m="two")):
        completion, _ = ask_once(backend, journal=Journal(tmp_path / "j.db"))
        assert len(backend.requests) == 1

    completion, _ = ask_once(Scripted(), journal=Journal(tmp_path / "j.db"), replay=True)
    assert completion.content == "two"  # type: ignore[union-attr]


def test_a_failed_call_is_not_kept(tmp_path: Path) -> None:
    ask_once(Scripted(m=REFUSED), journal=Journal(tmp_path / "j.db"))
    backend = Scripted(m="Paris.")

    completion, _ = ask_once(backend, journal=Journal(tmp_path / "j.db"), replay=True)

    assert completion.content == "Paris."  # type: ignore[union-attr]


@pytest.mark.parametrize("keep", [True, False])
def test_offline_buys_nothing(tmp_path: Path, keep: bool) -> None:
    backend = Scripted()

    failure, calls = ask_once(backend, journal=Journal(tmp_path / "j.db") if keep else None, offline=True)

    assert (failure.code, calls, backend.requests) == ("offline_miss", [], [])  # type: ignore[union-attr]


def test_offline_answers_what_the_journal_holds(tmp_path: Path) -> None:
    ask_once(Scripted(m="Paris."), journal=Journal(tmp_path / "j.db"))

    completion, _ = ask_once(Scripted(), journal=Journal(tmp_path / "j.db"), offline=True)

    assert completion.content == "Paris."  # type: ignore[union-attr]


def test_a_replayed_answer_is_shown_too(tmp_path: Path) -> None:
    ask_once(Scripted(m="Paris."), journal=Journal(tmp_path / "j.db"))
    shown: list[str] = []

    ask_once(Scripted(), journal=Journal(tmp_path / "j.db"), replay=True, on_delta=shown.append)

    assert shown == ["Paris."]


def test_a_fallback_that_answered_is_replayed_for_its_own_request(tmp_path: Path) -> None:
    asked = model(fallbacks=("n",))
    ask_once(Scripted(m=REFUSED, n="Paris."), asked, journal=Journal(tmp_path / "j.db"))
    backend = Scripted(m=REFUSED)

    completion, calls = ask_once(backend, asked, journal=Journal(tmp_path / "j.db"), replay=True)

    assert completion.content == "Paris."  # type: ignore[union-attr]
    assert backend.asked == ["m"]
    assert [call["replayed"] for call in calls] == [False, True]


# Single flight


def test_identical_calls_under_way_are_made_once() -> None:
    async def work() -> tuple[list[str], list[str], list[list[Call]]]:
        gate = asyncio.Event()
        backend = Scripted(m=[gate, "Paris."])
        door = open_door(backend)
        ledgers = [door.ledger("panel", name) for name in "12"]
        shown: list[str] = []
        tasks = [asyncio.create_task(ask(door, ledger=ledger, on_delta=shown.append)) for ledger in ledgers]
        await turns()
        gate.set()
        answers = [completion.content for completion in await asyncio.gather(*tasks)]
        assert shown == ["Paris."] * 2
        return backend.asked, answers, [ledger.calls for ledger in ledgers]

    asked, answers, ([bought], [joined]) = asyncio.run(work())

    assert (asked, answers) == (["m"], ["Paris.", "Paris."])
    assert (bought["cost_usd"], bought["replayed"]) == (0.001, False)
    assert (joined["cost_usd"], joined["replayed"], joined["saved_usd"]) == (0.0, True, None)


@pytest.mark.parametrize("other", [{"sample": 1}, {"params": {"seed": 1}}, {"asked": model("n")}])
def test_calls_that_differ_are_made_each(other: dict[str, Any]) -> None:
    async def work() -> int:
        backend = Scripted()
        door = open_door(backend)
        await asyncio.gather(ask(door), ask(door, **other))
        return len(backend.requests)

    assert asyncio.run(work()) == 2


def test_a_failure_of_the_endpoint_is_everybodys() -> None:
    async def work() -> tuple[int, list[Any]]:
        gate = asyncio.Event()
        backend = Scripted(m=[gate, REFUSED])
        door = open_door(backend)
        tasks = [asyncio.create_task(ask(door)) for _ in range(2)]
        await turns()
        gate.set()
        return len(backend.requests), await asyncio.gather(*tasks, return_exceptions=True)

    assert asyncio.run(work()) == (1, [REFUSED, REFUSED])


def test_when_the_first_is_cancelled_the_next_one_buys() -> None:
    async def work() -> tuple[list[str], str]:
        backend = Scripted(m=[HANG(), "Paris."])
        door = open_door(backend)
        first, second = (asyncio.create_task(ask(door)) for _ in range(2))
        await turns()
        backend.script("m", "Paris.")
        first.cancel()
        return backend.cancelled, (await second).content

    cancelled, answer = asyncio.run(work())

    assert (cancelled, answer) == (["m"], "Paris.")


def test_when_all_are_cancelled_at_once_nobody_buys() -> None:
    async def work() -> tuple[int, list[bool]]:
        backend = Scripted(m=[HANG(), "Paris."])
        door = open_door(backend)
        tasks = [asyncio.create_task(ask(door)) for _ in range(3)]
        await turns()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return len(backend.requests), [task.cancelled() for task in tasks]

    assert asyncio.run(work()) == (1, [True, True, True])


def test_when_the_firsts_own_time_is_over_the_next_one_buys() -> None:
    async def work() -> list[str]:
        backend = Scripted(m=[HANG(), "Paris."])
        door = open_door(backend)
        hasty = Ledger("panel", "1", time.monotonic() + 0.02)
        first = asyncio.create_task(ask(door, ledger=hasty))
        second = asyncio.create_task(ask(door))
        await turns()
        backend.script("m", "Paris.")
        results = await asyncio.gather(first, second, return_exceptions=True)
        return [getattr(result, "code", None) or result.content for result in results]  # type: ignore[union-attr]

    assert asyncio.run(work()) == ["deadline", "Paris."]


# Fallbacks


def test_fallbacks_are_asked_in_order_until_one_answers() -> None:
    backend = Scripted(m=REFUSED, n=REFUSED, o="Paris.")

    completion, calls = ask_once(backend, model(fallbacks=("n", "o", "p")))

    assert completion.content == "Paris."  # type: ignore[union-attr]
    assert backend.asked == ["m", "n", "o"]
    assert [(call["member"], call["model"]) for call in calls] == [("m", "m"), ("m", "n"), ("m", "o")]


def test_where_all_fail_the_first_failure_is_told() -> None:
    failure, _ = ask_once(Scripted(m=REFUSED, n=CallFailed("auth", "bad key")), model(fallbacks=("n",)))

    assert failure is REFUSED


def test_a_fallback_is_not_charged_at_the_first_models_price() -> None:
    asked = model(price_usd_per_mtok=DEAR.price_usd_per_mtok, fallbacks=("gpt-4o-mini", "n"))
    openai = Endpoint("there", "https://api.openai.com/v1")

    _, listed = ask_once(Scripted(**{"m": REFUSED, "gpt-4o-mini": UNPRICED}), asked, endpoint=openai)
    _, unlisted = ask_once(Scripted(m=REFUSED, n=UNPRICED, **{"gpt-4o-mini": REFUSED}), asked, endpoint=openai)

    assert (listed[-1]["cost_usd"], listed[-1]["cost_source"]) == (pytest.approx(3.45e-6), "table")
    assert (unlisted[-1]["cost_usd"], unlisted[-1]["cost_source"]) == (None, None)


def test_once_text_was_shown_nobody_else_is_asked() -> None:
    shown: list[str] = []

    class Halting(Scripted):
        async def complete(self, request: CompletionRequest, on_delta: Any = None) -> Completion:
            on_delta("Par")
            raise CallFailed("connection", "closed", retryable=False)

    failure, _ = ask_once(Halting(), model(fallbacks=("n",)), on_delta=shown.append)

    assert isinstance(failure, CallFailed)
    assert shown == ["Par"]


# Money


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
        door = open_door(Scripted(m=UNPRICED), limits={"max_cost_usd": PAID_USD + BOUND_USD})
        committed = []
        for sample in range(2):
            await ask(door, DEAR, params=FOUR, sample=sample)
            committed.append(door.budget.committed_usd)
        [failure] = await asyncio.gather(ask(door, DEAR, params=FOUR, sample=2), return_exceptions=True)
        return committed, failure.code, door.budget.stopped  # type: ignore[union-attr]

    assert asyncio.run(work()) == ([PAID_USD, 2 * PAID_USD], "budget", True)


def test_calls_at_once_reserve_at_once() -> None:
    async def work() -> list[str]:
        door = open_door(Scripted(m=UNPRICED), limits={"max_cost_usd": 2 * BOUND_USD})
        calls = [ask(door, DEAR, params=FOUR, sample=sample) for sample in range(3)]
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
        door = open_door(Scripted(m=step), limits={"max_cost_usd": 100, "retries": 0})
        await asyncio.gather(ask(door, DEAR, params=FOUR), return_exceptions=True)
        return door.budget.committed_usd

    assert asyncio.run(work()) == committed


def test_a_cancelled_call_keeps_its_reservation() -> None:
    async def work() -> float:
        door = open_door(Scripted(m=HANG()), limits={"max_cost_usd": 100})
        task = asyncio.create_task(ask(door, DEAR, params=FOUR))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return door.budget.committed_usd

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
        door = open_door(Scripted(m=UNPRICED), limits={"max_record_cost_usd": PAID_USD + 1})
        one, other = door.ledger("panel", "1"), door.ledger("panel", "2")
        codes = []
        for sample, ledger in enumerate((one, one, other)):
            [result] = await asyncio.gather(ask(door, DEAR, params=FOUR, sample=sample, ledger=ledger), return_exceptions=True)  # fmt: skip  # noqa: E501
            codes.append(getattr(result, "code", "ok"))
        return codes, door.budget.stopped

    assert asyncio.run(work()) == (["ok", "record_budget", "ok"], False)


# What a person is told


def test_every_settled_call_is_told_with_its_label_and_cost(tmp_path: Path) -> None:
    told: list[Event] = []

    async def work(backend: Scripted, label: str | None = None, **settings: Any) -> None:
        door = open_door(backend, journal=Journal(tmp_path / "j.db"), notify=told.append, **settings)
        request = door.request(M, MESSAGES, {}, 2)
        await asyncio.gather(
            door.complete(request, M, door.ledger("panel", "1"), Slot("m", 2, 1, label)), return_exceptions=True
        )
        await door.aclose()

    asyncio.run(work(Scripted(m=REFUSED), "m#2"))
    asyncio.run(work(Scripted(m=SILENT)))
    asyncio.run(work(Scripted(m=[BUSY, "Paris."])))
    asyncio.run(work(Scripted(), replay=True))

    labels = [(e.stage, e.record_id, e.label) for e in told if not e.began]
    assert labels == [("panel", "1", "m#2"), *[("panel", "1", "m")] * 3]
    assert [(e.stage, e.record_id, e.label) for e in told if e.began] == labels
    assert [(e.cost_usd, e.replayed, e.failure) for e in told if not e.began] == [
        (None, False, REFUSED),
        (None, False, None),
        (0.001, False, None),
        (0.0, True, None),
    ]


# What is wrong before anything is sent


def test_an_endpoint_without_its_key_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THEIR_KEY", raising=False)
    keyed = Endpoint("there", "https://there.example/v1", "THEIR_KEY")

    with pytest.raises(CallFailed, match="endpoint there needs a key: export THEIR_KEY="):
        asyncio.run(ask(Client({"there": keyed})))


def test_an_endpoint_that_nobody_defined_is_named() -> None:
    with pytest.raises(CallFailed, match="the endpoint 'there' is not known here"):
        asyncio.run(ask(Client({})))


def test_one_address_stands_in_for_an_endpoint_that_nobody_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_BASE_URL", "http://127.0.0.1:9/v1")

    with pytest.raises(CallFailed, match=r"cannot reach http://127\.0\.0\.1:9/v1"):
        asyncio.run(ask(Client({}, LimitOptions(retries=0))))


def test_calls_to_the_embedded_engine_wait_for_their_turn_outside_their_timeout() -> None:
    class OneAtATime:
        under_way = most = 0

        async def complete(self, request: CompletionRequest, on_delta: Any = None) -> Completion:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await asyncio.sleep(0)
            self.under_way -= 1
            return said("x")

        async def aclose(self) -> None: ...

    backend = OneAtATime()

    async def three() -> None:
        door = Client({"there": Endpoint("there")}, backends={"there": backend})
        requests = [door.request(M, MESSAGES, {}, sample) for sample in range(3)]
        await asyncio.gather(*(door.complete(request, M, door.ledger("panel", "1")) for request in requests))

    asyncio.run(three())

    assert backend.most == 1


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://h/v1", "http://", "http://[::1", "http://h:70000/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no"):
        HttpBackend(Endpoint("there", url))


# Quirks: what one refusal teaches


def refusal(message: str, param: str | None = None, status: int = 400) -> CallFailed:
    return CallFailed("bad_request", f"HTTP {status}: {message}", status=status, param=param)


def request_with(**params: Any) -> CompletionRequest:
    return CompletionRequest("there", "m", MESSAGES, params)


def taught(
    request: CompletionRequest, *failures: CallFailed, stream: bool = False
) -> tuple[dict[str, Any], list[bool]]:
    """Return the body after these refusals, each of what was sent before it, and which of them taught something."""
    quirks = Quirks()
    learned = [quirks.learn(failure, request, quirks.body(request, stream=stream)) for failure in failures]
    return quirks.body(request, stream=stream), learned


SCHEMA = {"type": "json_schema", "json_schema": {"name": "analysis", "schema": {}}}


def test_nothing_is_known_beforehand() -> None:
    request = request_with(max_tokens=5, response_format=SCHEMA, temperature=0)

    assert Quirks().body(request, stream=False) == {
        "model": "m", "messages": MESSAGES, "max_tokens": 5, "response_format": SCHEMA, "temperature": 0,
    }  # fmt: skip
    assert Quirks().body(request_with(), stream=True) == {
        "model": "m", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_a_format_goes_down_a_ladder() -> None:
    request = request_with(response_format=SCHEMA)
    no = refusal("'response_format' is not supported")

    assert taught(request, no) == (
        {"model": "m", "messages": MESSAGES, "response_format": {"type": "json_object"}},
        [True],
    )
    assert taught(request, no, no) == ({"model": "m", "messages": MESSAGES}, [True, True])
    assert taught(request, no, no, no)[1] == [True, True, False]


def test_a_plain_format_that_is_refused_is_left_out() -> None:
    request = request_with(response_format={"type": "json_object"})

    assert "response_format" not in taught(request, refusal("json_object is not supported"))[0]


def test_max_tokens_is_renamed_where_that_is_asked_for() -> None:
    no = refusal("'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "max_tokens")

    body, learned = taught(request_with(max_tokens=5), no)

    assert (body["max_completion_tokens"], "max_tokens" in body, learned) == (5, False, [True])


def test_an_endpoint_that_always_names_both_spellings_is_not_asked_forever() -> None:
    no = refusal("'max_tokens' or 'max_completion_tokens' must be at most 4096")

    assert taught(request_with(max_tokens=5), no, no, no)[1] == [True, False, False]


def test_a_prompt_too_long_teaches_nothing() -> None:
    too_long = CallFailed(
        "context_length", "'max_tokens' or 'max_completion_tokens' is too large: context length", status=400
    )

    assert taught(request_with(max_tokens=5), too_long)[1] == [False]


def test_a_developer_becomes_a_system_and_is_joined_with_the_one_before() -> None:
    messages: Any = [
        {"role": "system", "content": "one"}, {"role": "developer", "content": "two"}, {"role": "user", "content": "x"},
    ]  # fmt: skip
    request = CompletionRequest("there", "m", messages, {})

    body, learned = taught(request, refusal("Invalid role 'developer'"))

    assert body["messages"] == [{"role": "system", "content": "one\n\ntwo"}, {"role": "user", "content": "x"}]
    assert learned == [True]


#: What Claude Code sends: a system message after the first word of the user; and what a strict server takes.
SYSTEM_TWICE: Any = [
    {"role": "system", "content": "one"}, {"role": "user", "content": "x"}, {"role": "system", "content": "two"},
    {"role": "user", "content": "y"}, {"role": "developer", "content": "three"},
]  # fmt: skip
SYSTEM_FIRST: Any = [
    {"role": "system", "content": "one\n\ntwo\n\nthree"}, {"role": "user", "content": "x"},
    {"role": "user", "content": "y"},
]  # fmt: skip
#: As llama.cpp says it.
TEMPLATE_FAILED = """
------------
While executing CallExpression at line 85, column 32 in source:
...first %}↵            {{- raise_exception('System message must be at the beginnin...
                                           ^
Error: Jinja Exception: System message must be at the beginning."""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("System message must be at the beginning.", 400),
        ("system message must be at the beginning", 500),
        (TEMPLATE_FAILED, 500),
        ("A 'system' message can only appear at index 0 of the messages array.", 400),
        ("Unexpected role 'system' after role 'user'", 400),
        ("Invalid request: Incorrect role system.", 422),
        ("Only one system-role message can exist, and it can only be in the first message!", 500),
        ("Only one system message can be specified.", 400),
    ],
)
def test_where_only_the_first_message_may_be_a_system_message_all_of_them_are_joined_there(
    words: str, status: int
) -> None:
    request = CompletionRequest("there", "m", SYSTEM_TWICE, {"temperature": 1})

    body, learned = taught(request, refusal(words, status=status))

    assert body == {"model": "m", "messages": SYSTEM_FIRST, "temperature": 1}
    assert learned == [True]


def test_two_system_messages_at_the_beginning_are_one_too_many_as_well() -> None:
    messages: Any = [{"role": "system", "content": "one"}, {"role": "system", "content": "two"}, *MESSAGES]
    no = refusal("System message must be at the beginning.")

    body, _ = taught(CompletionRequest("there", "m", messages, {}), no)

    assert body["messages"] == [{"role": "system", "content": "one\n\ntwo"}, *MESSAGES]


def test_an_endpoint_that_refuses_its_first_message_too_is_believed() -> None:
    no = refusal("System message must be at the beginning.")

    assert taught(CompletionRequest("there", "m", SYSTEM_TWICE, {}), no, no)[1] == [True, False]
    assert taught(request_with(), no)[1] == [False]


@pytest.mark.parametrize(
    "words",
    [
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "After the (optional) system message(s), user and assistant roles should be alternating.",
    ],
)
def test_where_roles_must_alternate_the_users_messages_are_joined_as_well(words: str) -> None:
    body, learned = taught(CompletionRequest("there", "m", SYSTEM_TWICE, {}), refusal(words))

    assert body["messages"] == [SYSTEM_FIRST[0], {"role": "user", "content": "x\n\ny"}]
    assert learned == [True]


def test_a_joined_message_keeps_its_pictures() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages: Any = [{"role": "user", "content": "x"}, {"role": "user", "content": [picture]}]

    body, _ = taught(CompletionRequest("there", "m", messages, {}), refusal("Conversation roles must alternate"))

    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "x"}, picture]}]


def test_only_the_user_is_joined_where_roles_must_alternate() -> None:
    called: Any = [
        {"role": "user", "content": "x"}, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "tool", "tool_call_id": "1", "content": "c"}, {"role": "tool", "tool_call_id": "2", "content": "d"},
    ]  # fmt: skip

    assert taught(CompletionRequest("there", "m", called, {}), refusal("roles must alternate")) == (
        {"model": "m", "messages": called},
        [False],
    )


def test_a_role_that_a_template_does_not_know_is_the_developer() -> None:
    messages: Any = [{"role": "developer", "content": "one"}, *MESSAGES]
    request = CompletionRequest("there", "m", messages, {})

    body, learned = taught(request, refusal("Unexpected message role.", status=500))

    assert (body["messages"][0], learned) == ({"role": "system", "content": "one"}, [True])


ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])


@given(roles=st.lists(ROLES, min_size=1, max_size=8))
def test_no_word_is_lost_by_a_change_of_order(roles: list[str]) -> None:
    messages: Any = [{"role": role, "content": f"<{n}>"} for n, role in enumerate(roles)]

    body, _ = taught(CompletionRequest("there", "m", messages, {}), refusal("roles must alternate"))

    sent = [(m["role"], m["content"]) for m in body["messages"]]
    assert sorted("".join(text for _, text in sent).replace("\n", "")) == sorted(
        "".join(m["content"] for m in messages)
    )
    assert [n for n, (role, _) in enumerate(sent) if role in ("system", "developer")] in ([], [0])
    assert ("user", "user") not in pairwise(role for role, _ in sent)


@pytest.mark.parametrize("name", ["temperature", "top_p", "seed", "reasoning_effort", "parallel_tool_calls", "stop"])
def test_a_parameter_that_may_go_is_left_out(name: str) -> None:
    body, learned = taught(request_with(**{name: 1}), refusal(f"unsupported: '{name}'"))

    assert (name in body, learned) == (False, [True])


def test_a_refused_parameter_may_also_be_named_beside_the_message() -> None:
    assert taught(request_with(temperature=1), refusal("no", "temperature"))[1] == [True]


def test_stream_options_may_go() -> None:
    body, learned = taught(request_with(), refusal("stream_options is unknown"), stream=True)

    assert ("stream_options" in body, body["stream"], learned) == (False, True, [True])


@pytest.mark.parametrize("failure", [refusal("no temperature", status=429), refusal("no temperature", status=500)])
def test_what_is_no_refusal_teaches_nothing(failure: CallFailed) -> None:
    assert taught(request_with(temperature=1), failure)[1] == [False]


@pytest.mark.parametrize("needed", [{"tools": []}, {"messages": 1}, {}])
def test_what_the_question_needs_is_never_left_out(needed: dict[str, Any]) -> None:
    assert taught(request_with(**needed), refusal("tools and messages are not supported"))[1] == [False]


def test_a_lesson_that_another_call_has_learned_in_the_meantime_is_used_all_the_same() -> None:
    quirks, request = Quirks(), request_with(temperature=1, response_format=SCHEMA)
    sent = quirks.body(request, stream=False)

    first, second = (quirks.learn(refusal("no response_format"), request, sent) for _ in range(2))

    assert (first, second) == (True, True)
    assert quirks.body(request, stream=False)["response_format"] == {"type": "json_object"}


# Over HTTP


def http_door(handler: Any, endpoint: Endpoint = ENDPOINT, **limits: Any) -> Client:
    backend = HttpBackend(endpoint, httpx.MockTransport(handler))
    return Client(
        {endpoint.name: endpoint}, LimitOptions(**{"backoff_s": 0, **limits}), backends={endpoint.name: backend}
    )


def over_http(handler: Any, asked: Model = M, endpoint: Endpoint = ENDPOINT, **more: Any) -> Any:
    """Return what comes of one call over this transport, and what is entered."""
    limits = {name: more.pop(name) for name in ("retries", "timeout_s") if name in more}

    async def work() -> Any:
        door = http_door(handler, endpoint, **limits)
        ledger = door.ledger("panel", "1")
        [result] = await asyncio.gather(ask(door, asked, ledger=ledger, **more), return_exceptions=True)
        if not isinstance(result, Completion | CallFailed):
            raise result
        return result, ledger.calls

    return asyncio.run(work())


def ok(text: str = "Paris.") -> httpx.Response:
    return httpx.Response(200, json={"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})


def test_what_is_sent_is_the_request_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "hunter2-hunter2")
    sent: list[httpx.Request] = []

    over_http(
        lambda request: sent.append(request) or ok(),
        endpoint=Endpoint("there", "https://there.example/v1", "THEIR_KEY", headers={"x-title": "t"}),
        params={"temperature": 0.5},
    )

    [request] = sent
    assert (request.method, str(request.url)) == ("POST", "https://there.example/v1/chat/completions")
    assert json.loads(request.content) == {"model": "m", "messages": MESSAGES, "temperature": 0.5}
    assert set(request.headers) == {
        "host", "content-type", "accept", "user-agent", "x-title", "content-length", "authorization",
    }  # fmt: skip
    assert request.headers["authorization"] == "Bearer hunter2-hunter2"
    assert request.headers["host"] == "there.example"


def test_a_server_without_a_key_is_sent_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "hunter2-hunter2")
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2-hunter2")
    monkeypatch.setenv("FUSION_BASE_URL", "https://elsewhere.example/v1")
    monkeypatch.delenv("FUSION_API_KEY", raising=False)
    sent: list[httpx.Request] = []

    for name, endpoint in environment_endpoints({ENDPOINT.name: ENDPOINT}).items():
        over_http(lambda request: sent.append(request) or ok(), M, endpoint)
        assert name == "there"

    assert ["authorization" in request.headers for request in sent] == [False]
    assert sent[0].url.host == "elsewhere.example"


def test_an_endpoint_that_repeats_our_key_is_not_quoted_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "hunter2-hunter2")
    keyed = Endpoint("there", "https://there.example/v1", "THEIR_KEY")

    for status in (200, 401):
        failure, _ = over_http(
            lambda _, status=status: httpx.Response(
                status, json={"error": {"message": "bad: hunter2-hunter2", "code": 401}}
            ),
            endpoint=keyed,
        )
        assert failure.message == "HTTP 401: bad: ***"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (httpx.ConnectError("refused"), "connect"),
        (httpx.ConnectTimeout("late"), "connect"),
        (httpx.ProxyError("no"), "connect"),
        (httpx.ReadError("reset"), "connection"),
        (httpx.RemoteProtocolError("half"), "connection"),
        (httpx.DecodingError("not gzip"), "connection"),
    ],
)
def test_a_dead_line_is_a_failure_that_is_tried_again(error: Exception, code: str) -> None:
    def dead(_: httpx.Request) -> httpx.Response:
        raise error

    failure, calls = over_http(dead, retries=1)

    assert failure.code == code
    assert "https://there.example/v1" in failure.message
    assert attempts(calls) == [(1, code), (2, code)]


def test_a_compressed_answer_is_read_and_a_broken_one_fails_by_name() -> None:
    body = gzip.compress(ok().content)

    whole, _ = over_http(lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Pieces(body)))
    broken, _ = over_http(
        lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Pieces(b"x" + body)), retries=0
    )

    assert whole.content == "Paris."
    assert broken.code == "connection"


def test_a_move_is_not_followed() -> None:
    failure, calls = over_http(lambda _: httpx.Response(307, headers={"location": "https://elsewhere.example/"}))

    assert failure.message == "HTTP 307: moved to https://elsewhere.example/: an empty body"
    assert len(calls) == 1


class Pieces(httpx.AsyncByteStream):
    """A body that comes in pieces, and may break off."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.error:
            raise self.error


def event_stream(*pieces: bytes, error: Exception | None = None) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Pieces(*pieces, error=error))


PARIS = b'data: {"choices": [{"delta": {"content": "Paris."}}]}\n\n'
STOP = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'


def test_a_streamed_answer_is_shown_as_it_comes_and_a_plain_one_at_the_end() -> None:
    shown: list[str] = []

    streamed, [call] = over_http(lambda _: event_stream(PARIS, STOP), on_delta=shown.append)
    over_http(lambda _: ok("Rome."), on_delta=shown.append)

    assert shown == ["Paris.", "Rome."]
    assert streamed.content == "Paris."
    assert call["ttft_s"] is not None


def test_a_stream_that_breaks_is_tried_again_until_text_was_shown() -> None:
    broken = httpx.RemoteProtocolError("half")
    shown: list[str] = []

    _, before = over_http(lambda _: event_stream(error=broken), on_delta=shown.append, retries=1)
    _, after = over_http(lambda _: event_stream(PARIS, error=broken), on_delta=shown.append, retries=1)

    assert attempts(before) == [(1, "connection"), (2, "connection")]
    assert attempts(after) == [(1, "connection")]
    assert shown == ["Paris."]


# Against the stand-in: the same lessons from a server that really refuses


FORMAT = {"response_format": SCHEMA}


def real(upstream: Upstream, *names: str, limits: Any = None, **more: Any) -> tuple[list[Any], list[list[Call]]]:
    """Ask these models at once over real connections."""
    there = Endpoint("there", upstream.url)

    async def work() -> tuple[list[Any], list[list[Call]]]:
        door = Client({"there": there}, LimitOptions(**{"backoff_s": 0, **(limits or {})}))
        ledgers = [door.ledger("panel", str(i)) for i in range(len(names))]
        calls = [ask(door, model(name), ledger=ledger, sample=i, **more) for i, (name, ledger) in enumerate(zip(names, ledgers, strict=True))]  # fmt: skip  # noqa: E501
        results = await asyncio.gather(*calls, return_exceptions=True)
        await door.aclose()
        return results, [ledger.calls for ledger in ledgers]

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("name", "params", "attempts_made", "left_out"),
    [
        ("fake/a+notemp", {"temperature": 0.5}, 2, "temperature"),
        ("fake/a+maxcompletion", {"max_tokens": 99}, 2, "max_tokens"),
        ("fake/judge+noschema", FORMAT, 2, None),
        ("fake/judge+noformat", FORMAT, 3, "response_format"),
    ],
)
def test_a_server_is_given_what_it_understands(
    upstream: Upstream, name: str, params: Any, attempts_made: int, left_out: str | None
) -> None:
    [completion], [calls] = real(upstream, name, params=params, limits={"retries": 0})

    assert completion.content
    assert attempts(calls) == [(i, "bad_request") for i in range(1, attempts_made)] + [(attempts_made, "ok")]
    assert left_out not in upstream.bodies(name)[-1]


@pytest.mark.parametrize(("status", "code"), [(400, "bad_request"), (500, "upstream")])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_with_a_strict_template_is_given_one_system_message_from_then_on(
    upstream: Upstream, streamed: bool, status: int, code: str
) -> None:
    name = f"fake/a+systemfirst={status}"
    there = Endpoint("there", upstream.url)

    async def work() -> list[Call]:
        door = Client({"there": there}, LimitOptions(retries=0))
        ledger = door.ledger("panel", "1")
        for sample in range(2):
            request = door.request(model(name), SYSTEM_TWICE, {}, sample)
            await door.complete(request, model(name), ledger, SLOT, str if streamed else None)
        await door.aclose()
        return ledger.calls

    calls = asyncio.run(work())

    assert [call["status"] for call in calls] == [code, "ok", "ok"]
    assert [body["messages"] for body in upstream.bodies(name)][-2:] == [SYSTEM_FIRST] * 2


def test_a_server_without_usage_in_streams_still_streams(upstream: Upstream) -> None:
    shown: list[str] = []

    [completion], [calls] = real(upstream, "fake/a+nousageopt", on_delta=shown.append)

    assert "".join(shown) == completion.content
    assert (calls[-1]["usage"], calls[-1]["cost_usd"]) == (None, None)


@pytest.mark.parametrize("name", ["fake/a+notemp", "fake/judge+noformat", "fake/a+maxcompletion"])
def test_samples_that_are_refused_at_once_all_come_through(upstream: Upstream, name: str) -> None:
    params = {"temperature": 0.5, "max_tokens": 99, **FORMAT}

    results, ledgers = real(upstream, name, name, name, params=params, limits={"retries": 0})

    assert all(isinstance(result, Completion) for result in results)
    assert {calls[-1]["status"] for calls in ledgers} == {"ok"}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("fake/a+status=401", "auth"),
        ("fake/a+status=429", "rate_limited"),
        ("fake/a+status=500", "upstream"),
        ("fake/a+html", "bad_response"),
        ("fake/a+html502", "upstream"),
        ("fake/a+garbage", "bad_response"),
        ("fake/a+err200", "upstream"),
        ("fake/a+empty", "empty"),
        ("fake/a+nochoices", "empty"),
        ("fake/a+nullcontent", "empty"),
        ("fake/a+refuse", "refused"),
        ("fake/a+length", "truncated"),
        ("fake/a+filter", "refused"),
        ("fake/a+closeearly", "connection"),
        ("fake/a+closehalf", "connection"),
        ("fake/a+midfail", "upstream"),
        ("fake/a+typo", "not_found"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_fails_is_a_failure_by_name(upstream: Upstream, name: str, code: str, streamed: bool) -> None:
    [failure], [[call]] = real(upstream, name, limits={"retries": 0}, **({"on_delta": [].append} if streamed else {}))

    assert (failure.code, call["status"]) == (code, code)


@pytest.mark.parametrize("name", ["fake/a+comments", "fake/a+nodone", "fake/a+nostream", "fake/a+think+reasoning"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_only_looks_odd_is_understood(upstream: Upstream, name: str, streamed: bool) -> None:
    shown: list[str] = []

    [completion], _ = real(upstream, name, **({"on_delta": shown.append} if streamed else {}))

    assert completion.content.startswith("fake/a says ")
    assert "".join(shown) == (completion.content if streamed else "")


def test_a_server_that_drips_is_cut(upstream: Upstream) -> None:
    [failure], _ = real(upstream, "fake/a+drip=0.02", limits={"timeout_s": 0.1})

    assert failure.code == "timeout"


def test_a_server_that_asks_for_a_wait_is_asked_again(upstream: Upstream) -> None:
    [completion], [calls] = real(upstream, "fake/a+retryafter=0.01")

    assert isinstance(completion, Completion)
    assert attempts(calls) == [(1, "rate_limited"), (2, "ok")]


def test_a_dead_server_is_named() -> None:
    failure = real(Upstream("http://127.0.0.1:9/v1"), "m", limits={"retries": 0})[0][0]

    assert failure.code == "connect"
    assert failure.message.startswith("cannot reach http://127.0.0.1:9/v1: ")


def test_a_cancelled_call_leaves_the_server_too(upstream: Upstream) -> None:
    async def work() -> None:
        door = Client({"there": Endpoint("there", upstream.url)})
        task = asyncio.create_task(ask(door, model("fake/a+hang")))
        while not (await asyncio.to_thread(upstream.stats))["in_flight"]:
            pass
        task.cancel()
        await asyncio.wait([task])
        while not (await asyncio.to_thread(upstream.stats))["aborted"]:
            pass
        await door.aclose()

    asyncio.run(asyncio.wait_for(work(), 10))

    assert upstream.stats()["in_flight"] == 0


def test_many_calls_at_once_all_come_through(upstream: Upstream) -> None:
    results, _ = real(upstream, *["fake/a"] * 40)

    assert all(isinstance(result, Completion) for result in results)
    assert upstream.stats()["requests"] == 40
