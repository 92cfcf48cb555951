"""Where requests come in: who may ask, how often and for how much money; each is named, counted and logged.

A page that somebody visits can make a browser ask a server on that person's own machine. So a host that is not ours
(DNS rebinding), a foreign origin and a body that is no JSON (what a page may send unasked) are turned away; starlette's
middleware looks at hosts and answers for CORS. No failure gets out that tells too much.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import math
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fusiontools.errors import CallFailed, UsageError
from fusiontools.llm.purses import Budget, Purses
from fusiontools.llm.state.shared import State
from fusiontools.llm.state.store import StateAway
from fusiontools.server.metrics import Metrics
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ApiError, WireProtocol
from fusiontools.server.protocols.messages import Messages
from fusiontools.server.request import (
    ANONYMOUS,
    App,
    Receive,
    RequestLog,
    Send,
    new_id,
    report_bug,
    send_json,
    speaks_anthropic,
    too_large,
)
from fusiontools.server.result import refuse_for_today
from fusiontools.server.serve_options import ServeOptions

if TYPE_CHECKING:
    from fusiontools.llm.spans import Traces

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
#: What tells nothing but whether the server is there.
_OPEN = ("/health", "/ready")
#: So many ways to write the server's hosts are remembered, with their ports.
_MOST_SPELLINGS = 64
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
#: A host as a head names it, its port aside; anything else around a name is a trick.
_HOST = re.compile(r"(\[[^\[\]]*\]|[^\[\]:@/?#,\s*]+)(?::[0-9]*)?")


class RequestMiddleware:
    """Lets requests in, names them, counts them, and lets no failure out that says more than it should.

    Args:
        app: what answers.
        asked: what answers a POST to each of these paths; that is most of what is asked, so no route is looked for.
        read_s: how long a request's head may take to come in; the connection asks for it.
        logs: whether each request is one line on standard error.
        traces: where each request but those for pages is told.
    """

    def __init__(
        self,
        app: App,
        asked: Mapping[str, App],
        access: Access,
        metrics: Metrics,
        read_s: float,
        logs: bool,
        traces: Traces | None = None,
    ) -> None:
        self.read_s = read_s
        self._traces = traces
        self.app = app
        self._asked = asked
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
        named = scope["named"] = _first_of_each(scope["headers"])
        log = scope["log"] = RequestLog(_request_id(named), time.monotonic())
        scope["app"] = self  # with which the router raises what it would else answer in plain text

        async def send_named(message: Any) -> None:
            if message["type"] == "http.response.start":
                log.status = message["status"]
                headers, request_id = message["headers"], log.id.encode()
                scope["sent_headers"] = headers
                message["headers"] = [*headers, (b"x-request-id", request_id)]
                if speaks_anthropic(scope):
                    message["headers"].append((b"request-id", request_id))
            await send(message)

        try:
            if self._traces is None or scope["path"] not in _ROUTES:
                await self._checked(scope, receive, send_named)
            else:
                with self._traces.request(scope, log.id) as span:
                    await self._checked(scope, receive, send_named)
                    span.end_with(log.status, log.outcome or _outcome(log.status), log.caller)
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
            app = self._asked.get(scope["path"], self.app) if scope["method"] == "POST" else self.app
            await app(scope, receive, send)
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


def _request_id(named: Mapping[bytes, bytes]) -> str:
    given = named.get(b"x-request-id")
    return given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else new_id()


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


class Access(Struct, frozen=True):
    """What is checked of a request's head.

    Args:
        keys: those that may ask; none lets everybody in.
        hosts: names under which the server may be asked; None lets every name pass.
        origins: web pages that may ask.
        max_body_bytes: what a body says of its own length may be at most.
    """

    keys: tuple[bytes, ...]
    hosts: frozenset[str] | None
    origins: frozenset[str]
    max_body_bytes: int

    def wrap(self, app: App) -> App:
        """Return the app behind starlette's checks, those that anything is configured for."""
        if self.origins:
            # Fetch, CORS protocol: a key's header is not among what `*` means, so any header is named back.
            app = CORSMiddleware(
                app, self.origins, allow_methods=("GET", "POST", "DELETE"), allow_headers=("*",), expose_headers=("*",)
            )
        if self.hosts is not None:
            app = _checking_hosts(app, self.hosts)
        return app

    def caller(self, scope: Mapping[str, Any]) -> str:
        """Return who asks: a name made from the key.

        Raises:
            ApiError: who may not come in, and why.
        """
        headers = scope["named"]
        if len(headers) < len(scope["headers"]) and [name for name, _ in scope["headers"]].count(b"host") > 1:
            raise ApiError(400, "invalid_request", "a request names one host: one `Host`, and none else in its target")
        origin = headers.get(b"origin")
        if origin is not None:
            self._check_origin(origin.decode("latin-1"), headers.get(b"host", b"").decode("latin-1"))
        if scope["method"] == "POST":
            self._check_body(headers)
        if not self.keys or scope["path"] in _OPEN or is_of_page(scope):
            return ANONYMOUS
        return self._find_caller(headers)

    def _check_origin(self, origin: str, host: str) -> None:
        if not origin or origin in self.origins:
            return
        if origin.partition("://")[2].lower() == host.lower():
            return  # a page of this very server: under a name that is checked, or with a key that no other page has
        raise ApiError(403, "origin_not_allowed", f"pages of {origin[:100]!r} may not ask this server (--allow-origin)")

    def _check_body(self, headers: Mapping[bytes, bytes]) -> None:
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise ApiError(415, "unsupported_media_type", "a body is sent as `content-type: application/json`")
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
            raise ApiError(415, "unsupported_media_type", "a body is sent as it is, without a `content-encoding`")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_body_bytes:
            raise too_large(self.max_body_bytes)

    def _find_caller(self, headers: Mapping[bytes, bytes]) -> str:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        bearer = token.strip() if scheme.lower() == b"bearer" else b""
        # Some clients send a key of their own beside the one they are given.
        shown = [bearer, headers.get(b"x-api-key", b"")]
        found = None
        for digest in [hashlib.sha256(key).digest() for key in shown]:
            for key in self.keys:  # all of them, so that the time says nothing
                if hmac.compare_digest(digest, hashlib.sha256(key).digest()):
                    found = key
        if found is None:
            why = "this key is not known here" if any(shown) else "no key"
            wanted = "send one as `authorization: Bearer KEY` or `x-api-key: KEY`"
            raise ApiError(401, "invalid_api_key", f"{why}; {wanted}", headers={"www-authenticate": "Bearer"})
        return name_caller(found)


