"""What is found in a text, and what is not."""

from __future__ import annotations

import time

import pytest

from fusiontools.errors import UsageError
from fusiontools.llm.sensitive import finder_for

ALL = (("email", ""), ("phone", ""), ("keys", ""))


def found(text: str, *redact: tuple[str, str]) -> list[str]:
    return [text[span.start : span.end] for span in finder_for(redact or ALL).spans(text)]


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com",
        "ann.lee+news@mail.example.co.uk",
        "o'neil@example.com",
        "müller@bücher.example",
        "ann%40example.com",
        "用户@例子.公司",
        "a@b.museum",
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "Write to <{}>, please.", "mailto:{}?subject=x", "({})", '"{}"', "{}.", "{}\n"]
)
def test_an_address_is_found_whatever_stands_around_it(address: str, around: str) -> None:
    assert found(around.format(address)) == [address]


def test_an_address_in_a_text_without_spaces_is_found_alone() -> None:
    assert found("我的邮箱是ann@example.com请回信") == ["ann@example.com"]


@pytest.mark.parametrize("text", ["@ann", "a @ b.com", "3 @ 4", "x@y", "https://x.example/@ann/post", "foo@1.2"])
def test_not_every_at_makes_an_address(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "number",
    ["+49 30 1234567", "+1 (555) 010-9999", "+15550109999", "555-010-9999", "(555) 010-9999", "030 1234567",
     "020 7946 0958", "01 23 45 67 89", "0049 30 1234567", "030/1234567"],
)  # fmt: skip
def test_a_telephone_number_is_found(number: str) -> None:
    assert found(f"Call {number} today.") == [number]


@pytest.mark.parametrize(
    "text",
    ["2026-11-30", "01/02/2026", "01.02.2026", "12345678", "3.14159265", "192.168.10.20", "1,234,567", "v1.2.3-4",
     "1 2 3 4 5 6 7 8", "978-3-16-148410-0", "12:30:45", "0.0012345678"],
)  # fmt: skip
def test_dates_amounts_and_other_numbers_stay(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-" + "api03-abcdefghij",
        "sk-proj-abcdefghijklmnopqrstuv",
        "ghp_abcdefghijklmnopqrstuvwxyz012345",
        "github_pat_11ABCDEFG0123456789_abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA-1234567890abcdefghijklmnopqrstu",
        "xoxb-123456789012-abcdefGHIJKL",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc_DEF-123",
        "glpat-abcdefghij0123456789",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc==\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_a_key_is_found_by_its_form(key: str) -> None:
    assert found(f"KEY: {key}\n") == [key]


def test_a_key_or_a_number_is_found_behind_an_equals_sign() -> None:
    assert found("?tel=+15550109999") == ["+15550109999"]
    assert found("OPENAI_API_KEY=sk-proj-abcdefghijklmnopqrstuv") == ["sk-proj-abcdefghijklmnopqrstuv"]


def test_a_key_that_is_cut_off_is_hidden_to_the_end() -> None:
    cut = "-----BEGIN PRIVATE KEY-----\nMIIE"

    assert found(f"See {cut}") == [cut]


def test_credentials_in_a_url_and_behind_bearer_are_found() -> None:
    assert found("postgres://ann:s3cret@db/x", ("keys", "")) == ["ann:s3cret"]
    assert found("Authorization: Bearer abcdefghijklmnopqrstuv==", ("keys", "")) == ["abcdefghijklmnopqrstuv=="]


def test_ones_own_pattern_is_found_and_speaks_re2() -> None:
    assert found("Ask EMP-1234 \ud800 or EMP-99.", ("employee", r"EMP-\d+")) == ["EMP-1234", "EMP-99"]
    with pytest.raises(UsageError, match="redact: employee: no regular expression of RE2"):
        finder_for((("employee", r"(?=x)"),))


def test_what_overlaps_is_hidden_as_one() -> None:
    assert found("id:ann@example.com", ("tag", r"id:ann"), ("email", "")) == ["id:ann@example.com"]


def test_what_looks_like_a_mark_is_found_too() -> None:
    assert found("[EMAIL_1] and [EMAIL] and [OTHER_1]") == ["[EMAIL_1]"]


@pytest.mark.parametrize(
    "piece", ["a", "a.", "1 ", "+1", "sk-", "://a:", "-----BEGIN PRIVATE KEY-----", "a@", "[", "0 "]
)
def test_the_search_takes_time_in_proportion_to_the_text(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        began = time.process_time()
        finder_for(ALL).spans(text)
        return time.process_time() - began

    seconds(1_000)
    assert seconds(200_000) < 3
