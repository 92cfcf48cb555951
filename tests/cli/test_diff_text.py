"""What changed between two records, as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from diffs import BASE, RECORDS, answered, calling, changed, without
from hypothesis import given
from hypothesis import strategies as st
from samples import judged, panelled, question, response

from fusiontools.cli.diff_text import DiffPrinter, Paint


def written(a: Mapping[str, Any], b: Mapping[str, Any], *, whole: bool = False) -> list[str]:
    """Return the lines below a change's heading."""
    change = changed(a, b)
    assert change is not None
    return DiffPrinter(Paint(False), whole).change(change).rstrip("\n").split("\n")[1:]


@given(RECORDS, RECORDS, st.booleans())
def test_no_word_of_a_model_steers_the_terminal_or_looks_like_a_heading(
    a: dict[str, Any], b: dict[str, Any], whole: bool
) -> None:
    change = changed(a, b)
    shown = "" if change is None else DiffPrinter(Paint(False), whole).change(change)

    assert not [char for char in shown if char not in "\n\t" and (ord(char) < 32 or 127 <= ord(char) < 160)]
    assert [line for line in shown.split("\n") if line.startswith("---")] == shown.split("\n")[:1] * (shown != "")


def test_tool_calls_are_told_as_calls_but_not_their_ids() -> None:
    assert written(calling("x", "{}"), calling("y", "{}"))[1] == "    tool_calls: the same but for their ids"
    assert written(calling("x", "{}"), calling("y", "[]"))[1:4] == [
        "    tool_calls:",
        "        - look_up({})",
        "        + look_up([])",
    ]


def test_long_unchanged_text_is_left_out_and_shown_with_verbose() -> None:
    many = " ".join(f"word{i}" for i in range(100))
    a, b = answered("q1", f"{many} red {many}"), answered("q1", f"{many} green {many}")

    short, whole = written(a, b)[1], written(a, b, whole=True)[1]

    assert short == (
        "    [… 627 characters …] word91 word92 word93 word94 word95 word96 word97 word98 word99 [-red-]{+green+}"
        " word0 word1 word2 word3 word4 word5 word6 word7 word8 word9 [… 630 characters …]"
    )
    assert whole == f"    {many} [-red-]{{+green+}} {many}"


def test_a_change_that_cannot_be_seen_is_spelled_out() -> None:
    shown = written(answered("q1", "one two\nthree"), answered("q1", "one\u00a0two\n\nthree\x07"))

    assert shown[1:4] == [r"    one[- -]{+\u00a0+}two", "    {+↵+}", r"    three{+\u0007+}"]


def test_a_changed_line_break_closes_the_marks_on_its_line() -> None:
    shown = written(answered("q1", "one"), answered("q1", "one\ntwo\nthree"))

    assert shown[1:4] == ["    one{+↵+}", "    {+two↵+}", "    {+three+}"]


def test_the_panel_says_who_changed_and_with_verbose_how() -> None:
    late = response("m/c", error={"code": "timeout", "message": "late"})
    a = panelled("q1", [response("m/a"), response("m/b", "It is red."), response("m/c"), response("m/d")])
    b = panelled("q1", [late, response("m/a"), response("m/b", "It is green."), response("m/e", sample=2, layer=2)])

    shown, whole = written(a, b), written(a, b, whole=True)

    assert shown == [
        "panel:",
        "    m/b: answer changed",
        "    m/c: answered → timeout: late",
        "    m/d: gone",
        "    m/e (layer 2): new",
        "    order: m/a, m/b, m/c → m/c, m/a, m/b",
    ]
    assert "        It is [-red-]{+green+}." in whole


def test_an_analysis_says_for_each_list_what_came_and_went() -> None:
    five = judged("q1")["analysis"]
    contradiction = {
        "topic": "size",
        "stances": [{"model": "m/a", "stance": "big"}, {"model": "m/b", "stance": "small"}],
    }
    insight = {"model": "m/a", "insight": "new"}
    a = {**judged("q1"), "analysis": {**five, "consensus": ["one", "two"], "agreement": 0.5}}
    b = {
        **judged("q1", (0, 1)),
        "analysis": {
            **five,
            "consensus": ["two", "three"],
            "contradictions": [contradiction],
            "unique_insights": [insight],
            "ranking": [0, 1],
            "agreement": 1,
            "judges": ["j", "k"],
        },
    }

    shown = written(a, b)

    assert shown == [
        "analysis:",
        "    consensus:",
        "        - one",
        "        + three",
        "    contradictions:",
        "        + size – m/a: big; m/b: small",
        "    unique_insights:",
        "        + new (m/a)",
        "    ranking: 1, 0 → 0, 1",
        "    agreement: 50% → 100%",
        "    judges: (absent) → j, k",
    ]


def test_a_section_that_is_gone_is_said_in_a_line() -> None:
    shown = written(BASE, without(BASE, "analysis", "calls", "answer"))

    assert shown[:3] == ["answer: gone", "    [-It is red.-]", "analysis: gone"]


