"""A server of MCP that others made, in another language: the reference server `everything`, as npm installs it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from fusiontools.tools.mcp import McpServer
from fusiontools.tools.mcp_tools import mcp_tools
from fusiontools.tools.provider_schema import Provider
from fusiontools.tools.tool import ToolContext
from fusiontools.tools.toolbox import Toolbox

pytestmark = pytest.mark.slow

if "FUSION_CLIENTS" not in os.environ:
    pytest.skip("`make test-clients` installs what these tests need", allow_module_level=True)

NODE = Path(os.environ["FUSION_CLIENTS"]) / "npm" / "node_modules"
SERVER = NODE / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> McpServer:
    monkeypatch.setenv("PATH", os.pathsep.join([str(NODE / ".bin"), os.environ["PATH"]]))
    return McpServer("everything", ("node", str(SERVER), "stdio"))


def with_box(server: McpServer, work: Any) -> Any:
    async def run() -> Any:
        async with Toolbox([], [mcp_tools([server])]) as box:
            return await work(box)

    return asyncio.run(run())


def test_its_tools_run(everything: McpServer) -> None:
    async def work(box: Toolbox) -> Any:
        names = {tool.true_name: tool.name for tool in box.tools}
        calls: list[tuple[str, Any]] = [
            (names["mcp:everything/echo"], {"message": "hi"}),
            (names["mcp:everything/get-sum"], {"a": 2, "b": 3}),
            (names["mcp:everything/get-tiny-image"], {}),
            (names["mcp:everything/get-sum"], {"a": "two"}),
        ]
        return await box.run_all(calls, ToolContext("r"))

    echo, added, image, wrong = with_box(everything, work)

    assert echo.result.text == "Echo: hi"
    assert "5" in added.result.text
    assert "image/png" in image.result.text
    assert (wrong.how, wrong.result.status) == ("rejected", "error")


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
def test_its_tools_can_be_declared_to_every_provider(everything: McpServer, provider: Provider) -> None:
    async def work(box: Toolbox) -> Any:
        return len(box.tools), box.declared_for(provider)

    number, (declared, left_out) = with_box(everything, work)

    assert number == len(declared) > 5
    assert left_out == {}
