"""Analyses: read however they are written, compared by their findings, merged by rule."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Scripted, model
from stage_runs import (
    NAMED,
    answered,
    ask_judge,
)

from fusiontools.config.stage_table import JudgeOptions
from fusiontools.record import schemas
from fusiontools.stages.analysis import FIVE, borda, claim, merge_analyses, read_analysis

NOTHING: dict[str, Any] = {**{key: [] for key in FIVE}, "ranking": []}


# Reading an analysis


EMPTY: dict[str, Any] = {key: [] for key in NAMED}
AB = {"A": 0, "B": 1}
NAMES = {"A": "m1", "B": "m2"}


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
    assert read_analysis(text, AB, NAMES) == {**EMPTY, "consensus": ["x"]}


@pytest.mark.parametrize(
    "text", ["", "none", "[]", "{}", '{"consensus": "x"}', '{"mood": []}', "{'a'", '["consensus"]']
)
def test_what_is_no_analysis_is_none_and_no_silent_default(text: str) -> None:
    assert read_analysis(text, AB, NAMES) is None


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
    found = read_analysis(json.dumps({"consensus": ["x"], "ranking": said_}), AB, NAMES)

    assert found is not None
    assert found["ranking"] == read


def test_plain_strings_and_other_words_stand_for_the_objects_that_belong_there() -> None:
    stances = [{"response": "B", "view": "y"}, "z"]
    reply = {
        "contradictions": ["t", {"issue": "u", "positions": {"A": "x"}}, {"topic": "v", "stances": stances}, 3],
        "partial_coverage": ["p", {"model": "Response A", "insight": "q"}, {}],
        "unique_insights": ["i", {"response": "b", "point": "j"}],
    }

    assert read_analysis(json.dumps(reply), AB, NAMES) == {
        **EMPTY,
        "contradictions": [
            {"topic": "t", "stances": []},
            {"topic": "u", "stances": [{"model": "m1", "stance": "x"}]},
            {"topic": "v", "stances": [{"model": "m2", "stance": "y"}, {"model": "", "stance": "z"}]},
        ],
        "partial_coverage": [{"models": [], "point": "p"}, {"models": ["m1"], "point": "q"}],
        "unique_insights": [{"model": "", "insight": "i"}, {"model": "m2", "insight": "j"}],
    }


def test_half_an_emoji_does_not_cost_the_record() -> None:
    result = ask_judge(JudgeOptions((model("j"),)), answered(), Scripted(j='{"consensus": ["fine \\ud83d"]}'))

    assert result["analysis"]["consensus"] == ["fine ?"]


KEYS = st.sampled_from([*NAMED, "stances", "model", "models"])
REPLIES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
).map(json.dumps)


@given(st.text(max_size=80) | REPLIES)
def test_no_reply_whatever_breaks_the_reader(text: str) -> None:
    found = read_analysis(text, AB, NAMES)

    if found is not None:
        assert schemas.check_of("analysis")(found)


@pytest.mark.parametrize("text", ['{"consensus": []}', '{"consensus": ["', '{"blind_spots": [""], "ranking": ["C"]}'])
def test_a_shell_with_nothing_in_it_is_no_analysis(text: str) -> None:
    assert read_analysis(text, AB, NAMES) is None


def test_a_borda_count_ranks_by_places_and_then_by_position() -> None:
    assert borda([[2, 0, 1], [0, 2, 1]]) == [0, 2, 1]
    assert borda([[1], [0, 1, 2]]) == [1, 0, 2]
    assert borda([[], [1, 0]]) == [1, 0]
    assert borda([]) == []


def test_merged_findings_keep_the_order_in_which_they_were_first_made() -> None:
    one, other = {**EMPTY, "blind_spots": ["x", "y"]}, {**EMPTY, "blind_spots": ["X.", "z", "y"]}

    assert merge_analyses([one, other])["blind_spots"] == ["x", "y", "z"]
    assert merge_analyses([one]) == one


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

    whole = merge_analyses(
        [{**NOTHING, "contradictions": [empty]}, {**NOTHING, "contradictions": [empty, other]}], ["j", "k"]
    )

    assert whole["contradictions"] == [empty, empty, other]


def test_stances_that_name_nobody_are_told_apart_by_their_words() -> None:
    def says(*stances: str) -> dict[str, Any]:
        return {**NOTHING, "contradictions": [{"topic": "t", "stances": [{"model": "", "stance": s} for s in stances]}]}

    whole = merge_analyses([says("x"), says("x", "y")])

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

    whole = merge_analyses(jury, names)
    again = merge_analyses([jury[i] for i in shuffled], [names[i] for i in shuffled])

    assert again["ranking"] == whole["ranking"]
    for key in FIVE:
        supported = zip(claims(key, whole[key]), map(sorted, whole["supporters"][key]), strict=True)
        supported_again = zip(claims(key, again[key]), map(sorted, again["supporters"][key]), strict=True)
        assert sorted(supported, key=repr) == sorted(supported_again, key=repr)


@given(JURIES)
def test_findings_stand_in_the_order_and_words_of_who_made_them_first(jury: list[dict[str, Any]]) -> None:
    whole = merge_analyses(jury)

    for key in ("consensus", "unique_insights", "blind_spots"):
        said = [item for found in jury for item in found[key]]
        first: dict[Any, Any] = {}
        for shown, item in zip(claims(key, said), said, strict=True):
            first.setdefault(shown, item)
        assert [item for item in whole[key] if has_words(item)] == [item for item in first.values() if has_words(item)]


@given(JURIES)
def test_every_finding_has_supporters_and_they_are_judges(jury: list[dict[str, Any]]) -> None:
    names = [f"j{i}" for i in range(len(jury))]

    whole = merge_analyses(jury, names)

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
