"""The three stages, each with a scripted model, record in and record out."""

from __future__ import annotations

import asyncio
import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import failed
from scripted import HANG, USAGE, Scripted, Step, model, open_door, said

from fusiontools.chain import compose
from fusiontools.config.models import Endpoint
from fusiontools.config.options import fixed
from fusiontools.config.stage_table import FewShot, JudgeOptions, PanelOptions, SynthOptions
from fusiontools.config.templates import load_template
from fusiontools.errors import CallFailed
from fusiontools.llm.ledger import Event
from fusiontools.record import schemas
from fusiontools.record.sections import digest
from fusiontools.record.types import Record
from fusiontools.stages import prompts
from fusiontools.stages.analysis import analysis_schema, borda, merged, read_analysis
from fusiontools.stages.judge import judge
from fusiontools.stages.panel import panel
from fusiontools.stages.runtime import Runtime, Stage
from fusiontools.stages.synth import synth

ASKED: Record = {"id": "q1", "messages": [{"role": "user", "content": "Why?"}]}
SLOW = CallFailed("timeout", "no answer within 1 s (--timeout)")
DOWN = CallFailed("auth", "HTTP 401: bad key", status=401)
A, B, C = model("a"), model("b"), model("c")
THREE = PanelOptions(members=(A, B, C))
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
TOOL_CALL: Any = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
LABELS = prompts.blind_order("q1", range(3))[1]
LABEL = {position: label for label, position in LABELS.items()}


def stage(made: Stage, record: Any, backend: Scripted | None = None, **settings: Any) -> Any:
    """Run a stage; it never changes what it is given, and what it gives is a record."""
    before = copy.deepcopy(record)
    on_delta = settings.pop("on_delta", None)

    async def work() -> Record:
        return await made(record, Runtime(open_door(backend or Scripted(), **settings), on_delta))

    result = asyncio.run(work())
    assert record == before
    schemas.check_record(result)
    return result


def ask_panel(options: PanelOptions, backend: Scripted | None = None, record: Any = ASKED, **settings: Any) -> Any:
    return stage(panel(fixed(options)), record, backend, **settings)


def ask_judge(options: JudgeOptions, record: Any, backend: Scripted | None = None, **settings: Any) -> Any:
    return stage(judge(fixed(options)), record, backend, **settings)


def ask_synth(options: SynthOptions, record: Any, backend: Scripted | None = None, **settings: Any) -> Any:
    return stage(synth(fixed(options)), record, backend, **settings)


def without_calls(record: Any) -> Any:
    return {key: value for key, value in record.items() if key != "calls"}


def response(member: str, content: str = "", **more: Any) -> dict[str, Any]:
    return {
        "member": member, "sample": 0, "layer": 1, "content": content or f"{member} says.", "finish_reason": "stop",
        "tool_calls": [], **more,
    }  # fmt: skip


def answered(*responses: Any, **more: Any) -> Any:
    return {**ASKED, "panel": list(responses or [response("a"), response("b"), response("c")]), **more}


def entry(stage_: str, member: str, **more: Any) -> dict[str, Any]:
    return {
        "stage": stage_, **({"layer": 1} if stage_ == "panel" else {}), "member": member,
        **({"sample": 0} if stage_ == "panel" else {}), "attempt": 1, "model": member, "endpoint": "there",
        "usage": USAGE, "cost_usd": 0.001, "cost_source": "upstream", "status": "ok", "replayed": False, **more,
    }  # fmt: skip


def entries(record: Any) -> list[dict[str, Any]]:
    """Return the ledger without what differs from run to run."""
    return [{k: v for k, v in call.items() if k not in ("latency_s", "ttft_s")} for call in record["calls"]]


def temperatures(options: PanelOptions, record: Any = ASKED) -> dict[str, list[float]]:
    """Return the temperatures that each model was asked with, by sample."""
    backend = Scripted()
    ask_panel(options, backend, record)
    found: dict[str, list[float]] = {}
    for request in backend.requests:
        found.setdefault(request.model, []).append(request.params["temperature"])
    return found


# Every stage


STAGES = [panel(fixed(THREE)), judge(fixed(JudgeOptions((A,)))), synth(fixed(SynthOptions((A,))))]


@pytest.mark.parametrize("made", STAGES)
def test_a_failed_record_passes_untouched(made: Stage) -> None:
    record = {**ASKED, "error": {"stage": "panel", "code": "all_failed", "message": "x"}, "theirs": 1}
    backend = Scripted()

    assert stage(made, record, backend) == record
    assert backend.requests == []


