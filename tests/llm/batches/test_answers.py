"""What a line of a result says came of a call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fusiontools.llm.batches import anthropic_jobs, gemini_jobs, openai_jobs

DONE = {"choices": []}


def read(**said: Any) -> tuple[int, Any] | None:
    answer = openai_jobs.read_line(json.dumps({"custom_id": "a1", **said}).encode())
    return None if answer is None else (answer.status, json.loads(answer.body))


def test_a_refusal_in_a_response_is_none_the_less_one() -> None:
    error = {"error": {"message": "no"}}

    assert read(response={"status_code": 400, "body": error}, error=None) == (400, error)
    assert read(response={"status_code": 200, "body": DONE}, error=None) == (200, DONE)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"type": "invalid_request_error", "message": "no"}, 400),
        ({"type": "server_error", "message": "oh"}, 500),
        ({"type": "rate_limit_error", "message": "slow"}, 429),
        ({"code": 402, "message": "pay"}, 402),
        ({"message": "?"}, 500),
        ({"code": "batch_expired", "message": "late"}, 0),
        ({"code": "batch_cancelled", "message": "stopped"}, 0),
    ],
)
def test_an_error_without_a_response_has_the_status_of_its_name(error: dict[str, Any], status: int) -> None:
    found = read(response=None, error=error)

    assert found is not None
    assert found[0] == status


@pytest.mark.parametrize("line", [b"{nonsense", b"[]", b"7", b'{"custom_id": 7}', b"{}"])
def test_lines_that_say_nothing_are_left_out(line: bytes) -> None:
    assert openai_jobs.read_line(line) is None
    assert anthropic_jobs.read_line(line) is None
    assert gemini_jobs.read_line(line) is None
