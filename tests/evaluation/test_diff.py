"""`fuse-diff`: what counts as a difference, how it is shown, and that long texts take no long time."""

from __future__ import annotations

import json
import os
import pty
import random
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import judged, lines, panelled, question, response
from workdir import Result, Run

from fusiontools.cli.diff_text import DiffPrinter, Paint
from fusiontools.evaluation.diff.records import Change, RecordCounts, changed_leaves, compare, cost_data, same, side_of
from fusiontools.evaluation.diff.word_diff import changed_blocks, tokens, word_diff

FAILED = {"stage": "panel", "code": "all_failed", "message": "nobody came"}


def call(cost: float | None = 0.25, seconds: float = 2.0, **more: Any) -> dict[str, Any]:
    base = {"stage": "panel", "model": "m", "endpoint": "e", "status": "ok"}
    return {**base, "cost_usd": cost, "latency_s": seconds, "replayed": False, **more}


def answered(name: str, text: str, *calls: Any, **more: Any) -> dict[str, Any]:
    """Return a record with an answer."""
    answer = {"content": text, "by": "synth", "model": "m/s", "finish_reason": "stop", "tool_calls": []}
    return {**judged(name), "answer": answer, "calls": list(calls), **more}


def without(record: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def changed(a: Mapping[str, Any], b: Mapping[str, Any], **options: bool) -> Change | None:
    return compare(side_of(a), side_of(b), **options)


def marked(a: str, b: str) -> str:
    marks = {"=": "{}", "-": "[-{}-]", "+": "{{+{}+}}"}
    return "".join(marks[kind].format(text) for kind, text in word_diff(a, b))


def written(a: Mapping[str, Any], b: Mapping[str, Any], *, whole: bool = False) -> list[str]:
    """Return the lines below a change's heading."""
    change = changed(a, b)
    assert change is not None
    return DiffPrinter(Paint(False), whole).change(change).rstrip("\n").split("\n")[1:]


# Words


@pytest.mark.parametrize(
    ("a", "b", "shown"),
    [
        ("It is Paris now.", "It is Lyon now.", "It is [-Paris-]{+Lyon+} now."),
        ("since 3.14 on", "since 3.15 on", "since [-3.14-]{+3.15+} on"),
        ("we don't know", "we can't know", "we [-don't-]{+can't+} know"),
        ("f(x)", "f(y)", "f([-x-]{+y+})"),
        ("one two", "one  two", "one[- -]{+  +}two"),
        ("我喜歡紅蘋果", "我喜歡綠蘋果", "我喜歡[-紅-]{+綠+}蘋果"),
        ("猫がすき", "犬がすき", "[-猫-]{+犬+}がすき"),
        ("हिन्दी में लिखो", "हिन्दी से लिखो", "हिन्दी [-में-]{+से+} लिखो"),
        ("мама мыла раму", "мама мыла окно", "мама мыла [-раму-]{+окно+}"),
        ("a 👩🏽‍💻 works", "a 👩‍💻 works", "a [-👩🏽‍💻-]{+👩‍💻+} works"),
        ("", "new", "{+new+}"),
        ("old", "", "[-old-]"),
        ("- a\n- b\n", "- a\n- x\n- b\n", "- a\n{+- x\n+}- b\n"),
    ],
)
def test_the_smallest_thing_that_changes_is_a_word_or_a_sign(a: str, b: str, shown: str) -> None:
    result = marked(a, b)

    assert result == shown


def test_words_rewritten_in_a_row_are_one_change() -> None:
    result = marked("It was the first long idea of all.", "It was some other short thought of all.")

    assert result == "It was [-the first long idea-]{+some other short thought+} of all."


def test_texts_that_share_nothing_but_small_words_are_shown_whole() -> None:
    a = "Relational databases guarantee the consistency of transactions."
    b = "Gardening makes the afternoons of pensioners longer."

    result = marked(a, b)

    assert result == f"[-{a[:-1]}-]{{+{b[:-1]}+}}."


#: Words from few, so that much recurs, and signs of every kind.
TEXTS = st.one_of(
    st.text(),
    st.lists(st.sampled_from(["the", "cat", "a", " ", " ", "\n", ". ", "é", "猫", "\u0301", "\u200d", "'"])).map(
        "".join
    ),
)


@given(TEXTS, TEXTS)
def test_a_word_diff_holds_both_texts(a: str, b: str) -> None:
    segments = word_diff(a, b)

    assert "".join(text for kind, text in segments if kind != "+") == a
    assert "".join(text for kind, text in segments if kind != "-") == b
    assert all(text for _, text in segments)


@given(TEXTS)
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert word_diff(text, text) == ([("=", text)] if text else [])


@given(TEXTS)
def test_tokens_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text


@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_between_changed_blocks_all_is_equal(a: list[int], b: list[int]) -> None:
    blocks = changed_blocks(a, b)

    i = j = 0
    for block in [*blocks, (len(a), len(a), len(b), len(b))]:
        assert a[i : block[0]] == b[j : block[2]]
        i, j = block[1], block[3]
    assert all(a[b_.a : b_.a_end] != b[b_.b : b_.b_end] for b_ in blocks)


class Counted:
    """An item that counts how often any of its kind is hashed or compared."""

    work = 0

    def __init__(self, name: Any) -> None:
        self.name = name

    def __hash__(self) -> int:
        Counted.work += 1
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        Counted.work += 1
        return isinstance(other, Counted) and self.name == other.name


def _drawn(alphabet: int, seed: int, size: int = 4000) -> list[int]:
    return random.Random(seed).choices(range(alphabet), k=size)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0, 1] * 2000, [1, 0, 0] * 1300),
        (_drawn(3, 1), _drawn(3, 2)),
        (_drawn(60, 1), _drawn(60, 2)),
        (_drawn(4000, 1), _drawn(4000, 2)),
        (list(range(4000)), list(range(4000))[::-1]),
        # Each anchor bares the next one, at the very edge of what is left.
        ([n for i in range(1000) for n in (-1, i + 1, -1, i)], [n for i in range(1000) for n in (-2, i + 1, -2, i)]),
    ],
    ids=["repeats", "three-words", "sixty-words", "many-words", "reversed", "peeled"],
)
def test_the_work_grows_with_the_texts_and_not_with_their_product(a: list[int], b: list[int]) -> None:
    Counted.work = 0

    blocks = changed_blocks(list(map(Counted, a)), list(map(Counted, b)))

    assert blocks
    assert Counted.work < 150 * (len(a) + len(b))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("a b " * 25_000, "b a c " * 17_000),
        ("!" * 100_000, "!" * 99_999 + "?"),
        ("\n" * 100_000, "\n \n" * 33_000),
        ("a" + "\u0301" * 50_000, "a" + "\u0301" * 50_001),
        (". " * 50_000, ".  " * 33_000),
        (" ".join(map(str, _drawn(3000, 1, 20_000))), " ".join(map(str, _drawn(3000, 2, 20_000)))),
    ],
    ids=["repeats", "one-line", "breaks", "marks", "sentences", "all-different"],
)
def test_a_hundred_kilobytes_of_anything_can_be_compared(a: str, b: str) -> None:
    segments = word_diff(a, b)

    assert "".join(text for kind, text in segments if kind != "+") == a
    assert "".join(text for kind, text in segments if kind != "-") == b