@pytest.mark.parametrize("made", STAGES)
def test_what_a_stage_does_not_own_it_passes_on(made: Stage) -> None:
    record = answered(meta={"target": "42"}, theirs=[1], params={"stop": "x"}, route={"to": "fuse"})

    result = stage(made, record, Scripted())

    assert {key: result[key] for key in ("id", "messages", "meta", "theirs", "params", "route")} == {
        key: record[key] for key in ("id", "messages", "meta", "theirs", "params", "route")
    }


# The panel


def test_everybody_is_asked_and_answers_stand_in_the_order_of_the_recipe() -> None:
    backend = Scripted(
        a=[asyncio.Event(), "unreachable"], c=said("c says.", "c", finish_reason="length", mean_logprob=-0.12345)
    )
    backend.script("a", said("a says.", "real/a"))

    result = ask_panel(THREE, backend)

    assert without_calls(result) == {
        **ASKED,
        "panel": [response("a"), response("b"), response("c", finish_reason="length", mean_logprob=-0.1235)],
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
        "panel": [response("a"), failed("b"), response("c")],
        "degraded": [{"stage": "panel", "code": "member_failed", "detail": f"b: timeout: {SLOW.message}"}],
    }
    assert [call["status"] for call in result["calls"]] == ["ok", "timeout", "ok"]


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
        response("old"),
        analysis={
            key: [] for key in ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
        },
        answer={"content": "old", "by": "synth"},
        degraded=[{"stage": "judge", "code": "judge_failed", "detail": ""}],
        calls=[old],
    )

    result = ask_panel(PanelOptions(members=(A,)), record=record)

    assert without_calls(result) == {**ASKED, "panel": [response("a")]}
    assert entries(result) == [old, entry("panel", "a")]


def test_the_record_carries_the_summary_of_its_recipe() -> None:
    result = stage(panel(fixed(THREE), lambda record, options: {"name": "mine"}), ASKED)

    assert result["recipe"] == {"name": "mine"}


def test_temperatures_are_spread_over_the_panel() -> None:
    assert temperatures(THREE) == {"a": [0.4], "b": [0.7], "c": [1.0]}
    assert temperatures(replace(THREE, diversity=False)) == {"a": [0.7], "b": [0.7], "c": [0.7]}
    assert temperatures(replace(THREE, temperature=0.1, jitter=0.3)) == {"a": [0.0], "b": [0.1], "c": [0.4]}
    assert temperatures(replace(THREE, temperature=1.9, jitter=0.3)) == {"a": [1.6], "b": [1.9], "c": [2.0]}
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
    assert result["panel"] == [
        {**response("a"), "content": "", "finish_reason": "tool_calls", "tool_calls": [TOOL_CALL]}
    ]


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

    result = ask_panel(replace(THREE, quorum=2, grace_s=0), backend)

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
        options = replace(THREE, quorum=1, grace_s=5)
        return await panel(fixed(options))(ASKED, Runtime(open_door(backend)))

    assert [r["content"] for r in asyncio.run(work())["panel"]] == ["a says.", "b says.", "late"]


def test_failures_do_not_count_towards_the_quorum() -> None:
    result = ask_panel(replace(THREE, quorum=2, grace_s=0), Scripted(a=DOWN))

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


# The judge


def verdict(**changes: Any) -> dict[str, Any]:
    """Return what a judge writes; labels stand for the panel positions 0, 1, 2."""
    return {
        "reasoning": "hm",
        "consensus": ["All agree."],
        "contradictions": [
            {"topic": "size", "stances": [{"model": LABEL[0], "stance": "big"}, {"model": LABEL[1], "stance": "small"}]}
        ],
        "partial_coverage": [{"models": [LABEL[0], LABEL[2]], "point": "p"}],
        "unique_insights": [{"model": LABEL[2], "insight": "i"}],
        "blind_spots": ["nothing on cost"],
        "ranking": [LABEL[2], LABEL[0], LABEL[1]],
        **changes,
    }


NAMED = {
    "consensus": ["All agree."],
    "contradictions": [
        {"topic": "size", "stances": [{"model": "a", "stance": "big"}, {"model": "b", "stance": "small"}]}
    ],
    "partial_coverage": [{"models": ["a", "c"], "point": "p"}],
    "unique_insights": [{"model": "c", "insight": "i"}],
    "blind_spots": ["nothing on cost"],
    "ranking": [2, 0, 1],
}
JUDGE = JudgeOptions((model("j"),))


