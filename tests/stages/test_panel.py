"""The panel: who is asked what, who is waited for, and what stands in the record then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from scripted import ENDPOINT, HANG, Scripted, model, open_door, said
from stage_runs import (
    ASKED,
    DOWN,
    SLOW,
    THREE,
    TOOL_CALL,
    TOOLS,
    A,
    B,
    C,
    answered,
    ask_judge,
    ask_panel,
    entries,
    entry,
    failed,
    run_stage,
    says,
    without_calls,
)

from fusiontools.config.models import Endpoint
from fusiontools.config.options import fixed
from fusiontools.config.recipe import Recipe, summary
from fusiontools.config.resolve import Resolver
from fusiontools.config.stage_table import FewShot, JudgeOptions, PanelOptions
from fusiontools.llm.journal import Journal
from fusiontools.llm.ledger import Event
from fusiontools.llm.state.store import Found
from fusiontools.record.sections import digest
from fusiontools.record.types import Record
from fusiontools.stages.panel import panel
from fusiontools.stages.runtime import Runtime


def temperatures(options: PanelOptions, record: Any = ASKED) -> dict[str, list[float]]:
    """Return the temperatures that each model was asked with, by sample."""
    backend = Scripted()
    ask_panel(options, backend, record)
    found: dict[str, list[float]] = {}
    for request in backend.requests:
        found.setdefault(request.model, []).append(request.params["temperature"])
    return found


def test_everybody_is_asked_and_answers_stand_in_the_order_of_the_recipe() -> None:
    backend = Scripted(
        a=[asyncio.Event(), "unreachable"],
        c=said("c says.", "c", finish_reason="length", mean_logprob=-0.12345, lowest_window_logprob=-0.5),
    )
    backend.script("a", said("a says.", "real/a"))

    result = ask_panel(THREE, backend)

    assert without_calls(result) == {
        **ASKED,
        "panel": [
            says("a"),
            says("b"),
            says("c", finish_reason="length", mean_logprob=-0.1235, lowest_window_logprob=-0.5),
        ],
    }
    assert entries(result) == [entry("panel", "a", model="real/a"), entry("panel", "b"), entry("panel", "c")]


def test_answers_stand_in_order_also_where_they_come_in_another() -> None:
    async def work() -> list[str]:
        gate = asyncio.Event()
        backend = Scripted(a=[gate, "late"], b=lambda request: gate.set() or "early")
        result = await panel(fixed(THREE))(ASKED, Runtime(open_door(backend)))
        assert [call["member"] for call in result["calls"]] != ["a", "b", "c"]
        return [r["content"] for r in result["panel"]]

    assert asyncio.run(work()) == ["late", "early", "c says."]


def test_one_members_failure_is_data() -> None:
    result = ask_panel(THREE, Scripted(b=SLOW))

    assert without_calls(result) == {
        **ASKED,
        "panel": [says("a"), failed("b"), says("c")],
        "degraded": [{"stage": "panel", "code": "member_failed", "detail": f"b: timeout: {SLOW.message}"}],
    }
    assert [call["status"] for call in result["calls"]] == ["ok", "timeout", "ok"]


def test_what_fails_unexpectedly_ends_the_panel_at_once() -> None:
    backend = Scripted(a=HANG(), b=ZeroDivisionError("a bug"), c=HANG())

    with pytest.raises(ZeroDivisionError):
        ask_panel(THREE, backend)


class Counting(Journal):
    """A journal that counts how often it is looked in."""

    looks = 0

    def get(self, key: bytes) -> Found | None:
        self.looks += 1
        return super().get(key)


def test_a_call_that_is_not_kept_is_looked_for_once(tmp_path: Path) -> None:
    journal = Counting(tmp_path / "j.db")

    result = ask_panel(THREE, Scripted(b=DOWN), journal=journal, replay=True)
    ask_judge(JudgeOptions((model("j"),)), result, journal=journal, replay=True)

    assert journal.looks == 4


def test_a_member_whose_endpoint_nobody_knows_is_one_that_failed_in_a_replay_too(tmp_path: Path) -> None:
    async def work() -> Record:
        client = open_door(Scripted(), journal=Journal(tmp_path / "j.db"), replay=True)
        members = PanelOptions((A, replace(B, endpoint="nowhere")))
        done = await panel(fixed(members))(ASKED, Runtime(client))
        await client.aclose()
        return done

    result = asyncio.run(work())

    assert result["panel"][0] == says("a")
    assert result["panel"][1]["error"]["code"] == "unknown_endpoint"


def test_where_nobody_answers_the_record_says_what_each_said() -> None:
    result = ask_panel(PanelOptions(members=(A, model("b", samples=2))), Scripted(a=DOWN, b=SLOW))

    assert result["error"] == {
        "stage": "panel",
        "code": "all_failed",
        "message": "a: HTTP 401: bad key; b: no answer within 1 s (--timeout)",
    }
    assert [r["error"]["code"] for r in result["panel"]] == ["auth", "timeout", "timeout"]
    assert len(result["calls"]) == 3
    assert "degraded" not in result


def test_where_the_money_is_out_the_record_says_so() -> None:
    dear = {"prompt": 1e6, "completion": 1e6}
    members = tuple(replace(m, price_usd_per_mtok=dear) for m in (A, B))

    result = ask_panel(PanelOptions(members=members), limits={"max_cost_usd": 1})

    assert result["error"]["code"] == "budget"
    assert "calls" not in result


def test_a_new_panel_drops_what_was_made_of_the_old_one_and_keeps_the_ledger() -> None:
    old = entry("panel", "old")
    record = answered(
        says("old"),
        analysis={
            key: [] for key in ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
        },
        answer={"content": "old", "by": "synth"},
        degraded=[{"stage": "judge", "code": "judge_failed", "detail": ""}],
        calls=[old],
    )

    result = ask_panel(PanelOptions(members=(A,)), record=record)

    assert without_calls(result) == {**ASKED, "panel": [says("a")]}
    assert entries(result) == [old, entry("panel", "a")]


def test_the_record_carries_the_recipe_that_holds_from_the_panel_on() -> None:
    recipe = Recipe("mine", stages={"panel": THREE}, endpoints={"there": ENDPOINT})

    result = run_stage(panel(Resolver(recipe, offline=True).options_for("panel", {})), ASKED)

    assert result["recipe"] == summary(recipe)


def test_temperatures_are_spread_over_the_panel() -> None:
    assert temperatures(THREE) == {"a": [0.4], "b": [0.7], "c": [1.0]}
    assert temperatures(THREE.replace(diversity=False)) == {"a": [0.7], "b": [0.7], "c": [0.7]}
    assert temperatures(THREE.replace(temperature=0.1, jitter=0.3)) == {"a": [0.0], "b": [0.1], "c": [0.4]}
    assert temperatures(THREE.replace(temperature=1.9, jitter=0.3)) == {"a": [1.6], "b": [1.9], "c": [2.0]}
    assert temperatures(PanelOptions(members=(A,))) == {"a": [0.7]}


def test_a_member_with_a_temperature_of_its_own_keeps_it() -> None:
    own = model("b", temperature=0.0)

    assert temperatures(PanelOptions(members=(A, own, C))) == {"a": [0.4], "b": [0.0], "c": [1.0]}
    assert temperatures(PanelOptions(members=(A, replace(own, temperature=1.0, samples=3)))) == {
        "a": [0.7],
        "b": [0.7, 1.0, 1.3],
    }


def test_samples_are_asked_apart_and_multiply() -> None:
    backend = Scripted()

    result = ask_panel(PanelOptions(members=(model("a", samples=2), B), samples=2), backend)

    assert [(r["member"], r["sample"]) for r in result["panel"]] == [
        ("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 0), ("b", 1),
    ]  # fmt: skip
    assert [request.sample for request in backend.requests] == [0, 1, 2, 3, 0, 1]


def test_samples_of_one_member_are_told_apart_to_whoever_watches() -> None:
    told: list[Event] = []

    ask_panel(PanelOptions(members=(model("a", samples=2), B)), notify=told.append)

    assert [event.label for event in told if event.began] == ["a#0", "a#1", "b"]
    assert [event.label for event in told if not event.began] == ["a#0", "a#1", "b"]


def test_a_member_is_asked_with_its_own_settings_over_the_panels() -> None:
    own = model(
        "b", temperature=0.2, top_p=0.9, max_tokens=7, reasoning_effort="low", system="b only", extra={"top_k": 1}
    )
    options = PanelOptions(members=(A, own), max_tokens=9, system="all", extra={"top_k": 5, "min_p": 0.1})
    backend = Scripted()

    ask_panel(options, backend)

    asked = {request.model: request for request in backend.requests}
    assert asked["a"].params == {"temperature": 0.7, "max_tokens": 9, "top_k": 5, "min_p": 0.1}
    assert asked["a"].messages == [{"role": "system", "content": "all"}, *ASKED["messages"]]
    assert asked["b"].params == {
        "temperature": 0.2, "top_p": 0.9, "max_tokens": 7, "reasoning_effort": "low", "top_k": 1, "min_p": 0.1,
    }  # fmt: skip
    assert asked["b"].messages == [{"role": "system", "content": "b only"}, *ASKED["messages"]]


def test_members_get_the_askers_tools_and_form_and_not_what_else_shapes_the_answer() -> None:
    form = {"response_format": {"type": "json_object"}}
    wanted = {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": False, **form}
    shape = {"max_tokens": 5, "stop": "x", "temperature": 0, "seed": 1}
    backend = Scripted(a=said("", finish_reason="tool_calls", tool_calls=[TOOL_CALL]))

    result = ask_panel(PanelOptions(members=(A,)), backend, {**ASKED, "params": {**wanted, **shape}})

    assert backend.requests[0].params == {"temperature": 0.7, **wanted}
    assert result["panel"] == [{**says("a"), "content": "", "finish_reason": "tool_calls", "tool_calls": [TOOL_CALL]}]


def test_the_embedded_engine_draws_the_same_panel_on_every_run() -> None:
    backend = Scripted()
    embedded = Endpoint("there", free=True)

    ask_panel(PanelOptions(members=(model("a", samples=2),)), backend, endpoint=embedded)

    assert [request.params["seed"] for request in backend.requests] == [
        digest("seed", "q1", "a", "0"),
        digest("seed", "q1", "a", "1"),
    ]


FEW_SHOT = FewShot(
    (("2+2?", "4."),),
    "Be brief.",
    max_chars=20,
    unless=("explain",),
    max_tokens=5,
    samples=2,
    temperature=0.2,
    jitter=0.1,
)


def test_a_short_question_gets_worked_turns_and_their_settings() -> None:
    backend = Scripted()

    ask_panel(PanelOptions(members=(A,), few_shot=FEW_SHOT, system="all", max_tokens=99), backend)

    assert [request.messages for request in backend.requests] == [
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "2+2?"},
            {"role": "assistant", "content": "4."},
            *ASKED["messages"],
        ]
    ] * 2
    assert [dict(r.params) for r in backend.requests] == [
        {"temperature": 0.1, "max_tokens": 5},
        {"temperature": 0.3, "max_tokens": 5},
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Why is it so very late already?"}],
        [{"role": "user", "content": "Please EXPLAIN."}],
        [{"role": "user", "content": "One.\nTwo."}],
        [{"role": "system", "content": "x"}, {"role": "user", "content": "Why?"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "Why?"}],
    ],
)
def test_a_question_that_is_not_short_gets_no_worked_turns(messages: Any) -> None:
    backend = Scripted()

    ask_panel(PanelOptions(members=(A,), few_shot=FEW_SHOT), backend, {"id": "q1", "messages": messages})

    assert [(request.messages, request.params) for request in backend.requests] == [(messages, {"temperature": 0.7})]


def test_once_enough_have_answered_the_rest_is_cut() -> None:
    backend = Scripted(b=HANG())

    result = ask_panel(THREE.replace(quorum=2, grace_s=0), backend)

    assert [r.get("error", {}).get("code") for r in result["panel"]] == [None, "cut", None]
    assert result["panel"][1]["error"]["message"] == "not in 0 s after 2 had answered (--quorum)"
    assert backend.cancelled == ["b"]
    assert [(c["member"], c["status"], c["cost_usd"]) for c in result["calls"]] == [
        ("a", "ok", 0.001),
        ("c", "ok", 0.001),
        ("b", "cancelled", None),
    ]


def test_who_answers_within_the_grace_is_heard() -> None:
    async def work() -> Record:
        gate = asyncio.Event()
        backend = Scripted(c=[gate, "late"], b=lambda _: asyncio.get_running_loop().call_soon(gate.set) and "b says.")
        options = THREE.replace(quorum=1, grace_s=5)
        return await panel(fixed(options))(ASKED, Runtime(open_door(backend)))

    assert [r["content"] for r in asyncio.run(work())["panel"]] == ["a says.", "b says.", "late"]


def test_failures_do_not_count_towards_the_quorum() -> None:
    result = ask_panel(THREE.replace(quorum=2, grace_s=0), Scripted(a=DOWN))

    assert [r.get("error", {}).get("code") for r in result["panel"]] == ["auth", None, None]


def test_who_is_cancelled_cancels_every_call() -> None:
    async def work() -> list[str]:
        backend = Scripted(a=HANG(), b=HANG(), c=HANG())
        task = asyncio.create_task(panel(fixed(THREE))(ASKED, Runtime(open_door(backend))))
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return sorted(backend.cancelled)

    assert asyncio.run(work()) == ["a", "b", "c"]