# What counts as a difference

BASE = answered("q1", "It is red.", call())


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ({**BASE, "error": FAILED}, "failed"),
        (answered("q1", "It is green."), "answer"),
        (without(BASE, "answer"), "answer"),
        ({**BASE, "analysis": {**BASE["analysis"], "ranking": [0, 1]}}, "analysis"),
        ({**BASE, "answer": {**BASE["answer"], "model": "m/t"}}, "other"),
        ({**BASE, "panel": [response("fake/a"), response("fake/b", "Else.")]}, "other"),
        ({**BASE, "panel": BASE["panel"][::-1]}, "other"),
        ({**BASE, "degraded": []}, "other"),
        ({**BASE, "grades": [{"score": 1}]}, "other"),
        ({**BASE, "meta": {"a": {"b": 1}}}, "other"),
        ({**BASE, "mine": None}, "other"),
    ],
)
def test_every_change_but_one_of_the_calls_has_its_kind(other: dict[str, Any], kind: str) -> None:
    forth, back = changed(BASE, other), changed(other, BASE)

    assert forth is not None
    assert back is not None
    assert forth.kind == kind
    assert back.kind == ("answered" if kind == "failed" else kind)


def test_calls_never_make_a_difference() -> None:
    other = {**without(BASE, "calls"), "calls": [call(9.0, 99.0, status="timeout")]}

    assert changed(BASE, other) is None
    assert changed(BASE, without(BASE, "calls")) is None


