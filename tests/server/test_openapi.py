"""The OpenAPI document: a stranger's tool can read it, it names every route, and real responses are what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from documented import Document
from serving import CHAT, RECIPE, Server, asking
from workdir import Serve, Upstream

import fusiontools
from fusiontools.record import schemas
from fusiontools.record.schemas import data_dir
from fusiontools.server.routes import openapi_document
from fusiontools.server.run import make_app
from fusiontools.server.serve_options import ServeOptions
from fusiontools.server.state import ServerArguments, open_server

COMPLETIONS = "/v1/completions"
#: A response that was never made.
NOWHERE = f"/v1/responses/resp_{'0' * 32}"
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
OURS = {"name": "look_up", "input_schema": {"type": "object"}}
CUSTOM = {"type": "custom", "name": "look_up"}
TURN = [{"role": "user", "content": "Why?"}]
#: A model of the stand-in that calls the first tool; see `fake_models.py`.
CALLING = 'panel: ["fake/a+tool", "fake/b+tool"]\njudge: fake/judge\nsynth: "fake/synth+tool"\n'
EVERYTHING = {"include": ["panel", "analysis", "record"]}


@pytest.fixture(scope="module")
def document() -> Document:
    return Document(json.loads(openapi_document()))


def anthropic(**more: Any) -> dict[str, Any]:
    return {"model": "fusion", "max_tokens": 64, "messages": TURN, **more}


def references(value: Any) -> Iterator[str]:
    """Yield every reference in a value."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


# --- As a document ---


def test_it_is_valid_openapi(document: Document) -> None:
    import schemathesis  # it takes a second that only this test needs

    schemathesis.openapi.from_dict(document.whole).validate()


def test_it_says_its_version(document: Document) -> None:
    assert document.whole["info"]["version"] == fusiontools.__version__


def test_the_server_shows_it(server: Server, document: Document) -> None:
    assert server.get("/openapi.json").json() == document.whole


def test_no_reference_leaves_it(document: Document) -> None:
    targets = set(references(document.whole))

    assert targets
    for target in targets:
        assert document.at(target)


def test_every_component_is_used(document: Document) -> None:
    used = set(references(document.whole))
    used |= {f"#/components/securitySchemes/{name}" for way in document.whole["security"] for name in way}
    there = {f"#/components/{kind}/{name}" for kind, named in document.whole["components"].items() for name in named}

    # What stands in a chunk's `fusion` differs from chunk to chunk, so that its words name it.
    assert {
        target for target in there if not any(target == one or one.startswith(f"{target}/") for one in used)
    } == set()


def test_no_component_stands_in_the_place_of_a_schema_file() -> None:
    own = json.loads((data_dir("schemas") / "openapi.json").read_text())["components"]["schemas"]

    assert own.keys().isdisjoint(schemas.names())


def test_every_schema_is_one(document: Document) -> None:
    for schema in document.whole["components"]["schemas"].values():
        jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})


def test_no_schema_moves_its_own_references(document: Document) -> None:
    for schema in document.whole["components"]["schemas"].values():
        assert not schema.keys() & {"$id", "$schema", "$defs"}


def test_every_operation_has_a_name_of_its_own_and_a_summary(document: Document) -> None:
    told = document.operations.values()
    tags = {tag["name"] for tag in document.whole["tags"]}

    assert len({operation["operationId"] for operation in told}) == len(told)
    for operation in told:
        assert operation["summary"]
        assert set(operation["tags"]) <= tags


