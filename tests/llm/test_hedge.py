"""A slow model and the one that is asked beside it: who answers, who is cut off, and what it costs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import leaping
import pytest
from calling import DEAR, FOUR, REFUSED, ask
from scripted import HANG, Scripted, model, open_door, said
from workdir import Run

from fusiontools.config.models import Model
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.journal import Journal
from fusiontools.record.types import Call

HEDGED = model(fallbacks=("n", "o"))


class Timed(Scripted):
    """Answers after some seconds; begins to write at the first of them."""

    def __init__(self, **seconds: tuple[float, float]) -> None:
        super().__init__()
        self.seconds = seconds

    async def complete(self, request: CompletionRequest, on_delta: Any = None) -> Completion:
        first, whole = self.seconds.get(request.model, (0.0, 0.0))

        async def slowly() -> Completion:
            await asyncio.sleep(first)
            if on_delta is not None:
                on_delta(f"{request.model} ")
            await asyncio.sleep(whole - first)
            return await Scripted.complete(self, request, on_delta and (lambda _: on_delta("says.")))

        try:
            return await slowly()
        except asyncio.CancelledError:
            self.cancelled.append(request.model)
            raise


def play(
    backend: Timed, asked: Model = HEDGED, hedge_s: float | None = 2.0, **more: Any
) -> tuple[Any, float, list[Call]]:
    """Return what comes of one call, after how many seconds, and what is entered."""
    limits = {"hedge_s": hedge_s, "retries": 0, **more.pop("limits", {})}

    async def work() -> tuple[Any, float, list[Call]]:
        client = open_door(backend, limits=limits)
        ledger = client.ledger("panel", "1")
        clock = asyncio.get_running_loop().time
        try:
            outcome: Any = (await ask(client, asked, ledger=ledger, **more)).content
        except CallFailed as failure:
            outcome = failure.code
        took = clock()
        await client.aclose()
        return outcome, took, ledger.calls

    return leaping.run(work())  # type: ignore[no-any-return]


def entered(calls: list[Call]) -> list[tuple[str, str]]:
    return [(call["model"], call["status"]) for call in calls]


def test_who_answers_in_time_is_asked_alone() -> None:
    backend = Timed(m=(1, 1.9))

    assert play(backend)[:2] == ("m says.", 1.9)
    assert backend.asked == ["m"]


def test_beside_a_slow_model_the_first_fallback_is_asked_and_the_slow_one_is_cut_off() -> None:
    backend = Timed(m=(9, 60), n=(0.5, 1))

    answer, took, calls = play(backend)

    assert (answer, took) == ("n says.", 3.0)
    assert backend.cancelled == ["m"]
    assert entered(calls) == [("n", "ok"), ("m", "cancelled")]
    assert [call["cost_usd"] for call in calls if call["status"] == "cancelled"] == [None]


def test_the_slow_one_may_still_be_first() -> None:
    backend = Timed(m=(1, 3), n=(1, 9))

    assert play(backend)[:2] == ("m says.", 3.0)
    assert backend.cancelled == ["n"]


@pytest.mark.parametrize("without", [{"hedge_s": None}, {"asked": model()}])
def test_without_the_option_or_a_fallback_nobody_else_is_asked(without: dict[str, Any]) -> None:
    backend = Timed(m=(9, 60))

    assert play(backend, **without)[:2] == ("m says.", 60.0)
    assert backend.asked == ["m"]


def test_where_the_slow_one_fails_the_other_is_waited_for_and_not_asked_again() -> None:
    backend = Timed(m=(3, 3), n=(4, 4))
    backend.script("m", REFUSED)

    assert play(backend)[:2] == ("n says.", 6.0)
    assert backend.asked == ["m", "n"]


def test_where_the_other_fails_the_slow_one_is_waited_for() -> None:
    backend = Timed(m=(9, 9), n=(1, 1))
    backend.script("n", REFUSED)

    assert play(backend)[:2] == ("m says.", 9.0)


def test_where_both_fail_the_next_fallback_is_asked_and_else_the_first_failure_is_told() -> None:
    backend = Timed(m=(3, 3), n=(2, 2))
    backend.script("m", CallFailed("upstream", "no"))
    backend.script("n", REFUSED)

    assert play(backend)[:2] == ("o says.", 4.0)
    assert play(backend, model(fallbacks=("n",)))[0] == "upstream"


def test_a_failure_in_time_makes_the_fallback_the_one_that_may_be_slow() -> None:
    backend = Timed(m=(1, 1), n=(9, 9), o=(1, 1))
    backend.script("m", REFUSED)

    assert play(backend)[:2] == ("o says.", 4.0)


def test_a_model_that_is_heard_in_time_is_not_slow_however_long_it_writes() -> None:
    backend, heard = Timed(m=(1, 60)), list[str]()

    assert play(backend, on_delta=heard.append)[:2] == ("m says.", 60.0)
    assert (backend.asked, heard) == (["m"], ["m ", "says."])


def test_of_two_that_are_heard_only_who_begins_first_is() -> None:
    backend, heard = Timed(m=(5, 6), n=(1, 60)), list[str]()

    assert play(backend, on_delta=heard.append)[:2] == ("n says.", 62.0)
    assert heard == ["n ", "says."]
    assert backend.cancelled == ["m"]


def test_a_replay_takes_the_answer_of_whoever_gave_one(tmp_path: Path) -> None:
    async def work(backend: Scripted, **settings: Any) -> str:
        client = open_door(backend, limits={"hedge_s": 0.0}, journal=Journal(tmp_path / "j.db"), **settings)
        answer = await ask(client, HEDGED)
        await client.aclose()
        return answer.content

    assert asyncio.run(work(Scripted(m=HANG(), n="Paris."))) == "Paris."
    for how in ("replay", "offline"):
        again = Scripted()
        assert (asyncio.run(work(again, **{how: True})), again.requests) == ("Paris.", [])


def test_the_second_is_asked_only_where_the_money_is_there_for_both() -> None:
    dear = model(price_usd_per_mtok=DEAR.price_usd_per_mtok, fallbacks=("n",))
    backend = Timed(m=(9, 9))

    # Ten dollars are set aside for the first; nobody knows what the second costs.
    answer, took, calls = play(backend, dear, params=FOUR, limits={"max_cost_usd": 15})

    assert (answer, took, backend.asked) == ("m says.", 9.0, ["m"])
    assert entered(calls) == [("m", "ok")]


def test_whoever_leaves_cuts_both_off() -> None:
    backend = Timed(m=(9, 9), n=(9, 9))

    async def work() -> list[Call]:
        client = open_door(backend, limits={"hedge_s": 1.0})
        ledger = client.ledger("panel", "1")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await ask(client, HEDGED, ledger=ledger)
        return ledger.calls

    assert sorted(entered(leaping.run(work()))) == [("m", "cancelled"), ("n", "cancelled")]


def test_a_batch_job_is_never_hedged() -> None:
    backend = Timed(m=(9, 9))

    class Desk:
        async def buy(self, call: Any, on_delta: Any, at_once: Any) -> Completion:
            await asyncio.sleep(5)
            return said("later")

        async def aclose(self) -> None: ...

    async def work() -> str:
        client = open_door(backend, limits={"hedge_s": 1.0}, batch=Desk())
        return (await ask(client, HEDGED)).content

    assert leaping.run(work()) == "later"
    assert backend.requests == []


def test_a_recipe_and_a_flag_say_after_how_many_seconds(run: Run, tmp_path: Path) -> None:
    recipe = "panel: [a]\nmodels: {a: {model: fake/a+hang, fallbacks: [fake/b]}}\n"
    (tmp_path / "flag.yaml").write_text(recipe)
    (tmp_path / "recipe.yaml").write_text(recipe + "limits: {hedge_s: 0.1}\n")

    for command in ("fuse-panel -c recipe.yaml --text", "fuse-panel -c flag.yaml --text --hedge 0.1"):
        done = run(command, "Why?", cwd=tmp_path)

        [record] = done.records
        assert record["panel"][0]["content"].startswith("fake/b says ")
        assert entered(record["calls"]) == [("fake/b", "ok"), ("fake/a+hang", "cancelled")]
