"""The ASGI app with its routes, and uvicorn around it: listen, serve, drain, in one process or several."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import logging
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.routing import Route, Router
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from fusiontools.errors import FusionError, UsageError
from fusiontools.llm.journal import Journal
from fusiontools.llm.state.shared import State, open_kept
from fusiontools.llm.state.store import KeptCalls
from fusiontools.llm.traces import flush_traces, open_traces
from fusiontools.server.chat_route import ChatRoute
from fusiontools.server.completions_route import CompletionsRoute
from fusiontools.server.mcp_route import McpRoute
from fusiontools.server.middleware import RequestMiddleware
from fusiontools.server.page_routes import PageRoutes
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.completions import Completions
from fusiontools.server.protocols.messages import Messages
from fusiontools.server.protocols.responses import Responses
from fusiontools.server.request import App, BoundedProtocol
from fusiontools.server.response_routes import ConversationRoutes, ResponseRoutes
from fusiontools.server.routes import Routes
from fusiontools.server.state import Server, ServerArguments, open_server, require_safe, server_keys

_BACKLOG = 2048
#: New objects after which young ones are looked through.
_GARBAGE = 20_000
#: How long a worker may be silent, or take until it serves, before another one takes its place.
_WORKER_S = 30
_FAREWELL_S = 2.0


def make_app(server: Server) -> App:
    """Return the app of one process."""
    chat, responses, messages = Chat(), Responses(), Messages()
    pages, mcp = Routes(server), McpRoute(server)
    routes = [
        Route("/v1/chat/completions", ChatRoute(server, chat, "chat"), methods=["POST"]),
        Route("/v1/completions", CompletionsRoute(ChatRoute(server, Completions(), "completions")), methods=["POST"]),
        Route("/v1/responses", ChatRoute(server, responses, "responses"), methods=["POST"]),
        Route("/v1/messages", ChatRoute(server, messages, "messages"), methods=["POST"]),
        *(PageRoutes(server, pages.front).routes() if not server.options.no_page else ()),
        # JSON-RPC is nothing that OpenAPI can describe. A stream of what nobody asked for (GET) there is none: 405.
        Route("/mcp", mcp, methods=["POST", "DELETE"], include_in_schema=False),
        *pages.routes(),
        *ResponseRoutes(server).routes(),
        *ConversationRoutes(server).routes(),
    ]
    return RequestMiddleware(
        Router(routes, lifespan=_lifespan(server, mcp)),
        {route.path: route.endpoint for route in routes if isinstance(route.endpoint, ChatRoute)},
        server.access,
        server.metrics,
        server.options.read_s,
        server.options.log,
        server.client.traces,
    )


def _lifespan(server: Server, mcp: McpRoute) -> Callable[[object], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        """Let the requests that are cut off when the server ends say their last words."""
        async with server.runs.listening():
            yield
        if cut_off := [task for task in asyncio.all_tasks() if task.cancelling()]:
            await asyncio.wait(cut_off, timeout=_FAREWELL_S)
        await mcp.aclose()
        await asyncio.to_thread(flush_traces)

    return lifespan


def serve(typed: ServerArguments, announce: Callable[[str], None]) -> None:
    """Serve until a signal ends it.

    Args:
        announce: called with the URL where the server listens.

    Raises:
        UsageError: a recipe that cannot be, an address that cannot be listened at.
    """
    options = typed.options
    require_safe(options.host, server_keys())
    listening = listen(options.host, options.port)
    if options.workers == 1:
        app = _app(typed)  # before anything is promised
        announce(_url(listening))
        # uvicorn raises the signal again when all is drained; that it was asked to end is no failure.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        _Server(_config(app, typed)).run(sockets=[listening])
        return
    journal, state = _shared(typed)
    open_server(typed, state=state)
    if isinstance(journal, Journal):
        journal.close()  # that of a process is its own
    _silence_uvicorn()
    with tempfile.TemporaryDirectory(prefix="fuse-serve-") as folder:
        typed = replace(typed, run=f"run {uuid.uuid4().hex}", folder=Path(folder))
        config = _config(functools.partial(_worker_app, typed), typed, factory=True)
        announce(_url(listening))
        workers = _Workers(config, sockets=[listening])
        workers.run()
    if workers.interrupted:
        raise KeyboardInterrupt
    if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
        raise ChildProcessError(errno.ECHILD, "ended before it could serve", "a worker")


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves at once when it is interrupted."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.force_exit = self.force_exit or sig == signal.SIGINT


class _Workers(Multiprocess):
    """uvicorn's supervisor, which takes no connection any more once it ends, and leaves at once when interrupted."""

    interrupted = False

    def handle_int(self) -> None:
        self.interrupted = True
        super().handle_int()

    def terminate_all(self) -> None:
        for listening in self.sockets:
            listening.close()
        for worker in self.processes:
            (worker.kill if self.interrupted else worker.terminate)()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UsageError: no such address, or somebody listens there already.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--host {host} --port {port}: cannot listen there: {reason}") from error
    listening.set_inheritable(True)
    return listening


def _app(typed: ServerArguments) -> Any:
    _silence_uvicorn()
    # What lives as long as the process is never garbage: looking through it again and again took a tenth of a request.
    gc.freeze()
    gc.set_threshold(_GARBAGE, 20, 20)
    server = open_server(typed, *_shared(typed), _warn)
    server.client.traces = open_traces("fuse-serve", _warn)
    return make_app(server)


def _silence_uvicorn() -> None:
    """Leave to us what is worth saying: what uvicorn says of a failure holds a trace."""
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).disabled = True


def _worker_app(typed: ServerArguments) -> Any:
    """Return a worker's app; where there can be none, the status tells the supervisor to try no more."""
    try:
        return _app(typed)
    except FusionError as error:
        _warn(error.message)
        sys.exit(STARTUP_FAILURE)


def _shared(typed: ServerArguments) -> tuple[KeptCalls | None, State | None]:
    """Open the state where one is chosen, and the journal where one is asked for."""
    journal, state = open_kept(typed.journal, _warn, unasked=False)
    return journal, state


def _warn(message: str) -> None:
    sys.stderr.write(f"fuse-serve: {message}\n")


def _config(app: Any, typed: ServerArguments, *, factory: bool = False) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        factory=factory,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_worker_healthcheck=_WORKER_S,
        workers=typed.options.workers,
        backlog=_BACKLOG,
    )
    config.timeout_graceful_shutdown = typed.options.drain_s  # type: ignore[assignment]  # fractions do as well
    return config


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
