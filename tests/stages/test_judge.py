"""The judge: what it reads, what is made of its reply; several judges, and both orders."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from samples import lines, panelled, response
from scripted import Scripted, Step, model, open_door
from stage_runs import (
    DOWN,
    LABEL,
    LABELS,
    NAMED,
    A,
    answered,
    ask_judge,
    entries,
    entry,
    failed,
    says,
    verdict,
    without_calls,
)
from workdir import Run, Upstream

from fusiontools.config.options import fixed
from fusiontools.config.stage_table import JudgeOptions
from fusiontools.llm.completion import CompletionRequest
from fusiontools.record import schemas
from fusiontools.record.sections import digest
from fusiontools.stages import prompts
from fusiontools.stages.analysis import FIVE, analysis_schema
from fusiontools.stages.judge import judge
from fusiontools.stages.runtime import Runtime

J, K = model("j"), model("k")
PANEL = [response("a"), response("b"), response("c")]
RECORD: Any = panelled("q1", PANEL)
BLIND = list(LABELS.values())
FENCED = re.compile(r"<<<RESPONSE (\w+) (\w+)>>>\n(.*?)\n<<<END \1 \2>>>", re.DOTALL)
NOTHING: dict[str, Any] = {**{key: [] for key in FIVE}, "ranking": []}


def run_judge(options: JudgeOptions, backend: Scripted, record: Any = RECORD) -> Any:
    return ask_judge(options, record, backend)


def order(request: CompletionRequest) -> dict[str, str]:
    """Return which member stands behind each label; every member's text names it."""
    shown = FENCED.findall(str(request.messages[1]["content"]))
    return {label: text.removesuffix(" answers.") for label, _, text in shown}


def finds(ranking: str = "abc", **found: Any) -> Callable[[CompletionRequest], str]:
    """Return a judge that finds this, and ranks these members, under whatever labels they stand.

    A member stands in the findings as `{a}`.
    """

    def judge_(request: CompletionRequest) -> str:
        label = {member: label for label, member in order(request).items()}
        reply = {"reasoning": "r", **NOTHING, "consensus": ["One."], **found, "ranking": [label[m] for m in ranking]}
        return re.sub(r"\{([abc])\}", lambda match: label[match[1]], json.dumps(reply))

    return judge_


def first_shown(request: CompletionRequest) -> str:
    """Be a judge that takes the first for the best."""
    return json.dumps({**NOTHING, "consensus": ["One."], "ranking": list(order(request))})


def sections(result: Any, *names: str) -> list[Any]:
    return [result["analysis"][name] for name in names]


# One judge


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

    ask_judge(JUDGE, answered(*[says(name, "I think so.") for name in names]), backend)

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
    record = answered(failed("a"), says("b"), says("c"))
    labels = prompts.blind_order("q1", [1, 2])[1]
    reply = verdict(ranking=list(labels), contradictions=[], partial_coverage=[], unique_insights=[])

    result = ask_judge(JUDGE, record, Scripted(j=json.dumps(reply)))

    assert result["analysis"]["labels"] == labels
    assert result["analysis"]["ranking"] == list(labels.values())
    assert sorted(labels.values()) == [1, 2]


def test_samples_of_one_member_are_told_apart() -> None:
    record = answered(says("a"), says("a", sample=1), says("c"))

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

    survivor = ask_judge(JUDGE, answered(failed("a"), says("b")), backend)
    alone = ask_judge(JUDGE, answered(says("b")), backend)

    assert survivor["degraded"] == [
        {"stage": "judge", "code": "one_survivor", "detail": "one response: nothing to compare"}
    ]
    assert "degraded" not in alone
    assert "analysis" not in survivor
    assert backend.requests == []


def test_code_compares_without_a_call_and_says_so() -> None:
    backend = Scripted()
    record = answered(says("a", "Paris."), says("b", "Rome."), says("c", "Paris"))

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


# Several judges


def test_findings_are_united_each_with_the_judges_who_made_it() -> None:
    one = finds(consensus=["It rains.", "It pours."], blind_spots=["No response mentions cost."])
    other = finds(consensus=["They agree on sun.", "It pours!"], blind_spots=["None of the answers discusses the cost"])

    result = run_judge(JudgeOptions((J, K)), Scripted(j=one, k=other))

    consensus, blind_spots, supporters = sections(result, "consensus", "blind_spots", "supporters")
    assert consensus == ["It rains.", "It pours.", "They agree on sun."]
    assert supporters["consensus"] == [["j"], ["j", "k"], ["k"]]
    assert blind_spots == ["No response mentions cost."]
    assert supporters["blind_spots"] == [["j", "k"]]


