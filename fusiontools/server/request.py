"""A request over ASGI: its body and head, read within bounds, what is noted of it, and a plain answer to it."""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from fusiontools.errors import InputError
from fusiontools.llm.completion import DEPTH_HEADER
from fusiontools.record import jsonl
from fusiontools.server.protocols.exchange import ApiError, ChatRequest
from fusiontools.server.serve_options import ServeOptions

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
ANONYMOUS = "anonymous"
#: How many levels an answer puts around what was asked: an event, its `fusion`, the record in it, `params`, …
_AROUND = 16
_DEPTHS = (DEPTH_HEADER.encode(), b"x-openrouter-fusion-depth")
#: The place of what is no JSON, and the text that stands there.
_QUOTED = re.compile(r"(\(column \d+\)).*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class JsonRoute:
    """An ASGI app around a method that answers with JSON; a bare method starlette would call with a `Request`."""

    answer: App

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        await self.answer(scope, receive, send)


@dataclass(slots=True)
class RequestLog:
    """A request, as it is counted and logged: nothing of what it says."""

    id: str
    started: float
    caller: str = ANONYMOUS
    status: int = 0
    model: str = ""
    outcome: str = ""
    cost_usd: float | None = None

    def cost_header(self) -> dict[str, str]:
        """Return the header that says what the request cost, where anybody knows."""
        return {} if self.cost_usd is None else {"x-fusion-cost-usd": f"{self.cost_usd:.8f}"}


async def read_body(receive: Receive, options: ServeOptions) -> dict[str, Any]:
    """Return a request's body.

    Raises:
        ApiError: too large, too slow, not JSON.
    """
    data = await read_bytes(receive, options)
    try:
        return jsonl.read_object(data, "a request's body", levels=_AROUND)
    except InputError as error:
        # What was said stays out of errors, which clients keep in logs.
        raise ApiError(400, "invalid_json", _QUOTED.sub(r"\1", error.message)) from None


async def read_bytes(receive: Receive, options: ServeOptions) -> bytes:
    """Return a request's body as it came.

    Raises:
        ApiError: too large, too slow.
    """
    try:
        async with asyncio.timeout(options.read_s):
            return await _read_all(receive, int(options.max_body_mib * 2**20))
    except TimeoutError:
        why = f"the body did not come in within {options.read_s:g} s (--read-timeout)"
        raise ApiError(408, "request_timeout", why, headers={"connection": "close"}) from None


async def _read_all(receive: Receive, limit_bytes: int) -> bytes:
    message = await _read_some(receive)
    data = message.get("body", b"")
    if not message.get("more_body") and len(data) <= limit_bytes:
        return data  # type: ignore[no-any-return]
    parts = bytearray(data)
    while message.get("more_body") and len(parts) <= limit_bytes:
        message = await _read_some(receive)
        parts += message.get("body", b"")
    if len(parts) > limit_bytes:
        raise too_large(limit_bytes)
    return bytes(parts)


async def _read_some(receive: Receive) -> Any:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ApiError(400, "client_left", "the client left before its request was whole")
    return message


def speaks_anthropic(scope: Any) -> bool:
    """Return whether a client speaks Anthropic's protocol, on the paths that other clients ask too."""
    return scope["path"].startswith("/v1/messages") or any(name == b"anthropic-version" for name, _ in scope["headers"])


def check_size(request: ChatRequest, options: ServeOptions) -> None:
    """Raise `ApiError` for a conversation with too many messages."""
    if len(request.messages) > options.max_messages:
        why = f"{len(request.messages):,} messages are more than {options.max_messages:,} (--max-messages)"
        raise ApiError(400, "too_many_messages", why, "messages")


def refuse_unanswerable(request: ChatRequest) -> None:
    """Raise `ApiError` for what only an endpoint itself could answer."""
    if request.unanswerable is not None:
        raise request.unanswerable


def keepalive_of(options: ServeOptions) -> float | None:
    """Return after how many silent seconds a stream says that it is alive; None for never."""
    return None if options.keepalive == "off" else options.keepalive_s


def query_of(scope: Any) -> dict[str, str]:
    """Return what stands behind the question mark; of what is said twice, the last."""
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def depth_of(scope: Any, most: int) -> int:
    """Return how many fusion servers a request has been through.

    Raises:
        ApiError: too many: it may come from this very server, as a member of its own panel.
    """
    depth = 0
    for name, value in scope["headers"]:
        if name in _DEPTHS:
            depth = max(depth, int(value) if value.isdigit() and len(value) < 9 else most)
    if depth >= most:
        why = f"the request has been through {depth} fusion server(s) already; does one sit on its own panel?"
        raise ApiError(400, "fusion_loop", why)
    return depth


def too_large(limit_bytes: int) -> ApiError:
    """Return the error for a body that is too large."""
    why = f"the body is larger than {limit_bytes / 2**20:g} MiB (--max-body-mib)"
    return ApiError(413, "request_too_large", why)


async def send_json(send: Send, status: int, body: Any, headers: Mapping[str, str]) -> None:
    """Send a whole response."""
    data = body if isinstance(body, bytes) else jsonl.dumps(body)
    kind = {"content-type": "application/json", "content-length": str(len(data))}
    await send({"type": "http.response.start", "status": status, "headers": encode_headers(kind | dict(headers))})
    await send({"type": "http.response.body", "body": data})


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]


def new_id() -> str:
    """Return 32 hex digits that were never used before."""
    return secrets.token_hex(16)


def report_bug(request_id: str, error: Exception) -> None:
    """Say on standard error where it happened; neither the message nor a value, for they may hold texts or keys."""
    places = traceback.extract_tb(error.__traceback__)[-6:]
    path = " < ".join(f"{place.filename.rpartition('/')[2]}:{place.lineno}" for place in reversed(places))
    sys.stderr.write(f"fuse-serve: {request_id}: a bug in fusiontools: {type(error).__name__} at {path}\n")
