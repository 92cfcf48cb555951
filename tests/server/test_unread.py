"""Nothing that a request says is ignored in silence: it is done, told in `fusion.ignored`, or refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from serving import CHAT, Server, asking
from workdir import Upstream

ASKED = {
    CHAT: asking(),
    "/v1/completions": {"model": "fusion", "prompt": "Why?"},
    "/v1/responses": {"model": "fusion", "input": "Why?"},
    "/v1/messages": {"model": "fusion", "max_tokens": 99, "messages": [{"role": "user", "content": "Why?"}]},
}


@pytest.mark.parametrize("path", ASKED)
def test_every_protocol_says_what_it_left_out(server: Server, path: str) -> None:
    body = {**ASKED[path], "service_tier": "flex", "max_tokenz": 5, "plugins": [{"id": "web"}], "user": None}

    said = server.post(path, body).json()["fusion"]["ignored"]

    assert {part["param"]: part["reason"] for part in said} == {
        "service_tier": "no model here is told of it",
        "max_tokenz": said[1]["reason"],
        "plugins[0]": "nobody here runs 'web'",
    }
    assert "did you mean 'max_" in said[1]["reason"] or path == "/v1/responses"


def test_a_whole_record_says_it_too(server: Server) -> None:
    said = server.post("/fuse", {"messages": asking()["messages"], "plugins": [{"id": "web"}]}).json()["degraded"]

    assert [note["detail"] for note in said] == ["plugins[0]: nobody here runs 'web'"]


def test_a_stream_says_it_at_its_end(server: Server) -> None:
    last = [event for event in server.chat_stream(logit_bias={"1": 1}).events if event.get("fusion")][-1]

    assert [part["param"] for part in last["fusion"]["ignored"]] == ["logit_bias"]


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"openfusion": {"preset": "budget"}}, "'fusion'"),
        ({"fusions": {"panel": ["fake/a"]}}, "'fusion'"),
        ({"plugin": [{"id": "fusion"}]}, "'plugins'"),
        ({"plugins": [{"id": "fuson"}]}, "'fusion'"),
        ({"extra_body": {"fusion": {}}}, "top of the body"),
        ({"fusion": {"pannel": ["fake/a"]}}, "'panel'"),
        ({"plugins": [{"id": "fusion", "presett": "x"}]}, "'preset'"),
    ],
)
@pytest.mark.parametrize("path", ASKED)
def test_what_was_meant_for_a_fusion_is_refused_with_the_right_name(
    server: Server, upstream: Upstream, path: str, said: dict[str, Any], word: str
) -> None:
    reply = server.post(path, {**ASKED[path], **said})

    assert reply.status_code == 400
    assert word in reply.text
    assert upstream.stats()["requests"] == 0


# --- /fuse, which is ours ---


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ({"models": ["fake/a", "fake/b"]}, {"fake/a", "fake/b", "fake/judge", "fake/synth"}),
        ({"panel": ["fake/a", "fake/b"]}, {"fake/a", "fake/b", "fake/judge", "fake/synth"}),
        ({"panel": "recipe", "judge_template": None, "web_search": False}, None),
        ({"models": ["fake/a", "fake/b"], "judge_model": "fake/c"}, {"fake/a", "fake/b", "fake/c"}),
        (
            {"fusion": {"synthesizer": "fake/a", "panel": ["fake/b", "fake/c"]}},
            {"fake/a", "fake/b", "fake/c", "fake/judge"},
        ),
    ],
)
def test_what_other_servers_of_this_kind_are_told_is_understood(
    server: Server, upstream: Upstream, said: dict[str, Any], asked: set[str] | None
) -> None:
    reply = server.post("/fuse", {"prompt": "Why?", **said})

    assert reply.status_code == 200, reply.text
    everybody = {"fake/a", "fake/b", "fake/c", "fake/judge", "fake/synth"}
    assert set(upstream.stats()["per_model"]) == (asked or everybody)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"promt": "x"}, "'prompt'"),
        ({"web_search": True}, "web_search"),
        ({"judge_template": "x"}, "judge_template"),
        ({"samples": 2}, "say it in `fusion`"),
        ({"n": 2}, "`n` is not supported"),
        ({"models": "fake/a"}, "fusion.panel"),
        ({"panel": "none"}, "no recipe 'none'"),
    ],
)
def test_what_fuse_does_not_know_is_refused_by_its_name(
    server: Server, upstream: Upstream, said: dict[str, Any], word: str
) -> None:
    reply = server.post("/fuse", {"prompt": "Why?", **said})

    assert reply.status_code in (400, 404)
    assert word in reply.json()["error"]["message"]
    assert upstream.stats()["requests"] == 0
