"""Calls through a client in tests: one question, scripted or over real connections, and what is entered of it."""

from __future__ import annotations

import asyncio
from typing import Any

from scripted import MESSAGES, Scripted, model, open_door, said
from workdir import Upstream

from fusiontools.config.models import Endpoint, Model
from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Completion
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.record.types import Call

SLOT = Slot("m", 0, 1)
M = model()
#: A dollar a token: what a call may cost is the number of its tokens.
DEAR = model(price_usd_per_mtok={"prompt": 1e6, "completion": 1e6})
#: What the question and four tokens of an answer are estimated at, and what `USAGE` comes to.
BOUND_USD, PAID_USD = 10.0, 14.0
FOUR = {"max_tokens": 4}
UNPRICED = said("Paris.", cost_usd=None)
SILENT = said("Paris.", cost_usd=None, usage=None)
BUSY = CallFailed("rate_limited", "HTTP 429: busy", status=429, retryable=True)
REFUSED = CallFailed("bad_request", "HTTP 400: no", status=400)
CUT = CallFailed("connection", "closed", retryable=True)
ENTRY = {"stage": "panel", "layer": 1, "member": "m", "sample": 0, "attempt": 1, "model": "m", "endpoint": "there"}


async def ask(client: Client, asked: Model = M, *, ledger: Ledger | None = None, **more: Any) -> Completion:
    request = client.request(asked, MESSAGES, more.get("params", {}), more.get("sample", 0))
    mine = ledger or client.ledger("panel", "1")
    return await client.complete(request, asked, mine, SLOT, more.get("on_delta"))


def ask_once(backend: Scripted, asked: Model = M, **settings: Any) -> tuple[Completion | CallFailed, list[Call]]:
    """Return what comes of one call, and what is entered."""
    params, on_delta = settings.pop("params", {}), settings.pop("on_delta", None)

    async def work() -> tuple[Completion | CallFailed, list[Call]]:
        client = open_door(backend, **settings)
        ledger = client.ledger("panel", "1")
        try:
            return await ask(client, asked, ledger=ledger, params=params, on_delta=on_delta), ledger.calls
        except CallFailed as failure:
            return failure, ledger.calls
        finally:
            if client.journal is not None:
                client.journal.close()

    return asyncio.run(work())


def attempts(calls: list[Call]) -> list[tuple[int, str]]:
    return [(call["attempt"], call["status"]) for call in calls]


def steady(call: Call) -> dict[str, Any]:
    """Return a call without what differs from run to run."""
    return {key: value for key, value in call.items() if key not in ("latency_s", "ttft_s")}


async def turns() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def real(upstream: Upstream, *names: str, limits: Any = None, **more: Any) -> tuple[list[Any], list[list[Call]]]:
    """Ask these models at once over real connections."""
    there = Endpoint("there", upstream.url)

    async def work() -> tuple[list[Any], list[list[Call]]]:
        client = Client({"there": there}, LimitOptions(**{"backoff_s": 0, **(limits or {})}))
        ledgers = [client.ledger("panel", str(i)) for i in range(len(names))]
        calls = [ask(client, model(name), ledger=ledger, sample=i, **more) for i, (name, ledger) in enumerate(zip(names, ledgers, strict=True))]  # fmt: skip  # noqa: E501
        results = await asyncio.gather(*calls, return_exceptions=True)
        await client.aclose()
        return results, [ledger.calls for ledger in ledgers]

    return asyncio.run(work())