def test_a_judge_reads_blind_and_its_labels_are_resolved() -> None:
    result = ask_judge(JUDGE, answered(), Scripted(j=json.dumps(verdict())))

    agreement = result["analysis"].pop("agreement")
    assert 0 <= agreement <= 1
    assert without_calls(result) == {
        **answered(),
        "analysis": {**NAMED, "labels": LABELS, "seed": digest("order", "q1"), "judges": ["j"]},
    }
    assert list(result["analysis"]) == [*NAMED, "labels", "seed", "judges"]
    assert entries(result) == [entry("judge", "j")]


def test_no_name_of_a_model_reaches_a_judge() -> None:
    backend = Scripted(j=json.dumps(verdict()))
    names = ("vendor/model-one", "vendor/model-two", "vendor/model-three")

    ask_judge(JUDGE, answered(*[response(name, "I think so.") for name in names]), backend)

    [request] = backend.requests
    assert "vendor" not in json.dumps(request.messages)
    assert json.dumps(request.messages).count("I think so.") == 3


def test_a_judge_is_asked_strictly_and_coolly() -> None:
    backend = Scripted(j=json.dumps(verdict()))

    ask_judge(JUDGE, answered(), backend)

    assert backend.requests[0].params == {
        "temperature": 0.0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "analysis", "strict": True, "schema": analysis_schema()},
        },
    }
    properties = analysis_schema()["properties"]
    assert next(iter(properties)) == "reasoning"
    assert list(properties)[1:] == list(NAMED)


def test_a_judge_has_settings_of_its_own() -> None:
    backend = Scripted(j=json.dumps(verdict()))
    own = model("j", temperature=0.3, max_tokens=50, reasoning_effort="high", system="Be strict.", extra={"top_k": 1})

    ask_judge(JudgeOptions((own,), max_tokens=99), answered(), backend)

    [request] = backend.requests
    assert {key: value for key, value in request.params.items() if key != "response_format"} == {
        "temperature": 0.3, "max_tokens": 50, "reasoning_effort": "high", "top_k": 1,
    }  # fmt: skip
    assert str(request.messages[0]["content"]).startswith("Be strict.\n\n")


def test_a_judge_sees_the_whole_conversation_images_too() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://h/x.png"}}
    asked = [{"type": "text", "text": "What?"}, image]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}]
    backend = Scripted(j=json.dumps(verdict()))

    ask_judge(JUDGE, {**answered(), "messages": messages}, backend)

    user = backend.requests[0].messages[1]["content"]
    assert isinstance(user, list)
    assert image in user
    assert "[system]\nBe brief.\n\n[user]\nWhat?\n" in user[0]["text"]


def test_only_usable_responses_are_judged_and_positions_stay_those_of_the_panel() -> None:
    record = answered(failed("a"), response("b"), response("c"))
    labels = prompts.blind_order("q1", [1, 2])[1]
    reply = verdict(ranking=list(labels), contradictions=[], partial_coverage=[], unique_insights=[])

    result = ask_judge(JUDGE, record, Scripted(j=json.dumps(reply)))

    assert result["analysis"]["labels"] == labels
    assert result["analysis"]["ranking"] == list(labels.values())
    assert sorted(labels.values()) == [1, 2]


def test_samples_of_one_member_are_told_apart() -> None:
    record = answered(response("a"), response("a", sample=1), response("c"))

    result = ask_judge(JUDGE, record, Scripted(j=json.dumps(verdict())))

    assert result["analysis"]["contradictions"][0]["stances"] == [
        {"model": "a#0", "stance": "big"},
        {"model": "a#1", "stance": "small"},
    ]


@pytest.mark.parametrize(
    ("step", "code", "detail"),
    [
        ("I like them all.", "bad_analysis", "j: the reply is no analysis: 'I like them all.'"),
        ("{}", "bad_analysis", "j: the reply is no analysis: '{}'"),
        ('{"a":' + "[" * 3000, "bad_analysis", 'j: the reply is no analysis: \'{"a":[[['),
        (DOWN, "judge_failed", "j: HTTP 401: bad key"),
    ],
)
def test_without_a_readable_analysis_the_record_goes_on_and_says_so(step: Step, code: str, detail: str) -> None:
    old = {**NAMED, "judges": ["old"]}

    result = ask_judge(JUDGE, answered(analysis=old, answer={"content": "old", "by": "synth"}), Scripted(j=step))

    [note] = result.pop("degraded")
    assert (note["stage"], note["code"]) == ("judge", code)
    assert note["detail"].startswith(detail)
    assert without_calls(result) == answered()
    assert len(result["calls"]) == 1


