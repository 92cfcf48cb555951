"""The tools of one run: each opened when a member first may use it, closed with the run."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from fusiontools.config.api_keys import known_keys
from fusiontools.config.tool_options import MCP, PROVIDER, TOOLS, ToolOptions, require_tool
from fusiontools.errors import UsageError
from fusiontools.tools.tool import Arguments, Tool, ToolContext, ToolResult
from fusiontools.tools.toolbox import ResultStore, Toolbox

if TYPE_CHECKING:
    from fusiontools.tools.web_search import SearchOptions

#: How long one command of a member may run.
_SHELL_S = 60.0
_SECRET_NAME = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_SECRET_CHARS = 8
#: How long a result is taken to be where nothing is run: about that of a page.
_RESULT = "result " * 1200


class OpenTools:
    """Tools by the names that a person calls them by.

    Args:
        settings: what they go by.
        store: where results are kept and found.
        offline: whether only kept results are given.
        state_dir: where it is remembered what the tools of MCP servers looked like.
        own: tools that are open already, by such names.
    """

    def __init__(
        self,
        settings: ToolOptions,
        store: ResultStore | None = None,
        *,
        offline: bool = False,
        state_dir: Path | None = None,
        own: Mapping[str, Sequence[Tool]] | None = None,
    ) -> None:
        self.box = Toolbox(store=store, offline=offline)
        self._settings = settings
        self._state_dir = state_dir
        self._names: dict[str, list[str]] = {}
        self._opening = asyncio.Lock()
        for name, tools in (own or {}).items():
            self._names[name] = self.box.add(tools)

    async def open(self, spelled: Sequence[str]) -> list[str]:
        """Return what the tools that these names stand for are called in the box; what is not open yet is opened.

        Raises:
            UsageError: there is no such tool, or it cannot be opened here.
        """
        if not all(name in self._names for name in spelled):
            async with self._opening:
                for name in spelled:
                    if name not in self._names:
                        self._names[name] = await self._open(name)
        return [name for text in spelled for name in self._names[text]]

    async def aclose(self) -> None:
        """Close whatever was opened."""
        await self.box.__aexit__(None, None, None)

    async def _open(self, name: str) -> list[str]:
        require_tool(name, self._settings.mcp)
        if not name.startswith(MCP):
            return await self.box.open(_opening(name, self._settings))
        from fusiontools.tools.mcp_tools import mcp_tools

        server = self._settings.mcp[name.removeprefix(MCP)]
        pins = self._state_dir / "mcp-pins.json" if self._state_dir else None
        return await self.box.open(mcp_tools([server], pins=pins, store=self.box.store, offline=self.box.offline))


def require_tools(names: Iterable[str], settings: ToolOptions) -> None:
    """Raise `UsageError` for a tool that cannot be opened here, as far as that is known without opening it."""
    for name in dict.fromkeys(names):
        require_tool(name, settings.mcp)
        if name == "web_search":
            from fusiontools.tools.web_search import require_engines

            require_engines(_search_options(settings))
        elif name == "web_fetch":
            from fusiontools.tools.web_fetch import require_readers

            require_readers()
        elif name == "bash":
            from fusiontools.tools.bash import require_sandbox

            require_sandbox(settings.sandbox, unsafe=settings.unsafe_shell)
        else:
            from fusiontools.tools.mcp_tools import require_server

            server = settings.mcp[name.removeprefix(MCP)]
            require_server(server)
            if server.command and shutil.which(server.command[0]) is None:
                raise UsageError(f"mcp {server.name}: there is no program {server.command[0]!r} on the PATH")


def _search_options(settings: ToolOptions) -> SearchOptions:
    from fusiontools.tools.web_search import SearchOptions

    engines = [engine for engine in settings.search if engine != PROVIDER]
    return SearchOptions(engines, settings.language, settings.region, settings.results)


def _opening(name: str, settings: ToolOptions) -> AbstractAsyncContextManager[Sequence[Tool]]:
    """Return what opens a tool of this machine; each is imported where it is wanted."""
    if name == "web_search":
        from fusiontools.tools.web_search import web_search

        return web_search(_search_options(settings))
    if name == "web_fetch":
        from fusiontools.tools.web_fetch import FetchOptions, web_fetch

        return web_fetch(FetchOptions(settings.fetch, settings.private_hosts))
    from fusiontools.tools.bash import open_bash
    from fusiontools.tools.watch import Bounds

    bounds = Bounds(_SHELL_S)
    return open_bash(bounds, wrapper=settings.sandbox, unsafe=settings.unsafe_shell, secrets=secrets_here())


def secrets_here() -> list[str]:
    """Return the values of the environment's keys, and the other keys that are known: what no output may repeat."""
    named = [value for name, value in os.environ.items() if _SECRET_NAME.search(name)]
    return [value for value in (*named, *known_keys()) if len(value) >= _SECRET_CHARS]


def imagined_tools(settings: ToolOptions) -> OpenTools:
    """Return all tools that these settings know, which run nothing: for what a chain would cost."""
    names = [*TOOLS, *(f"{MCP}{name}" for name in settings.mcp)]
    return OpenTools(settings, own={name: [_imagined(name, settings)] for name in names})


def _imagined(name: str, settings: ToolOptions) -> Tool:
    cost_usd = _search_usd(settings) if name == "web_search" else 0.0

    async def run(arguments: Arguments, context: ToolContext) -> ToolResult:
        return ToolResult(_RESULT, cost_usd=cost_usd)

    plain = re.sub(r"[^\w-]", "_", name, flags=re.ASCII)[:64]
    return Tool(plain, name, {"type": "object", "properties": {"nth": {"type": "integer"}}}, run, true_name=name)


def _search_usd(settings: ToolOptions) -> float | None:
    """Return what a search with the first engine costs; None where nobody knows."""
    named = [engine for engine in settings.search if engine != PROVIDER]
    from fusiontools.tools.search_engines import ENGINES

    first = next(iter(named or [name for name, engine in ENGINES.items() if engine.key()]), None)
    return ENGINES[first].cost_usd if first is not None and first in ENGINES else 0.0
