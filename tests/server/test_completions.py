"""The older completions over HTTP: a prompt or several, whole and as a stream."""

from __future__ import annotations

from typing import Any

import pytest
from serving import Server, Streamed
from workdir import Serve, Upstream

COMPLETIONS = "/v1/completions"


def ask(server: Server, prompt: Any, **more: Any) -> dict[str, Any]:
    reply = server.post(COMPLETIONS, {"model": "fusion", "prompt": prompt, **more})
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def stream(server: Server, prompt: Any, **more: Any) -> Streamed:
    return server.stream(COMPLETIONS, {"model": "fusion", "prompt": prompt, "stream": True, **more})


def texts_of(streamed: Streamed) -> dict[int, str]:
    """Return the text of each choice."""
    texts: dict[int, str] = {}
    for choice in [choice for event in streamed.events for choice in event["choices"]]:
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


def test_a_prompt_is_answered_with_a_text(server: Server) -> None:
    body = ask(server, "Why?")

    chat = server.chat("Why?").json()
    [choice] = body["choices"]
    assert choice == {
        "index": 0, "text": chat["choices"][0]["message"]["content"], "logprobs": None, "finish_reason": "stop"
    }  # fmt: skip
    assert (body["object"], body["model"], body["id"][:5]) == ("text_completion", "fusion", "cmpl-")
    assert body["usage"] == chat["usage"]
    assert body["fusion"]["chain"] == "panel | judge | synth"


def test_a_prompt_reaches_models_as_a_question_with_its_parameters(server: Server, upstream: Upstream) -> None:
    ask(server, "Why?", max_tokens=3, stop=["."], best_of=1, logprobs=None)

    [member] = [body for body in upstream.bodies() if body["model"] == "fake/a"]
    assert member["messages"][-1] == {"role": "user", "content": "Why?"}
    assert {"best_of", "logprobs", "prompt"}.isdisjoint(member)


def test_several_prompts_are_answered_each_in_its_place(server: Server) -> None:
    alone = [ask(server, prompt)["choices"][0]["text"] for prompt in ("One?", "Two?", "Three?")]

    reply = server.post(COMPLETIONS, {"model": "fusion", "prompt": ["One?", "Two?", "Three?"]})

    body = reply.json()
    assert [choice["text"] for choice in body["choices"]] == alone
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["total_tokens"] == sum(choice["usage"]["total_tokens"] for choice in body["choices"])
    assert body["usage"]["cost"] == pytest.approx(0.015)
    assert float(reply.headers["x-fusion-cost-usd"]) == pytest.approx(0.015)


@pytest.mark.parametrize("prompt", ["Why?", ["Why?"], ["One?", "Two?", "Three?"]])
def test_a_stream_says_what_a_whole_answer_does(server: Server, prompt: Any) -> None:
    whole = ask(server, prompt)

    streamed = stream(server, prompt, stream_options={"include_usage": True})

    ends = [choice for event in streamed.events for choice in event["choices"] if choice["finish_reason"]]
    assert texts_of(streamed) == {choice["index"]: choice["text"] for choice in whole["choices"]}
    assert [end["index"] for end in ends] == [choice["index"] for choice in whole["choices"]]
    assert streamed.events[-1]["usage"] == whole["usage"]
    assert streamed.lines.count("data: [DONE]") == 1
    assert streamed.done
    assert len({event["id"] for event in streamed.events}) == 1


@pytest.mark.parametrize("prompt", ["Why?", ["One?", "Two?"]])
def test_a_prompt_is_said_again_where_that_is_asked_for(server: Server, prompt: Any) -> None:
    plain, said = ask(server, prompt), ask(server, prompt, echo=True)

    prompts = prompt if isinstance(prompt, list) else [prompt]
    expected = [asked + choice["text"] for asked, choice in zip(prompts, plain["choices"], strict=True)]
    assert [choice["text"] for choice in said["choices"]] == expected
    assert list(texts_of(stream(server, prompt, echo=True)).values()) == expected


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["Why?", ""]}, "prompt[1]"),
        ({"prompt": ["Why?", 3]}, "prompt[1]"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2], [3]]}, "prompt"),
        ({"prompt": ["Why?"] * 65}, "prompt"),
        ({"echo": 1}, "echo"),
        ({"n": 2}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 0}, "logprobs"),
        ({"suffix": "."}, "suffix"),
        ({"max_tokens": "x"}, "max_tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_place(
    server: Server, upstream: Upstream, wrong: dict[str, Any], param: str
) -> None:
    reply = server.post(COMPLETIONS, {"model": "fusion", "prompt": ["One?", "Two?"], **wrong})

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert upstream.bodies() == []


@pytest.mark.parametrize("streams", [False, True])
def test_where_one_prompt_gets_no_answer_the_request_fails(serve: Serve, streams: bool) -> None:
    server = serve(recipe="panel: [fake/a+empty]\nlimits: {retries: 0}\n")

    reply = server.post(COMPLETIONS, {"model": "fusion", "prompt": ["One?", "Two?"], "stream": streams})

    # What was bought is not bought again: after 400 no client asks again by itself.
    assert reply.status_code == 400


def test_each_prompt_counts_as_a_request_of_its_key(serve: Serve) -> None:
    server = serve("--rate-limit", "2")

    refused = server.post(COMPLETIONS, {"model": "fusion", "prompt": ["One?", "Two?", "Three?"]})

    assert refused.status_code == 429
