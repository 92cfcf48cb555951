"""Kept responses and conversations over HTTP: shown, streamed again, listed, changed, forgotten, given up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from starlette.routing import Route

from fusiontools.llm.prices import prompt_tokens
from fusiontools.server.background import send_stream
from fusiontools.server.protocols.exchange import ApiError
from fusiontools.server.protocols.responses import Responses
from fusiontools.server.protocols.responses_request import check_items, object_at, refuse
from fusiontools.server.request import (
    App,
    JsonRoute,
    Receive,
    Send,
    check_size,
    keepalive_of,
    query_of,
    read_body,
    send_json,
)

if TYPE_CHECKING:
    from fusiontools.server.state import Server

_ONE = "/v1/responses/{response_id}"
_CONVERSATION = "/v1/conversations/{conversation_id}"
_ITEM = f"{_CONVERSATION}/items/{{item_id}}"
#: How long a page of a list is, where nobody says, and at most.
_PAGE, _LONGEST_PAGE = 20, 100


class ResponseRoutes(Struct, frozen=True):
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
        body = await read_body(scope, receive, self.server.options)
        await self.server.rate_limiter.take(scope["log"].caller)
        request = Responses().read(self.server.responses.open_turn(scope["log"].caller, body).body)
        check_size(request, self.server.options)
        tokens = prompt_tokens(request.messages, request.params)
        await send_json(send, 200, {"object": "response.input_tokens", "input_tokens": tokens}, {})

    async def show(self, scope: Any, receive: Receive, send: Send) -> None:
        """Show a response as it stands, or stream it, from some event on."""
        response, _ = self._find(scope)
        query = query_of(scope)
        if query.get("stream") == "true":
            await self._stream(response, _number_of(query, "starting_after", -1), scope, send)
        else:
            await send_json(send, 200, response, {})

    async def _stream(self, response: Mapping[str, Any], after: int, scope: Any, send: Send) -> None:
        server, log = self.server, scope["log"]
        running = server.responses.running.get((log.caller, response["id"]))
        if running is not None and running.exchange.request.stream:
            stream = running.stream(send, after)
            await stream.follow(running.exchange.job, scope["peer"], keepalive_of(server.options), log)
        elif (said := server.responses.find_stream(log.caller, response["id"])) is not None:
            await send_stream(send, said, after)
        else:
            raise refuse("stream", "only a response made with `background` and `stream` can be streamed", "unsupported")

    async def items(self, scope: Any, receive: Receive, send: Send) -> None:
        """List what a response answers, the newest first unless it is asked otherwise."""
        response, items = self._find(scope)
        named = [{"id": f"{response['id']}_in_{i}", **item} for i, item in enumerate(items)]
        await send_json(send, 200, _page_of(named, query_of(scope)), {})

    async def delete(self, scope: Any, receive: Receive, send: Send) -> None:
        """Forget a response."""
        response_id = scope["path_params"]["response_id"]
        self.server.responses.delete(scope["log"].caller, response_id)
        await send_json(send, 200, {"id": response_id, "object": "response", "deleted": True}, {})

    async def cancel(self, scope: Any, receive: Receive, send: Send) -> None:
        """Give up a response that is made in the background; one that has ended stays as it is."""
        response, _ = self._find(scope)
        if running := self.server.responses.running.get((scope["log"].caller, response["id"])):
            task = running.exchange.job.task
            task.cancel()
            await asyncio.wait([task])
            response, _ = self._find(scope)
        await send_json(send, 200, response, {})

    def _find(self, scope: Any) -> tuple[dict[str, Any], list[Any]]:
        return self.server.responses.find(scope["log"].caller, scope["path_params"]["response_id"])


class ConversationRoutes(Struct, frozen=True):
    """The routes of conversations."""

    server: Server

    def routes(self) -> list[Route]:
        """Return where each is."""
        pages: list[tuple[str, str, App]] = [
            ("POST", "/v1/conversations", self.create),
            ("GET", _CONVERSATION, self.show),
            ("POST", _CONVERSATION, self.update),
            ("DELETE", _CONVERSATION, self.delete),
            ("GET", f"{_CONVERSATION}/items", self.items),
            ("POST", f"{_CONVERSATION}/items", self.add),
            ("GET", _ITEM, self.item),
            ("DELETE", _ITEM, self.delete_item),
        ]
        return [Route(path, JsonRoute(answer), methods=[method]) for method, path, answer in pages]

    async def create(self, scope: Any, receive: Receive, send: Send) -> None:
        """Begin a conversation, with items or without."""
        body = await self._read(scope, receive)
        if not self.server.responses.keeps:
            why = "nothing is kept here (--store; with several --workers nothing is): send what was said in `input`"
            raise ApiError(400, "unsupported", why, None)
        items = check_items(body.get("items") or [], "items")
        made = self.server.responses.conversations.create(scope["log"].caller, items, _metadata_of(body))
        await send_json(send, 200, made, {})

    async def show(self, scope: Any, receive: Receive, send: Send) -> None:
        """Show a conversation, but for its items."""
        head, _ = self.server.responses.conversations.find(*_place(scope))
        await send_json(send, 200, head, {})

    async def update(self, scope: Any, receive: Receive, send: Send) -> None:
        """Set a conversation's `metadata`."""
        body = await self._read(scope, receive)
        updated = self.server.responses.conversations.update(*_place(scope), _metadata_of(body))
        await send_json(send, 200, updated, {})

    async def delete(self, scope: Any, receive: Receive, send: Send) -> None:
        """Forget a conversation."""
        caller, conversation_id = _place(scope)
        self.server.responses.conversations.delete(caller, conversation_id)
        await send_json(send, 200, {"id": conversation_id, "object": "conversation.deleted", "deleted": True}, {})

    async def items(self, scope: Any, receive: Receive, send: Send) -> None:
        """List a conversation's items, the newest first unless it is asked otherwise."""
        _, items = self.server.responses.conversations.find(*_place(scope))
        await send_json(send, 200, _page_of(items, query_of(scope)), {})

    async def add(self, scope: Any, receive: Receive, send: Send) -> None:
        """Add items to a conversation."""
        body = await self._read(scope, receive)
        added = self.server.responses.conversations.add(*_place(scope), check_items(body.get("items"), "items"))
        await send_json(send, 200, _list_of(added, has_more=False), {})

    async def item(self, scope: Any, receive: Receive, send: Send) -> None:
        """Show one item."""
        found = self.server.responses.conversations.find_item(*_place(scope), scope["path_params"]["item_id"])
        await send_json(send, 200, found, {})

    async def delete_item(self, scope: Any, receive: Receive, send: Send) -> None:
        """Take one item out."""
        left = self.server.responses.conversations.delete_item(*_place(scope), scope["path_params"]["item_id"])
        await send_json(send, 200, left, {})

    async def _read(self, scope: Any, receive: Receive) -> dict[str, Any]:
        body = await read_body(scope, receive, self.server.options)
        await self.server.rate_limiter.take(scope["log"].caller)
        return body


