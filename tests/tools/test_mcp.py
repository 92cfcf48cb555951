"""MCP servers, real ones of the official SDK and old ones: started once, called, lost, ended with all they started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rawhttp import eventually
from webbing import Web
from workdir import SUPPORT

from fusiontools.config.tool_options import McpServer
from fusiontools.errors import UsageError
from fusiontools.tools.mcp import McpConnection, McpFailed

SERVER = (sys.executable, str(SUPPORT / "mcp_server.py"))


def stdio(*options: str, **more: Any) -> McpServer:
    return McpServer("support", (*SERVER, *options), **more)


def connected(server: McpServer, work: Callable[[McpConnection], Awaitable[Any]], warn: Any = None) -> Any:
    """Return what comes of this work on a connection, which is closed behind it."""

    async def run() -> Any:
        connection = McpConnection(server, warn)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


class Standing:
    """A connection on a loop of its own, for tests that leave it as it was: a server takes a second to start."""

    def __init__(self, server: McpServer) -> None:
        self.runner = asyncio.Runner()
        self.connection = McpConnection(server)

    def call(self, name: str, **arguments: Any) -> Any:
        return self.runner.run(self.connection.call(name, arguments))

    def close(self) -> None:
        self.runner.run(self.connection.close())
        self.runner.close()


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_OF_OTHERS", "sk-others")
        patch.setenv("DECLARED", "yes")
        standing = Standing(stdio(env=["DECLARED"]))
        yield standing
        standing.close()


@pytest.fixture(scope="module")
def http_url() -> Iterator[str]:
    with subprocess.Popen([*SERVER, "--http"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def texts(result: Any) -> list[str]:
    return [part.text for part in result.content]


def test_a_server_lists_its_tools_with_their_schemas(standing: Standing) -> None:
    listed = {tool.name: tool for tool in standing.runner.run(standing.connection.tools())}

    assert listed["echo"].description == "Repeat a text."
    assert listed["echo"].schema["required"] == ["text"]


def test_a_call_gives_what_the_tool_returns(standing: Standing) -> None:
    assert texts(standing.call("echo", text="hi")) == ["you said: hi"]
    assert standing.call("add", a=1).structured_content == {"sum": 2}


def test_a_tool_that_fails_says_so(standing: Standing) -> None:
    failed = standing.call("fail", why="because")

    assert failed.is_error
    assert "because" in texts(failed)[0]


def test_a_server_gets_the_usual_variables_and_those_that_it_declares(standing: Standing) -> None:
    names = set(texts(standing.call("environment")))

    assert {"PATH", "HOME", "DECLARED"} <= names
    assert "SECRET_OF_OTHERS" not in names
    assert not [name for name in names if "KEY" in name]


@pytest.mark.slow
def test_a_call_that_takes_too_long_is_lost_alone() -> None:
    async def work(connection: McpConnection) -> tuple[McpFailed, Any]:
        slow = asyncio.create_task(connection.call("slow", {}))
        quick = await connection.call("echo", {"text": "meanwhile"})
        with pytest.raises(McpFailed) as failed:
            await slow
        return failed.value, quick

    failed, quick = connected(stdio(timeout_s=1.0), work)

    assert failed.timed_out
    assert texts(quick) == ["you said: meanwhile"]


@pytest.mark.slow
def test_a_server_that_dies_fails_the_call_with_its_last_words_and_is_started_again_for_the_next() -> None:
    async def work(connection: McpConnection) -> tuple[str, Any]:
        with pytest.raises(McpFailed) as failed:
            await connection.call("die", {})
        return str(failed.value), await connection.call("echo", {"text": "again"})

    said, after = connected(stdio(), work)

    assert "nobody knows whether it ran; it said: something is wrong here" in said
    assert texts(after) == ["you said: again"]


@pytest.mark.slow
def test_what_is_no_message_on_stdout_does_no_harm_and_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    warnings: list[str] = []

    async def work(connection: McpConnection) -> Any:
        return await connection.call("echo", {"text": "hi"})

    assert texts(connected(stdio("--noise"), work, warnings.append)) == ["you said: hi"]
    assert warnings == ["warning: mcp support: it prints to stdout what is no message; that is left out"]
    assert capfd.readouterr() == ("", "")


def running(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_server_ends_with_its_connection_and_so_does_all_that_it_started() -> None:
    async def work(connection: McpConnection) -> list[int]:
        return [int(text) for text in texts(await connection.call("pids", {}))]

    pids = connected(stdio("--stubborn"), work)

    assert len(pids) == 2
    eventually(lambda: not any(map(running, pids)), "the server and its child are gone")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_server_ends_with_us_however_we_end(how: signal.Signals) -> None:
    program = f"""
