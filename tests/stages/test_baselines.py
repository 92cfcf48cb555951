"""Models outside the panel, asked to compare with: like members, and seen by nobody who compares or writes."""

from __future__ import annotations

import asyncio
from typing import Any

from scripted import MESSAGES, Scripted, model, open_door

from fusiontools.config.models import Model
from fusiontools.config.options import fixed
from fusiontools.config.stage_table import JudgeOptions, PanelOptions, SynthOptions
from fusiontools.errors import CallFailed
from fusiontools.record.types import Record
from fusiontools.stages.judge import judge
from fusiontools.stages.panel import panel
from fusiontools.stages.runtime import Runtime
from fusiontools.stages.synth import synth

A, B, OUTSIDER = model("a"), model("b"), model("outsider")
ASKED: Record = {"id": "q", "messages": MESSAGES}


def asked(backend: Scripted, members: tuple[Model, ...] = (A, B), record: Record = ASKED, **options: Any) -> Record:
    """Return the record after a panel with the outsider beside it."""
    chosen = PanelOptions(**{"members": members, "baselines": (OUTSIDER,), **options})

    async def work() -> Record:
        return await panel(fixed(chosen))(record, Runtime(open_door(backend)))

    return asyncio.run(work())


def test_a_baseline_is_asked_like_a_member_and_stands_beside_the_panel() -> None:
    backend = Scripted(outsider="I stand apart.")

    record = asked(backend, system="Be brief.", max_tokens=9)

    [response] = record["baselines"]
    assert [r["member"] for r in record["panel"]] == ["a", "b"]
    assert (response["member"], response["content"]) == ("outsider", "I stand apart.")
    by_model = {request.model: request for request in backend.requests}
    assert by_model["outsider"].messages == by_model["a"].messages
    assert by_model["outsider"].params["max_tokens"] == 9


def test_its_calls_are_booked_under_a_stage_of_their_own() -> None:
    record = asked(Scripted())

    assert [(call["stage"], call["member"]) for call in record["calls"]] == [
        ("panel", "a"),
        ("panel", "b"),
        ("baseline", "outsider"),
    ]


def test_samples_of_a_baseline_are_asked_apart() -> None:
    record = asked(Scripted(), baselines=(model("outsider", samples=3),))

    assert [(r["member"], r["sample"]) for r in record["baselines"]] == [
        ("outsider", 0),
        ("outsider", 1),
        ("outsider", 2),
    ]


def test_no_judge_and_no_synthesizer_sees_it() -> None:
    backend = Scripted(outsider="UNSEEN", j="{}")

    async def work() -> None:
        runtime = Runtime(open_door(backend))
        record = await panel(fixed(PanelOptions(members=(A, B), baselines=(OUTSIDER,))))(ASKED, runtime)
        record = await judge(fixed(JudgeOptions(models=(model("j"),))))(record, runtime)
        await synth(fixed(SynthOptions(models=(model("s"),))))(record, runtime)

    asyncio.run(work())

    seen = [str(request.messages) for request in backend.requests if request.model in ("j", "s")]
    assert len(seen) == 2
    assert not any("UNSEEN" in text for text in seen)


def test_a_baseline_that_fails_is_data_in_its_response() -> None:
    record = asked(Scripted(outsider=CallFailed("empty", "nothing came")))

    assert record["baselines"][0]["error"] == {"code": "empty", "message": "nothing came"}
    assert "degraded" not in record


def test_a_baseline_alone_answers_no_question() -> None:
    record = asked(Scripted(a=CallFailed("empty", "no"), b=CallFailed("empty", "no")))

    assert record["error"]["code"] == "all_failed"


def test_a_later_layer_keeps_the_baselines() -> None:
    first = asked(Scripted(outsider="I stand apart."))

    second = asked(Scripted(), record=first, revise=True)

    assert second["baselines"] == first["baselines"]
    assert len(second["layers"]) == 1


def test_a_new_panel_asks_its_baselines_anew() -> None:
    first = asked(Scripted(outsider="Old."))

    again = asked(Scripted(outsider="New."), record=first)

    assert [r["content"] for r in again["baselines"]] == ["New."]


def test_each_epoch_of_a_question_is_asked_anew() -> None:
    backend = Scripted(a=["One.", "Two."])

    async def work() -> list[Record]:
        stage, runtime = panel(fixed(PanelOptions(members=(A,)))), Runtime(open_door(backend))
        first: Record = {**ASKED, "id": "q#0"}
        second: Record = {**ASKED, "id": "q#1", "epoch": 1}
        return list(await asyncio.gather(stage(first, runtime), stage(second, runtime)))

    one, two = asyncio.run(work())

    assert {one["panel"][0]["content"], two["panel"][0]["content"]} == {"One.", "Two."}
