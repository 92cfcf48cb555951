"""Where requests come in: each gets a name, is counted and logged, and no failure gets out that tells too much."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any

from starlette.exceptions import HTTPException

from fusiontools.server.access import Access
from fusiontools.server.metrics import Metrics
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ApiError, WireProtocol
from fusiontools.server.protocols.messages import Messages
from fusiontools.server.request import App, Receive, RequestLog, Send, new_id, report_bug, send_json, speaks_anthropic

#: Routes by which requests are counted; all else are pages.
_ROUTES = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/fuse": "fuse",
    "/mcp": "mcp",
}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestMiddleware:
    """Lets requests in, names them, counts them, and lets no failure out that says more than it should.

    Args:
        app: what answers.
        read_s: how long a request's head may take to come in; the connection asks for it.
        logs: whether each request is one line on standard error.
    """

    def __init__(self, app: App, access: Access, metrics: Metrics, read_s: float, logs: bool) -> None:
        self.read_s = read_s
        self.app = app
        self._access = access
        self._metrics = metrics
        self._logs = logs
        self._checked = access.wrap(self._answer)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        log = scope["log"] = RequestLog(_request_id(scope), time.monotonic())
        scope["app"] = self  # with which the router raises what it would else answer in plain text

        async def send_named(message: Any) -> None:
            if message["type"] == "http.response.start":
                log.status = message["status"]
                scope["streams_events"] = _streams_events(message["headers"])
                names = [b"x-request-id", b"request-id"] if speaks_anthropic(scope) else [b"x-request-id"]
                message["headers"] = [*message["headers"], *((name, log.id.encode()) for name in names)]
            await send(message)

        try:
            await self._checked(scope, receive, send_named)
        finally:
            log.outcome = log.outcome or _outcome(log.status)
            route = _ROUTES.get(scope["path"], "pages")
            self._metrics.count_request(route, log.outcome, time.monotonic() - log.started)
            if self._logs:
                _write(scope, log)

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        """Let the app answer whoever may ask; what fails before an answer has begun becomes one."""
        log: RequestLog = scope["log"]
        try:
            log.caller = self._access.caller(scope)
            await self.app(scope, receive, send)
        except HTTPException as error:
            what = "no such page" if error.status_code == 404 else error.detail
            where = f"{scope['method'][:20]} {scope['path'][:200]}"
            refused = ApiError(error.status_code, "not_found", f"{where}: {what}", headers=error.headers)
            await _refuse(scope, send, refused)
        except ApiError as refused:
            await _refuse(scope, send, refused)
        except asyncio.CancelledError:
            if not log.status:
                going = ApiError(503, "server_overloaded", "the server is going down", headers={"retry-after": "1"})
                await _refuse(scope, send, going)
            raise
        except Exception as error:
            # Nobody expected this one: where it happened is for the operator, nothing of it for the client.
            report_bug(log.id, error)
            if log.status:
                log.outcome = "internal_error"
                raise BrokenOff from None
            why = f"a bug in fusiontools; the operator finds it as {log.id}"
            await _refuse(scope, send, ApiError(500, "internal_error", why, headers={"x-should-retry": "false"}))

    def count_refused(self, status: int, code: str) -> None:
        """Count what never became a request: its head did not come in whole, or was none."""
        self._metrics.count_request("none", code, None)
        if self._logs:
            _write({"method": "", "path": ""}, RequestLog(new_id(), time.monotonic(), status=status, outcome=code))


class BrokenOff(Exception):
    """A response that cannot be ended any more: the connection is closed."""


async def _refuse(scope: Any, send: Send, refused: ApiError) -> None:
    log: RequestLog = scope["log"]
    log.outcome = log.outcome or refused.code
    protocol: WireProtocol = Messages() if speaks_anthropic(scope) else Chat()
    await send_json(send, refused.status, protocol.error(refused), refused.headers)


def _outcome(status: int) -> str:
    """Return how a page went that does not say so itself; it has no status where the client had left."""
    if status == 0:
        return "gone"
    return "ok" if status < 400 else "refused"


def _streams_events(headers: Any) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def _request_id(scope: Any) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return new_id()


def _write(scope: Any, log: RequestLog) -> None:
    line = {
        "time": round(time.time(), 3),
        "id": log.id,
        "caller": log.caller,
        "method": scope["method"],
        "path": scope["path"][:200],
        "model": log.model,
        "status": log.status,
        "outcome": log.outcome,
        "latency_s": round(time.monotonic() - log.started, 4),
        "cost_usd": log.cost_usd,
    }
    # Whatever a client calls a model or a path, a reader of the log sees one line, and a terminal no order.
    sys.stderr.write(json.dumps(line, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n")
