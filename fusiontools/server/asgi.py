"""ASGI's types, and how a whole response goes out over it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fusiontools.record import jsonl

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


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
