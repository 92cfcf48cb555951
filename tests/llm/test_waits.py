"""How long an endpoint asks us to wait."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from fusiontools.llm.waits import wait_asked_for


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2m59.56s"}, 179.56),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, 30.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "5"}, 5.0),
        ({"retry-after": "2", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, 2.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "6m0s"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-remaining": "0"}, None),
        ({"retry-after": "99999999999999"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_what_the_headers_say(headers: dict[str, str], wait_s: float | None) -> None:
    assert wait_asked_for(headers) == wait_s


def test_of_two_limits_that_are_used_up_the_longer_wait_counts() -> None:
    used_up = {f"x-ratelimit-remaining-{what}": "0" for what in ("requests", "tokens")}

    assert wait_asked_for(used_up | {"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "4s"}) == 4.0


@pytest.mark.parametrize(
    "said",
    [
        lambda at: {"retry-after": format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True)},
        lambda at: {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(at))},
        lambda at: {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(at * 1000))},
        lambda at: {
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"),
        },
    ],
    ids=["date", "seconds", "milliseconds", "time"],
)
def test_a_time_is_a_wait_until_then(said: object) -> None:
    wait_s = wait_asked_for(said(time.time() + 600))  # type: ignore[operator]

    assert wait_s is not None
    assert 590 < wait_s <= 600
