"""Word by word: what is shown as changed, and that long texts take no long time."""

from __future__ import annotations

import random
from typing import Any

import pytest
from diffs import TEXTS
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.evaluation.diff.word_diff import changed_blocks, tokens, word_diff


def marked(a: str, b: str) -> str:
    marks = {"=": "{}", "-": "[-{}-]", "+": "{{+{}+}}"}
    return "".join(marks[kind].format(text) for kind, text in word_diff(a, b))


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
@pytest.mark.parametrize("size", [1000, 4000])
def test_the_work_is_bounded_however_long_the_texts(a: list[int], b: list[int], size: int) -> None:
    Counted.work = 0

    blocks = changed_blocks(list(map(Counted, a[:size])), list(map(Counted, b[:size])))

    assert blocks
    assert Counted.work < 3 * 1000 * 1000


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
