"""The official client of the Model Context Protocol, at a `fuse-mcp` or at `/mcp` of a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from serving import Server

#: The protocol as it is since 2026-07-28, and as it was before, with a handshake.
ERAS = ("auto", "legacy")


@asynccontextmanager
async def http_client(server: Server, era: str = "auto", key: str | None = None) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=era) as client,  # type: ignore[arg-type]
    ):
        yield client


@asynccontextmanager
async def stdio(env: Mapping[str, str], folder: Path, *options: str, era: str = "auto") -> AsyncIterator[Client]:
    started = StdioServerParameters(command="fuse-mcp", args=list(options), env=dict(env), cwd=str(folder))
    async with Client(stdio_client(started), mode=era) as client:  # type: ignore[arg-type]
        yield client


def over_http(
    server: Server, work: Callable[[Client], Awaitable[Any]], era: str = "auto", key: str | None = None
) -> Any:
    """Return what work gives that is done with a client of `/mcp`."""

    async def run() -> Any:
        async with http_client(server, era, key) as client:
            return await work(client)

    return asyncio.run(run())


def text(result: Any) -> str:
    """Return the one text of a tool's result."""
    [block] = result.content
    return str(block.text)