def test_the_ids_of_tool_calls_are_drawn_anew_and_are_no_other_answer() -> None:
    def calling(name: str, arguments: str) -> dict[str, Any]:
        function = {"name": "look_up", "arguments": arguments}
        tool_calls = [{"id": name, "type": "function", "function": function}]
        return {**BASE, "answer": {**BASE["answer"], "tool_calls": tool_calls}}

    drawn, other = changed(calling("x", "{}"), calling("y", "{}")), changed(calling("x", "{}"), calling("x", "[]"))

    assert drawn is not None
    assert other is not None
    assert (drawn.kind, other.kind) == ("other", "answer")
    assert changed(calling("x", "{}"), calling("y", "{}"), answers_only=True) is None
    assert written(calling("x", "{}"), calling("y", "{}"))[1] == "    tool_calls: the same but for their ids"
    assert written(calling("x", "{}"), calling("y", "[]"))[1:4] == [
        "    tool_calls:",
        "        - look_up({})",
        "        + look_up([])",
    ]


def test_equal_numbers_are_equal_however_they_are_spelled_and_true_is_no_number() -> None:
    assert same({"a": [1, 2.0]}, {"a": [1.0, 2]})
    assert not same({"a": 1}, {"a": True})
    assert not same([0], [False])


def test_answers_only_leaves_out_all_the_rest() -> None:
    rest = {**BASE, "meta": {"a": 1}, "panel": [response("x")], "answer": {**BASE["answer"], "by": "pick"}}
    text = {**rest, "answer": {**BASE["answer"], "content": "It is green.", "by": "pick"}}

    assert changed(BASE, rest, answers_only=True) is None
    assert changed({**BASE, "error": FAILED}, {**BASE, "error": {**FAILED, "code": "x"}}, answers_only=True) is None
    change = changed(BASE, text, answers_only=True)
    assert change is not None
    assert change.sections == {"answer": {"content": {"a": "It is red.", "b": "It is green."}}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
RESPONSES = st.lists(
    st.builds(
        lambda member, content, layer: (
            response(member, content, layer=layer)
            if content
            else response(member, layer=layer, error={"code": "timeout", "message": "late"})
        ),
        st.sampled_from(["m/a", "m/b"]),
        st.sampled_from(["", "It is red.", "It is\n--- q9 --- green \x1b[31m."]),
        st.integers(1, 2),
    ),
    min_size=1,
    max_size=3,
)
POINTS = st.lists(st.sampled_from(["one", "two\n--- q9 ---", "three\x9b"]), max_size=2)
RECORDS = st.fixed_dictionaries(
    {"id": st.just("q1"), "messages": st.just(question()["messages"])},
    optional={
        "panel": RESPONSES,
        "layers": st.lists(RESPONSES, max_size=2),
        "analysis": st.builds(
            lambda consensus, ranking, more: {**judged(ranking=ranking)["analysis"], "consensus": consensus, **more},
            POINTS,
            st.sampled_from([(0, 1), (1, 0), ()]),
            st.sampled_from([{}, {"agreement": 0.5}, {"agreement": 0.501}, {"judges": ["j"]}]),
        ),
        "answer": st.fixed_dictionaries(
            {"content": TEXTS, "by": st.sampled_from(["synth", "pick"])},
            optional={"tool_calls": st.just([]), "model": st.sampled_from(["m", "n\x1b[2J"]), "a": JSON},
        ),
        "degraded": st.lists(st.just({"stage": "panel", "code": "member_failed"}), max_size=2),
        "error": st.just(FAILED),
        "meta": st.dictionaries(st.sampled_from("ab"), JSON, max_size=2),
        "mine": JSON,
        "calls": st.lists(st.builds(call, st.sampled_from([None, 0.0, 0.1, 2.5])), max_size=2),
    },
)


@given(RECORDS, RECORDS)
def test_records_are_the_same_where_all_but_their_calls_is(a: dict[str, Any], b: dict[str, Any]) -> None:
    change = changed(a, b)

    assert (change is None) == same(without(a, "calls"), without(b, "calls"))
    assert changed(a, a) is None
    if change is not None:
        assert set(change.sections) == {
            key for key in {*a, *b} - {"calls"} if key not in a or key not in b or not same(a[key], b[key])
        }
        assert all(change.sections.values())


@given(RECORDS, RECORDS, st.booleans())
def test_no_word_of_a_model_steers_the_terminal_or_looks_like_a_heading(
    a: dict[str, Any], b: dict[str, Any], whole: bool
) -> None:
    change = changed(a, b)
    shown = "" if change is None else DiffPrinter(Paint(False), whole).change(change)

    assert not [char for char in shown if char not in "\n\t" and (ord(char) < 32 or 127 <= ord(char) < 160)]
    assert [line for line in shown.split("\n") if line.startswith("---")] == shown.split("\n")[:1] * (shown != "")


@given(RECORDS, RECORDS)
def test_swapping_the_files_swaps_the_signs(a: dict[str, Any], b: dict[str, Any]) -> None:
    forth, back = RecordCounts(), RecordCounts()
    forth.add(side_of(a), side_of(b), changed(a, b))
    back.add(side_of(b), side_of(a), changed(b, a))

    assert forth.differ == back.differ
    for key in ("cost_usd", "call_time_s"):
        one, other = forth.data()[key], back.data()[key]
        assert (one["a"], one["b"]) == (other["b"], other["a"])
        assert one["delta"] == (None if other["delta"] is None else -other["delta"])


# Cost


@pytest.mark.parametrize(
    ("calls", "cost", "unknown"),
    [
        ([], None, 0),
        ([call(0.25), call(0.5)], 0.75, 0),
        ([call(None)], None, 1),
        ([call(0.25), call(None)], 0.25, 1),
        ([call(0.0, replayed=True)], 0.0, 0),
        ([call(0.0, replayed=True), call(None)], None, 1),
    ],
    ids=["no-calls", "known", "unknown", "partly-known", "replayed", "replayed-and-unknown"],
)
def test_an_unknown_cost_is_null_and_never_0(calls: list[Any], cost: float | None, unknown: int) -> None:
    spent, known = side_of({"calls": calls}).spent, side_of({"calls": [call(1.0)]}).spent

    data = cost_data(known, spent)

    assert (data["a"], data["b"], data["unknown"]["b"]) == (1.0, cost, unknown)
    assert data["delta"] == (None if unknown or cost is None else cost - 1.0)


# What a person reads


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


@given(JSON, JSON)
def test_the_leaves_of_two_values_say_whether_they_differ(a: Any, b: Any) -> None:
    leaves = changed_leaves("x", {"a": a, "b": b})

    assert (not leaves) == same(a, b)
    assert all(not same(*leaf.sides.values()) for leaf in leaves if len(leaf.sides) == 2)
    assert len({leaf.path for leaf in leaves}) == len(leaves)


@given(JSON)
def test_what_stands_on_one_side_has_leaves_whatever_it_is(value: Any) -> None:
    leaves = changed_leaves("x", {"b": value})

    assert leaves
    assert all(set(leaf.sides) == {"b"} for leaf in leaves)


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
        ("What is\n\x1b[31m--- q2 --- it?", "What is [31m--- q2 --- it?"),
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


# The tool


def pair(directory: Path, a: Sequence[Any], b: Sequence[Any]) -> list[str]:
    """Write two files and return the command that compares them."""
    (directory / "a.jsonl").write_bytes(lines(a))
    (directory / "b.jsonl").write_bytes(lines(b))
    return ["fuse-diff", "a.jsonl", "b.jsonl"]


def test_a_report_lists_changes_in_the_order_of_the_first_file_and_ends_with_a_summary(
    run: Run, tmp_path: Path
) -> None:
    a = [
        answered("q1", "It is red.", call(0.002, 2.0)),
        answered("q2", "The same.", call()),
        answered("q3", "Gone."),
        answered("q4", "Here.", call(0.0)),
        answered("q5", "So.", call(0.5)),
    ]
    b = [
        answered("q6", "New."),
        {**answered("q5", "So.", call(None)), "route": {"to": "fuse"}},
        {**without(answered("q4", "", call(0.0)), "answer", "analysis", "panel"), "error": FAILED},
        answered("q2", "The same.", call(0.5, 1.0)),
        answered("q1", "It is green.", call(0.003, 3.0)),
    ]

    result = run(pair(tmp_path, a, b))

    assert (result.status, result.err) == (1, "")
    assert (
        result.text
        == """\
--- q1 --- answer changed --- What is q1?
answer:
    It is [-red-]{+green+}.
cost $0.0020 → $0.0030 (+$0.0010, +50.0%), call time 2.0 s → 3.0 s (+1.0 s, +50.0%)

only in a.jsonl: q3

--- q4 --- newly failed --- What is q4?
error: none → panel: all_failed: nobody came
answer: gone
    [-Here.-]
panel:
    fake/a: gone
    fake/b: gone
analysis: gone
cost $0.0000 → $0.0000, call time 2.0 s → 2.0 s

--- q5 --- changed, answer the same --- What is q5?
route: new
cost $0.5000 → unknown, call time 2.0 s → 2.0 s

only in b.jsonl: q6

4 records compared: 1 same, 1 changed answer, 1 newly failed, 1 changed otherwise
only in a.jsonl: 1
only in b.jsonl: 1
cost       $0.7520 → ≥ $0.5030
call time  8.0 s → 8.0 s
"""
    )


def test_a_file_does_not_differ_from_itself(run: Run, tmp_path: Path) -> None:
    records = [answered(f"q{i}", f"Answer {i}.", call()) for i in range(3)]

    result = run([*pair(tmp_path, records, [])[:2], "a.jsonl"])

    assert (result.status, result.err) == (0, "")
    assert result.text == "3 records compared: 3 same\ncost       $0.7500 → $0.7500\ncall time  6.0 s → 6.0 s\n"


def test_the_order_of_records_makes_no_difference(run: Run, tmp_path: Path) -> None:
    records = [answered(f"q{i}", f"Answer {i}.") for i in range(9)]
    shuffled = random.Random(7).sample(records, 9)

    result = run(pair(tmp_path, records, shuffled))

    assert (result.status, result.text) == (0, "9 records compared: 9 same\n")


def test_a_record_that_stands_in_one_file_only_is_a_difference(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "x")], [])

    forth, back = run([*command, "--brief"]), run([command[0], "b.jsonl", "a.jsonl", "--answers"])

    assert (forth.status, forth.text) == (1, "only in a.jsonl: q1\n")
    assert (back.status, back.text) == (1, "only in a.jsonl: q1\n\n0 records compared\nonly in a.jsonl: 1\n")