def test_it_names_every_route_and_no_other(
    document: Document, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    monkeypatch.setenv("FUSION_BASE_URL", upstream.url)
    monkeypatch.setenv("FUSION_API_KEY", "test-key")
    app: Any = make_app(open_server(ServerArguments(str(recipe), ServeOptions(recipes=(str(recipe),)))))

    described = [route for route in app.app.routes if route.include_in_schema]
    routes = {(verb, route.path.replace(":path}", "}")) for route in described for verb in route.methods}

    assert {(verb, path) for verb, path in routes if verb != "HEAD"} == document.operations.keys()


# --- Against the real thing ---

PAGES = [
    ("/", "/", 200),
    ("/health", "/health", 200),
    ("/docs", "/docs", 200),
    ("/v1/config", "/v1/config", 200),
    ("/panels", "/panels", 200),
    ("/panels/{name}", "/panels/cascade", 200),
    ("/ready", "/ready", 200),
    ("/page/state", "/page/state", 200),
    ("/page/files/{file}", "/page/files/app.js", 200),
    ("/page/files/{file}", "/page/files/nowhere.js", 404),
    ("/metrics", "/metrics", 200),
    ("/openapi.json", "/openapi.json", 200),
    ("/recipes", "/recipes", 200),
    ("/recipes/{name}", "/recipes/cascade", 200),
    ("/recipes/{name}", "/recipes/strange", 404),
    ("/v1/models", "/v1/models", 200),
    ("/v1/models", "/v1/models?client_version=1", 200),
    ("/v1/responses/{response_id}", NOWHERE, 404),
    ("/v1/responses/{response_id}/input_items", f"{NOWHERE}/input_items", 404),
    ("/v1/models/{name}", "/v1/models/fusion/budget", 200),
    ("/v1/models/{name}", "/v1/models/fake%2Fa", 200),
    ("/v1/models/{name}", "/v1/models/strange", 404),
]
BODIES: list[tuple[str, dict[str, Any], int]] = [
    (CHAT, asking(), 200),
    (CHAT, asking(n=1, modalities=["text"], max_tokens=3, fusion=EVERYTHING), 200),
    (CHAT, asking(stream=True), 200),
    (CHAT, asking(stream=True, stream_options={"include_usage": True}, fusion={"events": True, **EVERYTHING}), 200),
    (CHAT, {"model": "fake/a", "messages": TURN}, 200),
    (CHAT, {"model": "fake/a", "messages": TURN, "stream": True}, 200),
    (CHAT, {}, 400),
    (CHAT, asking(fusion={"nonsense": 1}), 400),
    (CHAT, {"model": "strange", "messages": TURN}, 404),
    (COMPLETIONS, {"prompt": "Why?"}, 200),
    (COMPLETIONS, {"prompt": ["One?", "Two?"], "echo": True, "max_tokens": 3}, 200),
    (COMPLETIONS, {"prompt": ["One?", "Two?"], "stream": True, "stream_options": {"include_usage": True}}, 200),
    (COMPLETIONS, {}, 400),
    ("/v1/responses", {"input": "Why?", "previous_response_id": "resp_0"}, 404),
    ("/v1/responses/input_tokens", {"input": "Why?"}, 200),
    ("/v1/responses/input_tokens", {}, 400),
    ("/v1/responses", {"input": "Why?"}, 200),
    ("/v1/responses", {"input": "Why?", "max_output_tokens": 3}, 200),
    ("/v1/responses", {"input": "Why?", "stream": True, "fusion": {"events": True}}, 200),
    ("/v1/responses", {"input": "Why?", "background": True, "tools": [{"type": "web_search"}]}, 200),
    ("/v1/responses", {"input": 3}, 400),
    ("/v1/responses", {"input": "Why?", "conversation": "conv_0"}, 404),
    ("/v1/conversations", {"items": [{"role": "user", "content": "Why?"}], "metadata": {"topic": "a"}}, 200),
    ("/v1/conversations", {}, 200),
    ("/v1/conversations", {"items": 3}, 400),
    ("/v1/messages", anthropic(), 200),
    ("/v1/messages", anthropic(stream=True, fusion={"events": True}), 200),
    ("/v1/messages", anthropic(max_tokens=0), 400),
    ("/v1/messages/count_tokens", {"model": "fusion", "messages": TURN}, 200),
    ("/v1/messages/count_tokens", {}, 400),
    ("/fuse", {"prompt": "Why?", "id": "mine", "meta": {"target": 3}}, 200),
    ("/fuse", {"messages": TURN, "recipe": "recipe", "params": {"max_tokens": 9}}, 200),
    ("/fuse", {"prompt": "Why?", "stream": True}, 200),
    ("/fuse", {}, 400),
    ("/fuse", {"prompt": "Why?", "model": "strange"}, 404),
    ("/v1/estimate", asking(), 200),
    ("/v1/estimate", {}, 400),
    ("/v1/estimate", {"model": "strange", "messages": TURN}, 404),
]
#: Bodies for a conversation that is kept.
CHANGES: dict[str, dict[str, Any]] = {
    "/v1/conversations/{conversation_id}": {"metadata": {"topic": "a"}},
    "/v1/conversations/{conversation_id}/items": {"items": [{"role": "user", "content": "Why?"}]},
}
#: One good body for each place that takes one.
GOOD = {path: body for path, body, status in reversed(BODIES) if status == 200}


def test_every_operation_is_asked_below(document: Document) -> None:
    asked = {("GET", path) for path, _, status in PAGES if status == 200}

    assert asked | KEPT | OF_THE_PAGE | {("POST", path) for path in GOOD} == document.operations.keys()


#: What tests of the page and of streams of `/fuse` ask.
OF_THE_PAGE = {("POST", "/fuse/{run}/stop"), ("POST", "/page/key")}


#: Operations on a response or a conversation that is kept.
KEPT = {
    ("GET", "/v1/responses/{response_id}"),
    ("GET", "/v1/responses/{response_id}/input_items"),
    ("POST", "/v1/responses/{response_id}/cancel"),
    ("DELETE", "/v1/responses/{response_id}"),
    ("GET", "/v1/conversations/{conversation_id}"),
    ("POST", "/v1/conversations/{conversation_id}"),
    ("GET", "/v1/conversations/{conversation_id}/items"),
    ("POST", "/v1/conversations/{conversation_id}/items"),
    ("GET", "/v1/conversations/{conversation_id}/items/{item_id}"),
    ("DELETE", "/v1/conversations/{conversation_id}/items/{item_id}"),
    ("DELETE", "/v1/conversations/{conversation_id}"),
}


def test_what_is_kept_is_as_documented(server: Server, document: Document) -> None:
    made = server.post("/v1/responses", {"input": [{"role": "user", "content": "Why?"}]}).json()
    begun = server.post("/v1/conversations", {"items": [{"role": "user", "content": "Why?"}]}).json()
    [item] = server.get(f"/v1/conversations/{begun['id']}/items").json()["data"]
    ids = {"{response_id}": made["id"], "{conversation_id}": begun["id"], "{item_id}": item["id"]}

    # What is forgotten is forgotten last, and an item before its conversation.
    for verb, path in sorted(KEPT, key=lambda operation: (operation[0] == "DELETE", -len(operation[1]))):
        url = server.url + re.sub(r"\{\w+\}", lambda name: ids[name[0]], path)
        json = {"json": CHANGES.get(path, {})} if verb == "POST" else {}
        response = httpx.request(verb, url, timeout=60, trust_env=False, **json)  # type: ignore[arg-type]
        assert response.status_code == 200
        document.check(path, response)


def test_models_are_as_documented_for_clients_of_anthropic_too(server: Server, document: Document) -> None:
    for path, address in (("/v1/models", "/v1/models"), ("/v1/models/{name}", "/v1/models/fusion")):
        document.check(path, server.get(address, headers={"anthropic-version": "2023-06-01"}))


@pytest.mark.parametrize(("path", "address", "status"), PAGES)
def test_pages_are_as_documented(server: Server, document: Document, path: str, address: str, status: int) -> None:
    response = server.get(address)

    assert response.status_code == status
    document.check(path, response)


@pytest.mark.parametrize(("path", "body", "status"), BODIES)
def test_answers_are_as_documented(
    server: Server, document: Document, path: str, body: dict[str, Any], status: int
) -> None:
    response = server.post(path, body)

    assert response.status_code == status
    document.check(path, response)


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, body, status in BODIES if status == 200])
def test_what_is_taken_fits_the_schema_of_requests(document: Document, path: str, body: dict[str, Any]) -> None:
    schema = document.operations["POST", path]["requestBody"]["content"]["application/json"]["schema"]

    assert document.faults(schema, body) == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "called"),
    [
        (CHAT, asking(tools=[TOOL]), '"tool_calls"'),
        ("/v1/responses", {"input": "Why?", "tools": [TOOL]}, '"function_call"'),
        ("/v1/responses", {"input": "Why?", "tools": [CUSTOM]}, '"custom_tool_call"'),
        ("/v1/messages", anthropic(tools=[OURS]), '"tool_use"'),
    ],
)
def test_tool_calls_are_as_documented(
    serve: Serve, document: Document, path: str, body: dict[str, Any], called: str, stream: bool
) -> None:
    response = serve(recipe=CALLING).post(path, {**body, "stream": stream})

    assert response.status_code == 200
    assert called in response.text
    document.check(path, response)


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages"])
def test_progress_as_thoughts_is_as_documented(serve: Serve, document: Document, path: str) -> None:
    quick = ("--progress", "reasoning", "--keepalive", "chunk", "--keepalive-interval", "0.01")
    recipe = 'panel: ["fake/a+slow=0.1", fake/b]\njudge: fake/judge\nsynth: fake/synth\n'

    response = serve(*quick, recipe=recipe).post(path, {**GOOD[path], "stream": True})

    assert "panel 2/2" in response.text
    document.check(path, response)


