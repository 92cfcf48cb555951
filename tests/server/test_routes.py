"""What the server says of itself, and the endpoints that are ours alone: models, recipes, estimates, whole records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from serving import CHAT, RECIPE, Server, asking, start_server
from workdir import Run, Serve, Upstream, hermetic

from fusiontools.errors import __version__
from fusiontools.record.schemas import check_record
from fusiontools.record.sections import question_id

PANEL = ["fake/a", "fake/b", "fake/c"]
SHIPPED = (
    "budget",
    "cascade",
    "code",
    "debate",
    "frontier",
    "guarded",
    "local",
    "moa",
    "pick",
    "quality",
    "self",
    "vote",
)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
PRICED = """
name: priced
description: Two models whose prices are said.
models:
  a: {model: fake/a, price_usd_per_mtok: {prompt: 1, completion: 2}}
  b: {model: fake/b, price_usd_per_mtok: {prompt: 3, completion: 4}}
panel: {members: [a, b*2], samples: 2}
judge: [fake/judge, fake/judge2]
synth: a
"""


@pytest.fixture(scope="module")
def open_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("open")
    options = ("--allow-model", "fake/*", "--retries", "0")
    with start_server(folder, hermetic(upstream_process, folder), *options) as server:
        yield server


@pytest.fixture
def open_server(upstream: Upstream, open_process: Server) -> Server:
    """A server whose clients may name any fake model, and which asks no model twice."""
    return open_process


def got(reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def refusal_of(reply: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return error


# --- Models ---

ANTHROPIC = {"anthropic-version": "2023-06-01"}


def test_every_recipe_and_every_model_of_one_is_listed_the_fusion_first(server: Server) -> None:
    body = got(server.get("/v1/models"))

    ids = [entry["id"] for entry in body["data"]]
    assert body["object"] == "list"
    assert ids[:2] == ["fusion", "fusion/recipe"]
    assert {f"fusion/{name}" for name in SHIPPED} | {*PANEL, "fake/judge", "fake/synth"} <= set(ids)
    assert len(ids) == len(set(ids))
    assert body.keys() == {"object", "data"}


def test_an_entry_has_every_field_that_openai_writes(server: Server) -> None:
    entries = got(server.get("/v1/models"))["data"]

    for entry in entries:
        assert entry.keys() >= {"id", "object", "created", "owned_by"}
        assert entry["object"] == "model"
        assert isinstance(entry["created"], int)
    assert {entry["owned_by"] for entry in entries if entry["id"].startswith("fusion")} == {"fusiontools"}


def test_clients_of_anthropic_are_told_of_models_in_their_own_words(server: Server) -> None:
    ours = got(server.get("/v1/models"))["data"]

    listed = got(server.get("/v1/models", headers=ANTHROPIC))

    entries = {entry["id"]: entry for entry in listed["data"]}
    assert list(entries) == [entry["id"] for entry in ours]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == (ours[0]["id"], ours[-1]["id"], False)
    assert entries["fusion"].keys() == {"type", "id", "display_name", "created_at", "lifecycle"}
    created = datetime.fromisoformat(entries["fusion"]["created_at"])
    assert created.timestamp() == ours[0]["created"]
    assert entries["fusion/local"]["max_input_tokens"] == 4096
    assert got(server.get("/v1/models/fusion/local", headers=ANTHROPIC)) == entries["fusion/local"]


def test_clients_of_anthropic_hear_errors_and_the_name_of_a_request_in_their_own_words(server: Server) -> None:
    for reply in (
        server.get("/v1/models/gpt-17", headers=ANTHROPIC),
        server.post(
            "/v1/messages", {"model": "gpt-17", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}
        ),
    ):
        assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found_error")
        assert reply.headers["request-id"] == reply.headers["x-request-id"]
    assert "request-id" not in server.get("/v1/models").headers


def test_codex_finds_the_list_that_it_wants_and_keeps_its_own_instructions(server: Server) -> None:
    body = got(server.get("/v1/models?client_version=0.169.0"))

    assert body["models"] == []
    assert body["data"] == got(server.get("/v1/models"))["data"]


def test_everything_that_is_listed_can_be_asked(serve: Serve) -> None:
    server = serve("--recipe", "vote")

    listed = [entry["id"] for entry in got(server.get("/v1/models"))["data"]]

    answered = {name: server.post("/v1/estimate", asking(model=name)).status_code for name in listed}
    assert set(answered.values()) == {200}


def test_one_model_is_described_as_in_the_list(server: Server) -> None:
    entries = {entry["id"]: entry for entry in got(server.get("/v1/models"))["data"]}

    for name in ("fusion", "fusion/recipe", "fake/a"):
        assert got(server.get(f"/v1/models/{name}")) == entries[name]


def test_a_model_that_is_not_offered_is_not_found(server: Server) -> None:
    error = refusal_of(server.get("/v1/models/gpt-17"), 404)

    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "'gpt-17'" in error["message"]


def test_a_fusion_says_that_it_takes_tools(server: Server) -> None:
    entry = got(server.get("/v1/models/fusion"))

    assert {"tools", "tool_choice", "response_format"} <= set(entry["supported_parameters"])


def test_a_price_that_is_known_is_said_for_each_token_and_as_text(serve: Serve) -> None:
    server = serve("--recipe", "local", recipe=PRICED)

    known = got(server.get("/v1/models/a"))
    unknown = got(server.get("/v1/models/fake/judge"))

    assert (known["pricing"]["prompt"], known["pricing"]["completion"]) == ("1e-06", "2e-06")
    assert "pricing" not in unknown


def test_the_context_of_a_fusion_is_the_smallest_of_its_models(server: Server) -> None:
    entries = {entry["id"]: entry for entry in got(server.get("/v1/models"))["data"]}

    assert entries["fusion/local"]["context_length"] == entries["smollm2-135m"]["context_length"] == 4096
    assert "context_length" not in entries["fusion"], "nobody knows the context of fake/a"


# --- Recipes ---


def test_recipes_are_listed_with_who_is_asked(serve: Serve) -> None:
    server = serve("--recipe", "vote", recipe=PRICED)

    body = got(server.get("/recipes"))

    assert (body["object"], body["default"]) == ("list", "priced")
    assert [recipe["name"] for recipe in body["data"]] == ["priced", "vote"]
    assert body["data"][0] == {
        "model": "fusion/priced",
        "name": "priced",
        "description": "Two models whose prices are said.",
        "chain": "panel | judge | synth",
        "tool_fusion": "fuse",
        "panel": [{"model": "a", "samples": 2}, {"model": "b", "samples": 4}],
        "judge": ["fake/judge", "fake/judge2"],
        "synth": ["a"],
    }


def test_a_recipe_is_shown_as_a_record_carries_it_without_urls_and_keys(server: Server, upstream: Upstream) -> None:
    reply = server.get("/recipes/recipe")

    body = got(reply)
    carried = got(server.post("/fuse", {"prompt": "Why?"}))["recipe"]
    assert body["stages"] == carried
    assert upstream.url not in reply.text
    assert "test-key" not in reply.text
    assert "API_KEY" not in reply.text


def test_a_chain_that_the_operator_typed_is_shown(serve: Serve) -> None:
    server = serve("--chain", "panel --samples 2 | vote")

    assert got(server.get("/recipes/recipe"))["chain"] == "panel --samples 2 | vote"


@pytest.mark.parametrize("name", ["nope", "%2e%2e", "recipe.yaml"])
def test_a_recipe_that_is_not_offered_is_not_found(server: Server, name: str) -> None:
    assert server.get(f"/recipes/{name}").status_code == 404


# --- Estimates ---


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "fusion/recipe"},
        {"model": "openrouter/fusion"},
        {"model": "fake/a"},
        {"fusion": {"panel": ["fake/a*2", "fake/d"]}},
        {"fusion": {"panel": ["fake/a"]}},
        {"fusion": {"samples": 2}},
        {"fusion": {"layers": 3}},
        {"fusion": {"judge": ["fake/judge", "fake/judge2"]}},
        {"fusion": {"refine": True}},
        {"fusion": {"guard": True}},
        {"fusion": {"chain": "panel | vote"}},
        {"fusion": {"chain": "panel | judge | pick"}},
        {"fusion": {"chain": "panel | pick --pairwise"}},
        {"fusion": {"chain": "panel | panel --debate | synth"}},
        {"plugins": [{"id": "fusion", "analysis_models": ["fake/d", "fake/e"], "model": "fake/f"}]},
        {"tools": [TOOL]},
        {"tools": [TOOL], "fusion": {"tool_fusion": "first", "panel": ["fake/a*2"]}},
        {"tools": [TOOL], "fusion": {"tool_fusion": "pick"}},
        {"tools": [TOOL], "fusion": {"tool_fusion": "pass"}},
        {"tools": [TOOL], "fusion": {"tool_fusion": "pass"}, "tool_choice": "none"},
        {"tools": [TOOL], "fusion": {"tool_fusion": "first"}, "tool_choice": "none"},
    ],
)
def test_an_estimate_foresees_who_will_be_asked_how_often(
    open_server: Server, upstream: Upstream, body: dict[str, Any]
) -> None:
    estimate = got(open_server.post("/v1/estimate", asking(**body)))
    before = upstream.stats()["requests"]

    got(open_server.post(CHAT, asking(**body)))

    per_model = upstream.stats()["per_model"]
    assert before == 0
    assert estimate["calls"] == sum(per_model.values())
    assert set(estimate["models"]) == set(per_model)
    assert sum(stage["calls"] for stage in estimate["stages"].values()) == estimate["calls"]


def test_an_estimate_names_the_recipe_and_the_chain(open_server: Server) -> None:
    estimate = got(open_server.post("/v1/estimate", asking(fusion={"refine": True})))

    block = got(open_server.post(CHAT, asking(fusion={"refine": True})))["fusion"]
    assert (estimate["recipe"], estimate["chain"]) == (block["recipe"], block["chain"])


def test_an_estimate_knows_the_prices_that_are_known(serve: Serve) -> None:
    server = serve("--recipe", "local", recipe=PRICED)

    whole = got(server.post("/v1/estimate", asking()))
    alone = got(server.post("/v1/estimate", asking("x" * 400, model="a", max_tokens=100)))

    assert whole["cost_usd"] is None
    assert whole["stages"]["judge"] == {"calls": 2, "cost_usd": None}
    assert whole["stages"]["panel"]["cost_usd"] > 0
    assert alone["max_output_tokens"] == 100
    assert alone["cost_usd"] == pytest.approx((alone["input_tokens"] + 2 * 100) / 1e6)


@pytest.mark.parametrize(
    ("fusion", "least"),
    [
        ({"panel": ["fake/a*5"], "chain": "panel --stop-when-agreed | vote"}, 3),
        ({"panel": ["fake/a"], "chain": "panel --until 0.95 --max-samples 24 | vote"}, 4),
        ({"panel": ["fake/a*4"], "chain": "panel --quorum 2 | judge | synth"}, 4),
        ({"panel": ["fake/a*6"], "chain": "panel --scout 2 --stop-when-agreed | vote"}, 2),
        ({"panel": ["fake/a", "fake/b"], "chain": "panel | panel --debate --stop-when-agreed | vote"}, 2),
        ({}, 5),
    ],
)
def test_an_estimate_says_the_least_too(open_server: Server, fusion: dict[str, Any], least: int) -> None:
    estimate = got(open_server.post("/v1/estimate", asking(fusion=fusion)))

    assert estimate["least"]["calls"] == least <= estimate["calls"]


def test_the_least_is_without_the_dearest_of_those_who_may_be_cut_off(serve: Serve) -> None:
    recipe = (
        "endpoint: openrouter\nchain: panel | vote\nmodels:\n"
        "  dear: {model: fake/a, price_usd_per_mtok: {prompt: 9, completion: 9}}\n"
        "  cheap: {model: fake/b, price_usd_per_mtok: {prompt: 1, completion: 1}}\n"
        "panel: {members: [dear, cheap*2], stop_when_agreed: true}\n"
    )
    estimate = got(serve(recipe=recipe).post("/v1/estimate", asking()))

    cheap, dear = estimate["least"]["cost_usd"] / 2, estimate["cost_usd"] - estimate["least"]["cost_usd"]
    assert estimate["least"]["calls"] == 2
    assert dear == pytest.approx(9 * cheap)


def test_an_estimate_takes_the_longest_answer_that_is_asked_for(server: Server) -> None:
    short, usual = (got(server.post("/v1/estimate", asking(**more))) for more in ({"max_tokens": 8}, {}))

    assert usual["max_output_tokens"] - short["max_output_tokens"] == 800 - 8


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "gpt-17"}, 404),
        ({"fusion": {"panle": []}}, 400),
        ({"fusion": {"recipe": "nope"}}, 404),
        ({"fusion": {"samples": 64}}, 400),
        ({"messages": []}, 400),
        ({"n": 2}, 400),
    ],
)
def test_an_estimate_is_refused_where_the_request_would_be(server: Server, body: dict[str, Any], status: int) -> None:
    estimated = refusal_of(server.post("/v1/estimate", asking(**body)), status)

    assert estimated == refusal_of(server.post(CHAT, asking(**body)), status)


# --- Whole records ---


def test_a_prompt_becomes_a_whole_record(server: Server) -> None:
    record = got(server.post("/fuse", {"prompt": "Why?"}))

    check_record(record)
    assert record["id"] == question_id([{"role": "user", "content": "Why?"}])
    assert record["messages"] == [{"role": "user", "content": "Why?"}]
    assert [response["member"] for response in record["panel"]] == PANEL
    assert sorted(record["analysis"]["ranking"]) == [0, 1, 2]
    assert record["answer"]["content"].startswith("fake/synth says ")
    assert len(record["calls"]) == 5


def test_messages_are_taken_as_they_are(server: Server, upstream: Upstream) -> None:
    messages = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Why?"}]

    record = got(server.post("/fuse", {"messages": messages}))

    assert record["messages"] == messages
    assert upstream.bodies("fake/a")[0]["messages"] == messages


def test_id_and_meta_are_kept(server: Server) -> None:
    record = got(server.post("/fuse", {"prompt": "Why?", "id": "q-7", "meta": {"target": "42", "deep": [None]}}))

    check_record(record)
    assert (record["id"], record["meta"]) == ("q-7", {"target": "42", "deep": [None]})


@pytest.mark.parametrize("named", [{}, {"id": "q-1"}, {"id": "q-2"}, {"id": "q-3", "meta": {"a": 1}}])
def test_the_record_is_the_one_that_the_shell_would_make(server: Server, run: Run, named: dict[str, Any]) -> None:
    question = {"prompt": "Why is the sky blue?", **named}
    run("cat > recipe.yaml", RECIPE)

    served = got(server.post("/fuse", question))
    [typed] = run("fuse-panel -c recipe.yaml | fuse-judge | fuse-synth", json.dumps(question)).records

    for record in (served, typed):
        del record["calls"]
    assert served == typed


def test_what_is_wanted_of_the_answer_may_be_said_as_in_a_record_and_as_in_a_chat(
    server: Server, upstream: Upstream
) -> None:
    by_params = got(server.post("/fuse", {"prompt": "Why?", "params": {"max_tokens": 3}}))
    by_chat = got(server.post("/fuse", {"prompt": "Why?", "max_tokens": 3}))

    assert by_params["params"] == by_chat["params"] == {"max_tokens": 3}
    assert [body["max_tokens"] for body in upstream.bodies("fake/synth")] == [3, 3]
    assert by_params["answer"]["finish_reason"] == "length"


def test_a_record_may_name_its_recipe_and_override_it(open_server: Server, upstream: Upstream) -> None:
    question = {"prompt": "Why?", "recipe": "vote", "fusion": {"panel": ["fake/a", "fake/b"]}}

    record = got(open_server.post("/fuse", question))

    assert record["recipe"]["name"] == "vote"
    assert record["answer"]["by"] == "vote"
    assert upstream.stats()["per_model"] == {"fake/a": 5, "fake/b": 5}, "vote asks everybody five times"


def test_a_member_by_its_own_name_gives_a_record_of_one(server: Server, upstream: Upstream) -> None:
    record = got(server.post("/fuse", {"prompt": "Why?", "model": "fake/b", "max_tokens": 3}))

    check_record(record)
    assert record["route"]["to"] == "solo"
    assert (record["answer"]["by"], record["answer"]["model"]) == ("solo", "fake/b")
    assert upstream.stats()["per_model"] == {"fake/b": 1}
    assert upstream.bodies()[0]["max_tokens"] == 3


def test_the_headers_of_a_record_say_what_it_cost_and_how_long_it_took(server: Server) -> None:
    reply = server.post("/fuse", {"prompt": "Why?"})

    assert float(reply.headers["x-fusion-cost-usd"]) == 0.005
    assert float(reply.headers["x-fusion-latency-s"]) > 0


@pytest.mark.parametrize(
    "section", ["route", "layers", "panel", "spared", "analysis", "answer", "grades", "calls", "degraded", "error"]
)
def test_a_section_that_only_a_chain_makes_is_refused(server: Server, upstream: Upstream, section: str) -> None:
    error = refusal_of(server.post("/fuse", {"prompt": "Why?", section: []}))

    assert (error["code"], error["param"]) == ("invalid_request", section)
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": ""},
        {"prompt": 5},
        {"prompt": ["Why?"]},
        {"prompt": None},
        {"messages": []},
        {"prompt": "Why?", "id": ""},
        {"prompt": "Why?", "id": 5},
        {"prompt": "Why?", "meta": []},
        {"prompt": "Why?", "params": []},
        {"prompt": "Why?", "params": {"max_tokens": 0}},
        {"prompt": "Why?", "recipe": {"panel": {"members": ["fake/a"]}}},
        {"prompt": "Why?", "recipe": "../x"},
        {"prompt": "Why?", "fusion": "none"},
        {"prompt": "Why?", "recipe": "recipe", "fusion": "none"},
        {"prompt": "Why?", "recipe": "recipe", "fusion": ["none"]},
        {"prompt": "Why?", "n": 2},
    ],
)
def test_what_is_no_question_is_refused(server: Server, upstream: Upstream, body: dict[str, Any]) -> None:
    reply = server.post("/fuse", body)

    assert refusal_of(reply)["type"] == "invalid_request_error"
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(("behaviour", "status"), [("status=500", 502), ("status=400", 400), ("empty", 424)])
def test_a_record_that_failed_comes_with_its_error_and_a_status_of_its_own(
    open_server: Server, behaviour: str, status: int
) -> None:
    panel = [f"fake/a+{behaviour}", f"fake/b+{behaviour}"]

    reply = open_server.post("/fuse", {"prompt": "Why?", "id": "q-7", "fusion": {"panel": panel}})

    record = reply.json()
    check_record(record)
    assert reply.status_code == status
    assert reply.headers["x-should-retry"] == "false"
    assert (record["id"], record["error"]["code"]) == ("q-7", "all_failed")
    assert all("error" in response for response in record["panel"])
    assert "answer" not in record
    assert len(record["calls"]) == 2


def test_a_failed_record_repeats_nothing_of_what_was_said_of_the_servers_key(open_server: Server) -> None:
    panel = ["fake/a+status=401", "fake/b+status=403"]

    reply = open_server.post("/fuse", {"prompt": "Why?", "fusion": {"panel": panel}})

    assert reply.status_code == 502
    assert "upstream says" not in reply.text
    assert "does not accept this server's key or account" in reply.json()["error"]["message"]


# --- Whether anybody is there ---


def test_a_server_that_would_take_a_question_is_ready(server: Server, upstream: Upstream) -> None:
    assert got(server.get("/ready")) == {"status": "ready"}
    assert upstream.stats()["requests"] == 0


def test_the_front_page_says_where_to_look(server: Server) -> None:
    body = got(server.get("/"))

    assert all(server.get(body[page]).status_code == 200 for page in ("models", "openapi"))


def test_the_description_of_the_interface_knows_every_page(server: Server) -> None:
    paths = got(server.get("/openapi.json"))["paths"]

    assert {"/v1/chat/completions", "/v1/models", "/v1/estimate", "/fuse", "/metrics"} <= paths.keys()
    for path, methods in paths.items():
        if "get" in methods and "{" not in path:
            assert server.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/fuse", 405),
    ],
)
def test_a_page_that_does_not_exist_is_said_in_openais_envelope(
    server: Server, method: str, path: str, status: int
) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        reply = client.request(method, path, headers={"content-type": "application/json"})

    error = refusal_of(reply, status)
    assert path in error["message"]


# --- Counters ---


@pytest.fixture
def counted(serve: Serve) -> Server:
    """A server that has counted nothing yet, and keeps what it answered."""
    return serve("--allow-model", "fake/*", "--retries", "0", "--cache", "600")


def test_the_counters_are_said_in_prometheus_words(server: Server) -> None:
    reply = server.get("/metrics")

    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE fusion_requests_total counter" in reply.text


def test_requests_are_counted_by_route_and_outcome(counted: Server) -> None:
    counted.chat()
    counted.chat_stream("What?")
    counted.chat(n=2)
    counted.chat(model="fake/a")
    counted.chat(model="fake/a+status=404")
    counted.chat(fusion={"panel": ["fake/a+empty"]})
    counted.chat_stream("Who?", fusion={"synth": "fake/synth+midfail"})
    counted.post("/fuse", {"prompt": "Why?"})

    told = {
        outcome: counted.metric("fusion_requests_total", route="chat", outcome=outcome)
        for outcome in ("ok", "unsupported_parameter", "model_not_found", "all_failed", "broken")
    }
    assert told == {"ok": 3, "unsupported_parameter": 1, "model_not_found": 1, "all_failed": 1, "broken": 1}
    assert counted.metric("fusion_requests_total", route="fuse", outcome="ok") == 1
    assert counted.metric("fusion_request_seconds_count", route="chat") == 7
    assert counted.metric("fusion_first_token_seconds_count", route="chat") == 2


def test_calls_are_counted_by_stage_and_outcome(counted: Server) -> None:
    counted.chat(fusion={"panel": ["fake/a", "fake/b", "fake/c+empty"]})
    counted.chat(model="fake/a")

    told = {
        (stage, outcome): counted.metric("fusion_upstream_calls_total", stage=stage, outcome=outcome)
        for stage, outcome in (("panel", "ok"), ("panel", "empty"), ("judge", "ok"), ("synth", "ok"), ("pass", "ok"))
    }
    assert list(told.values()) == [2, 1, 1, 1, 1]
    assert counted.metric("fusion_upstream_call_seconds_count", stage="panel") == 3


def test_members_tokens_and_dollars_are_counted(counted: Server) -> None:
    usage = got(counted.chat(fusion={"panel": ["fake/a", "fake/b+nocost", "fake/c+empty+cost=0"]}))["fusion"]["usage"]

    stages = ("panel", "judge", "synth")
    assert counted.metric("fusion_members_total", outcome="ok") == 2
    assert counted.metric("fusion_members_total", outcome="empty") == 1
    for kind in ("prompt", "completion"):
        counts = [counted.metric("fusion_tokens_total", stage=stage, kind=kind) for stage in stages]
        assert sum(counts) == usage[f"{kind}_tokens"]
    assert [counted.metric("fusion_cost_usd_total", stage=stage) for stage in stages] == [0.001] * 3
    assert counted.metric("fusion_unknown_cost_calls_total", stage="panel") == 1


def test_degradation_is_counted_by_stage_and_code(counted: Server) -> None:
    counted.chat(fusion={"panel": ["fake/a", "fake/b", "fake/c+empty"], "judge": "fake/judge+status=400"})
    counted.chat(fusion={"synth": "fake/synth+status=400"})

    told = [
        counted.metric("fusion_degraded_total", stage=stage, code=code)
        for stage, code in (("panel", "member_failed"), ("judge", "judge_failed"), ("synth", "synth_failed"))
    ]
    assert told == [1, 1, 1]


def test_looks_into_the_cache_are_counted_and_a_hit_is_no_call(counted: Server, upstream: Upstream) -> None:
    for _ in range(3):
        counted.chat()
    counted.chat(fusion={"cache": False})

    assert counted.metric("fusion_cache_total", outcome="miss") == 1
    assert counted.metric("fusion_cache_total", outcome="hit") == 2
    assert counted.metric("fusion_upstream_calls_total", stage="panel", outcome="ok") == 6
    assert upstream.stats()["requests"] == 10


def test_nobody_is_worked_on_once_all_are_answered(counted: Server) -> None:
    counted.chat()

    assert (counted.metric("fusion_in_flight"), counted.metric("fusion_queued")) == (0, 0)


def test_no_label_holds_what_a_client_made_up(counted: Server) -> None:
    counted.chat("a-secret-question", model="a-made-up-model")
    counted.chat("a-secret-question", fusion={"panel": ["fake/a-made-up-model"]})

    assert "made-up" not in counted.get("/metrics").text
    assert "secret" not in counted.get("/metrics").text


# --- What else is shown ---


def test_health_says_version_and_recipes_and_wants_no_key(serve: Serve) -> None:
    said = got(serve(env={"FUSION_SERVER_API_KEY": "good-enough-1"}).get("/health"))

    assert (said["status"], said["version"], said["recipes"][0]) == ("ok", __version__, "recipe")


def test_the_page_of_all_routes_loads_nothing_and_names_every_route(server: Server) -> None:
    reply = server.get("/docs")

    assert reply.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert not re.findall(r"<script|<img|<link|https?://", reply.text)
    paths = got(server.get("/openapi.json"))["paths"]
    assert [path for path in paths if f" {path}</code>" not in reply.text] == []


def test_what_other_servers_call_panels_are_recipes(server: Server) -> None:
    assert got(server.get("/panels")) == got(server.get("/recipes"))
    assert got(server.get("/panels/recipe")) == got(server.get("/recipes/recipe"))
    assert got(server.get("/v1/config"))["judge"] == ["fake/judge"]


def test_who_asks_for_events_hears_the_analysis_before_the_answer(server: Server) -> None:
    events = server.chat_stream(fusion={"events": True}).events

    kinds = [event["fusion"]["type"] if "type" in event.get("fusion", {}) else "chunk" for event in events]
    said = [i for i, event in enumerate(events) if (event.get("choices") or [{}])[0].get("delta", {}).get("content")]
    [analysis] = [event["fusion"] for event in events if event.get("fusion", {}).get("type") == "analysis"]
    assert analysis["analysis"]["consensus"]
    assert kinds.index("analysis") < said[0]
    assert "analysis" not in str(server.chat_stream().events)
