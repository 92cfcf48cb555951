"""The way to a model: the journal, identical calls made once, fallbacks, and what a person is told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from calling import (
    BUSY,
    DEAR,
    ENTRY,
    REFUSED,
    SILENT,
    UNPRICED,
    M,
    ask,
    ask_once,
    steady,
    turns,
)
from scripted import HANG, MESSAGES, USAGE, Scripted, model, open_door, said

from fusiontools.config.models import Endpoint
from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.journal import Journal
from fusiontools.llm.ledger import Event, Ledger, Slot
from fusiontools.record.types import Call


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


def test_what_is_recalled_has_begun_and_settled_and_is_shown(tmp_path: Path) -> None:
    ask_once(Scripted(m="Paris."), journal=Journal(tmp_path / "j.db"))
    told: list[Event] = []
    shown: list[Any] = []

    async def work() -> Completion | None:
        client = open_door(Scripted(), journal=Journal(tmp_path / "j.db"), replay=True, notify=told.append)
        request = client.request(M, MESSAGES, {})
        recalled = client.recall(request, M, client.ledger("synth", "1"), Slot("m"), shown.append)
        await client.aclose()
        return recalled

    assert asyncio.run(work()) == said("Paris.")
    assert [(event.began, event.replayed) for event in told] == [(True, False), (False, True)]
    assert shown == ["Paris."]


def test_a_fallback_that_answered_is_replayed_for_its_own_request(tmp_path: Path) -> None:
    asked = model(fallbacks=("n",))
    ask_once(Scripted(m=REFUSED, n="Paris."), asked, journal=Journal(tmp_path / "j.db"))
    backend = Scripted(m=REFUSED)

    completion, calls = ask_once(backend, asked, journal=Journal(tmp_path / "j.db"), replay=True)

    assert completion.content == "Paris."  # type: ignore[union-attr]
    assert backend.asked == ["m"]
    assert [call["replayed"] for call in calls] == [False, True]


def test_identical_calls_under_way_are_made_once() -> None:
    async def work() -> tuple[list[str], list[str], list[list[Call]]]:
        gate = asyncio.Event()
        backend = Scripted(m=[gate, "Paris."])
        client = open_door(backend)
        ledgers = [client.ledger("panel", name) for name in "12"]
        shown: list[str] = []
        tasks = [asyncio.create_task(ask(client, ledger=ledger, on_delta=shown.append)) for ledger in ledgers]
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
        client = open_door(backend)
        await asyncio.gather(ask(client), ask(client, **other))
        return len(backend.requests)

    assert asyncio.run(work()) == 2


def test_a_failure_of_the_endpoint_is_everybodys() -> None:
    async def work() -> tuple[int, list[Any]]:
        gate = asyncio.Event()
        backend = Scripted(m=[gate, REFUSED])
        client = open_door(backend)
        tasks = [asyncio.create_task(ask(client)) for _ in range(2)]
        await turns()
        gate.set()
        return len(backend.requests), await asyncio.gather(*tasks, return_exceptions=True)

    assert asyncio.run(work()) == (1, [REFUSED, REFUSED])


def test_when_the_first_is_cancelled_the_next_one_buys() -> None:
    async def work() -> tuple[list[str], str]:
        backend = Scripted(m=[HANG(), "Paris."])
        client = open_door(backend)
        first, second = (asyncio.create_task(ask(client)) for _ in range(2))
        await turns()
        backend.script("m", "Paris.")
        first.cancel()
        return backend.cancelled, (await second).content

    cancelled, answer = asyncio.run(work())

    assert (cancelled, answer) == (["m"], "Paris.")


def test_when_all_are_cancelled_at_once_nobody_buys() -> None:
    async def work() -> tuple[int, list[bool]]:
        backend = Scripted(m=[HANG(), "Paris."])
        client = open_door(backend)
        tasks = [asyncio.create_task(ask(client)) for _ in range(3)]
        await turns()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return len(backend.requests), [task.cancelled() for task in tasks]

    assert asyncio.run(work()) == (1, [True, True, True])


def test_when_the_firsts_own_time_is_over_the_next_one_buys() -> None:
    async def work() -> list[str]:
        backend = Scripted(m=[HANG(), "Paris."])
        client = open_door(backend)
        hasty = Ledger("panel", "1", time.monotonic() + 0.02)
        first = asyncio.create_task(ask(client, ledger=hasty))
        second = asyncio.create_task(ask(client))
        await turns()
        backend.script("m", "Paris.")
        results = await asyncio.gather(first, second, return_exceptions=True)
        return [getattr(result, "code", None) or result.content for result in results]  # type: ignore[union-attr]

    assert asyncio.run(work()) == ["deadline", "Paris."]


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


def test_every_settled_call_is_told_with_its_label_and_cost(tmp_path: Path) -> None:
    told: list[Event] = []

    async def work(backend: Scripted, label: str | None = None, **settings: Any) -> None:
        client = open_door(backend, journal=Journal(tmp_path / "j.db"), notify=told.append, **settings)
        request = client.request(M, MESSAGES, {}, 2)
        await asyncio.gather(
            client.complete(request, M, client.ledger("panel", "1"), Slot("m", 2, 1, label)), return_exceptions=True
        )
        await client.aclose()

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
        client = Client({"there": Endpoint("there")}, backends={"there": backend})
        requests = [client.request(M, MESSAGES, {}, sample) for sample in range(3)]
        await asyncio.gather(*(client.complete(request, M, client.ledger("panel", "1")) for request in requests))

    asyncio.run(three())

    assert backend.most == 1
