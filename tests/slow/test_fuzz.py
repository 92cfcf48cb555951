"""Whatever is posted, the server answers as its document says, and never with a bug of its own."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from documented import Document
from good_bodies import ALONE, GOOD, POSTS, nested, places, words
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from serving import CHAT, Server, start_server
from workdir import Upstream, hermetic

from fusiontools.config.options import flags_of
from fusiontools.config.stage_table import STAGES
from fusiontools.server import routes

pytestmark = pytest.mark.slow

WHOLE = json.loads(routes.openapi_document())
API = schemathesis.openapi.from_dict(WHOLE)
OPERATIONS = [found.ok() for found in API.get_all_operations()]
CONFORMANCE = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

# --- What spoils them ---


KNOWN = sorted({word for _, body in GOOD for word in words(body)} | {"panel --samples 3 | vote", "judge | synth", "n"})
TEXTS = st.one_of(
    st.sampled_from(KNOWN), st.text(max_size=20), st.sampled_from(["", "\0", "\ud800", "a" * 5000, "*9@x"])
)
NUMBERS = st.one_of(
    st.integers(-2, 70),
    st.sampled_from([2**31, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400, 0.0, -0.5, 1.0, 1e308, 5e-324]),
    st.floats(),
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
#: The writer of JSON goes 254 levels deep.
DEPTHS = [30, 230, *range(242, 255), 400]
JUNK = st.one_of(
    st.recursive(
        PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
    ),
    st.builds(nested, st.sampled_from(DEPTHS), st.sampled_from(["", "properties"])),
)  # fmt: skip


FLAGS = {name for spec in STAGES.values() for flag in flags_of(spec.options).values() for name in flag.names}
CHAIN_WORDS = [
    *sorted(FLAGS),
    *STAGES,
    *["|"] * 40,
    "fake/a",
    "fake/b*2",
    "1",
    "2",
    "0.5",
    "x",
    "'a b'",
    '"',
    "\\",
    "vote",
]


@st.composite
def spoiled(draw: st.DrawFn, good: Any) -> Any:
    """Return a good body with up to three things in it that are gone, of another kind, or too many."""
    body = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        there = list(places(body))
        if not there:
            break
        *path, key = draw(st.sampled_from(there))
        home = body
        for step in path:
            home = home[step]
        how = draw(st.sampled_from(["drop", "junk", "junk", "wrap", "unwrap", "more"]))
        if how == "drop":
            del home[key]
        elif how == "wrap":
            home[key] = [home[key]]
        elif how == "unwrap" and isinstance(home[key], list | dict) and home[key]:
            home[key] = next(iter(home[key].values() if isinstance(home[key], dict) else home[key]))
        elif how == "more" and isinstance(home, dict):
            home[draw(TEXTS)] = draw(JUNK)
        elif how == "more":
            home.insert(key, draw(JUNK))
        else:
            home[key] = draw(JUNK)
    return body


# --- The server ---

BOUNDED = {
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}


@pytest.fixture(scope="module")
def fuzzed(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that offers nothing but its own recipe; it has met no bug when the tests are over."""
    folder = tmp_path_factory.mktemp("fuzzed")
    with start_server(folder, hermetic(upstream_process, folder), "--recipe", "vote") as server:
        yield server
        assert "a bug in" not in server.said()


@pytest.fixture(scope="module")
def client(fuzzed: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fuzzed.url, timeout=60, trust_env=False) as client:
        yield client


def check(client: httpx.Client, path: str, content: bytes) -> httpx.Response:
    """Post a body; fail unless the answer is as documented and no bug."""
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code != 500, response.text
    DOCUMENT.check(path, response)
    return response


DOCUMENT = Document(WHOLE)