# --- What is refused, and what fails ---

KEY = {"authorization": "Bearer right-key"}
#: The paths that ask models.
ASKING = [CHAT, "/v1/responses", "/v1/messages", "/fuse"]


@pytest.fixture
def guarded(serve: Serve) -> Server:
    return serve("--max-body-mib", "0.001", env={"FUSION_SERVER_API_KEYS": "right-key"})


def test_refusals_are_as_documented(guarded: Server, document: Document) -> None:
    refusals = [
        ({}, b"{}", 401),
        ({**KEY, "origin": "https://strange.example"}, b"{}", 403),
        ({**KEY, "content-type": "text/plain"}, b"{}", 415),
        (KEY, b'{"a": "' + b"a" * 2000 + b'"}', 413),
        ({"x-api-key": "right-key"}, b"{", 400),
    ]

    for path in GOOD:
        for headers, body, status in refusals:
            response = guarded.post(path, body, headers)
            assert response.status_code == status
            document.check(path, response)


def test_pages_that_want_a_key_are_as_documented(guarded: Server, document: Document) -> None:
    open_to_all = set()

    for path, address, _ in PAGES:
        response = guarded.get(address)
        document.check(path, response)
        if response.status_code == 200:
            open_to_all.add(path)

    said = {path for (verb, path), told in document.operations.items() if told.get("security") == [] and verb == "GET"}
    assert open_to_all == said


