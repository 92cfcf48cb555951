"""The ASGI app: routes, and what happens to a request from its first byte to the end of its answer."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route, Router

from fusiontools.config.models import Model
from fusiontools.llm.http import DEPTH
from fusiontools.llm.prices import prompt_tokens
from fusiontools.server import access, passthrough
from fusiontools.server.jobs import Job, Receive, Subscriber, key_of
from fusiontools.server.middleware import RequestLog, RequestMiddleware, cost_of
from fusiontools.server.passthrough import Passthrough
from fusiontools.server.plan import Plan
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ChatResult, ResponseMeta, WireProtocol
from fusiontools.server.protocols.messages import Messages
from fusiontools.server.protocols.responses import Responses
from fusiontools.server.request import check_size, depth_of, read_body, refuse_unanswerable
from fusiontools.server.result import done_of, spent_on
from fusiontools.server.routes import Routes
from fusiontools.server.state import Server, new_id
from fusiontools.server.streaming import Send, Stream, send_json

_FAREWELL_S = 2.0


def make_app(server: Server) -> access.App:
    """Return the app of one process."""
    chat, responses, messages = Chat(), Responses(), Messages()
    site = Routes(server)
    routes = [
        Route("/v1/chat/completions", ChatRoute(server, chat, "chat"), methods=["POST"]),
        Route("/v1/responses", ChatRoute(server, responses, "responses"), methods=["POST"]),
        Route("/v1/messages", ChatRoute(server, messages, "messages"), methods=["POST"]),
        *site.routes(),
    ]
    return RequestMiddleware(Router(routes, lifespan=_lifespan), server)


@asynccontextmanager
async def _lifespan(_: object) -> AsyncIterator[None]:
    """Let the requests that are cut off when the server ends say their last words."""
    yield
    if cut_off := [task for task in asyncio.all_tasks() if task.cancelling()]:
        await asyncio.wait(cut_off, timeout=_FAREWELL_S)


@dataclass(frozen=True, slots=True)
class ChatRoute:
    """A route that answers questions in one dialect; an ASGI app."""

    server: Server
    dialect: WireProtocol
    route: str

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        visit: RequestLog = scope["visit"]
        visit.outcome = "refused"
        try:
            await self._answer(scope, receive, send, visit)
        except ApiError as refused:
            visit.outcome = refused.code
            # Clients of this protocol ask again after 424, some for minutes, and none after 400.
            status = 400 if refused.status == 424 and self.route == "chat" else refused.status
            await send_json(send, status, self.dialect.error(refused), {**refused.headers, **cost_of(visit)})
        finally:
            self.server.metrics.request(self.route, visit.outcome, time.monotonic() - visit.started)

    async def _answer(self, scope: Any, receive: Receive, send: Send, visit: RequestLog) -> None:
        server = self.server
        body = await read_body(receive, server)
        asked = self.dialect.read(body)
        check_size(asked, server)
        DEPTH.set(depth_of(scope, server.options.max_depth) + 1)
        visit.model = asked.model[:100]
        order = server.orders.take(asked)
        server.rates.take(visit.caller)
        purse = server.purses.of(visit.caller)
        if order.model is not None and self._passes(order.model, body):
            await Passthrough(server, visit, receive, send).through(body, order.model, order.fusion.get("max_cost_usd"))
            return
        refuse_unanswerable(asked)
        flight = self._flight(asked, order, visit, purse)
        # A chat stream says its tokens at the end; the others at the beginning too.
        tokens = prompt_tokens(asked.messages, asked.params) if self.route != "chat" else 0
        about = ResponseMeta(new_id(), int(time.time()), asked.model, tokens)
        job = Exchange(asked, about, order, flight, visit)
        if asked.stream:
            await self._stream(job, receive, send)
        else:
            await self._whole(job, receive, send)

    def _passes(self, model: Model, body: Mapping[str, Any]) -> bool:
        """Return whether a request goes to a model's endpoint as it is."""
        same = self.route == "chat" and "messages" in body
        return same and passthrough.can_pass(self.server.menu.endpoints[model.endpoint])

    def _flight(self, asked: ChatRequest, order: Plan, visit: RequestLog, purse: Any) -> Job:
        """Return the flight that makes the answer: a new one, or one that was under way or has landed.

        Raises:
            Refused: a new one would have to wait in too long a line.
        """
        server, gate = self.server, self.server.kitchen.gate
        work = server.kitchen.work(asked, order, purse)
        if not server.cache.keeps or order.fusion.get("cache") is False:
            gate.refuse_if_full()
            return Job(work)
        key = key_of(asked, visit.caller)
        if (kept := server.cache.get(key)) is not None:
            server.metrics.looked_up("hit")

            async def known(_: Job) -> Any:
                return kept

            flight = Job(known)
            flight.paid = True
            return flight
        if (flying := server.cache.under_way(key)) is not None:
            server.metrics.looked_up("joined")
            return flying
        server.metrics.looked_up("miss")
        gate.refuse_if_full()
        return server.cache.begin(key, work)

    def _settle(self, job: Exchange, record: Any) -> ChatResult:
        """Return a record's answer as it is to be said; the first to hear it pays for it.

        Raises:
            Refused: it has none.
        """
        cached, job.flight.paid = job.flight.paid, True
        job.visit.cost_usd = 0.0 if cached else spent_on(record.get("calls", [])).cost_usd
        return done_of(record, job.order, self.server.options.usage, cached=cached)

    async def _whole(self, job: Exchange, receive: Receive, send: Send) -> None:
        visit, flight = job.visit, job.flight
        async with Subscriber(flight, receive) as listener:
            while not (listener.gone or listener.finished):
                await listener.more()
            if listener.gone:
                visit.outcome = "gone"
                return
        if flight.task.cancelled():
            raise ApiError(503, "server_overloaded", "the server is going down")
        done = self._settle(job, flight.task.result())
        visit.outcome = "ok"
        headers = {"x-fusion-latency-s": f"{time.monotonic() - visit.started:.4f}", **cost_of(visit)}
        await send_json(send, 200, self.dialect.whole(job.asked, job.about, done), headers)

    async def _stream(self, job: Exchange, receive: Receive, send: Send) -> None:
        server, visit = self.server, job.visit

        def first() -> None:
            server.metrics.first_token(self.route, time.monotonic() - visit.started)

        writer = self.dialect.writer(job.asked, job.about, server.manner)
        settle = functools.partial(self._settle, job)
        stream = Stream(send, writer, {}, settle, bool(job.order.fusion.get("events")), first)
        ring_s = None if server.options.keepalive == "off" else server.options.keepalive_s
        try:
            visit.outcome = await stream.run(job.flight, receive, ring_s)
        except asyncio.CancelledError:
            visit.outcome = "server_overloaded"
            if stream.begun:
                await stream.fail(ApiError(503, "server_overloaded", "the server is going down"))
            raise
        except ApiError as refused:
            if self.route != "responses" or refused.status == 503:
                raise
            # Codex asks six times again after most statuses, and once after a failure said in the stream.
            visit.outcome = refused.code
            await stream.fail(refused)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request on its way to its answer."""

    asked: ChatRequest
    about: ResponseMeta
    order: Plan
    flight: Job
    visit: RequestLog
