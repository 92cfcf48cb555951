"""An MCP server over HTTP as there were before `server/discover`: what it makes of that question is in its path.

/mcp/-32601 …       a JSON-RPC error with this code
/mcp/-32000-null    the same, for nobody in particular
/mcp/400, /mcp/401  an HTTP status and no JSON
/mcp/silent         nothing at all
/mcp/forgets        -32601; and it forgets a session at the first call of a tool, once
/mcp/changes        -32601; and its tool says something else of itself each time it is asked
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any


class OldServers:
    """All of them, with their sessions."""

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.numbers = itertools.count(1)
        self.forgot = False

    def answer(self, method: str, kind: str, session: str, body: bytes) -> tuple[int, dict[str, str], Any]:
        """Return status, headers, and what goes out as JSON; bytes as they are; an iterator for silence."""
        if method != "POST":
            return (200 if method == "DELETE" else 405), {}, b""
        asked = json.loads(body)
        if "id" not in asked:
            return 202, {}, b""
        if asked["method"] == "server/discover":
            return self.discover(kind, asked["id"])
        if asked["method"] == "initialize":
            number = str(next(self.numbers))
            self.sessions.add(number)
            return 200, {"mcp-session-id": number}, result(asked, INITIALIZED)
        if session not in self.sessions:
            return 404, {}, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Session terminated"}}
        if asked["method"] == "tools/list":
            says = f"Says hello, {next(self.numbers)}." if kind == "changes" else "Says hello."
            tool = {"name": "hello", "description": says, "inputSchema": {"type": "object"}}
            return 200, {}, result(asked, {"tools": [tool]})
        if kind == "forgets" and not self.forgot:
            self.forgot = True
            self.sessions.clear()
            return 404, {}, b"no such session"
        return 200, {}, result(asked, {"content": [{"type": "text", "text": f"hello from session {session}"}]})

    def discover(self, kind: str, number: Any) -> tuple[int, dict[str, str], Any]:
        if kind in ("400", "401"):
            return int(kind), {}, b"Missing session ID"
        if kind == "silent":
            return 200, {}, silence()
        code = int(kind.removesuffix("-null")) if kind.startswith("-") else -32601
        named = None if kind.endswith("-null") else number
        return 200, {}, {"jsonrpc": "2.0", "id": named, "error": {"code": code, "message": "What?"}}


INITIALIZED = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "old", "version": "1"},
}


def result(asked: dict[str, Any], given: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": asked["id"], "result": given}


async def silence() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""
