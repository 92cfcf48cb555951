"""Sixteen real processes at one store: nothing is claimed twice, nothing is locked, no dollar is spent twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter

import psycopg
import pytest
from stores import StoreServer

from fusiontools.llm.state.shared import open_state
from fusiontools.llm.state.store import Purchase

pytestmark = pytest.mark.slow

PROCESSES, CAP = 16, 40

CLAIMS = """
import asyncio, sys
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.state.shared import open_state
from fusiontools.llm.state.store import Lease, Purchase, Reservation, Shortage, Settlement

async def main(url, calls, cap):
    state = open_state(url, lambda text: print("warned", text, flush=True))
    request = CompletionRequest("there", "m", ())
    for i in range(calls):
        key = i.to_bytes(16, "big")
        turn = await state.store.acquire(key, 30.0, replays=True)
        if isinstance(turn, Lease):
            print("claimed", i, flush=True)
            await state.journal.put(key, request, Completion("x", "m"), None, turn)
    while True:
        made = await state.store.reserve(Purchase((("day", cap),), "there", "m", 1.0), 30.0)
        if isinstance(made, Reservation):
            print("bought", 1, flush=True)
            await state.store.settle([Settlement(made, 1.0, True)])
        elif isinstance(made, Shortage):
            break
        else:
            await asyncio.sleep(0.01)
    await state.journal.aclose()
    await state.aclose()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


def test_of_many_processes_one_claims_each_call_and_all_together_spend_what_one_might(state_url: str) -> None:
    calls = 500 if state_url.startswith("sqlite") else 100
    command = [sys.executable, "-c", CLAIMS, state_url, str(calls), str(CAP)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(PROCESSES)
    ]

    said = Counter(line for process in running for line in process.communicate(timeout=300)[0].splitlines())

    assert {line: said[line] for line in said if not line.startswith(("bought ", "claimed "))} == {}
    assert [process.returncode for process in running] == [0] * PROCESSES
    assert said.pop("bought 1") == CAP
    assert said == {f"claimed {i}": 1 for i in range(calls)}


def test_no_transaction_is_open_while_a_call_is_under_way(postgres_server: StoreServer) -> None:
    async def work() -> set[str]:
        state = open_state(postgres_server.own(), pytest.fail)
        await state.store.acquire(b"k" * 16, 30.0)
        await state.store.reserve(Purchase((("day", 9.0),), "there", "m", 1.0), 30.0)
        async with await psycopg.AsyncConnection.connect(postgres_server.url, autocommit=True) as db:
            query = "SELECT state FROM pg_stat_activity WHERE application_name = 'fusiontools'"
            seen = {row[0] for row in await (await db.execute(query)).fetchall()}
        await state.aclose()
        return seen

    assert asyncio.run(work()) == {"idle"}
