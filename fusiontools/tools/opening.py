"""The tools of one run: each opened when a member first may use it, closed with the run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from fusiontools.config.tool_options import MCP, ToolOptions, require_tool
from fusiontools.tools.tool import Tool
from fusiontools.tools.toolbox import ResultStore, Toolbox


class OpenTools:
    """Tools by the names that a person calls them by.

    Args:
        settings: what they go by.
        store: where results are kept and found.
        offline: whether only kept results are given.
        own: tools that are open already, by such names.
    """

    def __init__(
        self,
        settings: ToolOptions,
        store: ResultStore | None = None,
        *,
        offline: bool = False,
        own: Mapping[str, Sequence[Tool]] | None = None,
    ) -> None:
        self.box = Toolbox(store=store, offline=offline)
        self._settings = settings
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
        if name.startswith(MCP):
            raise NotImplementedError
        raise NotImplementedError
