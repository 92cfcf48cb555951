"""The tools of MCP servers as members have them: named, pinned, bounded, and found again without a server."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from webbing import Web
from workdir import SUPPORT

from fusiontools.errors import UsageError
from fusiontools.tools.mcp import McpServer, McpTool
from fusiontools.tools.mcp_tools import alias_of, digest_of, mcp_tools
from fusiontools.tools.tool import ToolContext, ToolResult, ToolRun
from fusiontools.tools.toolbox import Toolbox

SERVER = (sys.executable, str(SUPPORT / "mcp_server.py"))


class Kept:
    """A store in memory."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    async def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    async def put(self, key: bytes, kept: bytes, name: str) -> None:
        self.rows[key] = kept


class Standing:
    """An opened toolbox on a loop of its own."""

    def __init__(self, *servers: McpServer) -> None:
        self.runner = asyncio.Runner()
        self.box = self.runner.run(Toolbox([], [mcp_tools(servers)]).__aenter__())

    def call(self, name: str, **arguments: Any) -> ToolRun:
        return self.runner.run(self.box.run(name, arguments, ToolContext("r")))

    def close(self) -> None:
        self.runner.run(self.box.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    standing = Standing(McpServer("support", SERVER))
    yield standing
    standing.close()


def open_and_call(*servers: McpServer, calls: Any = (), store: Kept | None = None, **more: Any) -> list[ToolResult]:
    async def work() -> list[ToolResult]:
        offline = more.get("offline", False)
        async with Toolbox([], [mcp_tools(servers, store=store, **more)], store=store, offline=offline) as box:
            return [(await box.run(name, {}, ToolContext("r"))).result for name in calls]

    return asyncio.run(work())


def old(web: Web, kind: str = "-32601", **more: Any) -> McpServer:
    return McpServer("old", url=f"{web.url}/mcp/{kind}", **more)


# Names


@pytest.mark.parametrize(
    "tool",
    ["plain", "dotted.name", "with/slash", "with space", "ä", "x" * 200, "x" * 100 + "y", "", "a_b-C9"],
)
def test_a_name_is_one_that_every_provider_takes(tool: str) -> None:
    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", alias_of("server", tool))
    assert alias_of("server", tool) == alias_of("server", tool)


def test_names_that_differ_stay_different() -> None:
    names = ["a.b", "a_b", "a/b", "a b", "x" * 80, "x" * 81]

    assert len({alias_of("s", name) for name in names}) == len(names)
    assert alias_of("s", "a_b") == "s_a_b"


def test_a_tool_is_called_by_its_true_name(standing: Standing) -> None:
    [alias] = [tool.name for tool in standing.box.tools if "dotted" in tool.name]

    run = standing.call(alias)

    assert run.result.text == "called by my true name"
    assert run.name == "mcp:support/dotted.name/with-ä-and-more-than-sixty-four-characters-in-its-whole-length"


# Results


def test_a_result_is_text(standing: Standing) -> None:
    assert standing.call("support_echo", text="hi").result == ToolResult("you said: hi")
    assert standing.call("support_picture").result.text == "[image/png: 100 bytes, not shown]"
    assert '"sum": 2' in standing.call("support_add", a=1).result.text


def test_a_failure_reaches_the_model_marked_as_one(standing: Standing) -> None:
    result = standing.call("support_fail", why="because").result

    assert (result.status, result.cacheable) == ("error", False)
    assert result.text.startswith("fail of support says that it failed: ")
    assert result.text.endswith("because")


def test_a_result_is_bounded(standing: Standing) -> None:
    text = standing.call("support_much").result.text

    assert text.startswith("[cut: 30000 of 200010 characters are shown, the beginning and the end]\nstart x")
    assert text.endswith("x end")


def test_arguments_are_held_to_the_true_schema_before_the_server_is_asked(standing: Standing) -> None:
    assert standing.call("support_add", a="one").how == "rejected"


def test_what_tools_of_a_server_do_is_done_each_time(standing: Standing) -> None:
    assert not any(tool.repeatable for tool in standing.box.tools)


# Which tools


def test_only_tools_that_are_named_are_given(web: Web) -> None:
    with pytest.raises(UsageError, match="mcp old: it has no tool 'helo'; did you mean 'hello'"):
        open_and_call(old(web, tools=["helo"]))

    assert open_and_call(old(web, tools=["hello"]), calls=["old_hello"])[0].status == "ok"


@pytest.mark.parametrize("server", [McpServer("x"), McpServer("x", ("cat",), "http://127.0.0.1:9/")])
def test_a_server_is_a_command_or_an_address(server: McpServer) -> None:
    with pytest.raises(UsageError, match="mcp x: it needs a command or a url, and not both"):
        open_and_call(server)


def test_where_one_server_does_not_start_none_is_left(web: Web) -> None:
    with pytest.raises(UsageError, match="mcp gone"):
        open_and_call(old(web), McpServer("gone", ("no-such-command-here",)))

    assert [asked["method"] for asked in web.requests()][-1] == "DELETE"


# Pins


def test_tools_that_change_what_they_say_stop_the_run(web: Web, tmp_path: Path) -> None:
    pins = tmp_path / "state" / "mcp.json"
    open_and_call(old(web, "changes"), pins=pins)

    with pytest.raises(UsageError, match="has changed since it was first used: hello; look at them") as failed:
        open_and_call(old(web, "changes"), pins=pins)

    assert str(pins) in failed.value.message


def test_tools_that_say_the_same_go_on(web: Web, tmp_path: Path) -> None:
    pins = tmp_path / "mcp.json"

    for _ in range(2):
        assert open_and_call(old(web), pins=pins, calls=["old_hello"])[0].status == "ok"


def test_a_pin_of_the_recipe_holds(web: Web) -> None:
    digest = digest_of([McpTool("hello", "Says hello.", {"type": "object"})])

    assert open_and_call(old(web, pin=digest), calls=["old_hello"])[0].status == "ok"
    with pytest.raises(UsageError, match=f"not those that were pinned; look at them, then write `pin: {digest}`"):
        open_and_call(old(web, pin="0" * 32))


def test_pins_that_cannot_be_read_are_an_error(web: Web, tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text("{")

    with pytest.raises(UsageError, match="cannot be read"):
        open_and_call(old(web), pins=tmp_path / "mcp.json")


# Offline


def test_offline_the_same_tools_give_the_same_bytes_and_no_server_is_asked(web: Web) -> None:
    store = Kept()
    [first] = open_and_call(old(web), calls=["old_hello"], store=store)
    web.reset()

    [again] = open_and_call(old(web), calls=["old_hello"], store=store, offline=True)

    assert again.to_json() == first.to_json()
    assert web.requests() == []


def test_offline_an_unknown_server_is_an_error(web: Web) -> None:
    with pytest.raises(UsageError, match="the journal does not hold its tools, and --offline starts no server"):
        open_and_call(old(web), store=Kept(), offline=True)
