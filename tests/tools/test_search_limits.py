"""An engine's turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest

from fusiontools.tools.search_limits import SearchRefused, SearchTurns, asked_wait_s


def test_turns_keep_their_distance_however_many_ask_at_once() -> None:
    times: list[float] = []

    async def take(turns: SearchTurns) -> None:
        await turns.take()
        times.append(time.monotonic())

    async def work() -> None:
        turns = SearchTurns(0.05)
        await asyncio.gather(*(take(turns) for _ in range(4)))

    asyncio.run(work())
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.045


def test_a_turn_that_is_too_far_away_is_refused_and_a_near_one_waited_for() -> None:
    async def work() -> float:
        turns, started = SearchTurns(), time.monotonic()
        turns.hold(0.05)
        await turns.take()
        waited = time.monotonic() - started
        turns.hold(3600)
        with pytest.raises(SearchRefused, match="asked us to wait, 3600 s"):
            await turns.take()
        return waited

    assert asyncio.run(work()) >= 0.05


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "x-ratelimit-reset": "1"}, 7.0),
        ({"x-ratelimit-reset": "2, 86400"}, 2.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, 1.0),
        ({}, 1.0),
    ],
)
def test_a_limit_says_how_long_to_wait(headers: Mapping[str, str], wait_s: float) -> None:
    assert asked_wait_s(headers) == wait_s


def test_a_limit_may_name_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=60)

    assert 50 < asked_wait_s({"retry-after": format_datetime(later, usegmt=True)}) <= 60
