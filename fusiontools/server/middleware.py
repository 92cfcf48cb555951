"""Where requests come in: each gets a name, and no failure gets out that says more than it should."""

from __future__ import annotations

import asyncio
import re
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

from fusiontools.record import jsonl
from fusiontools.server import access
from fusiontools.server.jobs import Receive
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ApiError, WireProtocol
from fusiontools.server.protocols.messages import Messages
from fusiontools.server.state import Server, new_id
from fusiontools.server.streaming import Send, send_json

#: Routes that count what they have let in, with its outcome; all else are pages.
_ROUTES = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/fuse": "fuse",
}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class RequestMiddleware:
    """Lets requests in, names them, and lets no failure out that says more than it should."""

    inner: access.App
    server: Server

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        visit = scope["visit"] = RequestLog(_request_id(scope), time.monotonic())
        scope["app"] = self  # with which the router raises what it would else answer in plain text
        dialect: WireProtocol = Messages() if scope["path"].startswith("/v1/messages") else Chat()
        begun, code = False, ""

        async def sending(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                visit.status = message["status"]
                named = (b"x-request-id", visit.id.encode())
                message["headers"] = [*message["headers"], named, *self.server.entrance.shared(scope)]
            await send(message)

        async def refuse(refused: ApiError) -> None:
            nonlocal code
            code = refused.code
            await send_json(sending, refused.status, dialect.error(refused), refused.headers)

        try:
            visit.caller = self.server.entrance.caller(scope)
            if access.is_preflight(scope):
                await _nothing(sending)
            else:
                await self.inner(scope, receive, sending)
        except HTTPException as error:
            what = "no such page" if error.status_code == 404 else error.detail
            where = f"{scope['method'][:20]} {scope['path'][:200]}"
            await refuse(ApiError(error.status_code, "not_found", f"{where}: {what}", headers=error.headers))
        except ApiError as refused:
            await refuse(refused)
        except asyncio.CancelledError:
            if not begun:
                await refuse(
                    ApiError(503, "server_overloaded", "the server is going down", headers={"retry-after": "1"})
                )
            raise
        except Exception as error:
            # Nobody expected this one: where it happened is for the operator, nothing of it for the client.
            _say_bug(visit.id, error)
            code = "internal_error"
            if begun:
                raise BrokenOff from None
            why = f"a bug in fusiontools; the operator finds it as {visit.id}"
            await refuse(ApiError(500, "internal_error", why, headers={"x-should-retry": "false"}))
        finally:
            self._note(scope, visit, code)

    @property
    def read_s(self) -> float:
        """How long a head may take to come in."""
        return self.server.options.read_s

    def count_refused(self, status: int, code: str) -> None:
        """Count what never became a request: its head did not come in whole, or was none."""
        visit = RequestLog(new_id(), time.monotonic(), status=status, outcome=code)
        self.server.metrics.request("none", code, None)
        if self.server.options.log:
            _log({"method": "", "path": ""}, visit)

    def _note(self, scope: Any, visit: RequestLog, code: str) -> None:
        """Count a request that its route has not counted, and log it.

        Args:
            code: why it was refused here.
        """
        route = _ROUTES.get(scope["path"], "pages")
        if route == "pages" or not visit.outcome:
            visit.outcome = visit.outcome or code or _outcome(visit.status)
            self.server.metrics.request(route, visit.outcome, time.monotonic() - visit.started)
        if self.server.options.log:
            _log(scope, visit)


class BrokenOff(Exception):
    """A response that cannot be ended any more: the connection is closed."""


@dataclass(slots=True)
class RequestLog:
    """A request, as it is counted and logged: nothing of what it says."""

    id: str
    started: float
    caller: str = access.ANONYMOUS
    status: int = 0
    model: str = ""
    outcome: str = ""
    cost_usd: float | None = None


def _outcome(status: int) -> str:
    """Return how a page went that does not say so itself; it has no status where the client had left."""
    if status == 0:
        return "gone"
    return "ok" if status < 400 else "refused"


async def _nothing(send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _request_id(scope: Any) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return new_id()


def _say_bug(request_id: str, error: Exception) -> None:
    """Say on standard error where it happened; neither the message nor a value, for they may hold texts or keys."""
    places = traceback.extract_tb(error.__traceback__)[-6:]
    path = " < ".join(f"{place.filename.rpartition('/')[2]}:{place.lineno}" for place in reversed(places))
    sys.stderr.write(f"fuse-serve: {request_id}: a bug in fusiontools: {type(error).__name__} at {path}\n")


def _log(scope: Any, visit: RequestLog) -> None:
    told = {
        "time": round(time.time(), 3),
        "id": visit.id,
        "caller": visit.caller,
        "method": scope["method"],
        "path": scope["path"][:200],
        "model": visit.model,
        "status": visit.status,
        "outcome": visit.outcome,
        "latency_s": round(time.monotonic() - visit.started, 4),
        "cost_usd": visit.cost_usd,
    }
    sys.stderr.write(jsonl.dumps(told).decode() + "\n")


def cost_of(visit: RequestLog) -> dict[str, str]:
    """Return the header that says what a request cost, where anybody knows."""
    return {} if visit.cost_usd is None else {"x-fusion-cost-usd": f"{visit.cost_usd:.8f}"}