def test_records_with_the_same_id_are_paired_in_order_with_a_warning(run: Run, tmp_path: Path) -> None:
    a = [answered("q1", "one"), answered("q1", "two"), answered("q1", "three")]
    command = pair(tmp_path, a, [answered("q1", "one"), answered("q1", "2")])

    result, quiet = run([*command, "--brief"]), run([*command, "-q"])

    assert result.text.splitlines() == ["q1: answer changed", "only in a.jsonl: q1"]
    assert result.err == (
        "fuse-diff: b.jsonl: more than one record with the same id, paired in order: q1\n"
        "fuse-diff: a.jsonl: more than one record with the same id, paired in order: q1\n"
    )
    assert (quiet.status, quiet.out, quiet.err) == (1, b"", "")


@pytest.mark.parametrize("side", [0, 1])
def test_one_side_may_be_standard_input(side: int, run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [])
    files = ["a.jsonl"]
    files.insert(side, "-")

    result = run([command[0], *files], lines([answered("q2", "two"), answered("q1", "one")]))

    assert result.status == 1
    assert result.text == "only in stdin: q2\n\n1 record compared: 1 same\nonly in stdin: 1\n"


def test_json_has_a_line_for_each_change_and_the_summary_last(run: Run, tmp_path: Path) -> None:
    a = [answered("q1", "It is red.", call(0.002, 2.0)), answered("q2", "x", call(None)), answered("q3", "y")]
    b = [answered("q2", "x", call(0.5)), answered("q1", "It is\u009b green.", call(None, 3.5)), answered("q4", "y")]

    result = run([*pair(tmp_path, a, b), "--json"])

    assert result.status == 1
    assert "\u009b" not in result.text
    assert result.records == [
        {
            "id": "q1",
            "change": "answer",
            "changed": {"answer": {"content": {"a": "It is red.", "b": "It is\u009b green."}}},
            "cost_usd": {"a": 0.002, "b": None, "delta": None, "unknown": {"a": 0, "b": 1}},
            "call_time_s": {"a": 2.0, "b": 3.5, "delta": 1.5},
        },
        {"id": "q3", "change": "only_in_a"},
        {"id": "q4", "change": "only_in_b"},
        {
            "summary": {
                "compared": 2,
                "same": 1,
                **dict.fromkeys(("answer", "only_in_a", "only_in_b"), 1),
                **dict.fromkeys(("analysis", "failed", "answered", "other"), 0),
                "unread": {"a": 0, "b": 0},
                "unpaired": {"a": 0, "b": 0},
                "cost_usd": {"a": 0.002, "b": 0.5, "delta": None, "unknown": {"a": 1, "b": 1}},
                "call_time_s": {"a": 4.0, "b": 5.5, "delta": 1.5},
            }
        },
    ]