def test_a_judge_on_the_panel_is_warned_about() -> None:
    result = ask_judge(JudgeOptions((A,)), answered(), Scripted(a=json.dumps(verdict())))

    assert result["degraded"] == [{"stage": "judge", "code": "judge_on_panel", "detail": "a judges its own response"}]
    assert result["analysis"]["judges"] == ["a"]


def test_one_response_needs_no_judge() -> None:
    backend = Scripted()

    survivor = ask_judge(JUDGE, answered(failed("a"), response("b")), backend)
    alone = ask_judge(JUDGE, answered(response("b")), backend)

    assert survivor["degraded"] == [
        {"stage": "judge", "code": "one_survivor", "detail": "one response: nothing to compare"}
    ]
    assert "degraded" not in alone
    assert "analysis" not in survivor
    assert backend.requests == []


@pytest.mark.parametrize("made", [judge(fixed(JUDGE)), synth(fixed(SynthOptions((A,))))])
def test_a_panel_without_an_answer_has_no_analysis_and_no_answer(made: Stage) -> None:
    result = stage(made, answered(failed("a"), failed("b")))

    assert result["error"]["code"] == "all_failed"
    assert result["error"]["stage"] in ("judge", "synth")


def test_code_compares_without_a_call_and_says_so() -> None:
    backend = Scripted()
    record = answered(response("a", "Paris."), response("b", "Rome."), response("c", "Paris"))

    result = ask_judge(JudgeOptions((model("j"),), method="lexical"), record, backend)

    assert backend.requests == []
    assert "calls" not in result
    assert result["analysis"]["judges"] == ["lexical"]
    assert result["analysis"]["agreement"] == 0.67
    assert result["analysis"]["ranking"] == [0, 2, 1]
    assert result["analysis"]["labels"] == LABELS


def test_several_judges_are_asked_at_once_and_merged() -> None:
    other = verdict(
        consensus=["all agree", "New."],
        contradictions=[
            {
                "topic": "Size!",
                "stances": [{"model": LABEL[1], "stance": "tiny"}, {"model": LABEL[2], "stance": "mid"}],
            },
            {"topic": "colour", "stances": []},
        ],
        ranking=[LABEL[0], LABEL[2], LABEL[1]],
    )
    options = JudgeOptions((model("j"), model("k"), model("broken")))
    backend = Scripted(j=json.dumps(verdict()), k=json.dumps(other), broken=DOWN)

    result = ask_judge(options, answered(), backend)

    assert result["analysis"]["judges"] == ["j", "k"]
    assert result["analysis"]["consensus"] == ["All agree.", "New."]
    assert result["analysis"]["contradictions"] == [
        {
            "topic": "size",
            "stances": [
                {"model": "a", "stance": "big"},
                {"model": "b", "stance": "small"},
                {"model": "c", "stance": "mid"},
            ],
        },
        {"topic": "colour", "stances": []},
    ]
    assert result["analysis"]["ranking"] == [0, 2, 1]
    assert [note["code"] for note in result["degraded"]] == ["judge_failed"]
    assert backend.max_in_flight >= 1
    assert [call["member"] for call in result["calls"]] == ["j", "k", "broken"]


# Reading an analysis


EMPTY: dict[str, Any] = {key: [] for key in NAMED}
AB = {"A": 0, "B": 1}


@pytest.mark.parametrize(
    "text",
    [
        '{"consensus": ["x"]}',
        'Here it is:\n```json\n{"consensus": ["x"]}\n```\nDone.',
        '<think>{"consensus": ["no"]}</think>{"consensus": ["x"]}',
        '{"consensus": ["x",],}',
        "{'consensus': ['x']}",
        '{"consensus": ["x"], "blind_spots": ["',
        'For {a, b} I say: {"consensus": ["x"]}',
        '{"consensus": ["x", "", null, 3]}',
        '{"consensus": [{"point": "x"}]}',
    ],
)
def test_a_reply_is_read_however_it_is_wrapped(text: str) -> None:
    assert read_analysis(text, AB) == {**EMPTY, "consensus": ["x"]}


