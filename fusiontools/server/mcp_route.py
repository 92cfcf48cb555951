"""`/mcp`: the panel as tools, by the Model Context Protocol over HTTP; keys, checks and limits are the server's.

The SDK costs half a second and 60 MB, so it is loaded when the first client comes.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.errors import install_line
from fusiontools.llm.completion import DEPTH
from fusiontools.server.jobs import Job, Note
from fusiontools.server.protocols.exchange import FUSION, ApiError, ChatRequest
from fusiontools.server.request import Receive, RequestLog, Send, depth_of, read_bytes, report_bug
from fusiontools.server.result import cost_of
from fusiontools.server.scrubbing import scrub_record

if TYPE_CHECKING:
    from fusiontools.config.recipe import Recipe
    from fusiontools.record.types import Record
    from fusiontools.runs.mcp_server import PanelQuestion
    from fusiontools.server.plan import Plan
    from fusiontools.server.state import Server

_MOST_SESSIONS = 1000


class ServedModels(Struct, frozen=True):
    """The models of this server, as each of its keys may ask them."""

    server: Server

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """The recipes that it offers; the first is what `fusion` means."""
        return self.server.catalog.recipes

    def caller(self, request: Any) -> str:
        """Return the name of the key."""
        return str(request.scope["log"].caller)

    def begin(self, question: PanelQuestion, request: Any, tell: Callable[[str], None]) -> Coroutine[Any, Any, Record]:
        """Return what makes the record.

        Raises:
            ApiError: too many wait; of the work, too, where the key has asked too often or spent too much.
        """
        server, log = self.server, request.scope["log"]
        asked: Any = dict(question.record)
        chat = ChatRequest(f"{FUSION}/{question.recipe}", asked.pop("messages"), stream=True)
        log.model = chat.model[:100]
        plan = server.planner.plan(chat)
        server.runner.limiter.refuse_if_full()
        return self._make(chat, plan, asked, log, tell)

    async def _make(
        self, chat: ChatRequest, plan: Plan, asked: Any, log: RequestLog, tell: Callable[[str], None]
    ) -> Record:
        server = self.server
        await server.rate_limiter.take(log.caller)
        budget = await server.daily_budgets.of(log.caller)
        job = Job(server.runner.work(chat, plan, budget, asked))
        job.join(_StepTeller(job, tell))
        record: Any = await job.task
        log.cost_usd = cost_of(record.get("calls", []))
        return scrub_record(record, whole=self.server.options.show_recipes)  # type: ignore[return-value]


class _StepTeller:
    """Tells of each model of a job that is done."""

    def __init__(self, job: Job, tell: Callable[[str], None]) -> None:
        self._job, self._tell = job, tell
        self._at = 0

    def wake(self) -> None:
        """Read on."""
        from fusiontools.runs.mcp_server import step_text

        pieces, self._at = self._job.pieces[self._at :], len(self._job.pieces)
        for piece in pieces:
            if isinstance(piece, Note) and piece.event["type"] in ("call.done", "call.failed"):
                self._tell(step_text(piece.event["stage"], piece.event["model"], piece.event.get("error")))


class McpRoute:
    """The route; an ASGI app. With several workers it gives no handles: the next request may come to another one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._turn = asyncio.Lock()
        self._ending = asyncio.Event()
        self._sessions: Any = None
        self._owner: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        DEPTH.set(depth_of(scope, self._server.options.max_depth) + 1)
        body = await read_bytes(scope, receive, self._server.options)
        sessions = await self._open()
        scope["user"] = _user(scope["log"].caller)
        whole = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Any:
            return whole.pop() if whole else await receive()

        await sessions.handle_request(scope, receive_again, send)

    async def aclose(self) -> None:
        """Stop what is under way."""
        self._ending.set()
        if self._owner is not None:
            await self._owner

    async def _open(self) -> Any:
        """Return the SDK's sessions.

        Raises:
            ApiError: the SDK is not installed.
        """
        async with self._turn:
            if self._sessions is None:
                try:
                    await asyncio.to_thread(importlib.import_module, "fusiontools.runs.mcp_server")
                except ModuleNotFoundError as error:
                    why = f"/mcp: {error.name} is not installed here: {install_line('mcp')}"
                    raise ApiError(404, "not_found", why) from error
                opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._owner = asyncio.create_task(self._own(opened))
                await asyncio.wait({opened, self._owner}, return_when=asyncio.FIRST_COMPLETED)
                if not opened.done():
                    await self._owner
        return self._sessions

    async def _own(self, opened: asyncio.Future[None]) -> None:
        """Keep the sessions open: the SDK wants one task to open and to close them."""
        from mcp.server import _streamable_http_modern
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
        from sse_starlette.sse import AppStatus, EventSourceResponse

        from fusiontools.runs.mcp_server import PanelTools

        # What it says of a failure holds a trace; and its streams are to be drained, not cut off, when the server ends.
        logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)
        AppStatus.enable_automatic_graceful_drain = False
        options = self._server.options
        # How long a stream may be silent, the SDK lets nobody say who calls it.
        _streamable_http_modern._SSE_PING_INTERVAL = options.keepalive_s
        EventSourceResponse.DEFAULT_PING_INTERVAL = options.keepalive_s  # type: ignore[assignment]
        one = options.workers == 1
        tools = PanelTools(ServedModels(self._server), lambda error: report_bug("/mcp", error), promises=one)
        sessions = StreamableHTTPSessionManager(
            tools.server(),
            stateless=not one,
            max_request_body_size=int(options.max_body_mib * 2**20),
            max_sessions=_MOST_SESSIONS,
        )
        async with sessions.run():
            self._sessions = sessions
            opened.set_result(None)
            await self._ending.wait()
            await tools.aclose()


def _user(caller: str) -> Any:
    """Return who asks, as the SDK keeps it: a session is used by the key that began it."""
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken

    return AuthenticatedUser(AccessToken(token=caller, client_id=caller, scopes=[]))