def test_a_record_as_deep_as_may_be_is_compared(run: Run, tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(250):
        deep = [deep]

    command = pair(tmp_path, [question(mine=deep)], [question(mine=[deep])])
    text, data = run(command), run([*command, "--json"])

    assert (text.status, text.err, data.status, data.err) == (1, "", 1, "")
    assert data.records[0]["changed"]["mine"]["b"] == [deep]


def test_quiet_says_all_by_the_exit_status(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [answered("q1", "two")])

    differ, same_file = run([*command, "-q"]), run([*command[:2], "a.jsonl", "-q"])

    assert (differ.status, differ.out, differ.err) == (1, b"", "")
    assert (same_file.status, same_file.out, same_file.err) == (0, b"", "")


def test_a_recipe_that_changed_alike_in_many_records_is_told_once(run: Run, tmp_path: Path) -> None:
    def asked(name: str, samples: int) -> dict[str, Any]:
        return question(name, recipe={"panel": {"samples": samples, "members": [{"name": "m"}]}})

    a = [asked("q1", 5), asked("q1", 5), asked("q2", 5), asked("q3", 4)]
    b = [asked("q1", 3), asked("q1", 3), asked("q2", 3), asked("q3", 3)]

    result = run(pair(tmp_path, a, b))

    assert [line for line in result.text.splitlines() if line.startswith("recipe")] == [
        "recipe.panel.samples: 5 → 3",
        "recipe: changed in the same way as in q1",
        "recipe: changed in the same way as in q1",
        "recipe.panel.samples: 4 → 3",
    ]


# Trouble


def test_a_line_that_is_no_record_is_reported_the_rest_compared_and_the_status_2(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one"), {"id": 7, "messages": []}, answered("q3", "x")], [])
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf\n?\n" + lines([answered("q3", "y"), answered("q1", "one")]))

    result = run([*command, "--brief"])

    assert (result.status, result.text) == (2, "q3: answer changed\n")
    second, first = result.err.splitlines()
    assert second.startswith("fuse-diff: b.jsonl:2: not JSON: ")
    assert first.startswith("fuse-diff: a.jsonl:2: $.")


def test_a_line_that_is_too_long_is_trouble(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one " * 2000)], [answered("q1", "one " * 2000)])

    result = run([*command, "-q", "--max-line-mib", "0.00390625"])

    assert result.status == 2
    assert result.err.splitlines()[0] == (
        "fuse-diff: b.jsonl:1: the line is longer than 0.00390625 MiB (--max-line-mib)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jsonl", "nowhere.jsonl"], "nowhere.jsonl: cannot be read: No such file or directory"),
        (["nowhere.jsonl", "a.jsonl"], "nowhere.jsonl: cannot be read: No such file or directory"),
        (["a.jsonl", "."], ".: cannot be read: Is a directory"),
        ([".", "a.jsonl"], ".: cannot be read: Is a directory"),
        (["-", "-"], "only one of the two can be standard input; name a file for the other"),
        (["a.jsonl", "a.jsonl", "--brief", "--json"], "--brief and --json exclude each other"),
        (["a.jsonl"], "fuse-diff: two files are compared: fuse-diff A B (see fuse-diff --help)\n"),
        ([], "fuse-diff: two files are compared: fuse-diff A B (see fuse-diff --help)\n"),
        (["a.jsonl"] * 3, "fuse-diff: two files are compared: fuse-diff A B (see fuse-diff --help)\n"),
    ],
)
def test_what_cannot_be_compared_is_said_and_ends_with_2(
    arguments: list[str], message: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([answered("q1", "one")]))

    result = run(["fuse-diff", *arguments])

    assert (result.status, result.out, result.err.count("\n")) == (2, b"", 1)
    assert message in result.err


