"""Every form in which a question may come in, and what is said of what is none."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import RECORDS

from fusiontools.errors import InputError
from fusiontools.record import jsonl
from fusiontools.record.sections import question_id

ASKED = [{"role": "user", "content": "Why?"}]
ID = question_id(ASKED)  # type: ignore[arg-type]


def parse(data: Any) -> Any:
    return jsonl.parse(jsonl.dumps(data))


def refusal(line: bytes) -> str:
    with pytest.raises(InputError) as refused:
        jsonl.parse(line)
    return refused.value.message


def test_a_record_comes_through_as_it_is() -> None:
    record = {"id": "q1", "messages": ASKED, "params": {"max_tokens": 5}, "meta": {"target": "42"}, "theirs": [1]}

    assert parse(record) == record


def test_a_record_without_id_gets_one_in_front() -> None:
    assert list(parse({"meta": {}, "messages": ASKED}).items()) == [("id", ID), ("meta", {}), ("messages", ASKED)]


def test_a_prompt_is_a_user_message() -> None:
    assert parse({"prompt": "Why?"}) == {"id": ID, "messages": ASKED}


def test_a_prompt_keeps_what_stands_beside_it() -> None:
    given_ = {"id": "q1", "prompt": "Why?", "system": "Be brief.", "meta": {"target": "42"}, "theirs": 1, "seed": 7}

    assert parse(given_) == {
        "id": "q1",
        "messages": [{"role": "system", "content": "Be brief."}, *ASKED],
        "meta": {"target": "42"},
        "theirs": 1,
        "params": {"seed": 7},
    }


def test_a_chat_request_turns_its_wishes_into_params() -> None:
    request = {"model": "x", "messages": ASKED, "max_completion_tokens": 9, "stop": ["\n"], "stream": True, "mine": 1}

    assert parse(request) == {
        "id": ID,
        "messages": ASKED,
        "mine": 1,
        "params": {"model": "x", "stop": ["\n"], "stream": True, "max_tokens": 9},
    }


def test_params_that_are_given_win_over_the_request_around_them() -> None:
    assert parse({"messages": ASKED, "seed": 1, "params": {"seed": 2}})["params"] == {"seed": 2}


def test_no_limit_at_all_is_no_limit() -> None:
    assert parse({"messages": ASKED, "max_tokens": None, "seed": 1})["params"] == {"seed": 1}


def test_a_batch_line_is_named_by_its_custom_id() -> None:
    body = {"model": "x", "messages": ASKED}
    line = {"custom_id": "r-7", "method": "POST", "url": "/v1/chat/completions", "body": body}

    assert parse(line) == {
        "id": "r-7",
        "custom_id": "r-7",
        "method": "POST",
        "url": "/v1/chat/completions",
        "messages": ASKED,
        "params": {"model": "x"},
    }


def test_a_batch_line_may_hold_a_prompt() -> None:
    line = {"custom_id": "r-7", "body": {"prompt": "Why?"}}

    assert parse(line) == {"id": "r-7", "messages": ASKED, "custom_id": "r-7"}


def test_a_body_beside_messages_is_the_users_own() -> None:
    assert parse({"id": "1", "messages": ASKED, "body": {"a": 1}})["body"] == {"a": 1}


def test_a_record_with_a_panel_keeps_even_keys_that_a_request_would_have() -> None:
    panel = [{"member": "m", "sample": 0, "layer": 1, "content": "x"}]
    record = {"id": "1", "messages": ASKED, "panel": panel, "user": "me", "n": 3}

    assert parse(record) == record


def test_a_tool_result_is_a_question_too() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]

    assert parse({"id": "1", "messages": messages})["messages"] == messages


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"hello", "not JSON: unexpected character"),
        (b'{"prompt": "x"', "not JSON: "),
        (b"", "not JSON: "),
        (b'{"prompt": NaN}', "not JSON: "),
        (b'{"prompt": 1e999}', "not JSON: number is infinity when parsed as double"),
        (b'{"prompt": "\\ud800"}', "not JSON: no low surrogate in string"),
        (b'{"prompt": "\xff"}', "not UTF-8: byte 0xff at offset 12"),
        (b'{"prompt": "a\0b"}', "not JSON: NUL byte at offset 13"),
        (b"[1]", "$: a record is a JSON object, this is an array"),
        (b'"x"', "$: a record is a JSON object, this is a string"),
        (b"3", "$: a record is a JSON object, this is a number"),
        (b"3.5", "$: a record is a JSON object, this is a number"),
        (b"true", "$: a record is a JSON object, this is a boolean"),
        (b"null", "$: a record is a JSON object, this is null"),
        (b"{}", "$: no `messages` and no `prompt`: not a question"),
        (b'{"body": {"model": "x"}}', "$: no `messages` and no `prompt`: not a question"),
        (b'{"prompt": 3}', "$.prompt: a prompt is text, this is a number"),
        (b'{"prompt": null}', "$.prompt: a prompt is text, this is null"),
        (b'{"prompt": ""}', "$.messages: no message has any content: the question is empty"),
        (b'{"messages": []}', "$.messages: [] should be non-empty"),
        (b'{"messages": [{"role": "user", "content": null}]}', "$.messages: no message has any content"),
        (b'{"messages": [{"role": "user", "content": 3}]}', "$.messages[0].content: 3 is not of type"),
        (b'{"messages": [{"content": "x"}]}', "$.messages[0]: 'role' is a required property"),
        (b'{"id": 3, "prompt": "x"}', "$.id: 3 is not of type 'string'"),
        (b'{"custom_id": 3, "body": {"prompt": "x"}}', "$.id: 3 is not of type 'string'"),
        (b'{"prompt": "x", "max_tokens": 0}', "$.params.max_tokens: 0 is less than the minimum of 1"),
    ],
)
def test_what_is_no_record_is_refused_by_place_and_cause(line: bytes, message: str) -> None:
    assert refusal(line).startswith(message)


def test_params_that_are_no_object_are_refused() -> None:
    assert refusal(b'{"prompt": "x", "params": []}') == "$.params: [] is not of type 'object'"


def test_params_that_are_no_object_are_refused_beside_wishes_too() -> None:
    assert refusal(b'{"prompt": "x", "seed": 1, "params": []}') == "$.params: [] is not of type 'object'"


def test_messages_that_are_no_list_are_what_is_complained_about() -> None:
    assert refusal(b'{"messages": {}}').startswith("$.messages: {} is not of type 'array'")


def test_a_long_bad_line_is_shown_by_its_beginning() -> None:
    assert len(refusal(b"{" + b"x" * 100_000)) < 200


def test_plain_text_is_one_question_with_its_line_breaks() -> None:
    assert jsonl.from_text(b"Why?\r\nReally?\n\n")["messages"][0]["content"] == "Why?\nReally?"


def test_a_byte_order_mark_is_no_part_of_the_question() -> None:
    assert jsonl.from_text(b"\xef\xbb\xbfWhy?") == {"id": ID, "messages": ASKED}


def test_the_same_question_has_the_same_id_in_every_form() -> None:
    forms = [{"prompt": "Why?"}, {"messages": ASKED}, {"messages": ASKED, "model": "x"}, {"body": {"messages": ASKED}}]

    assert {jsonl.from_text(b"Why?\n")["id"], *(parse(form)["id"] for form in forms)} == {ID}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the question is empty"),
        (b" \n\t\n", "the question is empty"),
        (b"caf\xe9", "not UTF-8: byte 0xe9 at offset 3"),
        (b"a\0b", "binary, not text: NUL byte at offset 1"),
    ],
)
def test_text_that_is_no_question_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as refused:
        jsonl.from_text(data)

    assert refused.value.message == message


@given(st.binary(max_size=60))
def test_no_bytes_whatever_raise_anything_but_an_input_error(data: bytes) -> None:
    for read in (jsonl.parse, jsonl.from_text):
        with contextlib.suppress(InputError):
            assert read(data)["messages"]


@given(RECORDS)
def test_a_written_record_is_read_back_as_it_was(whole: Any) -> None:
    line = jsonl.write(whole)

    assert line.count(b"\n") == 1
    assert jsonl.parse(line) == whole
    assert list(jsonl.parse(line)) == list(whole)


@pytest.mark.parametrize("separators", [None, (",", ":")])
@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30, 10**300])
def test_an_integer_of_more_than_64_bits_is_refused(number: int, separators: tuple[str, str] | None) -> None:
    line = json.dumps({"prompt": "Why?", "meta": {"n": number}}, separators=separators).encode()

    with pytest.raises(InputError, match="more than 64 bits; write it as a string"):
        jsonl.parse(line)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63)])
def test_an_integer_of_64_bits_passes_untouched(number: int) -> None:
    assert jsonl.parse(json.dumps({"prompt": "Why?", "meta": {"n": number}}).encode())["meta"]["n"] == number


def test_digits_inside_a_string_are_no_integer() -> None:
    digits = "1234567890" * 3

    assert jsonl.parse(jsonl.dumps({"prompt": digits}))["messages"][0]["content"] == digits


def test_a_nesting_too_deep_to_check_is_refused_in_words() -> None:
    line = b'{"prompt": "x", "meta": {"n": 1234567890123456789, "a": ' + b"[" * 1000 + b"]" * 1000 + b"}}"

    with pytest.raises(InputError, match="nested too deep"):
        jsonl.parse(line)
