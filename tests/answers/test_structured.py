"""Votes of JSON, tool calls and regular expressions."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from votes import key_of

from fusiontools.answers.keys import vote_keys
from fusiontools.answers.structured import calls_key

# JSON


@pytest.mark.parametrize(
    ("text", "path", "key"),
    [
        ('{"label": "Spam"}', "label", "spam"),
        ('{"label": "Spam"}', "$.label", "spam"),
        ('```json\n{"label": "spam",}\n```', "label", "spam"),
        ('Sure! {"label": "spam"} Anything else?', "label", "spam"),
        ('See [1]: {"label": "spam"} {note}', "label", "spam"),
        ('First {"label": "ham"}, then {"label": "spam"}', "label", "spam"),
        ('{"a": {"b": [{"c": 1.0}]}}', "a.b[0].c", "1"),
        ('{"a": [1, 2]}', "a[-1]", "2"),
        ('{"a": [1, 2]}', "a.1", "2"),
        ("[1e3]", "[0]", "1000"),
        ('{"n": "1,000"}', "n", "1000"),
        ('{"n": 0.1}', "n", "0.1"),
        ('{"n": true}', "n", "true"),
        ('{"n": {"b": 2, "a": 1.0}}', "n", '{"a":1,"b":2}'),
        ("42", "$", "42"),
        ('<think>{"a": 1}</think>{"a": 2}', "a", "2"),
        ('{"a": 1e999999999}', "a", "1e999999999"),
        ('{"a": null}', "a", None),
        ('{"a": ""}', "a", None),
        ('{"a": "I don\'t know"}', "a", None),
        ('{"a": 1}', "b", None),
        ('{"a": [1]}', "a[7]", None),
        ('{"a": NaN}', "a", None),
        ("no JSON", "a", None),
        ('{"a": ', "a", None),
        ("[" * 100_000, "a", None),
    ],
)
def test_a_value_in_json_votes(text: str, path: str, key: str | None) -> None:
    assert vote_keys([text], f"json:{path}") == ("json", [key])


def test_half_an_emoji_can_be_written_as_a_key() -> None:
    key = key_of('{"a": "\\ud83d x"}', "json:a")

    assert key
    assert key.encode()


def test_tool_calls_agree_where_their_names_and_arguments_do() -> None:
    def calls(*told: tuple[str, str]) -> str:
        return calls_key([{"function": {"name": name, "arguments": arguments}} for name, arguments in told])

    assert calls(("f", '{"a": 1, "b": [2.0]}')) == calls(("f", '{"b":[2],"a":1.0}'))
    assert calls(("f", "{}"), ("g", "")) == calls(("g", "{}"), ("f", "{}"))
    assert calls(("f", '{"a": "x"}')) != calls(("f", '{"a": "X"}'))
    assert calls(("f", '{"a": 1}')) != calls(("f", '{"a": "1"}'))
    assert calls(("f", "{broken")) == calls(("f", "{broken"))


# Regular expressions


@pytest.mark.parametrize(
    ("pattern", "text", "key"),
    [
        (r"id=(\d+)", "id=17, no: id=18.0", "18"),
        (r"\d+", "17 and 18", "18"),
        (r"<a>(.*)</a>", "<a>**The Beatles**</a>", "beatles"),
        (r"(?i)LABEL: (\w+)", "label: Spam", "spam"),
        (r"a(b)?", "a", None),
        (r"a()", "a", None),
        (r"z", "a", None),
        (r"\d+", "<think>1</think>", None),
        (r"x(\d)", "x1" + " " * 2_001, "1"),
        (r"x(\d)", "x1" + "." * 2_001, None),
        (r"(?i)final:\s*(.+)$", "Final: 42\n", "42"),
        (r"(\w+)$", "Größe", "grosse"),
        (r"[\w-]+\Z", "Straßen-Öl", "strassen ol"),
        (r"\s(\d+)", "n\u00a0٣٤", "34"),
        (r"(?:^|\n)\s*-?\s*(yes|no)\b", "So:\n - no", "no"),
        (r"([A-Z][a-z]+(?: [A-Z][a-z]+)*)", "it was Ada Lovelace", "ada lovelace"),
    ],
)
def test_the_last_match_votes(pattern: str, text: str, key: str | None) -> None:
    assert vote_keys([text], f"regex:{pattern}") == ("regex", [key])


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:.*)[xy]",
        r"\b(\d+(?:\.\d+)?)\s*%",
        "aa.*aa.*c",
        "(a+)+b",
        "(a|aa)*b",
        "(?:a{1,9}){1,99}$",
        r"\w+\s+\w+\s*=\s*!",
        "a{0,999}b",
    ],
)
@pytest.mark.parametrize("piece", ["a", "1", "1.", "a ", " ", "x\n", "aaa= "])
def test_no_pattern_that_is_taken_makes_it_slow(pattern: str, piece: str) -> None:
    started = time.process_time()
    vote_keys([piece * 3_900 + "!"], f"regex:{pattern}")

    assert time.process_time() - started < 5


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)))  # fmt: skip  # noqa: E501
def test_json_votes_the_same_however_it_is_laid_out(value: Any) -> None:
    compact, wide = json.dumps(value), json.dumps(value, indent=2, ensure_ascii=False)

    one, other = vote_keys([compact, f"```json\n{wide}\n```"], "json:$")[1]

    assert isinstance(value, str | int | None) or one == other
