"""One server of the Model Context Protocol: started once, asked, and ended with all that it started.

The official SDK speaks the protocol, of every revision: it asks `server/discover` first and takes anything but a clear
answer for an older server. It is imported when a server is opened and not before. One task opens and closes a
connection, as the SDK wants it; calls come from any.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from msgspec import Struct

from fusiontools.config.tool_options import McpServer
from fusiontools.errors import UsageError, __version__

_MOST_TOOLS = 500
_KEPT_NOISE_BYTES = 2000
_SHOWN_NOISE_CHARS = 300
_CLOSE_S = 8.0
#: The server in a group of its own that ends with it, and with us: when its stdin closes, for whatever reason, it has
#: two seconds to go by itself. What it has started goes along in any case.
_LAUNCHER = '{ cat; exec >&-; sleep 2; kill -KILL 0; } | { "$@"; kill -KILL 0; }'


class McpTool(Struct, frozen=True):
    """A tool as its server describes it."""

    name: str
    description: str
    schema: Mapping[str, Any]


class McpFailed(Exception):
    """A call gave nothing."""

    def __init__(self, message: str, *, forgotten: bool = False, timed_out: bool = False) -> None:
        super().__init__(message)
        self.forgotten = forgotten
        self.timed_out = timed_out


class McpConnection:
    """A connection that begins when it is first wanted, and once more where the server has forgotten it.

    Args:
        warn: is told once of what the server prints between its messages.
    """

    def __init__(self, server: McpServer, warn: Callable[[str], None] | None = None) -> None:
        self._server = server
        self._warn = warn
        self._turn = asyncio.Lock()
        self._owner: asyncio.Task[None] | None = None
        self._done = asyncio.Event()
        self._client: Any = None
        self._era: dict[str, Any] = {"mode": "auto"}
        self._noise = b""

    async def tools(self) -> list[McpTool]:
        """Return the server's tools, of every page of its list.

        Raises:
            UsageError: it cannot be started, or does not speak the protocol.
        """
        from mcp import MCPError

        client = await self._connected()
        found: list[McpTool] = []
        cursor: str | None = None
        try:
            while len(found) < _MOST_TOOLS:
                page = await client.list_tools(cursor=cursor)
                found += [McpTool(tool.name, tool.description or "", tool.input_schema) for tool in page.tools]
                cursor = page.next_cursor
                if cursor is None:
                    break
        except (MCPError, ValueError) as error:  # the second: what it sent is no list of tools
            raise UsageError(f"mcp {self._server.name}: its tools cannot be listed: {_first_line(error)}") from error
        return found[:_MOST_TOOLS]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool, and return the SDK's result.

        A server that has forgotten us has not run the call, and gets it once more; one that is gone is started again
        for the next call only.

        Raises:
            McpFailed: it gave nothing.
        """
        try:
            return await self._call_once(name, arguments)
        except McpFailed as failed:
            if not failed.forgotten:
                raise
        return await self._call_once(name, arguments)

    async def close(self) -> None:
        """End the connection, and the server where it is ours."""
        owner, self._owner, self._client = self._owner, None, None
        if owner is not None:
            self._done.set()
            await asyncio.wait([owner], timeout=_CLOSE_S)
            owner.cancel()
            await asyncio.wait([owner])
            # How it ended matters to nobody any more.
            if not owner.cancelled():
                owner.exception()

    async def _call_once(self, name: str, arguments: Mapping[str, Any]) -> Any:
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        client: Any = None
        try:
            client = await self._connected()
            return await client.call_tool(name, dict(arguments), read_timeout_seconds=self._server.timeout_s)
        except UsageError as error:
            raise McpFailed(error.message) from error
        except MCPError as error:
            closed, forgotten = error.code == CONNECTION_CLOSED, error.message == "Session terminated"
            if (closed or forgotten) and client is self._client:
                await self.close()
            said = f"the server is gone, and nobody knows whether it ran{self._heard()}" if closed else error.message
            raise McpFailed(said, forgotten=forgotten, timed_out=error.code == REQUEST_TIMEOUT) from error
        except ValueError as error:
            raise McpFailed(f"its result does not follow the protocol: {_first_line(error)}") from error

    async def _connected(self) -> Any:
        async with self._turn:
            if self._owner is None or self._owner.done():
                await self._start()
            return self._client

    async def _start(self) -> None:
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._done = asyncio.Event()
        self._owner = asyncio.create_task(self._own(ready, self._done), name=f"mcp {self._server.name}")
        try:
            async with asyncio.timeout(self._server.start_s):
                await asyncio.wait([self._owner, ready], return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                error = None if self._owner.cancelled() else self._owner.exception()
                raise UsageError(f"mcp {self._server.name}: it cannot be started: {_first_line(error)}{self._heard()}")
            self._client = ready.result()
        except TimeoutError:
            said = f"mcp {self._server.name}: it did not answer within {self._server.start_s:g} s{self._heard()}"
            raise UsageError(said) from None
        finally:
            if not ready.done():
                self._owner.cancel()
                await asyncio.wait([self._owner])
                self._owner = None

    async def _own(self, ready: asyncio.Future[Any], done: asyncio.Event) -> None:
        """Open the connection, keep it until it is not wanted, and close it."""
        from mcp import Client

        # The SDK tells a logger of its own, with traces, what is said here in the error.
        logging.getLogger("mcp").addHandler(logging.NullHandler())
        async with self._transport() as transport:
            client = Client(
                transport,
                client_info=_ourselves(),
                read_timeout_seconds=self._server.start_s,
                message_handler=self._hear,
                cache=None,
                **self._era,
            )
            async with client:
                found = client.session.discover_result
                self._era = {"mode": "legacy"} if found is None else {"mode": client.protocol_version}
                if found is not None:
                    self._era["prior_discover"] = found
                ready.set_result(client)
                await done.wait()

    async def _hear(self, message: Any) -> None:
        if isinstance(message, Exception) and self._warn is not None:
            self._warn(f"warning: mcp {self._server.name}: it prints to stdout what is no message; that is left out")
            self._warn = None

    @contextlib.asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        server = self._server
        if server.url:
            from httpx2 import AsyncClient, Timeout
            from mcp.client.streamable_http import streamable_http_client

            headers = {"authorization": f"Bearer {_variable(server, server.key_env)}"} if server.key_env else {}
            timeout = Timeout(30.0, read=server.timeout_s)
            async with AsyncClient(headers=headers, timeout=timeout) as http:
                yield streamable_http_client(server.url, http_client=http)
            return
        from mcp.client.stdio import StdioServerParameters, get_default_environment, stdio_client

        environment = {name: _variable(server, name) for name in server.env}
        path = {**get_default_environment(), **environment}.get("PATH")
        if shutil.which(server.command[0], path=path) is None:
            raise UsageError(f"there is no command {server.command[0]!r}")
        parameters = StdioServerParameters(
            command="/bin/sh", args=["-c", _LAUNCHER, "sh", *server.command], env=environment
        )
        with self._listening() as noise:
            yield stdio_client(parameters, noise)

    @contextlib.contextmanager
    def _listening(self) -> Any:
        """Give what a server's stderr goes to; the end of what it says is kept for when it fails."""
        loop, (reading, writing) = asyncio.get_running_loop(), os.pipe()

        def hear() -> None:
            said = os.read(reading, 1 << 16)
            self._noise = (self._noise + said)[-_KEPT_NOISE_BYTES:]
            if not said:
                loop.remove_reader(reading)

        loop.add_reader(reading, hear)
        try:
            with open(writing, "w") as noise:  # noqa: PTH123 - it is a pipe
                yield noise
        finally:
            loop.remove_reader(reading)
            os.close(reading)

    def _heard(self) -> str:
        lines = self._noise.decode("utf-8", "replace").strip().splitlines()
        return f"; it said: {lines[-1][:_SHOWN_NOISE_CHARS]}" if lines else ""


def _ourselves() -> Any:
    from mcp import Implementation

    return Implementation(name="fusiontools", version=__version__)


def _variable(server: McpServer, name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise UsageError(f"{name} is not set in the environment")
    return value


def _first_line(error: BaseException | None) -> str:
    """Return what went wrong in one line: of several things at once, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = "" if error is None else str(error).strip() or type(error).__name__
    return text.splitlines()[0][:_SHOWN_NOISE_CHARS] if text else "it ended"
