"""A chat request for a member by its own name: it goes to that endpoint and back as it came, streamed or whole."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.models import Endpoint, Model
from fusiontools.config.recipe import Redact
from fusiontools.errors import CallFailed
from fusiontools.llm import prices
from fusiontools.llm.budget import NO_MONEY, Payment, RecordBudget, costs_nothing
from fusiontools.llm.completion import CompletionRequest
from fusiontools.llm.events import EventReader
from fusiontools.llm.http import HttpBackend, HttpReply
from fusiontools.llm.ledger import Ledger, Slot, find_usage, paid, usage_of
from fusiontools.llm.purses import Budget
from fusiontools.llm.redact import Hidden, Marks, wants_json
from fusiontools.llm.sensitive import finder_for
from fusiontools.record import jsonl
from fusiontools.record.types import Usage
from fusiontools.server.protocols import sse
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ApiError
from fusiontools.server.protocols.sse import EventBuffer
from fusiontools.server.request import Peer, Send, encode_headers, send_json
from fusiontools.server.restoring import restore_chunks, restore_whole
from fusiontools.server.result import refuse_for_today
from fusiontools.server.scrubbing import scrub
from fusiontools.server.streaming import STREAM_HEADERS

if TYPE_CHECKING:
    from fusiontools.server.catalog import Catalog
    from fusiontools.server.request import RequestLog
    from fusiontools.server.state import Server

#: An answer that is whole: its status, its content type, its bytes.
_Answer = tuple[int, str, bytes]
_SLOT = Slot()
_EVENT_LIMIT_BYTES = 16 * 2**20
#: Keys of a body that name further models: OpenRouter's, LiteLLM's, gateways'.
_NAMING = ("models", "fallbacks")
#: Keys that may lead to any model, provider or price.
_LEADING = frozenset(
    (
        *("provider", "providers", "providerOptions", "provider_options", "plugins", "service_tier", "route", "preset"),
        *("extra_body", "extra_headers", "extra_query", "api_base", "base_url", "api_key", "custom_llm_provider"),
        *("model_list", "user_config", "context_window_fallback_dict"),
    )
)


def can_pass(endpoint: Endpoint) -> bool:
    """Return whether the endpoint speaks what came in."""
    return endpoint.api == "openai" and not endpoint.embedded


def _bound_usd(endpoint: Endpoint, model: Model, sent: Mapping[str, Any]) -> float | None:
    """Return what a body may cost at most, whichever of the models that it names answers."""
    named = [name for key in _NAMING if isinstance(said := sent.get(key), list) for name in said]
    others = [replace(model, model=name) for name in named if isinstance(name, str)]
    bounds = [prices.upper_bound_usd(endpoint, asked, sent["messages"], sent) for asked in (model, *others)]
    known = [usd for usd in bounds if usd is not None]
    return max(known) if len(known) == len(bounds) else None


def refuse_other_models(body: Mapping[str, Any], model: Model, catalog: Catalog) -> None:
    """Raise `ApiError` where a body lets another model answer than those that its client may name here.

    What names models must name such ones, at the same endpoint. What may lead to any (a provider's routing, presets,
    tiers, plugins) passes where a client may name every model (`--allow-model '*'`).
    """
    if "*" in catalog.globs:
        return
    for key in _NAMING:
        said = body.get(key) or []
        for name in said if isinstance(said, list) else [said]:
            other = catalog.find_model(name) if isinstance(name, str) else None
            if other is None or other.endpoint != model.endpoint:
                raise _not_allowed(key, f"no model {name!r} may be named here (--allow-model)")
    for key in body.keys() & _LEADING:
        value = body[key]
        if key == "plugins" and isinstance(value, list):
            value = [plugin for plugin in value if not (isinstance(plugin, dict) and plugin.get("id") == "fusion")]
        if value and not (key == "service_tier" and value in ("auto", "default")):
            raise _not_allowed(key, "may lead to other models or prices; it passes with --allow-model '*' only")


def _not_allowed(key: str, why: str) -> ApiError:
    return ApiError(400, "override_not_allowed", f"{key}: {why}", key)


def _hide(sent: dict[str, Any], endpoint: Endpoint, redact: Redact) -> tuple[dict[str, Any], Hidden | None]:
    """Return the body in marks, and what they stand for; the model's name is ours."""
    if not redact or endpoint.trusted:
        return sent, None
    hidden = Hidden(Marks(finder_for(redact)))
    return {**hidden.hide(sent), "model": sent["model"]}, hidden


