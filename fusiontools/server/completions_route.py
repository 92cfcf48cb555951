"""The route of `/v1/completions`: one prompt as any other question, several as questions that are asked at once."""

from __future__ import annotations

import functools
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.llm.ledger import Spending
from fusiontools.server.jobs import Exchange, Hold
from fusiontools.server.protocols.completions import CompletionsWriter, prompts_of, put_together
from fusiontools.server.protocols.exchange import ApiError, ChatResult
from fusiontools.server.request import Peer, Receive, RequestLog, Send, keepalive_of, read_body, send_json
from fusiontools.server.streaming import Stream

if TYPE_CHECKING:
    from fusiontools.server.chat_route import ChatRoute


class CompletionsRoute(Struct, frozen=True):
    """An ASGI app.

    Args:
        asked: answers one prompt.
    """

    asked: ChatRoute

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(scope, receive, self.asked.server.options)
            with ExitStack() as held:
                exchanges = await self._begin(body, scope, held)
                await self._answer(exchanges, scope, send)
        except ApiError as refused:
            await self.asked.refuse(refused, scope, send)

    async def _begin(self, body: dict[str, Any], scope: Any, held: ExitStack) -> list[Exchange]:
        """Return an exchange for each prompt, all under one head; their work ends with `held`.

        Raises:
            ApiError: one of them cannot be answered: nothing is asked then.
        """
        asked = self.asked
        requests = [asked.protocol.read({**body, "prompt": prompt}) for prompt in prompts_of(body)]
        plans = [await asked.plan(request, scope) for request in requests]
        meta = asked.meta(requests[0])
        exchanges = []
        for request, (plan, budget) in zip(requests, plans, strict=True):
            exchanges.append(await asked.begin(request, meta, plan, budget, scope["log"]))
            held.enter_context(Hold(exchanges[-1].job))
        return exchanges

    async def _answer(self, exchanges: list[Exchange], scope: Any, send: Send) -> None:
        log, peer = scope["log"], scope["peer"]
        if len(exchanges) == 1:
            await self.asked.say(exchanges[0], peer, send)
        elif exchanges[0].request.stream:
            await self._stream(exchanges, peer, send)
        else:
            await self._whole(exchanges, log, peer, send)

    async def _whole(self, exchanges: list[Exchange], log: RequestLog, peer: Peer, send: Send) -> None:
        bodies, spent, cost_usd = [], Spending(), 0.0
        known = True
        for exchange in exchanges:
            result = await self.asked.wait(exchange, peer)
            known, cost_usd = known and log.cost_usd is not None, cost_usd + (log.cost_usd or 0.0)
            if result is None:
                log.outcome = "gone"
                return
            spent = spent + result.spent
            bodies.append(self.asked.protocol.whole(exchange.request, exchange.meta, result))
        log.outcome, log.cost_usd = "ok", cost_usd if known else None
        headers = {"x-fusion-latency-s": f"{time.monotonic() - log.started:.4f}", **log.cost_header()}
        await send_json(send, 200, put_together(bodies, spent), headers)

    async def _stream(self, exchanges: list[Exchange], peer: Peer, send: Send) -> None:
        """Say one answer after the other, each with its index; all are being made meanwhile."""
        server, log = self.asked.server, exchanges[0].log
        keepalive_s = keepalive_of(server.options)
        spent: list[Spending] = []
        costs: list[float | None] = []

        def settle(exchange: Exchange, record: Any) -> ChatResult:
            result = self.asked.settle(exchange, record)
            spent.append(result.spent)
            costs.append(log.cost_usd)
            return result

        async def send_open(message: Any) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        begun = False
        for index, exchange in enumerate(exchanges):
            ends = index == len(exchanges) - 1
            writer = CompletionsWriter(exchange.request, exchange.meta, server.style, index, ends)
            writer.spent = sum(spent, Spending())
            events = bool(exchange.plan.fusion.get("events"))
            stream = Stream(send if ends else send_open, writer, functools.partial(settle, exchange), events)
            if begun:
                await stream.go_on()
            log.outcome = await stream.run(exchange.job, peer, keepalive_s)
            begun = True
            if log.outcome != "ok":
                break
        if log.outcome == "broken" and not ends:
            await send({"type": "http.response.body", "body": b""})
        log.cost_usd = None if None in costs else sum(cost or 0.0 for cost in costs)
