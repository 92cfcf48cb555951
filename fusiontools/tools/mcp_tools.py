"""The tools of MCP servers as tools of members: named so that every provider takes the names, pinned, and bounded.

What a server says of its tools is shown to models and can steer them. So the descriptions of a server are remembered
when it is first used, and a change of them stops the run until somebody has looked.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fusiontools.config.tool_options import McpServer
from fusiontools.errors import UsageError, nearest
from fusiontools.record import jsonl
from fusiontools.tools.mcp import McpConnection, McpFailed, McpTool
from fusiontools.tools.tool import Arguments, Tool, ToolContext, ToolResult, known_names
from fusiontools.tools.toolbox import ResultStore

_NAME_CHARS = 64
_DESCRIPTION_CHARS = 4000
_SHOWN_CHARS = 30_000


@asynccontextmanager
async def mcp_tools(
    servers: Sequence[McpServer],
    *,
    pins: Path | None = None,
    store: ResultStore | None = None,
    offline: bool = False,
    warn: Callable[[str], None] | None = None,
) -> AsyncIterator[list[Tool]]:
    """Open servers, all at once, and give their tools; they end with it.

    Args:
        pins: the file that remembers what tools looked like when they were first used.
        store: where lists are kept.
        offline: whether lists come from the store, and no server is started.
        warn: says to a person what goes wrong and does not stop the run.

    Raises:
        UsageError: a server cannot be started, lacks a tool that was named, or its tools have changed.
    """
    for server in servers:
        require_server(server)
    connections = [McpConnection(server, warn) for server in servers]
    try:
        listing = (_listed(*pair, store, offline) for pair in zip(servers, connections, strict=True))
        lists = await _all_of(*listing)
        if not offline:
            _check_pins(servers, lists, pins)
        tools: list[Tool] = []
        for server, connection, listed in zip(servers, connections, lists, strict=True):
            tools += _as_tools(server, connection, listed)
        yield tools
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))


def digest_of(tools: Sequence[McpTool]) -> str:
    """Return what a server's tools are pinned by: their names, descriptions and schemas, in any order."""
    return hashlib.sha256(jsonl.canonical(sorted(_described(tool) for tool in tools))).hexdigest()[:32]


def alias_of(server: str, tool: str) -> str:
    """Return a name that every provider takes, the same every time: letters, digits, `_`, `-`, at most 64."""
    whole = f"{server}_{tool}"
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", whole)
    if plain == whole and len(plain) <= _NAME_CHARS:
        return plain
    mark = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{plain[: _NAME_CHARS - len(mark) - 1]}_{mark}"


def require_server(server: McpServer) -> None:
    """Raise `UsageError` for a server that cannot be, or for want of what speaks to it."""
    if bool(server.command) == bool(server.url):
        raise UsageError(f"mcp {server.name}: it needs a command or a url, and not both")
    if find_spec("mcp") is None:
        raise UsageError(f"mcp {server.name}: mcp is not installed: pip install 'fusiontools[tools]'")


