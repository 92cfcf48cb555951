"""`/mcp`: the tools of the panel over HTTP, asked by the official client in both eras of the protocol."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from asking_mcp import ERAS, http_client, over_http, text
from mcp import Client
from rawhttp import eventually
from serving import RECIPE, Server
from workdir import Serve, Upstream

every_era = pytest.mark.parametrize("era", ERAS)
KEYS = {"FUSION_SERVER_API_KEYS": "first-key-1234,second-key-5678"}
HANGS = "panel: [fake/a+hang, fake/b+hang, fake/c+hang]\njudge: fake/judge\nsynth: fake/synth\n"
NOW = {"mcp-protocol-version": "2026-07-28", "accept": "application/json, text/event-stream"}
#: What a call of today says in its head, too.
NAMED = {"mcp-method": "tools/call", "mcp-name": "fuse"}
HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}  # fmt: skip
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


def calling(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a call of today's protocol."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    params = {"name": name, "arguments": arguments, "_meta": meta}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


@every_era
def test_the_panel_answers_and_what_takes_longer_is_collected(server: Server, upstream: Upstream, era: str) -> None:
    async def work(client: Client) -> Any:
        context = [{"name": "a.py", "text": "x = 1"}]
        begun = await client.call_tool("fuse", {"question": f"Why {era}?", "context": context, "wait_s": 0})
        handle = begun.structured_content["handle"]
        return await client.call_tool("fuse_result", {"handle": handle})

    done = over_http(server, work, era)

    assert done.structured_content["answer"].startswith("fake/synth says")
    assert [member["member"] for member in done.structured_content["panel"]] == ["fake/a", "fake/b", "fake/c"]
    assert "evidence:1 a.py\nx = 1" in upstream.bodies("fake/b")[0]["messages"][-1]["content"]
    assert server.metric("fusion_requests_total", route="mcp") > 0
    assert {request["headers"]["x-fusion-depth"] for request in upstream.requests()} == {"1"}


@every_era
def test_each_model_that_is_done_is_told_as_progress(standing: Serve, era: str) -> None:
    waits = "panel: [fake/a, fake/b, fake/c+hang]\njudge: fake/judge\nsynth: fake/synth\n"
    heard: list[tuple[float, str | None]] = []
    both = asyncio.Event()

    async def hear(number: float, total: float | None, words: str | None) -> None:
        heard.append((number, words))
        if len(heard) == 2:
            both.set()

    async def work(client: Client) -> None:
        call = asyncio.create_task(client.call_tool("fuse", {"question": f"How {era}?"}, progress_callback=hear))
        await asyncio.wait_for(both.wait(), 60)
        call.cancel()

    over_http(standing(recipe=waits), work, era)

    assert [number for number, _ in heard] == [1.0, 2.0]
    assert {words for _, words in heard} == {"panel: fake/a", "panel: fake/b"}


def test_the_recipes_are_those_of_the_server(server: Server, upstream: Upstream) -> None:
    async def work(client: Client) -> Any:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        return tools["fuse"].input_schema["properties"]["recipe"]

    assert set(over_http(server, work)["enum"]) == set(server.get("/health").json()["recipes"])


def test_asking_again_costs_nothing(server: Server, upstream: Upstream) -> None:
    async def work(client: Client) -> Any:
        return [await client.call_tool("fuse", {"question": "Why twice?"}) for _ in range(2)]

    first, second = (result.structured_content for result in over_http(server, work))

    assert first["cost_usd"] > 0 == second["cost_usd"]
    assert upstream.stats()["per_model"]["fake/a"] == 1


@every_era
def test_each_key_has_runs_of_its_own(standing: Serve, era: str) -> None:
    server = standing("--max-body-mib", "0.01", env=KEYS)

    async def begin(client: Client) -> Any:
        return (await client.call_tool("fuse", {"question": f"Why {era}?", "wait_s": 0})).structured_content["handle"]

    handle = over_http(server, begin, era, "first-key-1234")

    async def collect(client: Client) -> Any:
        return await client.call_tool("fuse_result", {"handle": handle})

    assert over_http(server, collect, era, "second-key-5678").is_error
    assert not over_http(server, collect, era, "first-key-1234").is_error


def test_a_session_is_used_by_the_key_that_began_it(standing: Serve) -> None:
    server = standing("--max-body-mib", "0.01", env=KEYS)
    accept = {"accept": NOW["accept"]}
    begun = server.post("/mcp", HELLO, {**accept, "x-api-key": "first-key-1234"})
    session = {**accept, "mcp-session-id": begun.headers["mcp-session-id"]}

    assert begun.status_code == 200
    assert server.post("/mcp", LIST, {**session, "x-api-key": "second-key-5678"}).status_code == 404
    assert server.post("/mcp", LIST, {**session, "x-api-key": "first-key-1234"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "first-key-1234", "origin": "https://evil.example"}, 403),
        ({"x-api-key": "first-key-1234", "content-type": "text/plain"}, 415),
        ({"x-api-key": "first-key-1234", "x-fusion-depth": "1"}, 400),
    ],
)
def test_who_may_not_ask_the_server_may_not_ask_here(standing: Serve, headers: dict[str, str], status: int) -> None:
    assert standing("--max-body-mib", "0.01", env=KEYS).post("/mcp", LIST, {**NOW, **headers}).status_code == status


def test_another_host_is_no_way_in(server: Server) -> None:
    assert server.post("/mcp", LIST, {**NOW, "host": "evil.example"}).status_code == 400


def test_there_is_no_stream_of_what_nobody_asked_for(server: Server) -> None:
    assert server.get("/mcp", headers=NOW).status_code == 405


def test_a_body_is_bounded(standing: Serve) -> None:
    server = standing("--max-body-mib", "0.01", env=KEYS)
    headers = {**NOW, "x-api-key": "first-key-1234"}

    assert server.post("/mcp", calling("fuse", {"question": "x" * 20_000}), headers).status_code == 413


@pytest.mark.slow
def test_a_rate_is_a_refusal_in_words(standing: Serve) -> None:
    server = standing("--rate-limit", "1")

    async def work(client: Client) -> Any:
        return [await client.call_tool("fuse", {"question": f"Why {n}?"}) for n in range(2)]

    first, second = over_http(server, work)

    assert not first.is_error
    assert second.is_error
    assert "this key may ask 1 times a minute" in text(second)


@pytest.mark.slow
def test_what_an_endpoint_says_of_our_key_is_not_told(standing: Serve, upstream: Upstream) -> None:
    server = standing(recipe="panel: [fake/a+status=401]\njudge: fake/judge\nsynth: fake/synth\n")

    async def work(client: Client) -> Any:
        return await client.call_tool("fuse", {"question": "Why?"})

    failed = over_http(server, work)

    assert failed.is_error
    assert "the endpoint does not accept this server's key or account" in text(failed)
    assert upstream.url not in text(failed)


@every_era
def test_a_call_that_is_taken_back_stops_the_members_and_others_are_answered_meanwhile(
    standing: Serve, upstream: Upstream, era: str
) -> None:
    server = standing(recipe=HANGS)

    async def work(client: Client) -> None:
        call = asyncio.create_task(client.call_tool("fuse", {"question": f"Why {era}?"}))
        await asyncio.to_thread(eventually, lambda: upstream.stats()["in_flight"] == 3, "three calls under way")
        await client.list_tools()
        call.cancel()
        await asyncio.to_thread(eventually, lambda: upstream.stats()["aborted"] == 3, "three calls cut off")

    over_http(server, work, era)


@pytest.mark.slow
@every_era
def test_a_drain_waits_for_the_answer(serve: Serve, upstream: Upstream, era: str) -> None:
    server = serve(recipe="panel: [fake/a+slow=0.7]\njudge: fake/judge\nsynth: fake/synth\n")

    async def work() -> Any:
        async with http_client(server, era) as client:
            await client.list_tools()  # or it would ask for them afterwards, to check the structure
            call = asyncio.create_task(client.call_tool("fuse", {"question": "Why?"}))
            await asyncio.to_thread(eventually, lambda: upstream.stats()["in_flight"] == 1, "a call under way")
            server.process.send_signal(signal.SIGTERM)
            return await call

    assert asyncio.run(work()).structured_content["status"] == "done"
    assert server.process.wait(10) == 0
    assert "Traceback" not in server.said()


@pytest.mark.slow
def test_without_the_sdk_it_says_what_to_install(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text('raise ModuleNotFoundError("No module named mcp", name="mcp")\n')
    server = serve(env={"PYTHONPATH": str(tmp_path)})

    refused = server.post("/mcp", LIST, NOW)

    assert refused.status_code == 404
    assert "[mcp]" in refused.text


@pytest.mark.slow
def test_among_several_workers_a_call_waits_for_its_answer(serve: Serve) -> None:
    server = serve("--workers", "2")

    async def work(client: Client) -> Any:
        return (await client.list_tools()).tools, await client.call_tool("fuse", {"question": "Why?"})

    for era in ERAS:
        tools, done = over_http(server, work, era)
        assert [tool.name for tool in tools] == ["fuse", "second_opinion", "compare"]
        assert done.structured_content["status"] == "done"


@pytest.mark.parametrize("headers", [NOW | NAMED, {"accept": NOW["accept"]}], ids=ERAS)
def test_a_silent_stream_is_kept_open_by_comments(standing: Serve, upstream: Upstream, headers: dict[str, str]) -> None:
    server = standing("--keepalive-interval", "0.05", recipe=RECIPE.replace("fake/a", "fake/a+slow=0.3"))

    if "mcp-name" not in headers:
        headers = {**headers, "mcp-session-id": server.post("/mcp", HELLO, headers).headers["mcp-session-id"]}

    streamed = server.stream("/mcp", calling("fuse", {"question": json.dumps(headers)}), headers)

    assert streamed.headers["x-accel-buffering"] == "no"
    assert any("ping" in comment for comment in streamed.comments)
    assert streamed.events[-1]["result"]["structuredContent"]["status"] == "done"