def test_output_that_cannot_be_written_is_trouble_and_no_difference(run: Run, tmp_path: Path) -> None:
    pair(tmp_path, [answered("q1", "one")], [answered("q1", "one")])

    result = run("fuse-diff a.jsonl b.jsonl > /dev/full")

    assert (result.status, result.err) == (2, "fuse-diff: stdout: No space left on device\n")


def test_a_reader_that_has_enough_is_no_trouble(run: Run, tmp_path: Path) -> None:
    a, b = ([answered(f"q{i}", f"{word} {i}" * 500) for i in range(300)] for word in ("one", "two"))
    pair(tmp_path, a, b)

    result = run("fuse-diff a.jsonl b.jsonl | head -1; echo ${PIPESTATUS[0]}")

    assert (result.text, result.err) == ("--- q0 --- answer changed --- What is q0?\n1\n", "")


def test_a_change_is_out_before_the_first_file_ends_and_ctrl_c_ends_with_130(
    env: dict[str, str], tmp_path: Path
) -> None:
    pair(tmp_path, [], [answered("q1", "one")])
    with subprocess.Popen(
        ["fuse-diff", "-", "b.jsonl", "--brief"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=env,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines([answered("q1", "two")]))
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], 60)
        first = process.stdout.readline() if ready else b""
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert first == b"q1: answer changed\n"
    assert (process.returncode, out, err) == (130, b"", b"")


