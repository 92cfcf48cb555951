"""What programs print in the place of an answer, and when their limits are over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fusiontools.llm.command_output import ProgramAnswer, failure_in, objects_in, read_text

#: Half past noon in UTC, half past nine in the evening in Tokyo.
NOW = datetime(2026, 11, 30, 12, 30, tzinfo=UTC)
HOUR_S = 3600


def named(text: str, status: int = 0, complaint: str = "") -> tuple[str, float | None] | None:
    failure = failure_in(read_text(text), status, complaint, "it", NOW)
    return None if failure is None else (failure.code, failure.retry_after_s)


@pytest.mark.parametrize(
    ("prose", "wait_s"),
    [
        ("You've hit your session limit · resets 3:50pm (Asia/Tokyo)", 18 * HOUR_S + 20 * 60),
        ("You’ve hit your weekly limit · resets Dec 2, 9am (UTC)", 44.5 * HOUR_S),
        ("You've hit your limit · resets 1pm (UTC)", HOUR_S / 2),
        ("Claude AI usage limit reached|1796058000", 1796058000 - NOW.timestamp()),
        ("You've hit your usage limit. Upgrade to Pro or try again in 2 hours 5 minutes.", 2 * HOUR_S + 300),
        ("You've hit your usage limit. Try again at Dec 1st, 2026 12:30 PM (UTC).", 24 * HOUR_S),
        ("5-hour limit reached ∙ resets 14:00 (UTC)", 1.5 * HOUR_S),
        ("You've hit your usage limit.", None),
        ("You've hit your limit · resets 3pm (Nowhere/Town)", None),
    ],
)
def test_a_limit_in_prose_is_one_and_says_when_it_is_over(prose: str, wait_s: float | None) -> None:
    assert named(prose) == ("rate_limited", wait_s)


@pytest.mark.parametrize(
    ("text", "status", "complaint", "code"),
    [
        ("Invalid API key · Please run /login", 0, "", "auth"),
        ("", 1, "Error: No key found - add one using 'llm keys set openai'", "auth"),
        ("Credit balance is too low", 0, "", "payment"),
        ("Prompt is too long", 0, "", "context_length"),
        ("", 1, "Error: model 'x' not found", "not_found"),
        ("API Error: 500 internal server error", 0, "", "program"),
        ("Half an answer", 1, "Killed", "program"),
        ("", 0, "", "program"),
    ],
)
def test_a_failure_is_called_what_it_is(text: str, status: int, complaint: str, code: str) -> None:
    found = named(text, status, complaint)

    assert found is not None
    assert found[0] == code


@pytest.mark.parametrize(
    "text",
    [
        "Paris.",
        "The message “You've hit your session limit” means that you must wait.",
        "You've hit your usage limit is what it says. " + "Here is why, at length. " * 30,
        "429 is a number.",
    ],
)
def test_an_answer_may_speak_of_limits(text: str) -> None:
    assert named(text) is None


def test_only_a_failure_that_will_pass_is_worth_another_try() -> None:
    soon = failure_in(read_text("Usage limit reached, try again in 20s"), 1, "", "it", NOW)
    some_day = failure_in(read_text("Usage limit reached"), 1, "", "it", NOW)

    assert soon is not None
    assert some_day is not None
    assert (soon.retryable, some_day.retryable) == (True, False)


def test_the_reason_that_the_program_itself_gives_counts_before_its_noise() -> None:
    failure = failure_in(ProgramAnswer(failed="out of paper"), 1, "(node:1) Warning: deprecated", "it", NOW)

    assert failure is not None
    assert failure.message == "it ended with status 1: out of paper"


@pytest.mark.parametrize(
    ("printed", "count"),
    [
        ('{"a": 1}', 1),
        ('[{"a": 1}, 2, {"b": 1}]', 2),
        ('noise\n{"a": 1}\n{broken\n{"b": 1}\n', 2),
        ("noise", 0),
        ("", 0),
    ],
)
def test_objects_are_found_alone_in_a_list_or_in_lines(printed: str, count: int) -> None:
    assert len(objects_in(printed)) == count