def test_the_same_topic_takes_in_the_stances_of_members_that_had_none() -> None:
    one = finds(contradictions=[{"topic": "The size", "stances": [{"model": "{a}", "stance": "big"}]}])
    stances = [{"model": "{a}", "stance": "huge"}, {"model": "{b}", "stance": "small"}]
    other = finds(contradictions=[{"topic": "size", "stances": stances}, {"topic": "hue", "stances": []}])

    result = run_judge(JudgeOptions((J, K)), Scripted(j=one, k=other))

    assert result["analysis"]["contradictions"] == [
        {"topic": "The size", "stances": [{"model": "a", "stance": "big"}, {"model": "b", "stance": "small"}]},
        {"topic": "hue", "stances": []},
    ]
    assert result["analysis"]["supporters"]["contradictions"] == [["j", "k"], ["k"]]


def test_the_same_point_takes_in_all_members_that_make_it() -> None:
    one = finds(partial_coverage=[{"models": ["{a}", "{b}"], "point": "Costs matter."}])
    other = finds(partial_coverage=[{"models": ["{c}", "{b}"], "point": "The costs matter"}])

    result = run_judge(JudgeOptions((J, K)), Scripted(j=one, k=other))

    assert result["analysis"]["partial_coverage"] == [{"models": ["a", "b", "c"], "point": "Costs matter."}]
    assert result["analysis"]["supporters"]["partial_coverage"] == [["j", "k"]]


def test_the_same_insight_of_two_members_stays_two_insights() -> None:
    one = finds(unique_insights=[{"model": "{a}", "insight": "Use a cache."}])
    other = finds(unique_insights=[{"model": "{b}", "insight": "Use a cache."}, {"model": "{a}", "insight": "use cache"}])  # fmt: skip  # noqa: E501

    result = run_judge(JudgeOptions((J, K)), Scripted(j=one, k=other))

    assert result["analysis"]["unique_insights"] == [
        {"model": "a", "insight": "Use a cache."},
        {"model": "b", "insight": "Use a cache."},
    ]
    assert result["analysis"]["supporters"]["unique_insights"] == [["j", "k"], ["k"]]


def test_the_record_says_what_each_judge_said_and_in_which_order_it_read() -> None:
    one, other = finds("abc", consensus=["It rains."]), finds("bca", unique_insights=[{"model": "{c}", "insight": "i"}])

    result = run_judge(JudgeOptions((J, K)), Scripted(j=one, k=other))

    assert result["analysis"]["said"] == [
        {"judge": "j", "order": BLIND, **NOTHING, "consensus": ["It rains."], "ranking": [0, 1, 2]},
        {
            "judge": "k", "order": BLIND, **NOTHING, "consensus": ["One."],
            "unique_insights": [{"model": "c", "insight": "i"}], "ranking": [1, 2, 0],
        },
    ]  # fmt: skip
    assert result["analysis"]["ranking"] == [1, 0, 2]
    assert list(result["analysis"]) == [
        *FIVE, "ranking", "agreement", "labels", "seed", "judges", "supporters", "said",
    ]  # fmt: skip
    assert result["analysis"]["judges"] == ["j", "k"]


def test_one_judge_alone_has_no_supporters_and_nothing_is_said_twice() -> None:
    alone = run_judge(JudgeOptions((J,)), Scripted(j=finds()))
    left_over = run_judge(JudgeOptions((J, K)), Scripted(j=finds(), k=DOWN))

    assert list(alone["analysis"]) == [*FIVE, "ranking", "agreement", "labels", "seed", "judges"]
    assert left_over["analysis"] == alone["analysis"]
    assert [note["code"] for note in left_over["degraded"]] == ["judge_failed"]


def test_each_judge_keeps_the_stages_settings_or_its_own() -> None:
    backend = Scripted(j=finds(), k=finds())

    run_judge(JudgeOptions((J, model("k", temperature=0.9, max_tokens=7)), temperature=0.2, max_tokens=5), backend)

    asked = {r.model: (r.params["temperature"], r.params["max_tokens"]) for r in backend.requests}
    assert asked == {"j": (0.2, 5), "k": (0.9, 7)}


# Both orders


def test_with_swap_a_judge_reads_in_the_blind_order_and_in_the_reversed_one() -> None:
    backend = Scripted(j=finds())

    result = run_judge(JudgeOptions((J,), swap=True), backend)

    shown = [list(order(request).items()) for request in backend.requests]
    names = ["a", "b", "c"]
    assert shown[0] == [(label, names[i]) for label, i in zip("ABC", BLIND, strict=True)]
    assert shown[1] == [(label, names[i]) for label, i in zip("ABC", BLIND[::-1], strict=True)]
    assert [entry["order"] for entry in result["analysis"]["said"]] == [BLIND, BLIND[::-1]]
    assert [(call["member"], call["sample"]) for call in result["calls"]] == [("j", 0), ("j", 1)]


