"""When a call is tried again, how long it may take, and what a failed attempt costs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest
from calling import (
    BUSY,
    REFUSED,
    ask,
    ask_once,
    attempts,
    real,
    turns,
)
from scripted import HANG, USAGE, Scripted, open_door
from workdir import Upstream

from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion, CompletionRequest, OnDelta
from fusiontools.llm.ledger import Ledger
from fusiontools.llm.quirks import MOST_LESSONS
from fusiontools.llm.retry import Slots, TimeLimits
from fusiontools.record.types import Call


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


def test_lessons_come_to_an_end_with_an_endpoint_that_has_ever_new_ones() -> None:
    lesson = CallFailed("bad_request", "no", status=400)
    lesson.adapted = True

    failure, calls = ask_once(Scripted(m=lesson), limits={"retries": 0})

    assert failure is lesson
    assert len(calls) == MOST_LESSONS + 1


@pytest.mark.parametrize(
    "wait", ["9" * 400, "Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 2024 00:00:00 -9999999999"]
)
def test_a_wait_that_nobody_can_mean_is_a_retry_like_any_other(upstream: Upstream, wait: str) -> None:
    [completion], [calls] = real(upstream, f"fake/a+retryafter={wait}", limits={"retries": 1, "backoff_s": 0})

    assert isinstance(completion, Completion)
    assert attempts(calls) == [(1, "rate_limited"), (2, "ok")]


def test_a_call_has_its_own_timeout() -> None:
    backend = Scripted(m=HANG())

    failure, [call] = ask_once(backend, limits={"timeout_s": 0.02, "retries": 0})

    assert (failure.code, failure.message) == ("timeout", "no answer within 0.02 s (--timeout)")  # type: ignore[union-attr]
    assert (call["status"], call["cost_usd"], call["cost_source"]) == ("timeout", None, None)
    assert backend.cancelled == ["m"]


async def held(limits: TimeLimits, seconds: float) -> str:
    """Wait for ever under a limit; returns why that ended."""
    try:
        with limits.within(seconds):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        return "late"
    except asyncio.CancelledError:
        return "cancelled"


def test_each_call_has_its_own_time_whichever_began_first() -> None:
    async def work() -> list[str]:
        limits, ended = TimeLimits(), list[str]()

        async def one(name: str, seconds: float) -> None:
            ended.append(f"{name} {await held(limits, seconds)}")

        long = asyncio.create_task(one("long", 60))
        await asyncio.gather(one("third", 0.03), one("first", 0.01), one("second", 0.02), one("none", -1))
        long.cancel()
        await long
        return ended

    ended = asyncio.run(asyncio.wait_for(work(), 30))

    assert ended[-1] == "long cancelled"
    assert sorted(ended[:-1]) == ["first late", "none late", "second late", "third late"]


def test_who_is_cancelled_when_his_time_is_over_is_cancelled() -> None:
    async def work() -> str:
        limits = TimeLimits()
        task = asyncio.create_task(held(limits, 0.0))
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(asyncio.wait_for(work(), 30)) == "cancelled"


def test_a_limit_holds_in_a_loop_that_comes_later() -> None:
    limits = TimeLimits()

    async def given_up() -> None:
        asyncio.create_task(held(limits, 60))  # noqa: RUF006 - it ends with its loop
        await asyncio.sleep(0)

    asyncio.run(given_up())

    assert asyncio.run(asyncio.wait_for(held(limits, 0.01), 30)) == "late"


def test_what_a_closed_loop_left_behind_keeps_no_limit_from_its_end() -> None:
    limits, first = TimeLimits(), asyncio.new_event_loop()
    given_up = held(limits, 0.0)
    task = first.create_task(given_up)
    first.call_soon(first.stop)
    first.run_forever()
    first.close()

    assert asyncio.run(asyncio.wait_for(held(limits, 0.01), 30)) == "late"

    with contextlib.suppress(RuntimeError):
        given_up.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it was left on purpose


def test_a_call_that_took_too_long_is_made_again() -> None:
    completion, calls = ask_once(Scripted(m=[HANG(), "Paris."]), limits={"timeout_s": 0.02})

    assert isinstance(completion, Completion)
    assert attempts(calls) == [(1, "timeout"), (2, "ok")]


def test_a_call_that_took_too_long_after_words_that_were_seen_is_not_made_again() -> None:
    async def say_and_hang(request: CompletionRequest, on_delta: OnDelta | None = None) -> Completion:
        assert on_delta is not None
        on_delta("Par")
        await asyncio.Event().wait()
        raise AssertionError

    backend = Scripted()
    backend.complete = say_and_hang  # type: ignore[method-assign]
    shown: list[Any] = []

    _, calls = ask_once(backend, limits={"timeout_s": 0.02}, on_delta=shown.append)

    assert (attempts(calls), shown) == ([(1, "timeout")], ["Par"])


def test_a_record_has_a_deadline_over_all_its_calls() -> None:
    failure, [call] = ask_once(Scripted(m=HANG()), limits={"deadline_s": 0.02})

    assert (failure.code, failure.message) == ("deadline", "the record's 0.02 s were over (--deadline)")  # type: ignore[union-attr]
    assert call["status"] == "deadline"


def test_a_call_that_was_never_sent_is_not_entered() -> None:
    async def work() -> tuple[list[Call], list[Call], str]:
        backend = Scripted(m=HANG())
        client = open_door(backend, limits={"max_concurrency": 1, "deadline_s": 60})
        late = Ledger("panel", "2", time.monotonic() + 0.02)
        cut = client.ledger("panel", "3")
        first = asyncio.create_task(ask(client))
        await turns()
        waiting = asyncio.create_task(ask(client, sample=1, ledger=cut))
        await turns()
        waiting.cancel()
        [failure] = await asyncio.gather(ask(client, sample=2, ledger=late), return_exceptions=True)
        assert len(backend.requests) == 1
        first.cancel()
        return late.calls, cut.calls, failure.code  # type: ignore[union-attr]

    assert asyncio.run(work()) == ([], [], "deadline")


def test_no_more_calls_are_in_flight_than_allowed() -> None:
    async def work() -> int:
        gate = asyncio.Event()
        backend = Scripted(m=[gate, gate, gate, "Paris."])
        client = open_door(backend, limits={"max_concurrency": 2})
        tasks = [asyncio.create_task(ask(client, sample=i)) for i in range(5)]
        await turns()
        gate.set()
        await asyncio.gather(*tasks)
        return backend.max_in_flight

    assert asyncio.run(work()) == 2


def test_slots_go_in_turn_and_none_is_lost_by_who_gives_up() -> None:
    async def work() -> tuple[list[int], bool, bool]:
        slots, taken = Slots(2), list[int]()

        async def one(number: int) -> None:
            async with slots:
                taken.append(number)

        await slots.take()
        assert slots.take_free()
        tasks = [asyncio.create_task(one(number)) for number in range(5)]
        await asyncio.sleep(0)
        busy = slots.take_free()
        tasks[1].cancel()
        slots.give_back()
        tasks[0].cancel()  # which has just been given it
        await asyncio.wait(tasks)
        slots.give_back()
        return taken, busy, slots.take_free() and slots.take_free() and not slots.take_free()

    taken, busy, as_before = asyncio.run(asyncio.wait_for(work(), 30))

    assert (taken, busy, as_before) == ([2, 3, 4], False, True)


def test_whoever_is_closed_while_he_waits_for_a_slot_is_given_none() -> None:
    async def work() -> bool:
        slots = Slots(1)
        await slots.take()
        waiting = slots.take()
        waiting.send(None)
        waiting.close()
        slots.give_back()
        return slots.take_free()

    assert asyncio.run(work())


def test_cancelling_whoever_asks_cancels_the_call() -> None:
    async def work() -> tuple[list[str], list[Call]]:
        backend = Scripted(m=HANG())
        client = open_door(backend)
        ledger = client.ledger("panel", "1")
        task = asyncio.create_task(ask(client, ledger=ledger))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return backend.cancelled, ledger.calls

    cancelled, [call] = asyncio.run(work())

    assert cancelled == ["m"]
    assert (call["status"], call["cost_usd"], call["cost_source"]) == ("cancelled", None, None)