async def _all_of(*listing: Any) -> list[list[McpTool]]:
    """Wait for all, also where one fails: what was started must be there to be ended."""
    done = await asyncio.gather(*listing, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return [one for one in done if not isinstance(one, BaseException)]


async def _listed(
    server: McpServer, connection: McpConnection, store: ResultStore | None, offline: bool
) -> list[McpTool]:
    key = hashlib.sha256(jsonl.canonical(["mcp tools", *server.identity])).digest()[:16]
    if offline:
        kept = await store.get(key) if store is not None else None
        if kept is None:
            raise UsageError(f"mcp {server.name}: the journal does not hold its tools, and --offline starts no server")
        tools = [McpTool(*row) for row in jsonl.loads(kept)]
    else:
        tools = await connection.tools()
        if store is not None:
            rows = [[tool.name, tool.description, dict(tool.schema)] for tool in tools]
            await store.put(key, jsonl.dumps(rows), f"mcp:{server.name}")
    if not server.tools:
        return tools
    found = {tool.name: tool for tool in tools}
    for name in server.tools:
        if name not in found:
            raise UsageError(f"mcp {server.name}: it has no tool {name!r}{nearest(name, sorted(found))}")
    return [found[name] for name in server.tools]


def _check_pins(servers: Sequence[McpServer], lists: Sequence[Sequence[McpTool]], path: Path | None) -> None:
    """Compare tools with what they were, and remember what is new."""
    kept: dict[str, Any] = _read_pins(path) if path is not None else {}
    changed = False
    for server, tools in zip(servers, lists, strict=True):
        digest, identity = digest_of(tools), jsonl.dumps([*server.identity, sorted(server.tools)]).decode()
        now = {tool.name: hashlib.sha256(jsonl.canonical(_described(tool))).hexdigest()[:16] for tool in tools}
        if server.pin:
            if server.pin != digest:
                said = f"mcp {server.name}: its tools are not those that were pinned; look at them, then"
                raise UsageError(f"{said} write `pin: {digest}`")
        elif (before := kept.get(identity)) is not None and before != now:
            different = known_names({name for name, _ in before.items() ^ now.items()})
            raise UsageError(
                f"mcp {server.name}: what it says of its tools has changed since it was first used: {different}; "
                f"look at them, then write `pin: {digest}`, or remove its line from {path}"
            )
        elif before is None:
            kept[identity], changed = now, True
    if changed and path is not None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_bytes(
            b"{" + b",\n ".join(jsonl.dumps(k) + b": " + jsonl.dumps(v) for k, v in kept.items()) + b"}\n"
        )
        fresh.replace(path)


def _read_pins(path: Path) -> dict[str, Any]:
    try:
        kept = jsonl.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: what MCP servers said of their tools cannot be read: {error}") from error
    return kept if isinstance(kept, dict) else {}


def _described(tool: McpTool) -> list[Any]:
    return [tool.name, tool.description, jsonl.canonical(dict(tool.schema)).decode()]


def _as_tools(server: McpServer, connection: McpConnection, listed: Sequence[McpTool]) -> list[Tool]:
    return [
        Tool(
            alias_of(server.name, tool.name),
            tool.description[:_DESCRIPTION_CHARS],
            tool.schema,
            _runner(server, connection, tool.name),
            reach=("server",),
            settings={"server": server.identity},
            repeatable=server.repeatable,
            # The connection's own clock is the first to run out, and says to the server that nobody waits any more.
            timeout_s=server.timeout_s + server.start_s + 5,
            max_chars=_SHOWN_CHARS,
            true_name=f"mcp:{server.name}/{tool.name}",
        )
        for tool in listed
    ]


def _runner(server: McpServer, connection: McpConnection, name: str) -> Any:
    async def run(arguments: Arguments, context: ToolContext) -> ToolResult:
        try:
            result = await connection.call(name, arguments)
        except McpFailed as failed:
            said = f"{name} of {server.name} failed: {failed}"
            return ToolResult(said, "timeout" if failed.timed_out else "error", cacheable=False)
        text = "\n\n".join(filter(None, map(_text_of_part, result.content)))
        if not text and result.structured_content is not None:
            text = jsonl.dumps(result.structured_content).decode()
        if result.is_error:
            return ToolResult(f"{name} of {server.name} says that it failed: {text}", "error", cacheable=False)
        return ToolResult(text or "It ran, and returned nothing.")

    return run


def _text_of_part(part: Any) -> str:
    """Return what a model is shown of one part of a result."""
    if part.type == "text":
        return str(part.text)
    if part.type == "resource_link":
        return f"[{part.title or part.name}: {part.uri}]"
    if part.type == "resource":
        resource: Any = part.resource
        text: str | None = getattr(resource, "text", None)
        return f"[{resource.uri}]\n{text}" if text is not None else f"[{resource.uri}: {resource.mime_type}, not shown]"
    size = len(part.data) * 3 // 4 - part.data.count("=")
    return f"[{part.mime_type}: {size} bytes, not shown]"