@pytest.mark.parametrize(("path", "body"), GOOD)
def test_what_is_spoilt_below_is_good_as_it_is(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    assert check(client, path, json.dumps(body).encode()).status_code == 200


@pytest.mark.parametrize(("path", "good"), GOOD)
@given(data=st.data())
@settings(max_examples=60, **BOUNDED)
def test_a_spoilt_body_gets_an_answer_or_a_reason(
    client: httpx.Client, path: str, good: Any, data: st.DataObject
) -> None:
    body = data.draw(spoiled(good))

    check(client, path, json.dumps(body).encode())


@given(words=st.lists(st.sampled_from(CHAIN_WORDS), max_size=12))
@settings(max_examples=150, **BOUNDED)
@example(words=["judge", "--method", "command", "--command", "true"])
def test_a_chain_that_a_client_writes_is_run_or_refused(client: httpx.Client, words: list[str]) -> None:
    chain = " ".join(["panel", *words])

    check(client, CHAT, json.dumps({**ALONE, "model": "fusion", "fusion": {"chain": chain}}).encode())


@pytest.mark.parametrize("path", POSTS)
@given(body=JUNK)
@settings(max_examples=15, **BOUNDED)
@example(body={})
def test_junk_gets_a_reason(client: httpx.Client, path: str, body: Any) -> None:
    assert check(client, path, json.dumps(body).encode()).status_code in (400, 404)


@pytest.mark.parametrize("path", POSTS)
@given(content=st.binary(max_size=40))
@settings(max_examples=10, **BOUNDED)
@example(content=b"")
@example(content=b"[" * 100_000)
@example(content=b'{"messages":' * 50_000)
@example(content=b'{"model": NaN}')
@example(content=b'\xef\xbb\xbf{"model": "fusion"}')
@example(content=b'{"model": "\\ud800"}')
def test_what_is_no_json_gets_a_reason(client: httpx.Client, path: str, content: bytes) -> None:
    assert check(client, path, content).status_code == 400


@pytest.mark.parametrize("fusion", [[1], "recipe", 3, False])
def test_overrides_beside_a_recipe_are_an_object(client: httpx.Client, fusion: Any) -> None:
    body = {"prompt": "Why?", "recipe": "recipe", "fusion": fusion}

    assert check(client, "/fuse", json.dumps(body).encode()).json()["error"]["param"] == "fusion"


def test_a_whole_number_with_a_fraction_of_nothing_goes_on_without_it(client: httpx.Client, upstream: Upstream) -> None:
    asked = {**ALONE, "model": "fusion", "max_tokens": 50.0, "max_completion_tokens": None, "seed": 7.0}

    check(client, CHAT, json.dumps(asked).encode())

    [sent] = upstream.bodies("fake/synth")
    assert (repr(sent["max_tokens"]), repr(sent["seed"])) == ("50", "7")


@pytest.mark.parametrize("fusion", [{"samples": 2.0}, {"layers": 2.0}, {"samples": 1e308}])
@pytest.mark.parametrize(("path", "good"), [(CHAT, ALONE), ("/v1/estimate", ALONE), ("/fuse", {"prompt": "Why?"})])
def test_an_override_that_counts_may_have_a_fraction_of_nothing(
    client: httpx.Client, path: str, good: dict[str, Any], fusion: dict[str, Any]
) -> None:
    response = check(client, path, json.dumps({**good, "model": "fusion", "fusion": fusion}).encode())

    assert response.status_code == (400 if fusion.get("samples") == 1e308 else 200)


@pytest.mark.parametrize("schema", [[1], 3, "x"])
def test_the_schema_of_a_format_is_an_object(client: httpx.Client, schema: Any) -> None:
    format_asked = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    body = {**ALONE, "response_format": format_asked}

    refused = check(client, "/v1/estimate", json.dumps(body).encode())

    assert refused.json()["error"]["param"] == "response_format.json_schema.schema"


@pytest.mark.parametrize("properties", [[1], {"q": 3}, {}, None])
def test_an_estimate_takes_whatever_the_schema_of_a_format_says(client: httpx.Client, properties: Any) -> None:
    format_asked = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"properties": properties}}}
    body = {**ALONE, "model": "fusion", "response_format": format_asked}

    assert check(client, "/v1/estimate", json.dumps(body).encode()).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("depth", [200, *range(228, 256)])
def test_what_is_nested_too_deeply_is_refused_before_anything_is_bought(
    client: httpx.Client, upstream: Upstream, depth: int, stream: bool
) -> None:
    shape = {"name": "look_up", "input_schema": {"type": "object", "properties": nested(depth, "properties")}}
    told = {"name": "look_up", "parameters": shape["input_schema"]}
    function = {"type": "function", "function": told}
    asked = {"stream": stream, "fusion": {"include": ["record"], "events": True}}
    turn = [{"role": "user", "content": "Why?"}]
    bodies = {
        CHAT: {**asked, "messages": turn, "tools": [function]},
        "/fuse": {**asked, "messages": turn, "tools": [function]},
        "/v1/responses": {**asked, "input": "Why?", "tools": [{"type": "function", **told}]},
        "/v1/messages": {**asked, "model": "fusion", "max_tokens": 9, "messages": turn, "tools": [shape]},
    }

    replies = [check(client, path, json.dumps(body).encode()) for path, body in bodies.items()]

    bought = upstream.stats()["requests"]
    assert {reply.status_code for reply in replies} <= {200, 400}
    assert bought == 5 * sum(reply.status_code == 200 for reply in replies)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@given(data=st.data())
@settings(max_examples=8, **BOUNDED)
def test_what_the_document_allows_and_what_it_does_not_is_answered_as_it_says(
    fuzzed: Server, operation: Any, mode: GenerationMode, data: st.DataObject
) -> None:
    case = data.draw(operation.as_strategy(generation_mode=mode))
    if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE:
        case.body["model"] = "fusion"

    response = case.call(base_url=fuzzed.url)
    # The stand-in is stricter than the document: what it refuses is no failure of the server.
    refused_there = response.status_code == 502 and "HTTP 400" in response.text
    case.validate_response(response, checks=[*CONFORMANCE, *([] if refused_there else [not_a_server_error])])