def test_an_object_that_changed_is_told_value_by_value_with_paths() -> None:
    panel = {"samples": 5, "temperature": 0.35, "members": [{"model": "a"}, {"model": "c"}], "stop": ["x", "y"]}
    other = {"samples": 3, "members": [{"model": "b"}, {"model": "c"}], "stop": ["x"], "tools": {}}

    shown = written(question(recipe={"panel": panel}), question(recipe={"panel": other}))

    assert shown == [
        "recipe.panel.samples: 5 → 3",
        "recipe.panel.temperature: 0.35 → (absent)",
        "recipe.panel.members[0].model: a → b",
        "recipe.panel.stop: x, y → x",
        "recipe.panel.tools: (absent) → {}",
    ]


def test_a_vote_that_changed_is_told_value_by_value_below_the_answer() -> None:
    vote = {"key": "paris", "votes": 2, "counts": {"paris": 2, "new york": 1}}
    a, b = ({**BASE, "answer": {**BASE["answer"], "vote": v}} for v in (vote, {**vote, "counts": {"new york": 3}}))

    shown = written(a, b)

    assert shown[:3] == ["answer:", "    vote.counts.paris: 2 → (absent)", '    vote.counts["new york"]: 1 → 3']


def test_a_long_text_within_an_object_is_told_in_words_or_shortened() -> None:
    text = "It has been known for a long time that the sky is blue at noon."
    a = question(meta={"said": text, "gone": text, "kept": text})
    b = question(meta={"said": text.replace("blue", "red"), "kept": text, "kind": None})

    shown, whole = written(a, b), written(a, b, whole=True)

    assert shown == [
        "meta.said:",
        "    It has been known for a long time that the sky is [-blue-]{+red+} at noon.",
        "meta.gone: It has been known for a long time that the sky… (63 characters) → (absent)",
        "meta.kind: (absent) → null",
    ]
    assert whole[2:4] == ["meta.gone:", f"    [-{text}-]"]


@pytest.mark.parametrize("name", ["content", "agreement", "consensus", "tool_calls", "removed", "responses"])
@pytest.mark.parametrize(
    ("a", "b"), [(1, "x"), ([True], [False]), ({"a": 1}, {"a": 2})], ids=["plain", "list", "object"]
)
def test_a_key_of_the_user_is_told_as_any_other_whatever_its_name(name: str, a: Any, b: Any) -> None:
    as_section = written(question(**{name: a}), question(**{name: b}))
    as_any_other = written(question(mine=a), question(mine=b))

    assert as_section == [line.replace("mine", name) for line in as_any_other]


@pytest.mark.parametrize("name", ["agreement", "consensus"])
def test_a_field_of_an_answer_is_not_taken_for_one_of_an_analysis(name: str) -> None:
    a, b = ({**BASE, "answer": {**BASE["answer"], name: value}} for value in ("low", "high"))

    assert written(a, b)[:2] == ["answer:", f"    {name}: low → high"]


def test_a_list_of_truths_is_told_as_json() -> None:
    assert written(question(mine=[True]), question(mine=[False])) == ["mine: [true] → [false]"]


def test_an_object_with_many_values_on_one_side_only_is_a_line_but_with_verbose() -> None:
    a, b = question(), question(meta={f"k{i}": i for i in range(20)})

    shown, gone, whole = written(a, b), written(b, a), written(a, b, whole=True)

    assert shown == ["meta: new (20 values; --verbose shows them)"]
    assert gone == ["meta: gone (20 values; --verbose shows them)"]
    assert whole == [f"meta.k{i}: (absent) → {i}" for i in range(20)]


def test_a_sample_is_named_by_its_number_where_either_side_has_more_than_one() -> None:
    a = panelled("q1", [response("m", "one"), response("n", "one")])
    b = panelled("q1", [response("m", "two"), response("m", "two", sample=1), response("n", "two")])

    forth, back = written(a, b), written(b, a)

    assert forth == ["panel:", "    m#0: answer changed", "    n: answer changed", "    m#1: new"]
    assert back == ["panel:", "    m#0: answer changed", "    m#1: gone", "    n: answer changed"]


def test_samples_are_counted_in_each_layer_by_itself() -> None:
    a, b = (question(layers=[[response("m", text)], [response("m", text, layer=2)]]) for text in ("one", "two"))

    shown = written(a, b)

    assert shown == ["layers:", "    m: answer changed", "    m (layer 2): answer changed"]


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("What is\n\x1b[31m--- q2 --- it?", "What is --- q2 --- it?"),
        ("word " * 40, f"{'word ' * 11}word…"),
        ("w" * 100, f"{'w' * 60}…"),
        ("", ""),
    ],
    ids=["unclean", "long", "one-word", "empty"],
)
def test_a_heading_shows_how_the_question_begins_on_one_line(asked: str, shown: str) -> None:
    a, b = ({**record, "messages": [{"role": "user", "content": asked}]} for record in (BASE, question()))
    change = changed(a, b)
    assert change is not None

    heading = DiffPrinter(Paint(False)).change(change).split("\n")[0]

    assert heading == "--- q1 --- answer changed" + (f" --- {shown}" if shown else "")