@pytest.mark.parametrize(
    "text", ["", "none", "[]", "{}", '{"consensus": "x"}', '{"mood": []}', "{'a'", '["consensus"]']
)
def test_what_is_no_analysis_is_none_and_no_silent_default(text: str) -> None:
    assert read_analysis(text, AB) is None


@pytest.mark.parametrize(
    ("said_", "read"),
    [
        (["B", "A"], [1, 0]),
        ("B > A", [1, 0]),
        ("B, A", [1, 0]),
        (["Response B", "response_a"], [1, 0]),
        ([{"model": "B"}, "a"], [1, 0]),
        (["C", "B", "B", 7, None], [1]),
        (None, []),
        (3, []),
    ],
)
def test_a_ranking_is_read_in_every_spelling(said_: Any, read: list[int]) -> None:
    found = read_analysis(json.dumps({"consensus": ["x"], "ranking": said_}), AB)

    assert found is not None
    assert found["ranking"] == read


def test_plain_strings_and_other_words_stand_for_the_objects_that_belong_there() -> None:
    stances = [{"response": "B", "view": "y"}, "z"]
    reply = {
        "contradictions": ["t", {"issue": "u", "positions": {"A": "x"}}, {"topic": "v", "stances": stances}, 3],
        "partial_coverage": ["p", {"model": "Response A", "insight": "q"}, {}],
        "unique_insights": ["i", {"response": "b", "point": "j"}],
    }

    assert read_analysis(json.dumps(reply), AB) == {
        **EMPTY,
        "contradictions": [
            {"topic": "t", "stances": []},
            {"topic": "u", "stances": [{"model": "A", "stance": "x"}]},
            {"topic": "v", "stances": [{"model": "B", "stance": "y"}, {"model": "", "stance": "z"}]},
        ],
        "partial_coverage": [{"models": [], "point": "p"}, {"models": ["A"], "point": "q"}],
        "unique_insights": [{"model": "", "insight": "i"}, {"model": "B", "insight": "j"}],
    }


def test_half_an_emoji_does_not_cost_the_record() -> None:
    result = ask_judge(JUDGE, answered(), Scripted(j='{"consensus": ["fine \\ud83d"]}'))

    assert result["analysis"]["consensus"] == ["fine ?"]


KEYS = st.sampled_from([*NAMED, "stances", "model", "models"])
REPLIES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
).map(json.dumps)


@given(st.text(max_size=80) | REPLIES)
def test_no_reply_whatever_breaks_the_reader(text: str) -> None:
    found = read_analysis(text, AB)

    if found is not None:
        assert schemas.is_valid("analysis", found)


@pytest.mark.parametrize("text", ['{"consensus": []}', '{"consensus": ["', '{"blind_spots": [""], "ranking": ["C"]}'])
def test_a_shell_with_nothing_in_it_is_no_analysis(text: str) -> None:
    assert read_analysis(text, AB) is None


def test_a_borda_count_ranks_by_places_and_then_by_position() -> None:
    assert borda([[2, 0, 1], [0, 2, 1]]) == [0, 2, 1]
    assert borda([[1], [0, 1, 2]]) == [1, 0, 2]
    assert borda([[], [1, 0]]) == [1, 0]
    assert borda([]) == []


def test_merged_findings_keep_the_order_in_which_they_were_first_made() -> None:
    one, other = {**EMPTY, "blind_spots": ["x", "y"]}, {**EMPTY, "blind_spots": ["X.", "z", "y"]}

    assert merged([one, other])["blind_spots"] == ["x", "y", "z"]
    assert merged([one]) == one


# The synthesizer


SYNTH = SynthOptions((model("s"),))
JUDGED = answered(analysis={**NAMED, "agreement": 0.5, "labels": LABELS, "seed": 1, "judges": ["j"]})


def answer(content: str, by: str = "synth", model_: str = "s", **more: Any) -> dict[str, Any]:
    return {"content": content, "by": by, "model": model_, "finish_reason": "stop", "tool_calls": [], **more}