def _asking_for_usage(sent: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a stream with the wish for its usage; an endpoint that cannot say it is soon known."""
    asks = sent.get("stream") is True and sent.get("stream_options") is None
    return {**sent, "stream_options": {"include_usage": True}} if asks else sent


def _for_endpoint(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body without what is for this server."""
    sent = {key: value for key, value in body.items() if key != "fusion"}
    plugins = sent.pop("plugins", None)
    if isinstance(plugins, list):
        theirs = [plugin for plugin in plugins if not (isinstance(plugin, dict) and plugin.get("id") == "fusion")]
        sent |= {"plugins": theirs} if theirs else {}
    return sent


def _hides_usage(body: Mapping[str, Any]) -> bool:
    """Return whether the client did not ask for the usage that we ask for."""
    return body.get("stream") is True and body.get("stream_options") is None


def _usage_in(data: bytes) -> tuple[Usage | None, float | None]:
    """Return the tokens and the cost that a whole answer reports."""
    try:
        answer = jsonl.loads(data)
    except ValueError:
        answer = None  # what endpoints send beyond JSON is read like a stream
    if isinstance(answer, dict):
        return usage_of(answer)
    reading = _UsageReader()
    reading.take(data)
    return reading.finish()


class _UsageReader:
    """Finds what an answer says of its usage while it passes; what cannot be read passes all the same."""

    def __init__(self) -> None:
        self._events: EventReader | None = EventReader(lambda _: "")
        self._said: dict[str, Any] = {}

    def take(self, chunk: bytes) -> None:
        """Read on."""
        if self._events is not None:
            self._note(self._events.feed(chunk))

    def finish(self) -> tuple[Usage | None, float | None]:
        """Return the tokens and the cost that were said last."""
        if self._events is not None:
            self._note(self._events.finish())
        return usage_of({"usage": self._said} if self._said else {})

    def _note(self, events: Iterator[dict[str, Any]]) -> None:
        try:
            for event in events:
                self._said = find_usage(event) or self._said
        except CallFailed:
            self._events = None


def _enter(ledger: Ledger, model: Model, started: float, **noted: Any) -> None:
    latency_s = time.monotonic() - started
    ledger.enter(_SLOT, attempt=1, model=model.model, endpoint=model.endpoint, latency_s=latency_s, **noted)


def _convert_failure(failed: CallFailed) -> ApiError:
    """Return an endpoint's failure as ours: what is about the operator's own key or account is none of the client's."""
    found = scrub(failed.message)
    status = failed.status or {"timeout": 504, "deadline": 504}.get(failed.code, 502)
    if failed.code == "caller_budget":
        return refuse_for_today(found)
    if failed.code in NO_MONEY:
        return ApiError(402, failed.code if failed.code == "price_unknown" else "budget", found)
    if failed.code in ("auth", "payment") or status == 407:
        return ApiError(502, "upstream_auth", "the endpoint does not accept this server's key or account")
    if failed.code == "rate_limited":
        wait = {"retry-after": str(math.ceil(failed.retry_after_s))} if failed.retry_after_s is not None else {}
        return ApiError(429, "rate_limit_exceeded", found, headers=wait)
    if failed.code == "not_found":
        return ApiError(404, "model_not_found", found, "model")
    if failed.code in ("refused", "context_length"):
        return ApiError(400, {"refused": "content_filter"}.get(failed.code, failed.code), found, failed.param)
    if 400 <= status < 500:
        return ApiError(status, failed.code, found, failed.param)
    return ApiError(504 if status == 504 else 502, failed.code, found)


class Passthrough(Struct):
    """Takes a chat request for a member's own name to its endpoint, and its answer back.

    Args:
        peer: tells when the client leaves.
    """

    server: Server
    log: RequestLog
    peer: Peer
    send: Send
    #: Whether a stream has begun to go out.
    _begun: bool = False

    async def forward(self, body: Mapping[str, Any], model: Model, max_cost_usd: float | None) -> None:
        """Send the request on and its answer back, for as long as the client stays.

        A stream goes out as it comes. A plain answer goes out when it is whole: what breaks off is no answer.

        Raises:
            ApiError: the endpoint fails before its first byte, or in the middle of a plain answer.
        """
        refuse_other_models(body, model, self.server.catalog)
        budgets = await self._budgets(max_cost_usd)
        self.server.runner.limiter.refuse_if_full()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - what awaits runs in one
        self.peer.add(task.cancel)
        try:
            answer = await self._inside(body, model, budgets)
        except asyncio.CancelledError:
            if self.peer.gone and not task.uncancel():
                self.log.outcome = "gone"
                return
            if self._begun:
                self.log.outcome = "server_overloaded"
                await self._end(_last_words(ApiError(503, "server_overloaded", "the server is going down")))
            raise
        except CallFailed as failed:
            self.log.outcome = "broken"
            refused = ApiError(502, failed.code, scrub(failed.message))
            if not self._begun:
                raise refused from failed
            await self._end(_last_words(refused))
            return
        finally:
            self.peer.remove(task.cancel)
        self.log.outcome = "ok"
        if answer is None:
            await self._end(b"")
        else:
            status, kind, data = answer
            await send_json(self.send, status, data, {"content-type": kind})

    async def _budgets(self, max_cost_usd: float | None) -> Sequence[Budget | RecordBudget]:
        client = self.server.client
        budget = await self.server.daily_budgets.of(self.log.caller)
        limits = [usd for usd in (self.server.options.max_request_cost_usd, max_cost_usd) if usd is not None]
        own = (RecordBudget(min(limits), "the request"),) if limits else ()
        of_caller = () if budget is None else (budget,)
        return (*own, *of_caller, *client.budgets(client.limits.max_record_cost_usd))

    async def _inside(
        self, body: Mapping[str, Any], model: Model, budgets: Sequence[Budget | RecordBudget]
    ) -> _Answer | None:
        client = self.server.client
        async with self.server.runner.limiter:
            if client.traces is None:
                return await self._call(body, model, budgets)
            # What is hidden from the endpoint is hidden from a collector.
            messages = () if self.server.catalog.redact else body["messages"]
            request = CompletionRequest(model.endpoint, model.model, messages, body)
            streams = body.get("stream") is True
            with client.traces.call(request, client.endpoints[model.endpoint], _SLOT, streams=streams):
                return await self._call(body, model, budgets)

    async def _call(
        self, body: Mapping[str, Any], model: Model, budgets: Sequence[Budget | RecordBudget]
    ) -> _Answer | None:
        """Make the one call and enter it in a ledger; returns the answer, but where it has gone out as a stream.

        Raises:
            ApiError: the endpoint fails before the first byte.
            CallFailed: it fails later.
        """
        client, redact = self.server.client, self.server.catalog.redact
        endpoint, limits = client.endpoints[model.endpoint], client.limits
        backend, pace = client.backend_of(model.endpoint), client.pace_of(model.endpoint)
        assert isinstance(backend, HttpBackend)  # noqa: S101 - `can_pass` said so
        sent = _asking_for_usage(_for_endpoint(body) | {"model": model.model})
        payment: Payment | None = None
        if budgets and not endpoint.free:
            sent = dict(prices.with_bound(endpoint, sent))
            payment = Payment(budgets, client.purses, endpoint, model, _bound_usd(endpoint, model, sent))
        sent, hidden = _hide(sent, endpoint, redact)
        first_s, started = min(limits.timeout_s, limits.deadline_s), time.monotonic()
        ledger = Ledger("pass", "", started + limits.deadline_s, on_call=self.server.metrics.count_call)
        begun = False

        async def take(reply: HttpReply) -> tuple[_Answer | None, Usage | None, float | None]:
            nonlocal begun
            begun = True
            late.reschedule(deadline)  # what has begun may take long, as agents' streams do
            kind = reply.headers.get("content-type", "application/json")
            if body.get("stream") is True:
                return None, *await self._stream(reply, kind, sent, hidden, hides_usage=_hides_usage(body))
            data = await reply.whole()
            usage = _usage_in(data)
            if hidden is not None:
                data = restore_whole(data, hidden, in_json=wants_json(sent))
            return (reply.status, kind, data), *usage

        answered, paid_usd, source = False, None, None
        try:
            deadline = asyncio.get_running_loop().time() + limits.deadline_s
            async with asyncio.timeout(first_s) as late:
                turn = await pace.begin(model.model, sent["messages"], sent, first_s) if pace.holds else None
                try:
                    if payment is not None:
                        await payment.open()
                    async with client.slots:
                        answer, usage, reported_usd = await backend.forward(sent, take)
                except CallFailed as failed:
                    pace.heed(failed, model.model)
                    raise
                finally:
                    pace.end(turn)
            answered = True
            paid_usd, source = paid(endpoint, model, usage, reported_usd)
            _enter(ledger, model, started, usage=usage, cost_usd=paid_usd, cost_source=source)
            self.log.cost_usd = paid_usd
            return answer
        except TimeoutError:
            why = f"no end of the answer within {limits.deadline_s:g} s" if begun else f"no answer within {first_s:g} s"
            overdue = CallFailed("deadline" if begun else "timeout", why)
            _enter(ledger, model, started, status=overdue.code)
            raise overdue if begun else _convert_failure(overdue) from None
        except CallFailed as failed:
            if costs_nothing(failed):
                paid_usd, source = 0.0, "free"
            _enter(ledger, model, started, status=failed.code, cost_usd=paid_usd, cost_source=source)
            if begun:
                raise
            raise _convert_failure(failed) from failed
        except asyncio.CancelledError:
            _enter(ledger, model, started, status="cancelled")
            raise
        finally:
            if payment is not None:
                payment.paid_usd, payment.answered = paid_usd, answered
                await payment.settle()

    async def _stream(
        self, reply: HttpReply, kind: str, sent: Mapping[str, Any], hidden: Hidden | None, *, hides_usage: bool
    ) -> tuple[Usage | None, float | None]:
        """Hand on all bytes as they come, of a stream of events whole ones only; returns the tokens and the cost that
        are said in them.
        """
        streams = "text/event-stream" in kind
        headers = encode_headers({**STREAM_HEADERS, "content-type": kind})
        await self.send({"type": "http.response.start", "status": reply.status, "headers": headers})
        self._begun = True
        chunks = reply.chunks()
        if hidden is not None:
            chunks = restore_chunks(chunks, hidden, streams=streams, in_json=wants_json(sent))
        events = EventBuffer(
            (lambda event: b'"choices":[]' not in event.replace(b" ", b"")) if hides_usage else (lambda _: True)
        )
        reading = _UsageReader()
        async for chunk in chunks:
            if data := events.take(chunk) if streams else chunk:
                await self._write(data)
            if len(events.last()) > _EVENT_LIMIT_BYTES:
                most = _EVENT_LIMIT_BYTES >> 20
                raise CallFailed("bad_response", f"an event of the endpoint has more than {most} MiB")
            reading.take(chunk)
        if streams and (rest := events.last()):
            await self._write(rest)
        return reading.finish()

    async def _write(self, data: bytes) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def _end(self, data: bytes) -> None:
        await self.send({"type": "http.response.body", "body": data})


def _last_words(refused: ApiError) -> bytes:
    """Return an event with the error, and the end; what was cut off has not been handed on."""
    return b"data: %b\n\ndata: [DONE]\n\n" % sse.line(Chat().error(refused))
