"""What a client sees of an endpoint's failure follows from its name, fused and passed through alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from serving import CHAT, Server, asking, start_server
from workdir import Serve, Upstream, hermetic

TOO_LONG = "Input tokens exceed the configured limit of 272000 tokens. Please reduce the length of the messages."
FLAGGED = "Your input was flagged for violence"
#: Status and words of the endpoint; status and code for the client.
FAILURES = [
    (400, TOO_LONG, 400, "context_length_exceeded"),
    (400, "The response was filtered by Azure OpenAI's content management policy", 400, "content_filter"),
    (403, FLAGGED, 400, "content_filter"),
    (400, "Your credit balance is too low", 502, "upstream_auth"),
    (403, "Sorry, your account balance is insufficient", 502, "upstream_auth"),
    (413, "Request too large on tokens per minute (TPM): Limit 6000", 429, "rate_limit_exceeded"),
]
#: Of these the words are the operator's own affair.
OWN = ("upstream_auth", "rate_limit_exceeded")


@pytest.fixture(scope="module")
def open_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("open")
    options = ("--allow-model", "fake/*", "--retries", "0", "--backoff", "0")
    with start_server(folder, hermetic(upstream_process, folder), *options) as server:
        yield server


@pytest.fixture
def open_server(upstream: Upstream, open_process: Server) -> Server:
    """A server whose clients may name any fake model, and which asks no model twice."""
    return open_process


def failing(name: str, status: int, words: str) -> str:
    return f"fake/{name}+wording={status},{quote(words)}"


@pytest.mark.parametrize(
    ("said", "words", "status", "code"), [*FAILURES, (400, "Model Not Exist", 404, "model_not_found")]
)
def test_what_passes_through_fails_by_its_name(
    open_server: Server, said: int, words: str, status: int, code: str
) -> None:
    reply = open_server.post(CHAT, asking(model=failing("a", said, words)))

    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code)
    assert (words in error["message"]) == (code not in OWN)


@pytest.mark.parametrize(("said", "words", "status", "code"), FAILURES[:-1])
def test_where_everybody_fails_alike_the_fusion_fails_by_that_name(
    open_server: Server, said: int, words: str, status: int, code: str
) -> None:
    panel = [failing(name, said, words) for name in "ab"]

    reply = open_server.post(CHAT, asking(model="fusion", fusion={"panel": panel}))

    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code)
    assert (words in error["message"]) == (code not in OWN)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "Why?"}]}),
        ("/v1/responses", {"input": "Why?"}),
    ],
)
def test_a_prompt_too_long_is_said_so_that_agents_shorten_it(serve: Serve, path: str, body: Any) -> None:
    server = serve(recipe=f"panel: ['{failing('a', 400, TOO_LONG)}', '{failing('b', 400, TOO_LONG)}']\n")

    reply = server.post(path, {"model": "fusion", **body})

    said = "prompt is too long" if path == "/v1/messages" else "context_length_exceeded"
    assert reply.status_code == 400
    assert said in reply.text


def test_a_lesson_is_learned_once_also_of_what_passes_through(open_server: Server, upstream: Upstream) -> None:
    name = "fake/a+mosttokens=100"

    replies = [open_server.post(CHAT, asking(model=name, max_tokens=5000)) for _ in range(2)]

    assert [reply.status_code for reply in replies] == [200, 200]
    assert [body["max_tokens"] for body in upstream.bodies(name)] == [5000, 100, 100]


def test_a_form_that_nobody_can_give_is_said_in_degraded(open_server: Server) -> None:
    prose = "+noformat+text=It%20is%20Paris."
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "required": ["place"]}}}

    reply = open_server.post(
        CHAT,
        asking(response_format=form, fusion={"panel": [f"fake/a{prose}", f"fake/b{prose}"], "synth": f"fake/s{prose}"}),
    )

    notes = [(note["stage"], note["code"]) for note in reply.json()["fusion"]["degraded"]]
    assert notes.count(("panel", "bad_form")) == 2
    assert ("synth", "bad_form") in notes
