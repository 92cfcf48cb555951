"""What members' tools go by: which search engines, which addresses, which MCP servers, which sandbox; never a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fusiontools.config.options import option
from fusiontools.errors import UsageError, nearest

#: The tools that need no server; `mcp:NAME` is a server of the recipe's.
TOOLS = ("web_search", "web_fetch", "bash")
MCP = "mcp:"
#: In the order in which they are tried where a recipe names none: whichever has its key or URL, then the keyless one.
ENGINES = ("searxng", "tavily", "brave", "exa", "ddgs")


@dataclass(frozen=True, slots=True)
class McpServer:
    """An MCP server: a command to start, or a URL to reach.

    Args:
        command: the program and its arguments.
        url: of streamable HTTP.
        env: the environment variables that the program may see beside the usual few.
        tools: those of its tools that may be used; None is all.
        token_env: the environment variable that holds the token for the URL.
    """

    command: tuple[str, ...] = ()
    url: str | None = None
    env: tuple[str, ...] = ()
    tools: tuple[str, ...] | None = None
    token_env: str | None = None


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """What the tools of one run go by.

    Args:
        search: `provider` (the endpoint's own search where it has one), and engines, in the order of trying.
        language: of search results, as a language tag.
        region: whose results, as a country code.
        private_hosts: hosts, addresses or networks that `web_fetch` may reach although they are private.
        mcp: MCP servers by name.
        sandbox: a wrapper for `bash` in the place of bubblewrap: `srt --`.
    """

    HEADING: ClassVar[str] = "Tools"

    fetch: str = option(
        "seen", "--fetch", choices=("results", "seen", "any"),
        help="Which addresses web_fetch may take: results of a search, those that question or results name, or any.",
    )  # fmt: skip
    unsafe_shell: bool = option(
        False, "--unsafe-shell", recipe=False, help="Run the tool bash where no sandbox is to be had."
    )
    search: tuple[str, ...] = ()
    language: str = "en"
    region: str = "us"
    private_hosts: tuple[str, ...] = ()
    mcp: Mapping[str, McpServer] = field(default_factory=dict)
    sandbox: str | None = None


def require_tool(name: str, servers: Mapping[str, McpServer] | None = None) -> None:
    """Raise `UsageError` where no tool has this name.

    Args:
        servers: the MCP servers that there are, where that is known.
    """
    if name.startswith(MCP):
        server = name.removeprefix(MCP)
        if not server or (servers is not None and server not in servers):
            known = nearest(server, list(servers)) if servers else "; a recipe defines them under `mcp:`"
            raise UsageError(f"--tools: no MCP server is called {server!r}{known}", code="tools")
        return
    if name not in TOOLS:
        raise UsageError(f"--tools: no tool is called {name!r}{nearest(name, [*TOOLS, 'mcp:NAME'])}", code="tools")


def read_tool_options(data: Mapping[str, Any]) -> ToolOptions:
    """Return the settings that a recipe's own keys give; their form has been checked against the schema."""
    given: dict[str, Any] = {}
    if (search := data.get("search")) is not None:
        spec = search if isinstance(search, dict) else {"engines": search}
        engines = spec.get("engines", ())
        given["search"] = (engines,) if isinstance(engines, str) else tuple(engines)
        given |= {name: spec[name] for name in ("language", "region") if name in spec}
    given |= {name: data[name] for name in ("fetch", "sandbox") if name in data}
    if "private_hosts" in data:
        given["private_hosts"] = tuple(data["private_hosts"])
    given["mcp"] = {name: _read_server(spec) for name, spec in data.get("mcp", {}).items()}
    return ToolOptions(**given)


def _read_server(spec: Mapping[str, Any]) -> McpServer:
    command = spec.get("command", ())
    if isinstance(command, str):
        import shlex

        command = shlex.split(command)
    tools = spec.get("tools")
    return McpServer(
        tuple(command), spec.get("url"), tuple(spec.get("env", ())), None if tools is None else tuple(tools),
        spec.get("token_env"),
    )  # fmt: skip
