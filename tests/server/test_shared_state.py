"""Servers that share a state have one limit, one day's money and one cache, whichever of them is asked."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from stores import StoreServer
from workdir import Serve, Upstream

KEYS = {"FUSION_SERVER_API_KEYS": "first-key-of-tests,second-key-of-tests"}
FIRST, SECOND = ({"authorization": f"Bearer {key}"} for key in KEYS["FUSION_SERVER_API_KEYS"].split(","))
PRICED = """
models:
  dear: {model: fake/a+nocost+nousage, price_usd_per_mtok: {prompt: 0, completion: 100}}
panel: [dear]
judge: dear
synth: dear
"""
#: Three calls of ten tokens fit, each of which is paid for as it might have been.
DAY_USD, FITTING = "0.0031", 3


@pytest.fixture
def shared(redis_server: StoreServer) -> dict[str, str]:
    return {**KEYS, "FUSION_STATE": redis_server.own()}


def test_a_key_has_one_rate_at_all_servers(serve: Serve, shared: dict[str, str]) -> None:
    servers = [serve("--rate-limit", "3", env=shared) for _ in range(2)]

    statuses = [servers[i % 2].chat(f"{i}?", headers=FIRST, model="fake/a").status_code for i in range(5)]
    refused = servers[0].chat("Again?", headers=FIRST, model="fake/a")
    other = servers[1].chat("Mine?", headers=SECOND, model="fake/a")

    assert statuses == [200, 200, 200, 429, 429]
    assert 50 <= int(refused.headers["retry-after"]) <= 60
    assert other.status_code == 200


def test_an_answer_that_one_server_keeps_another_gives(
    serve: Serve, shared: dict[str, str], upstream: Upstream
) -> None:
    servers = [serve("--cache", "600", env=shared) for _ in range(2)]

    first = servers[0].chat("Why?", headers=FIRST)
    asked = upstream.stats()["requests"]
    second = servers[1].chat("Why?", headers=FIRST)
    foreign = upstream.stats()["requests"]
    servers[1].chat("Why?", headers=SECOND)

    def text(reply: Any) -> str:
        return str(reply.json()["choices"][0]["message"]["content"])

    assert text(first) == text(second)
    assert (foreign, second.json()["fusion"]["cached"]) == (asked, True)
    assert upstream.stats()["requests"] == 2 * asked  # another key's answers are its own


def test_a_days_money_is_that_of_all_servers_and_outlives_them(
    serve: Serve, shared: dict[str, str], upstream: Upstream
) -> None:
    def bought(server: Any) -> int:
        replies = [server.chat(f"{i}?", headers=FIRST, model="dear", max_tokens=10).status_code for i in range(2)]
        return replies.count(200)

    first, second = (serve("--max-day-cost-usd", DAY_USD, recipe=PRICED, env=shared) for _ in range(2))
    counts = [bought(first), bought(second)]
    os.kill(first.process.pid, signal.SIGKILL)
    third = serve("--max-day-cost-usd", DAY_USD, recipe=PRICED, env=shared)
    counts.append(bought(third))

    assert counts == [2, 1, 0]
    assert upstream.stats()["requests"] == FITTING


def test_while_the_store_is_away_money_is_not_spent_and_the_rest_goes_on(serve: Serve) -> None:
    away = {**KEYS, "FUSION_STATE": "redis://me:sesame@127.0.0.1:1/0"}
    server = serve("--rate-limit", "1000", "--cache", "60", env=away)
    limited = serve("--max-day-cost-usd", "1", recipe=PRICED, env=away)

    goes_on = server.chat("Why?", headers=FIRST)
    refused = limited.chat("Why?", headers=FIRST, model="dear", max_tokens=10)

    assert (goes_on.status_code, refused.status_code) == (200, 503)
    assert refused.json()["error"]["code"] == "caller_budget"
    assert [each.said().count("is done without, but for money") for each in (server, limited)] == [1, 1]
    assert "sesame" not in server.said() + limited.said() + refused.text
    assert ":***@" not in refused.text  # where it is concerns no client


@pytest.mark.slow
def test_workers_have_one_rate_and_not_a_part_each(serve: Serve) -> None:
    server = serve("--workers", "2", "--rate-limit", "4", env=KEYS)
    away = {"connection": "close", **FIRST}

    statuses = [server.chat(f"{i}?", headers=away, model="fake/a").status_code for i in range(12)]

    assert statuses == [200] * 4 + [429] * 8
