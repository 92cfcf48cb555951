"""A server of the Model Context Protocol, made with the official SDK, in a process of its own.

python tests/support/mcp_server.py                 on stdin and stdout
python tests/support/mcp_server.py --http          prints its URL, and serves streamable HTTP
… --describe TEXT    what the tool `echo` says of itself
… --stubborn         does not end when its stdin does, and has a child that does not either
… --noise            prints to stdout what is no message
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError


def server(describe: str) -> MCPServer[Any]:
    made: MCPServer[Any] = MCPServer("support")

    @made.tool(description=describe)
    def echo(text: str) -> str:
        return f"you said: {text}"

    @made.tool()
    def add(a: int, b: int = 1) -> dict[str, int]:
        """Add two numbers."""
        return {"sum": a + b}

    @made.tool()
    def fail(why: str) -> str:
        """Fail."""
        raise ToolError(why)

    @made.tool()
    def much() -> str:
        """Return far too much."""
        return "start " + "x" * 200_000 + " end"

    @made.tool()
    async def slow() -> str:
        """Take for ever."""
        await asyncio.Event().wait()
        return "never"

    @made.tool()
    def picture() -> Image:
        """Return a picture."""
        return Image(data=b"\x89PNG" + bytes(96), format="png")

    @made.tool()
    def environment() -> list[str]:
        """Return the names of all variables."""
        return sorted(os.environ)

    @made.tool()
    def die() -> str:
        """End at once."""
        print("something is wrong here", file=sys.stderr, flush=True)
        os._exit(3)

    @made.tool(name="dotted.name/with-ä-and-more-than-sixty-four-characters-in-its-whole-length")
    def dotted() -> str:
        """Have a name that providers do not take."""
        return "called by my true name"

    @made.tool()
    def pids() -> list[int]:
        """Return the numbers of this process and of its child, where it has one."""
        return [os.getpid(), *([child.pid] if child else [])]

    return made


child: subprocess.Popen[bytes] | None = None


def main() -> None:
    global child
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--stubborn", action="store_true")
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--describe", default="Repeat a text.")
    options = parser.parse_args()
    made = server(options.describe)
    if options.http:
        serve_http(made)
        return
    if options.noise:
        print("Welcome to the server!\nIt is pleased to meet you.", flush=True)
    if options.stubborn:
        child = subprocess.Popen(["sleep", "1000"])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    made.run("stdio")
    if options.stubborn:
        signal.pause()


def serve_http(made: MCPServer[Any]) -> None:
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
    running = uvicorn.Server(uvicorn.Config(made.streamable_http_app(), log_level="error"))
    asyncio.run(running.serve([listening]))


if __name__ == "__main__":
    main()
