"""Members that search behind a server: by the operator's recipe, or where the operator lets requests ask for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Server, start_server
from webbing import Web
from workdir import Run, Upstream, hermetic

ASKED = {"messages": [{"role": "user", "content": "Merging without locks?"}]}
#: How each protocol's client asks for a search that its provider would make.
HOSTED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {**ASKED, "web_search_options": {}}),
    "chat tools": ("/v1/chat/completions", {**ASKED, "tools": [{"type": "openrouter:web_search"}]}),
    "plugin": ("/v1/chat/completions", {**ASKED, "plugins": [{"id": "web"}]}),
    "responses": ("/v1/responses", {"input": "Merging without locks?", "tools": [{"type": "web_search"}]}),
    "messages": (
        "/v1/messages",
        {**ASKED, "max_tokens": 99, "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    ),
}


@pytest.fixture(scope="module")
def web(web_process: Web) -> Web:
    return web_process


def serve(upstream: Upstream, web: Web, folder: Path, *options: str, tools: bool = False) -> Any:
    """Start a server whose recipe's members know how to search, and may where `tools` says so."""
    spec: dict[str, Any] = {
        "search": "searxng",
        "private_hosts": [web.address],
        "panel": {"members": ["fake/a+research"], **({"tools": ["web_search", "web_fetch"]} if tools else {})},
        "chain": "panel | vote",
    }
    (folder / "r.yaml").write_text(json.dumps(spec))
    env = {**hermetic(upstream, folder), "SEARXNG_URL": f"{web.url}/searx/"}
    return start_server(folder, env, "-c", "r.yaml", "--retries", "0", *options)


@pytest.fixture(scope="module")
def closed(upstream_process: Upstream, web: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(upstream_process, web, tmp_path_factory.mktemp("closed")) as server:
        yield server


@pytest.fixture(scope="module")
def opened(upstream_process: Upstream, web: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(upstream_process, web, tmp_path_factory.mktemp("opened"), "--overrides", "all,web_search") as server:
        yield server


@pytest.fixture(scope="module")
def searching(upstream_process: Upstream, web: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(upstream_process, web, tmp_path_factory.mktemp("searching"), tools=True) as server:
        yield server


def ask(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = server.post(path, {"model": "fusion", **body} if path != "/fuse" else body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


@pytest.mark.parametrize("how", HOSTED)
def test_where_members_do_not_search_a_wish_for_it_is_said_to_be_ignored(closed: Server, web: Web, how: str) -> None:
    web.reset()

    answer = ask(closed, *HOSTED[how])

    assert len(answer["fusion"]["ignored"]) == 1
    assert web.requests() == []


@pytest.mark.parametrize("how", HOSTED)
def test_where_the_recipe_searches_a_wish_for_it_is_done(searching: Server, web: Web, how: str) -> None:
    web.reset()

    answer = ask(searching, *HOSTED[how])

    assert "ignored" not in answer["fusion"]
    assert len(web.requests("/searx/search")) == 1


def test_the_sources_stand_in_each_protocols_own_form(searching: Server, web: Web) -> None:
    page = f"{web.url}/article"

    chat = ask(searching, "/v1/chat/completions", ASKED)["choices"][0]["message"]
    [said] = ask(searching, "/v1/responses", {"input": "Merging without locks?"})["output"]
    [block] = ask(searching, "/v1/messages", {**ASKED, "max_tokens": 99})["content"]

    [cited] = [annotation["url_citation"] for annotation in chat["annotations"]]
    assert (cited["url"], chat["content"][cited["start_index"] : cited["end_index"]]) == (page, page)
    assert [annotation["url"] for annotation in said["content"][0]["annotations"]] == [page]
    assert [citation["url"] for citation in block["citations"]] == [page]


def test_a_stream_says_the_sources_too(searching: Server, web: Web) -> None:
    page = f"{web.url}/article"

    for path, body in (
        ("/v1/chat/completions", ASKED),
        ("/v1/responses", {"input": "Merging without locks?"}),
        ("/v1/messages", {**ASKED, "max_tokens": 99}),
    ):
        text = searching.post(path, {"model": "fusion", "stream": True, **body}).text
        kinds = {"chat": '"annotations"', "responses": "annotation.added", "messages": "citations_delta"}
        kind = kinds[path.removeprefix("/v1/").partition("/")[0]]
        assert any(kind in line and page in line for line in text.splitlines()), path


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/fuse", {**ASKED, "web_search": True}),
        ("/fuse", {**ASKED, "fusion": {"web_search": True}}),
        ("/v1/chat/completions", {**ASKED, "fusion": {"web_search": True}}),
    ],
)
def test_a_request_turns_the_search_on_only_where_the_operator_names_it(
    closed: Server, opened: Server, web: Web, path: str, body: dict[str, Any]
) -> None:
    web.reset()

    refused = closed.post(path, {"model": "fusion", **body} if path != "/fuse" else body)
    assert refused.status_code == 400
    assert web.requests() == []

    ask(opened, path, body)
    assert len(web.requests("/searx/search")) == 1


def test_openrouters_plugin_turns_it_on_where_that_is_allowed(opened: Server, web: Web) -> None:
    web.reset()

    answer = ask(opened, *HOSTED["plugin"])

    assert "ignored" not in answer["fusion"]
    assert len(web.requests("/searx/search")) == 1


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ({"tools": ["web_search"]}, (), "brave wants BRAVE_API_KEY"),
        ({"members": [{"model": "fake/b", "tools": ["web_search"]}]}, (), "brave wants BRAVE_API_KEY"),
        ({}, ("--overrides", "web_search"), "brave wants BRAVE_API_KEY"),
        ({}, ("--chain", "panel --tools mcp:wiki | vote"), "no program 'no-such-program'"),
        ({"tools": ["bash"]}, (), "has no sandbox"),
    ],
)
def test_a_tool_that_cannot_be_opened_is_said_before_anybody_is_served(
    run: Run, tmp_path: Path, spec: Any, options: tuple[str, ...], said: str
) -> None:
    settings = {"search": ["brave"], "sandbox": "no-such-wrapper --", "mcp": {"wiki": {"command": "no-such-program"}}}
    recipe = {**settings, "panel": {"members": ["fake/a"], **spec}, "chain": "panel | vote"}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))

    result = run(["fuse-serve", "-c", "r.yaml", "--port", "0", *options])

    assert result.status == 2
    assert said in result.err


@pytest.mark.parametrize("step", ["panel --tools bash", "panel --web-search", "panel --tools mcp:x"])
def test_no_chain_of_a_clients_turns_a_tool_on(opened: Server, step: str) -> None:
    reply = opened.post("/v1/chat/completions", {"model": "fusion", **ASKED, "fusion": {"chain": f"{step} | vote"}})

    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "override_not_allowed"