def test_the_answer_is_written_from_responses_and_analysis() -> None:
    backend = Scripted(s="Because.")

    result = ask_synth(SYNTH, JUDGED, backend)

    assert without_calls(result) == {**JUDGED, "answer": answer("Because.")}
    assert entries(result) == [entry("synth", "s")]
    [request] = backend.requests
    system, asked, drafts = request.messages
    assert (system["role"], asked) == ("system", ASKED["messages"][0])
    for text in ("a says.", "b says.", "c says.", '"topic":"size"', "nothing on cost"):
        assert text in str(drafts["content"])


def test_the_synthesizer_reads_blind_too() -> None:
    backend = Scripted()
    panel_ = [response(f"vendor/model-{i}", f"{i}.") for i in range(3)]
    insight = {"model": "vendor/model-2", "insight": "i"}
    analysis = {**NAMED, "unique_insights": [insight], "contradictions": [], "partial_coverage": []}

    ask_synth(SYNTH, answered(*panel_, analysis=analysis), backend)

    text = json.dumps(backend.requests[0].messages)
    assert "vendor" not in text
    assert json.dumps(f'{{"model":"{LABEL[2]}","insight":"i"}}')[1:-1] in text


def test_without_an_analysis_the_answer_is_written_from_the_responses() -> None:
    backend = Scripted(s="Because.")

    result = ask_synth(SYNTH, answered(), backend)

    assert result["answer"] == answer("Because.")
    assert "(none)" in str(backend.requests[0].messages[-1]["content"])


def test_the_askers_wishes_win_over_the_recipes() -> None:
    wishes = {"temperature": 0, "max_tokens": 5, "stop": ["x"], "response_format": {"type": "json_object"}, "seed": 1}
    own = model("s", temperature=0.9, max_tokens=99, top_p=0.5, extra={"top_k": 1})
    backend = Scripted()

    ask_synth(SynthOptions((own,), temperature=0.3), {**JUDGED, "params": {**wishes, "n": 3, "user": "me"}}, backend)

    assert backend.requests[0].params == {**wishes, "top_p": 0.5, "top_k": 1}


def test_without_wishes_the_synthesizer_has_its_own_settings() -> None:
    backend = Scripted()
    own = model("s", reasoning_effort="low", system="Be warm.")

    ask_synth(SynthOptions((own,), temperature=0.0, max_tokens=50, extra={"min_p": 0.1}), JUDGED, backend)

    [request] = backend.requests
    assert request.params == {"temperature": 0.0, "max_tokens": 50, "reasoning_effort": "low", "min_p": 0.1}
    assert str(request.messages[0]["content"]).startswith("Be warm.\n\n")


def test_the_answer_is_shown_as_it_is_written() -> None:
    shown: list[str] = []

    ask_synth(SYNTH, JUDGED, Scripted(s="Because."), on_delta=shown.append)

    assert shown == ["Because."]


def test_a_synthesizer_that_fails_is_stood_in_for_by_the_best_response() -> None:
    result = ask_synth(SYNTH, JUDGED, Scripted(s=DOWN))

    assert result["answer"] == answer("c says.", "panel", "c", response=2)
    assert result["degraded"] == [
        {"stage": "synth", "code": "synth_failed", "detail": "s: HTTP 401: bad key; a panel response stands in"}
    ]
    assert [call["status"] for call in result["calls"]] == ["auth"]


def test_a_synthesizer_has_fallbacks() -> None:
    result = ask_synth(SynthOptions((model("s", fallbacks=("t",)),)), JUDGED, Scripted(s=DOWN, t=said("Because.", "t")))

    assert result["answer"] == answer("Because.", model_="t")
    assert [(call["model"], call["status"]) for call in result["calls"]] == [("s", "auth"), ("t", "ok")]
    assert "degraded" not in result


@pytest.mark.parametrize(
    ("record", "position"),
    [
        (JUDGED, 2),
        (answered(response("a", "xx"), response("b", "xxx"), response("c", "x")), 1),
        (answered(response("a", "xx"), response("b", "xx")), 0),
        (answered(response("a", "xxxx", finish_reason="length"), response("b", "x"), response("c", "xx")), 2),
        (answered(failed("a"), response("b", "x"), response("c", "xx"), analysis={**NAMED, "ranking": [0, 1]}), 1),
        (answered(response("a", "x"), response("b", "xx"), analysis={**NAMED, "ranking": []}), 1),
    ],
)
def test_the_best_response_is_the_first_ranked_else_the_longest_finished(record: Any, position: int) -> None:
    backend = Scripted()

    result = ask_synth(SynthOptions(method="copy"), record, backend)

    assert result["answer"]["response"] == position
    assert result["answer"]["content"] == record["panel"][position]["content"]
    assert backend.requests == []