PROSE = "What is red?\nWhat is green?\n"


@pytest.mark.parametrize("swapped", [False, True])
def test_what_may_stand_in_lines_that_cannot_be_read_is_not_called_missing(
    swapped: bool, run: Run, tmp_path: Path
) -> None:
    command = pair(tmp_path, [answered(f"q{i}", "x") for i in range(3)], [])
    (tmp_path / "b.jsonl").write_text(PROSE)
    if swapped:
        command[1:] = command[:0:-1]

    text, data = run(command), run([*command, "--json"])
    brief, quiet = run([*command, "--brief"]), run([*command, "-q"])

    said = "b.jsonl: 2 lines could not be read; 3 records of a.jsonl may stand in them\n"
    assert text.text == f"no record could be compared\n{said}"
    assert (brief.text, quiet.text) == ("", "")
    assert brief.err == quiet.err == f"{text.err}fuse-diff: {said}"
    sides = "ba" if swapped else "ab"
    summary = data.records[0]["summary"]
    assert (summary["only_in_a"], summary["only_in_b"]) == (0, 0)
    assert summary["unread"] == {sides[0]: 0, sides[1]: 2}
    assert summary["unpaired"] == {sides[0]: 3, sides[1]: 0}
    assert [result.status for result in (text, data, brief, quiet)] == [2, 2, 2, 2]