def _place(scope: Any) -> tuple[str, str]:
    return scope["log"].caller, scope["path_params"]["conversation_id"]


def _metadata_of(body: Mapping[str, Any]) -> dict[str, Any]:
    return object_at(body.get("metadata") or {}, "metadata")


def _page_of(items: Sequence[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of a list, whose items have ids: `order`, `after` (an item's id) and `limit` say which.

    Raises:
        ApiError: one of these cannot be.
    """
    if (order := query.get("order", "desc")) not in ("asc", "desc"):
        raise refuse("order", "must be `asc` or `desc`")
    limit = _number_of(query, "limit", _PAGE)
    if not 1 <= limit <= _LONGEST_PAGE:
        raise refuse("limit", f"must be 1 to {_LONGEST_PAGE}")
    ordered = list(items) if order == "asc" else list(items)[::-1]
    if after := query.get("after"):
        places = [place for place, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise refuse("after", "is the id of no item in this list")
        ordered = ordered[places[0] + 1 :]
    return _list_of(ordered[:limit], has_more=len(ordered) > limit)


def _list_of(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {"first_id": "", "last_id": ""}
    return {"object": "list", "data": list(items), **ends, "has_more": has_more}


def _number_of(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise refuse(name, "must be a whole number")
    return int(text)
