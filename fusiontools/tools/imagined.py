"""Tools that run nothing: for what a chain would cost whose members use them."""

from __future__ import annotations

import re

from fusiontools.config.tool_options import MCP, PROVIDER, TOOLS, ToolOptions
from fusiontools.tools.opening import OpenTools
from fusiontools.tools.search_engines import ENGINES
from fusiontools.tools.tool import Arguments, Tool, ToolContext, ToolResult

#: How long a result is taken to be: about that of a page.
_RESULT = "result " * 1200


def imagined_tools(settings: ToolOptions) -> OpenTools:
    """Return all tools that these settings know, open without anything having been started."""
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
    first = next(iter(named or [name for name, engine in ENGINES.items() if engine.key()]), None)
    return ENGINES[first].cost_usd if first is not None and first in ENGINES else 0.0