def test_labels_of_the_reversed_order_name_the_members_shown_under_them() -> None:
    found = finds("cab", unique_insights=[{"model": "{c}", "insight": "i"}])

    result = run_judge(JudgeOptions((J,), swap=True), Scripted(j=found))

    one, other = result["analysis"]["said"]
    assert {key: one[key] for key in (*FIVE, "ranking")} == {key: other[key] for key in (*FIVE, "ranking")}
    assert result["analysis"]["unique_insights"] == [{"model": "c", "insight": "i"}]
    assert result["analysis"]["ranking"] == [2, 0, 1]
    assert result["analysis"]["judges"] == ["j"]
    assert "supporters" not in result["analysis"]
    assert "degraded" not in result


def test_a_judge_whose_first_place_hangs_on_the_order_is_named() -> None:
    result = run_judge(JudgeOptions((J, K), swap=True), Scripted(j=first_shown, k=finds()))

    names = ["a", "b", "c"]
    assert result["degraded"] == [
        {
            "stage": "judge",
            "code": "order_sensitive",
            "detail": f"j: best is {names[BLIND[0]]} in the first order, {names[BLIND[-1]]} in the reversed one",
        }
    ]


def test_where_only_lower_places_differ_it_stands_in_what_was_said() -> None:
    result = run_judge(JudgeOptions((J,), swap=True), Scripted(j=[finds("abc"), finds("acb")]))

    assert "degraded" not in result
    assert [entry["ranking"] for entry in result["analysis"]["said"]] == [[0, 1, 2], [0, 2, 1]]


def test_judges_who_differ_among_each_other_are_not_order_sensitive() -> None:
    result = run_judge(JudgeOptions((J, K)), Scripted(j=finds("abc"), k=finds("cba")))

    assert "degraded" not in result


def test_where_one_order_fails_the_other_stands_and_the_record_says_which() -> None:
    result = run_judge(JudgeOptions((J,), swap=True), Scripted(j=[finds("bca"), DOWN]))

    assert result["analysis"]["ranking"] == [1, 2, 0]
    assert "said" not in result["analysis"]
    assert result["degraded"] == [
        {"stage": "judge", "code": "judge_failed", "detail": "j, reversed order: HTTP 401: bad key"}
    ]


def test_where_no_order_can_be_read_there_is_no_analysis() -> None:
    result = run_judge(JudgeOptions((J,), swap=True), Scripted(j=["Hm.", DOWN]))

    assert "analysis" not in result
    assert [note["detail"] for note in result["degraded"]] == [
        "j, first order: the reply is no analysis: 'Hm.'",
        "j, reversed order: HTTP 401: bad key",
    ]


def test_all_judges_read_all_orders_at_once() -> None:
    async def work() -> int:
        gate = asyncio.Event()
        backend = Scripted(j=[gate, gate, finds()], k=[gate, gate, finds()])
        made = judge(fixed(JudgeOptions((J, K), swap=True)))
        task = asyncio.create_task(made(RECORD, Runtime(open_door(backend))))
        for _ in range(50):
            await asyncio.sleep(0)
        gate.set()
        await task
        return backend.max_in_flight

    assert asyncio.run(work()) == 4


def test_without_the_judge_named_both_orders_are_no_matter_for_code() -> None:
    backend = Scripted()

    result = run_judge(JudgeOptions(method="lexical", swap=True), backend)

    assert result["analysis"]["judges"] == ["lexical"]
    assert backend.requests == []


# The tool


def test_the_tool_merges_a_jury_and_reports_a_biased_judge(run: Run, upstream: Upstream) -> None:
    panel = lines([panelled("q1", [response(f"fake/{name}", f"{name} answers.") for name in "abc"])])

    result = run(["fuse-judge", "--swap", "-m", "fake/judge1", "-m", "fake/judge2"], panel)

    assert result.status == 0
    [record] = result.records
    schemas.check_record(record)
    assert upstream.stats()["per_model"] == {"fake/judge1": 2, "fake/judge2": 2}
    assert [(entry["judge"], entry["order"]) for entry in record["analysis"]["said"]] == [
        ("fake/judge1", BLIND), ("fake/judge1", BLIND[::-1]), ("fake/judge2", BLIND), ("fake/judge2", BLIND[::-1]),
    ]  # fmt: skip
    assert record["analysis"]["supporters"]["blind_spots"] == [["fake/judge1", "fake/judge2"]]
    assert [note["code"] for note in record["degraded"]] == ["order_sensitive", "order_sensitive"]
