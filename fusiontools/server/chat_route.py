"""A route that answers questions in one protocol: what happens to a request from its first byte to its answer."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.config.models import Model
from fusiontools.llm.completion import DEPTH
from fusiontools.llm.prices import prompt_tokens
from fusiontools.llm.purses import Budget
from fusiontools.server.background import make_in_background
from fusiontools.server.jobs import Exchange, Job, Subscriber, key_of
from fusiontools.server.passthrough import Passthrough, can_pass
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ChatResult, ResponseMeta, WireProtocol
from fusiontools.server.request import (
    Peer,
    Receive,
    RequestLog,
    Send,
    check_size,
    depth_of,
    keepalive_of,
    new_id,
    read_body,
    refuse_unanswerable,
    send_json,
)
from fusiontools.server.response_store import with_turn
from fusiontools.server.result import answer_to, cost_of
from fusiontools.server.streaming import Stream

if TYPE_CHECKING:
    from fusiontools.server.plan import Plan
    from fusiontools.server.state import Server


class ChatRoute(Struct, frozen=True):
    """A route that answers questions in one protocol; an ASGI app."""

    server: Server
    protocol: WireProtocol
    route: str

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        except ApiError as refused:
            await self.refuse(refused, scope, send)

    async def refuse(self, refused: ApiError, scope: Any, send: Send) -> None:
        """Say why there is no answer."""
        log: RequestLog = scope["log"]
        log.outcome = refused.code
        # Clients of this protocol ask again after 424, some for minutes, and none after 400.
        status = 400 if refused.status == 424 and self.route in ("chat", "completions") else refused.status
        await send_json(send, status, self.protocol.error(refused), {**refused.headers, **log.cost_header()})

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        log: RequestLog = scope["log"]
        peer: Peer = scope["peer"]
        body = await read_body(scope, receive, self.server.options)
        if self.route == "responses":
            turn = self.server.responses.open_turn(log.caller, body)
            body = turn.body
        request = self.protocol.read(body)
        plan, budget = await self.plan(request, scope)
        if plan.model is not None and self._passes(plan.model, body):
            passing = Passthrough(self.server, log, peer, send)
            await passing.forward(body, plan.model, plan.fusion.get("max_cost_usd"))
            return
        meta = self.meta(request)
        if self.route == "responses":
            request = with_turn(request, turn, self.server.responses, log.caller)
        exchange = await self.begin(request, meta, plan, budget, log)
        if self.route == "responses" and turn.background:
            await make_in_background(exchange, self.server, peer, send)
        else:
            await self.say(exchange, peer, send)

    async def plan(self, request: ChatRequest, scope: Any) -> tuple[Plan, Budget | None]:
        """Return what is to be done for a request, and the purse that pays.

        Raises:
            ApiError: it cannot be done, or its key has asked too often or spent too much.
        """
        server, log = self.server, scope["log"]
        check_size(request, server.options)
        DEPTH.set(depth_of(scope, server.options.max_depth) + 1)
        log.model = request.model[:100]
        plan = server.planner.plan(request)
        await server.rate_limiter.take(log.caller)
        return plan, await server.daily_budgets.of(log.caller)

    def meta(self, request: ChatRequest) -> ResponseMeta:
        """Return the head of a new response."""
        # Some streams say at their beginning what the request itself takes.
        early = self.route in ("responses", "messages")
        tokens = prompt_tokens(request.messages, request.params) if early else 0
        return ResponseMeta(new_id(), int(time.time()), request.model, tokens)

    async def begin(
        self, request: ChatRequest, meta: ResponseMeta, plan: Plan, budget: Budget | None, log: RequestLog
    ) -> Exchange:
        """Return an exchange whose answer is being made.

        Raises:
            ApiError: no fusion can answer it, or too many wait.
        """
        refuse_unanswerable(request)
        return Exchange(request, meta, plan, await self._job(request, plan, log, budget), log)

    async def say(self, exchange: Exchange, peer: Peer, send: Send) -> None:
        """Send the answer, whole or as a stream."""
        if exchange.request.stream:
            await self._stream(exchange, peer, send)
        else:
            await self._whole(exchange, peer, send)

    def _passes(self, model: Model, body: Mapping[str, Any]) -> bool:
        """Return whether a request goes to a model's endpoint as it is."""
        same = self.route == "chat" and "messages" in body
        return same and can_pass(self.server.catalog.endpoints[model.endpoint])

    async def _job(self, request: ChatRequest, plan: Plan, log: RequestLog, budget: Budget | None) -> Job:
        """Return the job that makes the answer: a new one, or one that is under way or has ended.

        Raises:
            ApiError: a new one would have to wait in too long a line.
        """
        server, limiter = self.server, self.server.runner.limiter
        work = server.runner.work(request, plan, budget)
        if not server.cache.keeps or plan.fusion.get("cache") is False:
            limiter.refuse_if_full()
            return Job(work)
        key = key_of(request, log.caller)
        if (kept := await server.cache.get(key)) is not None:
            server.metrics.count_lookup("hit")

            async def known(_: Job) -> Any:
                return kept

            job = Job(known)
            job.paid = True
            return job
        if (running := server.cache.find_running(key)) is not None:
            server.metrics.count_lookup("joined")
            return running
        server.metrics.count_lookup("miss")
        limiter.refuse_if_full()
        return server.cache.begin(key, work)

    def settle(self, exchange: Exchange, record: Any) -> ChatResult:
        """Return a record's answer as it is to be said; the first to hear it pays for it.

        Raises:
            ApiError: it has none.
        """
        cached, exchange.job.paid = exchange.job.paid, True
        exchange.log.cost_usd = 0.0 if cached else cost_of(record.get("calls", []))
        return answer_to(exchange.request, record, exchange.plan, self.server.options.usage, cached=cached)

    async def wait(self, exchange: Exchange, peer: Peer) -> ChatResult | None:
        """Return the answer when it is whole; None where the client has left.

        Raises:
            ApiError: there is none.
        """
        job = exchange.job
        with Subscriber(job, peer) as subscriber:
            while not (subscriber.gone or subscriber.finished):
                await subscriber.more()
            if subscriber.gone:
                return None
        if job.task.cancelled():
            raise ApiError(503, "server_overloaded", "the server is going down")
        return self.settle(exchange, job.task.result())

    async def _whole(self, exchange: Exchange, peer: Peer, send: Send) -> None:
        log = exchange.log
        result = await self.wait(exchange, peer)
        if result is None:
            log.outcome = "gone"
            return
        log.outcome = "ok"
        headers = {"x-fusion-latency-s": f"{time.monotonic() - log.started:.4f}", **log.cost_header()}
        await send_json(send, 200, self.protocol.whole(exchange.request, exchange.meta, result), headers)

    async def _stream(self, exchange: Exchange, peer: Peer, send: Send) -> None:
        server, log = self.server, exchange.log

        def note_first() -> None:
            server.metrics.note_first_token(self.route, time.monotonic() - log.started)

        writer = self.protocol.writer(exchange.request, exchange.meta, server.style)
        settle = functools.partial(self.settle, exchange)
        # Codex asks six times again after most statuses, and once after a failure said in the stream.
        in_band = self.route == "responses"
        events, drafts = bool(exchange.plan.fusion.get("events")), server.options.progress == "draft"
        stream = Stream(send, writer, settle, events, drafts, note_first, in_band)
        await stream.follow(exchange.job, peer, keepalive_of(server.options), log)