@pytest.mark.parametrize(
    ("recipe", "options", "status"),
    [
        ("panel: [fake/a+status=500]\nlimits: {retries: 0}\n", (), 502),
        ("panel: [fake/a+hang]\nlimits: {deadline_s: 0.2, retries: 0}\n", (), 424),
        ("panel: [fake/a]\n", ("--max-request-cost-usd", "0"), 402),
        ("panel: [fake/a+status=400]\nlimits: {retries: 0}\n", (), 400),
    ],
    ids=["nobody answers", "in time", "for nothing", "everybody refuses"],
)
def test_failures_are_as_documented(
    serve: Serve, document: Document, recipe: str, options: tuple[str, ...], status: int
) -> None:
    server = serve(*options, recipe=recipe)

    for path in ASKING:
        response = server.post(path, GOOD[path])
        # Clients of Chat Completions ask again after 424.
        assert response.status_code == (400 if (path, status) == ("/v1/chat/completions", 424) else status)
        document.check(path, response)


def test_a_stream_that_breaks_off_is_as_documented(serve: Serve, document: Document) -> None:
    recipe = "panel: [fake/a, fake/b]\njudge: fake/judge\nsynth: fake/synth+midfail\nlimits: {retries: 0}\n"
    server = serve(recipe=recipe)
    broken = {CHAT: '"finish_reason":"error"', "/v1/responses": "response.failed", "/v1/messages": "event: error"}

    for path, said in broken.items():
        response = server.post(path, {**GOOD[path], "max_tokens": 4000, "stream": True})
        assert said in response.text
        document.check(path, response)


def test_who_asks_too_often_hears_it_as_documented(serve: Serve, document: Document) -> None:
    server = serve("--rate-limit", "1")
    server.post(CHAT, GOOD[CHAT])

    for path in ASKING:
        response = server.post(path, GOOD[path])
        assert response.status_code == 429
        document.check(path, response)


def test_a_busy_server_says_so_as_documented(serve: Serve, document: Document) -> None:
    limits = ("--max-in-flight", "1", "--max-queue", "0", "--keepalive-interval", "0.01")
    server = serve(*limits, recipe="panel: [fake/a+hang]\n")
    endless = {**GOOD[CHAT], "stream": True}

    with httpx.stream("POST", f"{server.url}{CHAT}", json=endless, timeout=60, trust_env=False) as held:
        lines = held.iter_lines()
        next(lines)
        for path in ASKING:
            response = server.post(path, GOOD[path])
            assert response.status_code == 503
            document.check(path, response)
        document.check("/ready", server.get("/ready"))


def test_a_members_own_refusal_is_as_documented(serve: Serve, document: Document) -> None:
    name = "fake/a+status=422"
    server = serve(recipe=f"panel: [{name}]\n")

    response = server.post(CHAT, {"model": name, "messages": TURN})

    assert response.status_code == 422
    document.check(CHAT, response)
