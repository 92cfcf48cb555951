"""Money that several processes spend together: no worker has a limit of its own, and no new one refills it."""

from __future__ import annotations

import os
import signal

import pytest
from rawhttp import eventually
from serving import Server, workers_of
from workdir import Serve, Upstream

PRICED = """
models:
  dear: {model: fake/a+nocost+nousage, price_usd_per_mtok: {prompt: 0, completion: 100}}
panel: [dear]
judge: dear
synth: dear
"""
#: Three calls of ten tokens fit, each of which is paid for as it might have been.
LIMIT_USD, FITTING = "0.0031", 3

pytestmark = pytest.mark.slow


def bought(server: Server) -> int:
    """Ask often, each time on a connection of its own, so that every worker is asked; returns how many are answered."""
    away = {"connection": "close"}
    replies = [server.chat(headers=away, model="dear", max_tokens=10) for _ in range(16)]
    assert {reply.status_code for reply in replies} <= {200, 402}
    return sum(reply.status_code == 200 for reply in replies)


@pytest.mark.parametrize("limit", ["--max-cost-usd", "--max-day-cost-usd"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "hangup"])
def test_a_limit_is_that_of_all_workers_and_of_those_that_take_their_place(
    serve: Serve, upstream: Upstream, limit: str, number: signal.Signals
) -> None:
    server = serve("--workers", "2", limit, LIMIT_USD, recipe=PRICED)

    first = bought(server)
    before = workers_of(server)
    if number == signal.SIGHUP:
        server.process.send_signal(number)
    else:
        for worker in before:
            os.kill(worker, number)
    eventually(lambda: len(workers_of(server) - before) == 2 and not workers_of(server) & before, "two other workers")
    second = bought(server)

    assert (first, second) == (FITTING, 0)
    assert upstream.stats()["requests"] == FITTING