def test_what_is_missing_from_a_file_that_could_be_read_is_still_said(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "x"), {}, answered("q2", "x")], [answered("q1", "x"), answered("q3", "x")])

    result = run(command)

    assert result.status == 2
    assert result.text == (
        "only in a.jsonl: q2\n\n"
        "1 record compared: 1 same\n"
        "only in a.jsonl: 1\n"
        "a.jsonl: 1 line could not be read; 1 record of b.jsonl may stand in it\n"
    )


def test_a_file_of_prose_is_not_reported_line_by_line(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "x")], [])
    (tmp_path / "b.jsonl").write_text(PROSE * 20)

    result = run(command)

    assert result.err.count("not JSON") == 5
    assert result.err.splitlines()[5:] == ["fuse-diff: b.jsonl: and 35 more lines cannot be read"]


def test_an_unexpected_failure_is_trouble_and_no_difference(env: dict[str, str], tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [answered("q1", "one")])
    (tmp_path / "orjson.py").write_text("raise RuntimeError('broken')\n")

    result = subprocess.run(
        command, cwd=tmp_path, env={**env, "PYTHONPATH": str(tmp_path)}, capture_output=True, check=False
    )

    assert result.returncode == 2
    assert b"RuntimeError: broken" in result.stderr


# Colour


def on_a_terminal(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Result:
    """Run a command whose standard output is a terminal."""
    screen, terminal = pty.openpty()
    out = b""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, cwd=cwd, env=env) as process:
        os.close(terminal)
        try:
            while chunk := os.read(screen, 1 << 16):
                out += chunk
        except OSError:  # how a terminal says that nobody writes any more
            pass
        os.close(screen)
    return Result(process.returncode, out.replace(b"\r\n", b"\n"), "")


def test_colour_is_added_on_a_terminal_and_the_words_stay(env: dict[str, str], run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "It is red.")], [answered("q1", "It is\x1b[2J green.")])

    shown = on_a_terminal(command, tmp_path, {**env, "TERM": "xterm"})
    plain = run(command)

    assert shown.text.startswith("\x1b[1m--- q1 --- answer changed --- What is q1?\x1b[m\n")
    assert "\x1b[31m[- red-]\x1b[m" in shown.text
    assert "\x1b[2J" not in shown.text
    assert "\x1b" not in plain.text
    stripped = shown.text
    for code in ("\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[m"):
        stripped = stripped.replace(code, "")
    assert stripped == plain.text


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}, {}], ids=str)
def test_no_colour_where_it_is_not_welcome(setting: dict[str, str], env: dict[str, str], tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [answered("q1", "two")])

    shown = on_a_terminal(command, tmp_path, {**env, **setting})

    assert shown.status == 1
    assert "[-one-]{+two+}" in shown.text
    assert "\x1b" not in shown.text


def test_an_empty_no_color_is_none(env: dict[str, str], tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [answered("q1", "two")])

    shown = on_a_terminal(command, tmp_path, {**env, "NO_COLOR": "", "TERM": "xterm"})

    assert "\x1b[31m[-one-]\x1b[m" in shown.text


def test_json_is_never_coloured(env: dict[str, str], tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [answered("q1", "two")])

    shown = on_a_terminal([*command, "--json"], tmp_path, {**env, "TERM": "xterm"})

    assert [json.loads(line).get("id") for line in shown.text.splitlines()] == ["q1", None]