import asyncio, os, signal
from fusiontools.config.tool_options import McpServer
from fusiontools.tools.mcp import McpConnection
async def main():
    connection = McpConnection(McpServer("support", {(*SERVER, "--stubborn")!r}))
    try:
        result = await connection.call("pids", {{}})
        print(*[part.text for part in result.content], flush=True)
        await asyncio.Event().wait()
    finally:
        await connection.close()
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        pids = [int(text) for text in process.stdout.readline().split()]
        process.send_signal(how)

    assert len(pids) == 2
    eventually(lambda: not any(map(running, pids)), "the server and its child are gone")


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (McpServer("x", ("no-such-command-here",)), "mcp x: it cannot be started: there is no command"),
        (McpServer("x", ("sh", "-c", "echo out of order >&2; exit 3")), "it said: out of order"),
        (McpServer("x", ("sleep", "100"), start_s=0.5), "it did not answer within 0.5 s"),
        (McpServer("x", ("cat",), env=["NOT_SET_ANYWHERE"]), "NOT_SET_ANYWHERE is not set in the environment"),
        (McpServer("x", url="http://127.0.0.1:9/mcp", start_s=5), "mcp x: it cannot be started"),
        (McpServer("x", url="http://127.0.0.1:9/mcp", key_env="NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE is not set"),
    ],
)
def test_a_server_that_cannot_be_started_is_an_error_with_its_reason(server: McpServer, said: str) -> None:
    async def work(connection: McpConnection) -> None:
        await connection.tools()

    with pytest.raises(UsageError) as failed:
        connected(server, work)

    assert said in failed.value.message
    assert "\n" not in failed.value.message


# Over HTTP


def test_a_server_of_today_answers_over_http(http_url: str) -> None:
    async def work(connection: McpConnection) -> Any:
        names = [tool.name for tool in await connection.tools()]
        return names, await connection.call("echo", {"text": "hi"})

    names, result = connected(McpServer("support", url=http_url), work)

    assert "echo" in names
    assert texts(result) == ["you said: hi"]


async def say_hello(connection: McpConnection) -> list[str]:
    assert [tool.name for tool in await connection.tools()] == ["hello"]
    return [*texts(await connection.call("hello", {})), *texts(await connection.call("hello", {}))]


#: Silence is waited for, ten seconds.
SILENT = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("-32000-null", "silent")]


@pytest.mark.parametrize("kind", ["-32601", "-32600", "-32602", "400", "401", *SILENT])
def test_an_old_server_is_one_whatever_it_makes_of_the_question(web: Web, kind: str) -> None:
    server = McpServer("old", url=f"{web.url}/mcp/{kind}")

    assert connected(server, say_hello) == ["hello from session 1"] * 2


def test_a_server_that_has_forgotten_us_is_asked_once_more_and_not_for_its_era(web: Web) -> None:
    server = McpServer("old", url=f"{web.url}/mcp/forgets")

    assert connected(server, say_hello) == ["hello from session 2"] * 2
    assert len([asked for asked in web.requests() if "server/discover" in asked["body"]]) == 1


def test_a_key_goes_to_its_server_and_into_no_error(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_OLD", "sk-of-old")
    server = McpServer("old", url=f"{web.url}/mcp/-32601", key_env="KEY_OF_OLD")

    connected(server, say_hello)

    assert {asked["headers"]["authorization"] for asked in web.requests()} == {"Bearer sk-of-old"}
    assert "sk-of-old" not in repr(server)


def test_nothing_of_the_protocol_is_imported_before_a_server_is_opened() -> None:
    code = "import sys, fusiontools.tools.mcp_tools; print({'mcp', 'pydantic', 'anyio', 'httpx2'} & set(sys.modules))"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})

    assert shown.stdout == "set()\n"
