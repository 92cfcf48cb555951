"""The ASGI app: its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from starlette.routing import Route, Router

from fusiontools.llm.traces import flush_traces
from fusiontools.server.chat_route import ChatRoute
from fusiontools.server.completions_route import CompletionsRoute
from fusiontools.server.mcp_route import McpRoute
from fusiontools.server.middleware import RequestMiddleware
from fusiontools.server.page_routes import PageRoutes
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.completions import Completions
from fusiontools.server.protocols.messages import Messages
from fusiontools.server.protocols.responses import Responses
from fusiontools.server.request import App
from fusiontools.server.response_routes import ConversationRoutes, ResponseRoutes
from fusiontools.server.routes import Routes

if TYPE_CHECKING:
    from fusiontools.server.state import Server

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
        Router(routes, lifespan=_lifespan(mcp)),
        server.access,
        server.metrics,
        server.options.read_s,
        server.options.log,
        server.client.traces,
    )


def _lifespan(mcp: McpRoute) -> Callable[[object], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        """Let the requests that are cut off when the server ends say their last words."""
        yield
        if cut_off := [task for task in asyncio.all_tasks() if task.cancelling()]:
            await asyncio.wait(cut_off, timeout=_FAREWELL_S)
        await mcp.aclose()
        await asyncio.to_thread(flush_traces)

    return lifespan
