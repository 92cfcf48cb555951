"""Juries: several judges, several orders, merged by rule; what each of them said stays on record."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import lines, panelled, response
from scripted import Scripted, model, open_door
from workdir import Run, Upstream

from fusiontools.config.options import fixed
from fusiontools.config.stage_table import JudgeOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import CompletionRequest
from fusiontools.record import schemas
from fusiontools.stages import prompts
from fusiontools.stages.analysis import FIVE, borda, claim, merged
from fusiontools.stages.judge import judge
from fusiontools.stages.runtime import Runtime

J, K = model("j"), model("k")
DOWN = CallFailed("auth", "HTTP 401: bad key", status=401)
PANEL = [response("a"), response("b"), response("c")]
RECORD: Any = panelled("q1", PANEL)
LABELS = prompts.blind_order("q1", range(3))[1]
BLIND = list(LABELS.values())
FENCED = re.compile(r"<<<RESPONSE (\w+) (\w+)>>>\n(.*?)\n<<<END \1 \2>>>", re.DOTALL)
NOTHING: dict[str, Any] = {**{key: [] for key in FIVE}, "ranking": []}


def run_judge(options: JudgeOptions, backend: Scripted, record: Any = RECORD) -> Any:
    """Run the stage; it never changes what it is given, and what it gives is a record."""
    before = copy.deepcopy(record)
    result = asyncio.run(judge(fixed(options))(record, Runtime(open_door(backend))))
    assert record == before
    schemas.check_record(result)
    return result


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


# What is the same finding


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It rains.", "  it RAINS"),
        ("The cache helps", "Caches help."),
        ("A cache is needed", "the cache, needed"),
        ("All responses agree that caching helps.", "Both answers say caching helps"),
        ("Responses agree that caching helps.", "Caching helps."),
        ("No response mentions cost.", "None of the answers addresses cost"),
        ("Nobody discusses cost", "No one mentions the cost"),
    ],
)
def test_findings_that_differ_in_form_alone_are_one(one: str, other: str) -> None:
    assert claim(one) == claim(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Rust is faster than Go", "Go is faster than Rust"),
        ("It is safe", "It is not safe"),
        ("It costs 5 dollars", "It costs 50 dollars"),
        ("Use C", "Use C++"),
        ("x > 3", "x < 3"),
        ("PostgreSQL fits best", "MySQL fits best"),
        ("It is safe", "It is safe on weekdays"),
        ("All responses recommend it", "Some responses recommend it"),
        ("Choose plan A", "Choose the plan"),
        ("No response mentions cost", "Responses mention cost"),
        ("All responses agree that it is so", "All responses agree that it is not so"),
        ("缓存有帮助", "缓存没有帮助"),
    ],
)
def test_findings_that_may_mean_another_thing_stay_two(one: str, other: str) -> None:
    assert claim(one) != claim(other)


def test_findings_without_words_have_nothing_in_common() -> None:
    empty = {"topic": "", "stances": [{"model": "a", "stance": "x"}]}
    other = {"topic": "—?", "stances": [{"model": "a", "stance": "y"}]}

    whole = merged([{**NOTHING, "contradictions": [empty]}, {**NOTHING, "contradictions": [empty, other]}], ["j", "k"])

    assert whole["contradictions"] == [empty, empty, other]


def test_stances_that_name_nobody_are_told_apart_by_their_words() -> None:
    def says(*stances: str) -> dict[str, Any]:
        return {**NOTHING, "contradictions": [{"topic": "t", "stances": [{"model": "", "stance": s} for s in stances]}]}

    whole = merged([says("x"), says("x", "y")])

    assert [stance["stance"] for stance in whole["contradictions"][0]["stances"]] == ["x", "y"]


# What holds for every jury

TEXTS = st.sampled_from(["It rains.", "it rains", "It pours", "Rain falls", "", "x > 3", "x < 3", "All agree."])
MEMBERS = st.sampled_from(["a", "b", "c"])
READINGS = st.fixed_dictionaries(
    {
        "consensus": st.lists(TEXTS, max_size=3),
        "contradictions": st.lists(
            st.fixed_dictionaries(
                {
                    "topic": TEXTS,
                    "stances": st.lists(st.fixed_dictionaries({"model": MEMBERS, "stance": TEXTS}), max_size=2),
                }
            ),
            max_size=2,
        ),
        "partial_coverage": st.lists(
            st.fixed_dictionaries({"models": st.lists(MEMBERS, max_size=2, unique=True), "point": TEXTS}), max_size=2
        ),
        "unique_insights": st.lists(st.fixed_dictionaries({"model": MEMBERS, "insight": TEXTS}), max_size=2),
        "blind_spots": st.lists(TEXTS, max_size=3),
        "ranking": st.permutations([0, 1, 2]).flatmap(lambda p: st.integers(0, 3).map(lambda n: p[:n])),
    }
)
JURIES = st.lists(READINGS, min_size=2, max_size=4)


def claims(key: str, items: list[Any]) -> list[Any]:
    """Return what each finding says, and of whom where that is part of it."""
    wording = {"contradictions": "topic", "partial_coverage": "point", "unique_insights": "insight"}
    if key not in wording:
        return [claim(item) for item in items]
    of = [item["model"] if key == "unique_insights" else None for item in items]
    return [(who, claim(item[wording[key]])) for who, item in zip(of, items, strict=True)]


def has_words(item: Any) -> bool:
    return bool(claim(item if isinstance(item, str) else item["insight"]))


@given(JURIES, st.randoms(use_true_random=False))
def test_another_order_of_judges_finds_and_ranks_the_same(jury: list[dict[str, Any]], random: Any) -> None:
    names = [f"j{i}" for i in range(len(jury))]
    shuffled = random.sample(range(len(jury)), len(jury))

    whole = merged(jury, names)
    again = merged([jury[i] for i in shuffled], [names[i] for i in shuffled])

    assert again["ranking"] == whole["ranking"]
    for key in FIVE:
        supported = zip(claims(key, whole[key]), map(sorted, whole["supporters"][key]), strict=True)
        supported_again = zip(claims(key, again[key]), map(sorted, again["supporters"][key]), strict=True)
        assert sorted(supported, key=repr) == sorted(supported_again, key=repr)


@given(JURIES)
def test_findings_stand_in_the_order_and_words_of_who_made_them_first(jury: list[dict[str, Any]]) -> None:
    whole = merged(jury)

    for key in ("consensus", "unique_insights", "blind_spots"):
        said = [item for found in jury for item in found[key]]
        first: dict[Any, Any] = {}
        for shown, item in zip(claims(key, said), said, strict=True):
            first.setdefault(shown, item)
        assert [item for item in whole[key] if has_words(item)] == [item for item in first.values() if has_words(item)]


@given(JURIES)
def test_every_finding_has_supporters_and_they_are_judges(jury: list[dict[str, Any]]) -> None:
    names = [f"j{i}" for i in range(len(jury))]

    whole = merged(jury, names)

    for key in FIVE:
        assert len(whole["supporters"][key]) == len(whole[key])
        for shown, supporters in zip(claims(key, whole[key]), whole["supporters"][key], strict=True):
            assert supporters
            assert supporters == [name for name in names if name in supporters]
            for name in supporters:
                assert shown in claims(key, jury[names.index(name)][key])


RANKINGS = st.lists(st.permutations(range(4)), min_size=1, max_size=5)


@given(RANKINGS, st.randoms(use_true_random=False))
def test_a_borda_count_does_not_hang_on_the_order_of_judges(rankings: list[list[int]], random: Any) -> None:
    assert borda(random.sample(rankings, len(rankings))) == borda(rankings)


@given(RANKINGS)
def test_who_is_above_another_with_every_judge_is_above_it_in_the_end(rankings: list[list[int]]) -> None:
    final = borda(rankings)

    assert sorted(final) == list(range(4))
    for one in range(4):
        for other in range(4):
            if one != other and all(ranking.index(one) < ranking.index(other) for ranking in rankings):
                assert final.index(one) < final.index(other)


@given(st.permutations(range(4)), st.integers(1, 4))
def test_judges_who_agree_are_followed(ranking: list[int], count: int) -> None:
    assert borda([ranking] * count) == ranking


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