def test_one_survivor_is_the_answer() -> None:
    backend = Scripted()

    result = ask_synth(SYNTH, answered(failed("a"), response("b", finish_reason="length")), backend)

    assert result["answer"] == answer("b says.", "panel", "b", response=1, finish_reason="length")
    assert result["degraded"] == [
        {"stage": "synth", "code": "one_survivor", "detail": "one of 2 responses came: it is the answer"}
    ]
    assert backend.requests == []


def test_a_panel_of_one_is_the_answer_and_nothing_is_missing() -> None:
    result = ask_synth(SYNTH, answered(response("b")))

    assert result["answer"]["content"] == "b says."
    assert "degraded" not in result


@pytest.mark.parametrize(("long", "by"), [(False, "panel"), (True, "synth")])
def test_short_responses_are_copied_and_long_ones_written(long: bool, by: str) -> None:
    text = "It is because of the weather. " * 20 if long else "Because."

    result = ask_synth(SynthOptions((model("s"),), method="auto"), answered(response("a", text), response("b", text)))

    assert result["answer"]["by"] == by


def test_where_nobody_is_named_to_write_the_best_response_is_copied_and_the_record_says_so() -> None:
    result = ask_synth(SynthOptions(), JUDGED)

    assert result["answer"] == answer("c says.", "panel", "c", response=2)
    assert [note["code"] for note in result["degraded"]] == ["no_synth"]
    assert "degraded" not in ask_synth(SynthOptions(method="copy"), JUDGED)


def test_where_nobody_is_named_to_judge_code_compares_and_the_record_says_so() -> None:
    result = ask_judge(JudgeOptions(), answered())

    assert result["analysis"]["judges"] == ["lexical"]
    assert [note["code"] for note in result["degraded"]] == ["no_judge"]
    assert "degraded" not in ask_judge(JudgeOptions(method="lexical"), answered())


def test_a_question_with_tools_is_decided_by_a_template_of_its_own_and_called_natively() -> None:
    record = {**JUDGED, "params": {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True}}
    backend = Scripted(s=said("", "s", finish_reason="tool_calls", tool_calls=[TOOL_CALL]))

    result = ask_synth(SYNTH, record, backend)

    [request] = backend.requests
    assert request.messages[0]["content"] == load_template("tool_calls")["synth system"]
    assert request.params == record["params"]
    assert result["answer"] == answer("", finish_reason="tool_calls") | {"tool_calls": [TOOL_CALL]}


def test_a_template_that_was_chosen_holds_with_tools_too() -> None:
    backend = Scripted()

    ask_synth(replace(SYNTH, template="creative"), {**JUDGED, "params": {"tools": TOOLS}}, backend)

    assert backend.requests[0].messages[0]["content"] == load_template("creative")["synth system"]


def test_a_copied_response_keeps_its_tool_calls() -> None:
    record = answered(response("a", tool_calls=[TOOL_CALL], finish_reason="tool_calls"))

    assert ask_synth(SYNTH, record)["answer"]["tool_calls"] == [TOOL_CALL]


def test_a_new_answer_stands_in_the_place_of_the_old_one() -> None:
    once = ask_synth(SYNTH, JUDGED, Scripted(s=DOWN))

    again = ask_synth(SYNTH, once, Scripted(s="Because."))

    assert without_calls(again) == {**JUDGED, "answer": answer("Because.")}
    assert [call["status"] for call in again["calls"]] == ["auth", "ok"]


def test_the_embedded_engine_writes_the_same_answer_on_every_run() -> None:
    backend = Scripted()

    ask_synth(SYNTH, JUDGED, backend, endpoint=Endpoint("there", free=True))

    assert backend.requests[0].params["seed"] == digest("seed", "q1", "s", "synth")


# All three


def test_a_chain_is_its_stages_one_after_the_other() -> None:
    backend = Scripted(j=json.dumps(verdict()), s="Because.")

    result = stage(compose(panel(fixed(THREE)), judge(fixed(JUDGE)), synth(fixed(SYNTH))), ASKED, backend)

    assert list(result) == ["id", "messages", "panel", "calls", "analysis", "answer"]
    assert [call["stage"] for call in result["calls"]] == ["panel"] * 3 + ["judge", "synth"]
    assert result["answer"]["content"] == "Because."