def _checking_hosts(app: App, hosts: frozenset[str]) -> App:
    """Return the app behind starlette's check of hosts, which is made once for each spelling that passes it."""
    passed: set[bytes] = set()

    async def note(scope: Any, receive: Receive, send: Send) -> None:
        if len(passed) < _MOST_SPELLINGS:
            passed.add(scope["named"].get(b"host", b""))
        await app(scope, receive, send)

    checked: App = TrustedHostMiddleware(note, sorted(hosts), www_redirect=False)

    def choose(scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
        return (app if scope["named"].get(b"host", b"") in passed else checked)(scope, receive, send)

    return choose


def is_of_page(scope: Mapping[str, Any]) -> bool:
    """Return whether this asks for the page or a part of it, which says nothing that is not in every installation."""
    if scope["method"] not in ("GET", "HEAD"):
        return False
    if scope["path"] == "/":
        return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
    return bool(scope["path"].startswith("/page/files/"))


def name_caller(key: bytes) -> str:
    """Return a key's name, from which nobody finds the key."""
    return f"key-{hashlib.sha256(b'fusiontools caller ' + key).hexdigest()[:12]}"


def hosts_for(address: str, more: Sequence[str], keys: Sequence[bytes]) -> frozenset[str] | None:
    """Return the names under which a server at this address is asked.

    Where a key is wanted, no page that rebinds a name can ask; so any name is fine unless some were given.

    Raises:
        UsageError: one that was given is no name.
    """
    if keys and not more:
        return None
    given = {text: _host_name(text) for text in more}
    for text, name in given.items():
        if name is None:
            raise UsageError(f"--allow-host {text!r}: is no host name; say it as in `Host`: fusion.example")
    return frozenset(name for name in (*_LOOPBACK, _host_name(address), *given.values()) if name is not None)


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach the address."""
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name, whatever it looks like, may be anybody's


def takes_page_keys(options: ServeOptions) -> bool:
    """Return whether the page may bring keys: to one process that only this very machine can reach."""
    is_off = options.no_page or options.no_page_keys
    # Another name means that somebody hands on what others ask.
    return is_loopback(options.host) and options.workers == 1 and not (is_off or options.allow_hosts)


def _host_name(host: str) -> str | None:
    """Return a host without its port, as a client spells it in `Host`; None where it is no host."""
    host = host.strip().lower()
    bare = host.count(":") > 1 and not host.startswith("[")
    found = _HOST.fullmatch(f"[{host}]" if bare else host)
    name = found[1] if found else ""
    if not name.startswith("["):
        return name or None
    try:
        return f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]"
    except ValueError:
        return None


def _first_of_each(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers by name, the first of each name."""
    return dict(reversed(headers))


class _Bucket(Struct):
    tokens: float
    filled: float


class RateLimiter(Struct):
    """A token bucket for each caller.

    Args:
        per_min: tokens that flow in each minute, and how many a bucket holds; 0 is no limit.
        clock: seconds, rising.
        state: where the limit is counted together with other processes; while it is away, each keeps its share.
        name: what those call it who count together.
        workers: how many processes share the limit, as far as this one knows.
    """

    per_min: float
    clock: Callable[[], float] = time.monotonic
    state: State | None = None
    name: str = "rate"
    workers: int = 1
    _buckets: dict[str, _Bucket] = {}

    async def take(self, caller: str) -> None:
        """Take a token.

        Raises:
            ApiError: there is none, with the time until there is one.
        """
        if not self.per_min:
            return
        wait_s = self._take_own(caller) if self.state is None else await self._take_shared(caller, self.state)
        if wait_s > 0:
            wait_s = max(1, math.ceil(wait_s))
            why = f"this key may ask {self.per_min:g} times a minute; try again in {wait_s} s"
            raise ApiError(429, "rate_limit_exceeded", why, headers={"retry-after": str(wait_s)})

    async def _take_shared(self, caller: str, state: State) -> float:
        """Take a token of what all processes may have together; return how soon there is one."""
        holds = max(1, int(self.per_min))
        try:
            taken = await state.store.grant(f"{self.name} {caller}", "", 1, 1, holds, holds * 60 / self.per_min, 0.0)
        except StateAway as away:
            state.say_away(str(away))
            return self._take_own(caller)
        return taken.wait_s

    def _take_own(self, caller: str) -> float:
        """Take a token of a bucket of this process; return how soon there is one."""
        now, per_min = self.clock(), self.per_min / self.workers
        holds = max(1.0, per_min)
        bucket = self._buckets.setdefault(caller, _Bucket(holds, now))
        bucket.tokens = min(holds, bucket.tokens + (now - bucket.filled) * per_min / 60)
        bucket.filled = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) * 60 / per_min
        bucket.tokens -= 1
        return 0.0


class DailyBudgets(Struct):
    """A budget for each caller, filled anew each day (UTC).

    Args:
        day_usd: what is in it; None is no limit.
        purses: where it is counted, for all processes and after a restart.
        clock: Unix time.
    """

    day_usd: float | None
    purses: Purses = field(default_factory=Purses)
    clock: Callable[[], float] = time.time

    async def of(self, caller: str) -> Budget | None:
        """Return today's budget of a caller.

        Raises:
            ApiError: there is nothing in it any more.
        """
        if self.day_usd is None:
            return None
        today = time.strftime("%Y-%m-%d", time.gmtime(self.clock()))
        budget = Budget(self.purses, f"{today} {caller}", self.day_usd, "caller_budget", "this key")
        try:
            spent_usd = await budget.committed_usd()
        except CallFailed as failed:
            raise ApiError(503, failed.code, failed.message) from failed
        if spent_usd >= self.day_usd:
            why = f"this key has spent its ${self.day_usd:g} of today; it can go on tomorrow (UTC)"
            raise refuse_for_today(why, self.clock())
        return budget
