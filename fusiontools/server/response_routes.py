"""Kept responses over HTTP: shown, listed, forgotten, given up; and those that are made while nobody waits."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from fusiontools.llm.prices import prompt_tokens
from fusiontools.record.types import Record
from fusiontools.server.jobs import Exchange, Hold
from fusiontools.server.protocols.exchange import ApiError, ChatRequest
from fusiontools.server.protocols.responses import Responses
from fusiontools.server.protocols.responses_reply import fail_response, start_response, whole
from fusiontools.server.request import App, JsonRoute, Receive, Send, check_size, read_body, send_json
from fusiontools.server.response_store import ResponseStore, Turn
from fusiontools.server.result import answer_to

if TYPE_CHECKING:
    from fusiontools.server.state import Server

_ONE = "/v1/responses/{response_id}"


def with_turn(request: ChatRequest, turn: Turn, store: ResponseStore, caller: str) -> ChatRequest:
    """Return a request that says of its turn what it has to, and whose answer is kept where that is wanted."""
    echo = {**request.echo, "response": {**request.echo["response"], **turn.echo}}
    if not turn.keeps:
        return replace(request, echo=echo)

    def keep(response: dict[str, Any]) -> None:
        store.put(caller, response, turn.items)

    return replace(request, echo=echo, keep=keep)


def run_in_background(exchange: Exchange, server: Server) -> dict[str, Any]:
    """Let a response be made whoever listens; returns how it stands now."""
    begun = start_response(exchange.request, exchange.meta)
    key = (exchange.log.caller, str(begun["id"]))
    server.responses.running[key] = (exchange.job, begun)
    hold = Hold(exchange.job)
    hold.__enter__()
    exchange.job.task.add_done_callback(functools.partial(_end, exchange, server, begun))
    return begun


def _end(exchange: Exchange, server: Server, begun: dict[str, Any], task: asyncio.Task[Record]) -> None:
    """Keep what has come of a response; one that was forgotten meanwhile is not kept."""
    key = (exchange.log.caller, str(begun["id"]))
    keep = exchange.request.keep
    if server.responses.running.pop(key, None) is None or keep is None:
        return
    if task.cancelled():
        keep({**begun, "status": "cancelled"})
        return
    if (failed := task.exception()) is not None:
        refused = failed if isinstance(failed, ApiError) else ApiError(500, "internal_error", "a bug in fusiontools")
        keep(fail_response(begun, [], refused, None))
        return
    try:
        result = answer_to(exchange.request, task.result(), exchange.plan, server.options.usage)
        whole(exchange.request, exchange.meta, result)  # which is kept
    except ApiError as refused:
        keep(fail_response(begun, [], refused, None))


@dataclass(frozen=True, slots=True)
class ResponseRoutes:
    """The routes of kept responses."""

    server: Server

    def routes(self) -> list[Route]:
        """Return where each is."""
        pages: list[tuple[str, str, App]] = [
            ("POST", "/v1/responses/input_tokens", self.count),
            ("GET", _ONE, self.show),
            ("DELETE", _ONE, self.delete),
            ("GET", f"{_ONE}/input_items", self.items),
            ("POST", f"{_ONE}/cancel", self.cancel),
        ]
        return [Route(path, JsonRoute(answer), methods=[method]) for method, path, answer in pages]

    async def count(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say about how many tokens a request has."""
        body = await read_body(receive, self.server.options)
        self.server.rate_limiter.take(scope["log"].caller)
        request = Responses().read(self.server.responses.open_turn(scope["log"].caller, body).body)
        check_size(request, self.server.options)
        tokens = prompt_tokens(request.messages, request.params)
        await send_json(send, 200, {"object": "response.input_tokens", "input_tokens": tokens}, {})

    async def show(self, scope: Any, receive: Receive, send: Send) -> None:
        """Show a response as it stands."""
        response, _ = self._find(scope)
        if b"stream=true" in scope["query_string"].split(b"&"):
            why = "stream: a response that is kept is not streamed again; ask until its `status` is another one"
            raise ApiError(400, "unsupported", why, "stream")
        await send_json(send, 200, response, {})

    async def items(self, scope: Any, receive: Receive, send: Send) -> None:
        """List what a response answers, the newest first unless it is asked otherwise."""
        response, items = self._find(scope)
        named = [{"id": f"{response['id']}_in_{i}", **item} for i, item in enumerate(items)]
        if b"order=asc" not in scope["query_string"].split(b"&"):
            named.reverse()
        ends = {"first_id": named[0]["id"], "last_id": named[-1]["id"]} if named else {"first_id": "", "last_id": ""}
        await send_json(send, 200, {"object": "list", "data": named, **ends, "has_more": False}, {})

    async def delete(self, scope: Any, receive: Receive, send: Send) -> None:
        """Forget a response."""
        response_id = scope["path_params"]["response_id"]
        self.server.responses.delete(scope["log"].caller, response_id)
        await send_json(send, 200, {"id": response_id, "object": "response", "deleted": True}, {})

    async def cancel(self, scope: Any, receive: Receive, send: Send) -> None:
        """Give up a response that is made in the background; one that has ended stays as it is."""
        response, _ = self._find(scope)
        if running := self.server.responses.running.get((scope["log"].caller, response["id"])):
            running[0].task.cancel()
            await asyncio.wait([running[0].task])
            response, _ = self._find(scope)
        await send_json(send, 200, response, {})

    def _find(self, scope: Any) -> tuple[dict[str, Any], list[Any]]:
        return self.server.responses.find(scope["log"].caller, scope["path_params"]["response_id"])
