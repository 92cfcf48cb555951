"""What members' tools go by: which search engines, which addresses, which MCP servers, which sandbox; never a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar, Literal

from fusiontools.config.options import Settings, option
from fusiontools.errors import UsageError, nearest

#: The tools that need no server; `mcp:NAME` is a server of the recipe's.
TOOLS = ("web_search", "web_fetch", "bash")
MCP = "mcp:"
#: What `--web-search` is short for.
WEB_TOOLS = ("web_search", "web_fetch")
#: In the place of an engine: the endpoint's own search.
PROVIDER = "provider"
#: Under which endpoint the ledger has the runs of tools.
TOOLS_ENDPOINT = "tools"


class McpServer(Settings):
    """An MCP server as a recipe names it: a command, or the URL of one that speaks streamable HTTP.

    Args:
        env: names of variables that it gets beside HOME, LOGNAME, PATH, SHELL, TERM and USER.
        key_env: the variable with the key that is sent to a URL as a bearer token.
        tools: the tools that may be used; all, where none is named.
        pin: the digest that its tools must have.
        repeatable: whether its tools only look things up, so that one run stands for all equal ones.
        start_s: how long it may take to start.
        timeout_s: how long a call may take.
    """

    name: str
    command: Sequence[str] = ()
    url: str = ""
    env: Sequence[str] = ()
    key_env: str = ""
    tools: Sequence[str] = ()
    pin: str = ""
    repeatable: bool = False
    start_s: float = 30.0
    timeout_s: float = 60.0

    @property
    def identity(self) -> list[Any]:
        """What makes its results those of this server: never a key."""
        return [self.name, list(self.command), self.url]


class ToolOptions(Settings):
    """What the tools of one run go by.

    Args:
        search: `provider` (the endpoint's own search where it has one), and engines, in the order of trying.
        language: of search results, in two letters.
        region: the country for which results are, in two letters.
        results: how many a search gives.
        private_hosts: hosts, addresses or networks that `web_fetch` may reach although they are private.
        mcp: MCP servers by name.
        sandbox: a wrapper for `bash` in the place of bubblewrap: `srt --`.
    """

    HEADING: ClassVar[str] = "Tools"

    fetch: Literal["results", "seen", "any"] = option(
        "seen", "--fetch", choices=("results", "seen", "any"),
        help="Which addresses web_fetch may take: results of a search, those that question or results name, or any.",
    )  # fmt: skip
    unsafe_shell: bool = option(
        False, "--unsafe-shell", recipe=False, help="Run the tool bash where no sandbox is to be had."
    )
    search: tuple[str, ...] = ()
    language: str = "en"
    region: str = "US"
    results: int = 8
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
        given |= {name: spec[name] for name in ("language", "region", "results") if name in spec}
    given |= {name: data[name] for name in ("fetch", "sandbox") if name in data}
    if "private_hosts" in data:
        given["private_hosts"] = tuple(data["private_hosts"])
    given["mcp"] = {name: _read_server(name, spec) for name, spec in data.get("mcp", {}).items()}
    return ToolOptions(**given)


def _read_server(name: str, spec: Mapping[str, Any]) -> McpServer:
    given: dict[str, Any] = dict(spec)
    if isinstance(given.get("command"), str):
        import shlex

        given["command"] = shlex.split(given["command"])
    settings: Any = {key: tuple(kept) if isinstance(kept, list) else kept for key, kept in given.items()}
    return McpServer(name, **settings)
