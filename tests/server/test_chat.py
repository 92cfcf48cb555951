"""Chat Completions over HTTP: what a client says, what it gets, whole and as a stream."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from serving import CHAT, Server, Streamed, asking, start_server
from workdir import Serve, Upstream, hermetic

from fusiontools.llm.ledger import Spending
from fusiontools.record.params import POLICY
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import (
    ApiError,
    ChatRequest,
    ChatResult,
    ResponseMeta,
    StreamStyle,
)

MEMBERS = ["fake/a", "fake/b", "fake/c"]
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
#: A first token at once, and a second one never.
STUCK = "chunks=2+itl=1000000"
TOTALS = ("prompt_tokens", "completion_tokens")
LEAK = "upstream says"
SCRUBBED = "the endpoint does not accept this server's key or account"


@pytest.fixture(scope="module")
def open_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("open")
    env = hermetic(upstream_process, folder)
    with start_server(folder, env, "--allow-model", "fake/*", "--retries", "0", "--backoff", "0") as server:
        yield server


@pytest.fixture
def open_server(upstream: Upstream, open_process: Server) -> Server:
    """A server whose clients may name any fake model, and which asks no model twice."""
    return open_process


@contextlib.contextmanager
def listening(server: Server, **more: Any) -> Iterator[Iterator[str]]:
    """Yield the lines of a stream one by one; the client leaves at the end of the block."""
    client = httpx.Client(base_url=server.url, timeout=60, trust_env=False)
    with client, client.stream("POST", CHAT, json=asking(stream=True, **more)) as response:
        yield response.iter_lines()


def chunks_of(stream: Streamed) -> list[dict[str, Any]]:
    """Return the chunks of a stream in which nothing else stands but comments and the end."""
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    strange = [line for line in stream.lines if line and not line.startswith((": ", "data: "))]
    assert not strange
    for line, after in zip(stream.lines, stream.lines[1:], strict=False):
        # A blank line behind a comment would be an event without data, on which clients have failed.
        assert bool(after) is (not line or line.startswith(":")), (line, after)
    assert stream.lines.count("data: [DONE]") == 1
    assert stream.done
    chunks = stream.events
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    return chunks


def deltas_of(stream: Streamed) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks_of(stream) for choice in chunk["choices"]]


def finishes_of(stream: Streamed) -> list[str]:
    reasons = [choice["finish_reason"] for chunk in chunks_of(stream) for choice in chunk["choices"]]
    return [reason for reason in reasons if reason is not None]


def content_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


def error_of(reply: httpx.Response | Streamed) -> dict[str, Any]:
    """Return the error of OpenAI's envelope, of which nothing is missing."""
    body = reply.json() if isinstance(reply, httpx.Response) else json.loads("".join(reply.lines))
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    error: dict[str, Any] = body["error"]
    return error


def asked_how(server: Server, how: str, **more: Any) -> tuple[int, httpx.Headers, dict[str, Any]]:
    """Ask plain or streamed, and return the status, the headers and the error."""
    if how == "plain":
        reply = server.chat(**more)
        return reply.status_code, reply.headers, error_of(reply)
    stream = server.chat_stream(**more)
    return stream.status, stream.headers, error_of(stream)


def text_of(messages: Any) -> str:
    return json.dumps(messages, ensure_ascii=False)


# --- A whole answer ---


def test_a_question_gets_the_synthesizers_answer(server: Server) -> None:
    reply = server.chat("Why is the sky blue?")

    body = reply.json()
    assert reply.status_code == 200
    assert body["choices"][0]["message"]["content"].startswith("fake/synth says ")
    assert body["usage"]["cost"] == 0.005


def test_every_model_of_the_recipe_is_asked_once(server: Server, upstream: Upstream) -> None:
    server.chat()

    assert upstream.stats()["per_model"] == dict.fromkeys([*MEMBERS, "fake/judge", "fake/synth"], 1)


@pytest.mark.parametrize("model", ["fusion", "fusion/recipe", "openrouter/fusion"])
def test_a_recipe_answers_under_each_of_its_names_and_says_the_one_it_was_asked_by(server: Server, model: str) -> None:
    body = server.chat(model=model).json()

    assert body["model"] == model
    assert body["fusion"]["recipe"] == "recipe"


def test_a_request_that_names_no_model_means_the_fusion(server: Server) -> None:
    body = server.post(CHAT, {"messages": [{"role": "user", "content": "Why?"}]}).json()

    assert body["model"] == "fusion"
    assert body["choices"][0]["message"]["content"].startswith("fake/synth says ")


def test_an_answer_has_every_field_that_openai_writes(server: Server) -> None:
    body = server.chat().json()

    assert body.keys() >= {"id", "object", "created", "model", "choices", "usage"}
    assert body["object"] == "chat.completion"
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{32}", body["id"])
    assert isinstance(body["created"], int)
    [choice] = body["choices"]
    assert choice == {"index": 0, "message": choice["message"], "logprobs": None, "finish_reason": "stop"}
    assert choice["message"] == {
        "role": "assistant",
        "content": choice["message"]["content"],
        "refusal": None,
    }


def test_openais_own_types_hold_an_answer_and_every_chunk(server: Server) -> None:
    types = pytest.importorskip("openai.types.chat", reason="the package openai is not installed")
    types.ChatCompletion.model_validate(server.chat().json())
    chunks = chunks_of(server.chat_stream(stream_options={"include_usage": True}))

    kept = [types.ChatCompletionChunk.model_validate(chunk) for chunk in chunks]

    assert kept[-1].usage is not None


def test_an_answer_cut_by_max_tokens_says_so(server: Server) -> None:
    body = server.chat(max_tokens=3).json()

    [choice] = body["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "fake/synth s")


# --- What it took ---


def test_usage_may_be_the_sum_over_all_calls(serve: Serve) -> None:
    body = serve("--usage", "total").chat(fusion={"include": ["record"]}).json()

    calls = body["fusion"]["record"]["calls"]
    assert len(calls) == body["fusion"]["calls"] == 5
    for name in TOTALS:
        assert body["usage"][name] == sum(call["usage"][name] for call in calls)
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    assert body["usage"]["cost"] == pytest.approx(sum(call["cost_usd"] for call in calls))
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_a_cost_that_nobody_knows_is_null_and_never_0(open_server: Server) -> None:
    reply = open_server.chat(fusion={"panel": ["fake/a", "fake/b+nocost"]})

    body = reply.json()
    assert body["usage"]["cost"] is None
    assert body["fusion"]["cost"] == {
        "known_usd": 0.003,
        "unknown_calls": 1,
        "by_stage_usd": {"panel": 0.001, "judge": 0.001, "synth": 0.001},
    }
    assert "x-fusion-cost-usd" not in reply.headers


def test_usage_is_that_of_the_answer_while_the_cost_stays_the_whole(server: Server) -> None:
    body = server.chat(fusion={"include": ["record"]}).json()

    [written] = [call for call in body["fusion"]["record"]["calls"] if call["stage"] == "synth"]
    assert {name: body["usage"][name] for name in TOTALS} == {name: written["usage"][name] for name in TOTALS}
    assert body["usage"]["cost"] == 0.005


def test_the_fusion_object_says_what_all_calls_took(server: Server) -> None:
    body = server.chat(fusion={"include": ["record"]}).json()

    calls, whole = body["fusion"]["record"]["calls"], body["fusion"]["usage"]
    for name in TOTALS:
        assert whole[name] == sum(call["usage"][name] for call in calls) > body["usage"][name]
    assert whole["total_tokens"] == whole["prompt_tokens"] + whole["completion_tokens"]
    assert whole["cost"] == body["usage"]["cost"]


def test_an_answer_from_memory_is_as_long_as_ever_and_costs_nothing(serve: Serve) -> None:
    server = serve("--cache", "60")

    first, second = (server.chat().json() for _ in range(2))

    assert {name: second["usage"][name] for name in TOTALS} == {name: first["usage"][name] for name in TOTALS}
    assert (second["usage"]["cost"], second["fusion"]["usage"]["total_tokens"]) == (0.0, 0)


def test_where_a_response_is_the_answer_usage_is_that_of_the_member(server: Server) -> None:
    body = server.chat(fusion={"chain": "panel | vote", "include": ["record"]}).json()

    seat = body["fusion"]["record"]["panel"][body["fusion"]["record"]["answer"]["response"]]["member"]
    [written] = [call for call in body["fusion"]["record"]["calls"] if call["member"] == seat]
    assert {name: body["usage"][name] for name in TOTALS} == {name: written["usage"][name] for name in TOTALS}
    assert body["usage"]["cost"] == 0.003


def test_the_headers_say_what_it_cost_and_how_long_it_took(server: Server) -> None:
    reply = server.chat()

    assert float(reply.headers["x-fusion-cost-usd"]) == 0.005
    assert float(reply.headers["x-fusion-latency-s"]) > 0


# --- The name of a request ---


def test_a_given_request_id_is_kept(server: Server) -> None:
    reply = server.chat(headers={"x-request-id": "trace-1.a_b"})

    assert reply.headers["x-request-id"] == "trace-1.a_b"


@pytest.mark.parametrize("strange", ["a b", "x" * 129, 'a"b', "a;b", "", "<b>"])
def test_a_request_id_that_could_break_a_log_is_replaced(server: Server, strange: str) -> None:
    reply = server.chat(headers={"x-request-id": strange})

    assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["x-request-id"])


def test_errors_and_streams_carry_a_request_id_too(server: Server) -> None:
    refused = server.chat(n=2, headers={"x-request-id": "one"})
    streamed = server.chat_stream(headers={"x-request-id": "two"})

    assert (refused.status_code, refused.headers["x-request-id"]) == (400, "one")
    assert streamed.headers["x-request-id"] == "two"


def test_two_answers_have_two_ids_even_where_a_proxy_names_both_requests_alike(server: Server) -> None:
    ids = {server.chat(headers={"x-request-id": "same"}).json()["id"] for _ in range(2)}

    assert len(ids) == 2
    assert all(re.fullmatch(r"chatcmpl-[0-9a-f]{32}", each) for each in ids)


# --- The fusion block ---


def test_the_fusion_block_says_how_the_answer_came_about(server: Server) -> None:
    block = server.chat().json()["fusion"]

    assert block == {
        "recipe": "recipe",
        "chain": "panel | judge | synth",
        "panel": [{"member": member, "sample": 0, "layer": 1, "status": "ok"} for member in MEMBERS],
        "by": "synth",
        "model": "fake/synth",
        "cost": {
            "known_usd": 0.005,
            "unknown_calls": 0,
            "by_stage_usd": {"panel": 0.003, "judge": 0.001, "synth": 0.001},
        },
        "timings": block["timings"],
        "calls": 5,
        "usage": block["usage"],
        "cached": False,
    }
    assert list(block["timings"]) == ["panel_s", "judge_s", "synth_s"]
    assert all(seconds >= 0 for seconds in block["timings"].values())


def test_a_member_that_failed_is_said_with_its_code_and_so_is_the_degradation(open_server: Server) -> None:
    block = open_server.chat(fusion={"panel": ["fake/a", "fake/b", "fake/c+empty"]}).json()["fusion"]

    assert [seat["status"] for seat in block["panel"]] == ["ok", "ok", "empty"]
    [note] = block["degraded"]
    assert (note["stage"], note["code"]) == ("panel", "member_failed")
    assert note["detail"].startswith("fake/c+empty: empty: ")


@pytest.mark.parametrize(
    ("include", "shown"),
    [
        ([], set()),
        (["panel"], {"panel"}),
        (["analysis"], {"analysis"}),
        (["record"], {"record"}),
        (["panel", "analysis", "record"], {"panel", "analysis", "record"}),
    ],
)
def test_what_is_long_is_shown_to_who_asks_for_it(server: Server, include: list[str], shown: set[str]) -> None:
    block = server.chat(fusion={"include": include}).json()["fusion"]

    has = {"analysis", "record"} & block.keys()
    if "content" in block["panel"][0]:
        has.add("panel")
    assert has == shown


def test_what_is_shown_is_what_was_made(server: Server) -> None:
    block = server.chat(fusion={"include": ["panel", "analysis", "record"]}).json()["fusion"]

    assert block["panel"] == block["record"]["panel"]
    assert block["analysis"] == block["record"]["analysis"]
    assert [response["content"][:12] for response in block["panel"]] == [f"{member} says "[:12] for member in MEMBERS]
    assert sorted(block["analysis"]["ranking"]) == [0, 1, 2]
    assert block["record"]["answer"]["by"] == "synth"


# --- A stream ---


def test_a_stream_is_the_same_answer_in_pieces(server: Server) -> None:
    whole = content_of(server.chat("Why is the sky blue?"))

    streamed = server.chat_stream("Why is the sky blue?")

    assert streamed.text == whole
    assert streamed.done


def test_a_stream_is_one_role_then_pieces_of_text_then_one_finish(server: Server) -> None:
    deltas = deltas_of(server.chat_stream())

    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    assert len(deltas) > 10
    assert all(list(delta) == ["content"] and delta["content"] for delta in deltas[1:-1])


def test_exactly_one_chunk_finishes_and_it_is_the_last_choice(server: Server) -> None:
    stream = server.chat_stream()

    assert finishes_of(stream) == ["stop"]
    assert chunks_of(stream)[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_last_choice_carries_the_fusion_block_and_no_chunk_before_it(server: Server) -> None:
    chunks = chunks_of(server.chat_stream(fusion={"include": ["panel"]}))

    assert [i for i, chunk in enumerate(chunks) if "fusion" in chunk] == [len(chunks) - 1]
    assert [seat["member"] for seat in chunks[-1]["fusion"]["panel"]] == MEMBERS
    assert chunks[-1]["fusion"]["panel"][0]["content"].startswith("fake/a says ")


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
def test_no_chunk_says_usage_to_who_did_not_ask(server: Server, options: dict[str, Any] | None) -> None:
    chunks = chunks_of(server.chat_stream(stream_options=options))

    assert all(chunk["choices"] for chunk in chunks)
    assert not any(chunk.get("usage") for chunk in chunks)


def test_the_last_chunk_says_usage_to_who_asked(server: Server) -> None:
    whole = server.chat().json()["usage"]

    *others, last = chunks_of(server.chat_stream(stream_options={"include_usage": True}))

    assert last["choices"] == []
    assert last["usage"] == whole
    assert not any(chunk.get("usage") for chunk in others)


def test_the_first_piece_of_the_answer_leaves_before_its_model_has_finished(
    open_server: Server, upstream: Upstream
) -> None:
    with listening(open_server, fusion={"synth": f"fake/synth+{STUCK}"}) as lines:
        first = next(line for line in lines if '"content":"fake' in line)
        under_way = upstream.stats()["in_flight"]

    assert json.loads(first.removeprefix("data: "))["choices"][0]["delta"] == {"content": "fake"}
    assert under_way == 1


def test_a_panel_of_one_is_heard_as_it_writes(open_server: Server) -> None:
    with listening(open_server, fusion={"panel": [f"fake/a+{STUCK}"]}) as lines:
        first = next(line for line in lines if '"content":"fake' in line)

    assert json.loads(first.removeprefix("data: "))["choices"][0]["delta"] == {"content": "fake"}


def test_a_stream_has_no_names_of_events_and_no_ids(server: Server) -> None:
    lines = server.chat_stream().lines

    assert not [line for line in lines if line.startswith(("event:", "id:", "retry:"))]


def test_a_stream_may_not_be_kept_by_proxies(server: Server) -> None:
    headers = server.chat_stream().headers

    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"


# --- Progress and keep-alives ---


def test_progress_is_told_in_comments(server: Server) -> None:
    stream = server.chat_stream()

    assert stream.comments == ["panel 1/3", "panel 2/3", "panel 3/3", "judge", "synth"]
    assert stream.lines[0].startswith("data: ")


def test_a_member_that_failed_is_no_progress(open_server: Server) -> None:
    stream = open_server.chat_stream(fusion={"panel": ["fake/a", "fake/b", "fake/c+empty"]})

    assert [words.partition(" ")[0] for words in stream.comments] == ["panel", "panel", "judge", "synth"]


def test_later_layers_and_passes_are_named(server: Server) -> None:
    stream = server.chat_stream(fusion={"layers": 2, "refine": True})

    steps = [re.sub(r" \d+/\d+$", "", words) for words in stream.comments]
    assert list(dict.fromkeys(steps)) == ["panel", "panel layer 2", "judge", "synth", "synth refine"]


def test_progress_may_be_told_as_the_models_thoughts(serve: Serve) -> None:
    stream = serve("--progress", "reasoning").chat_stream()

    thoughts = [delta["reasoning_content"] for delta in deltas_of(stream) if "reasoning_content" in delta]
    assert "".join(thoughts).splitlines() == ["panel 1/3", "panel 2/3", "panel 3/3", "judge", "synth"]
    assert stream.comments == []
    assert stream.text.startswith("fake/synth says ")


def test_the_draft_of_the_member_that_begins_first_may_be_told_as_thoughts(serve: Serve) -> None:
    stream = serve("--progress", "draft", "--allow-model", "fake/*").chat_stream(
        fusion={"panel": ["fake/a+slow=0.4", "fake/b"]}
    )

    thoughts = "".join(delta["reasoning_content"] for delta in deltas_of(stream) if "reasoning_content" in delta)
    assert thoughts.startswith("fake/b says ")
    assert "fake/a" not in thoughts
    assert stream.comments[0] == "panel 1/2"
    assert stream.text.startswith("fake/synth says ")


def test_what_one_model_answers_alone_is_told_once(serve: Serve) -> None:
    stream = serve("--progress", "draft").chat_stream(model="fake/a")

    assert not [delta for delta in deltas_of(stream) if "reasoning_content" in delta]
    assert stream.text.startswith("fake/a says ")


def test_progress_may_be_left_out(serve: Serve) -> None:
    stream = serve("--progress", "off").chat_stream()

    assert stream.comments == []
    assert all(list(delta) in (["role", "content"], ["content"], []) for delta in deltas_of(stream))


@pytest.fixture(scope="module")
def busy_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("busy")
    options = ("--allow-model", "fake/*", "--keepalive-interval", "0.05")
    with start_server(folder, hermetic(upstream_process, folder), *options) as server:
        yield server


def test_a_silent_stream_is_kept_open_by_comments(upstream: Upstream, busy_process: Server) -> None:
    with listening(busy_process, fusion={"panel": ["fake/a+hang"]}) as lines:
        heard = [line for line, _ in zip((line for line in lines if line), range(5), strict=False)]

    assert json.loads(heard[0].removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
    assert heard[1:] == [": alive"] * 4


def test_a_stream_that_stops_in_the_middle_is_kept_open_too(upstream: Upstream, busy_process: Server) -> None:
    with listening(busy_process, fusion={"synth": f"fake/synth+{STUCK}"}) as lines:
        said = (line for line in lines if line)
        next(line for line in said if '"content":"fake' in line)
        heard = [next(said), next(said)]

    assert heard == [": alive", ": alive"]


def test_a_silent_stream_may_be_kept_open_by_chunks(serve: Serve) -> None:
    server = serve("--keepalive", "chunk", "--keepalive-interval", "0.05", "--allow-model", "fake/*")

    with listening(server, fusion={"panel": ["fake/a+hang"]}) as lines:
        heard = [json.loads(line[6:]) for line, _ in zip((line for line in lines if line), range(4), strict=False)]

    assert [chunk["choices"][0]["delta"] for chunk in heard] == [{"role": "assistant", "content": ""}, {}, {}, {}]
    assert {chunk["choices"][0]["finish_reason"] for chunk in heard} == {None}


def test_a_silent_stream_may_be_left_silent(serve: Serve) -> None:
    server = serve("--keepalive", "off", "--keepalive-interval", "0.01", "--allow-model", "fake/*")

    stream = server.chat_stream(fusion={"panel": ["fake/a+slow=0.3", "fake/b"]})

    assert stream.comments == ["panel 1/2", "panel 2/2", "judge", "synth"]
    assert {} not in deltas_of(stream)[:-1]


# --- What fails ---


def test_where_the_synthesizer_fails_before_a_word_the_best_response_is_the_answer(open_server: Server) -> None:
    asked: Any = {"fusion": {"synth": "fake/synth+status=400", "include": ["record"]}}

    body = open_server.chat(**asked).json()
    stream = open_server.chat_stream(**asked)

    record = body["fusion"]["record"]
    best = record["panel"][record["analysis"]["ranking"][0]]
    assert body["choices"][0] == body["choices"][0] | {"finish_reason": "stop"}
    assert body["choices"][0]["message"]["content"] == stream.text == best["content"]
    assert (body["fusion"]["by"], body["fusion"]["model"]) == ("panel", best["member"])
    assert [note["code"] for note in body["fusion"]["degraded"]] == ["synth_failed"]
    assert finishes_of(stream) == ["stop"]
    assert [note["code"] for note in chunks_of(stream)[-1]["fusion"]["degraded"]] == ["synth_failed"]


def test_where_the_judge_fails_the_answer_is_written_without_it(open_server: Server) -> None:
    body = open_server.chat(fusion={"judge": "fake/judge+status=400"}).json()

    assert body["choices"][0]["message"]["content"].startswith("fake/synth says ")
    assert [note["code"] for note in body["fusion"]["degraded"]] == ["judge_failed"]


def test_one_survivor_is_the_answer_without_further_calls(open_server: Server, upstream: Upstream) -> None:
    body = open_server.chat(fusion={"panel": ["fake/a", "fake/b+empty"]}).json()

    assert body["choices"][0]["message"]["content"].startswith("fake/a says ")
    assert upstream.stats()["per_model"] == {"fake/a": 1, "fake/b+empty": 1}


@pytest.mark.parametrize("how", ["midfail", "closehalf"])
def test_a_stream_that_breaks_off_ends_in_band_with_what_was_bought(
    open_server: Server, upstream: Upstream, how: str
) -> None:
    stream = open_server.chat_stream(fusion={"synth": f"fake/synth+{how}", "include": ["record"]})

    *before, last = chunks_of(stream)
    assert stream.text.startswith("fake/synth says ")
    assert finishes_of(stream) == ["error"]
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "error"}]
    assert list(last["error"]) == ["message", "type", "param", "code"]
    assert not any("error" in chunk for chunk in before)
    record = last["fusion"]["record"]
    assert last["fusion"]["answer"] == record["panel"][record["analysis"]["ranking"][0]]["content"]
    assert [note["code"] for note in last["fusion"]["degraded"]] == ["synth_failed"]
    assert set(upstream.stats()["per_model"].values()) == {1}


def test_a_synthesizer_that_breaks_off_spoils_no_plain_answer(open_server: Server) -> None:
    body = open_server.chat(fusion={"synth": "fake/synth+midfail"}).json()

    assert body["choices"][0]["message"]["content"].startswith("fake/")
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["fusion"]["by"] == "panel"


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize(
    ("behaviour", "status", "kind"),
    [
        ("status=400", 400, "invalid_request_error"),
        ("status=500", 502, "upstream_error"),
        ("status=429", 502, "upstream_error"),
        ("empty+cost=0", 502, "upstream_error"),
        ("empty", 400, "upstream_error"),
        ("empty+nocost", 400, "upstream_error"),
        ("closehalf", 400, "upstream_error"),
    ],
)
def test_where_all_members_fail_a_status_says_whether_asking_again_would_pay_again(
    open_server: Server, how: str, behaviour: str, status: int, kind: str
) -> None:
    panel = [f"fake/a+{behaviour}", f"fake/b+{behaviour}"]

    said, headers, error = asked_how(open_server, how, fusion={"panel": panel})

    assert (said, error["type"], error["code"], error["param"]) == (status, kind, "all_failed", None)
    assert headers["x-should-retry"] == "false"
    assert "fake/a" in error["message"]


def test_one_member_that_was_paid_makes_a_failure_one_that_is_not_tried_again(open_server: Server) -> None:
    reply = open_server.chat(fusion={"panel": ["fake/a+status=400", "fake/b+empty"]})

    assert (reply.status_code, reply.headers["x-should-retry"]) == (400, "false")


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize("status", [401, 403])
def test_what_an_endpoint_says_of_the_servers_own_key_is_not_repeated(
    open_server: Server, how: str, status: int
) -> None:
    panel = [f"fake/a+status={status}", f"fake/b; see+status={status}"]

    said, _, error = asked_how(open_server, how, fusion={"panel": panel})

    assert said == 502
    assert error["message"] == f"{panel[0]}: {SCRUBBED}; {panel[1]}: {SCRUBBED}"


def test_words_about_the_key_stay_inside_even_where_a_member_alone_hears_them(open_server: Server) -> None:
    panel = ["fake/a", "fake/b", "fake/c; see+status=401"]

    reply = open_server.chat(fusion={"panel": panel, "include": ["panel", "record"]})

    block = reply.json()["fusion"]
    assert LEAK not in reply.text
    assert block["panel"][2]["error"] == {"code": "auth", "message": SCRUBBED}
    assert [note["detail"] for note in block["degraded"]] == [f"{panel[2]}: auth: {SCRUBBED}"]


@pytest.mark.parametrize("panel", [["fake/a", "fake/b", "fake/c+closeearly"], ["fake/a+closeearly"]])
def test_no_answer_and_no_error_says_where_an_endpoint_is(
    open_server: Server, upstream: Upstream, panel: list[str]
) -> None:
    reply = open_server.chat(fusion={"panel": panel, "include": ["panel", "record"]})

    assert "closed the connection" in reply.text
    assert upstream.url not in reply.text


# --- What is asked ---


CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be terse."},
    {"role": "developer", "content": "Mind the units."},
    {"role": "user", "content": [{"type": "text", "text": "What is in this picture?"}, PIXEL], "name": "ann"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"closely":true}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "A small grey cat."},
    {"role": "user", "content": "And what does it want?"},
]


def test_every_message_reaches_every_member_as_it_was_said(server: Server, upstream: Upstream) -> None:
    server.post(CHAT, {"model": "fusion", "messages": CONVERSATION})

    assert [upstream.bodies(member)[0]["messages"] for member in MEMBERS] == [CONVERSATION] * 3


def test_the_judge_reads_the_whole_conversation_images_included(server: Server, upstream: Upstream) -> None:
    server.post(CHAT, {"model": "fusion", "messages": CONVERSATION})

    [body] = upstream.bodies("fake/judge")
    parts = body["messages"][-1]["content"]
    said = "".join(part.get("text", "") for part in parts)
    assert PIXEL in parts
    for words in ("Be terse.", "Mind the units.", "What is in this picture?", "small grey cat", "what does it want"):
        assert said.count(words) == 1
    assert 'look({"closely":true})' in said
    assert "[developer]" in said


def test_the_synthesizer_gets_the_conversation_itself(server: Server, upstream: Upstream) -> None:
    server.post(CHAT, {"model": "fusion", "messages": CONVERSATION})

    [body] = upstream.bodies("fake/synth")
    assert body["messages"][0]["role"] == "system"
    assert body["messages"][0]["content"].endswith("Be terse.")
    assert body["messages"][1:-1] == CONVERSATION[1:]


def test_content_may_be_text_or_parts(server: Server, upstream: Upstream) -> None:
    parts = [{"type": "text", "text": "Why "}, {"type": "text", "text": "not?"}]

    reply = server.post(CHAT, {"messages": [{"role": "user", "content": parts}]})

    assert reply.status_code == 200
    assert upstream.bodies("fake/a")[0]["messages"] == [{"role": "user", "content": parts}]


def test_a_message_as_openais_own_client_repeats_it_is_taken(server: Server) -> None:
    echoed = {
        "role": "assistant",
        "content": "Because.",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    question = {"role": "user", "content": "Why?"}

    reply = server.post(CHAT, {"messages": [question, echoed, question]})

    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("name", ["name", "tool_calls", "tool_call_id"])
def test_null_says_nothing_in_a_message_either(server: Server, name: str) -> None:
    reply = server.post(CHAT, {"messages": [{"role": "user", "content": "Why?", name: None}]})

    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(("model", "who"), [("fusion", "fake/synth"), ("fake/a", "fake/a")])
def test_a_body_in_the_words_of_the_responses_api_is_answered_in_those_of_chat(
    server: Server, model: str, who: str
) -> None:
    reply = server.post(CHAT, {"model": model, "input": "Why?"})

    assert reply.json().get("object") == "chat.completion", reply.text
    assert content_of(reply).startswith(f"{who} says ")


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Why?"}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": 5}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function"),
        ({"fusion": []}, "fusion"),
        ({"plugins": {}}, "plugins"),
        ({"stream_options": True}, "stream_options"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place_before_anybody_is_asked(
    server: Server, upstream: Upstream, wrong: dict[str, Any], param: str
) -> None:
    reply = server.post(CHAT, asking(**wrong))

    error = error_of(reply)
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert upstream.stats()["requests"] == 0


def test_a_request_without_messages_is_refused(server: Server) -> None:
    reply = server.post(CHAT, {"model": "fusion"})

    assert reply.status_code == 400
    assert '"messages" is a required property' in error_of(reply)["message"]


def test_an_unknown_model_is_named_with_what_there_is(server: Server) -> None:
    reply = server.chat(model="gpt-17")

    error = error_of(reply)
    assert (reply.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "'gpt-17'" in error["message"]
    assert "fusion/recipe" in error["message"]
    assert "fake/a" in error["message"]


# --- One model by its own name ---

ALIASED = """
models:
  cheap: {model: fake/a}
panel: [cheap, fake/b]
judge: fake/judge
synth: fake/synth
"""


def direct(upstream: Upstream, body: dict[str, Any]) -> httpx.Response:
    """Ask the endpoint itself."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.post(f"{upstream.url}/chat/completions", json=body)


def test_a_members_own_name_asks_it_alone(server: Server, upstream: Upstream) -> None:
    content = content_of(server.chat(model="fake/b"))

    assert content.startswith("fake/b says ")
    assert upstream.stats()["per_model"] == {"fake/b": 1}


def test_a_body_that_passes_through_arrives_as_it_was_sent(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=ALIASED)
    sent = asking(temperature=0.25, logit_bias={"5": 1}, x_own={"deep": [None, 1.5]}, messages=CONVERSATION, user="ann")

    for_server = {"model": "cheap", "fusion": {"include": []}, "plugins": [{"id": "fusion", "enabled": False}]}
    server.post(CHAT, {**sent, **for_server})

    assert upstream.bodies() == [{**sent, "model": "fake/a"}]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_passes_through_comes_back_byte_for_byte(
    server: Server, upstream: Upstream, stream: bool
) -> None:
    sent = asking(model="fake/a", stream=stream)

    through = server.post(CHAT, sent)

    itself = direct(upstream, sent)
    assert through.content == itself.content
    assert through.headers["content-type"] == itself.headers["content-type"]
    assert "x-request-id" in through.headers


def test_a_stream_that_passes_through_leaves_as_it_is_written(open_server: Server) -> None:
    with listening(open_server, model=f"fake/a+{STUCK}") as lines:
        first = next(line for line in lines if '"content":"fake' in line)

    assert json.loads(first.removeprefix("data: "))["model"] == f"fake/a+{STUCK}"


def test_the_endpoint_hears_the_servers_key_and_never_the_clients(server: Server, upstream: Upstream) -> None:
    headers = {"authorization": "Bearer of-the-client", "cookie": "a=b", "x-api-key": "of-the-client"}

    server.chat(model="fake/a", headers=headers)

    [heard] = [request["headers"] for request in upstream.requests()]
    assert heard["authorization"] == "Bearer test-key"
    assert not {"cookie", "x-api-key"} & heard.keys()
    assert "of-the-client" not in text_of(heard)


@pytest.mark.parametrize("how", ["plain", "stream"])
@pytest.mark.parametrize(
    ("behaviour", "status", "kind"),
    [
        ("status=400", 400, "invalid_request_error"),
        ("status=404", 404, "invalid_request_error"),
        ("status=422", 422, "invalid_request_error"),
        ("status=429", 429, "rate_limit_error"),
        ("status=500", 502, "upstream_error"),
        ("html502", 502, "upstream_error"),
        ("closeearly", 502, "upstream_error"),
    ],
)
def test_an_error_of_the_endpoint_comes_back_with_its_status(
    open_server: Server, upstream: Upstream, how: str, behaviour: str, status: int, kind: str
) -> None:
    said, _, error = asked_how(open_server, how, model=f"fake/a+{behaviour}")

    assert (said, error["type"]) == (status, kind)
    assert upstream.stats()["requests"] == 1


def test_the_endpoints_own_words_come_back(open_server: Server) -> None:
    error = error_of(open_server.chat(model="fake/a+noformat", response_format={"type": "json_object"}))

    assert "'response_format' is not supported" in error["message"]
    assert error["param"] == "response_format"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_the_servers_fault_and_its_words_stay_inside(open_server: Server, status: int) -> None:
    reply = open_server.chat(model=f"fake/a+status={status}")

    error = error_of(reply)
    assert (reply.status_code, error["code"]) == (502, "upstream_auth")
    assert LEAK not in error["message"]


def test_a_wait_that_the_endpoint_asks_for_is_passed_on(open_server: Server) -> None:
    reply = open_server.chat(model="fake/a+retryafter=7")

    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")


def test_a_dead_endpoint_is_a_bad_gateway(serve: Serve) -> None:
    server = serve(env={"FUSION_BASE_URL": "http://127.0.0.1:1/v1"})

    reply = server.chat(model="fake/a")

    error = error_of(reply)
    assert (reply.status_code, error["type"], error["code"]) == (502, "upstream_error", "connect")
    assert "127.0.0.1:1" not in error["message"]


def test_a_stream_that_passes_through_and_breaks_off_ends_in_band(open_server: Server) -> None:
    stream = open_server.chat_stream(model="fake/a+closehalf")

    assert stream.status == 200
    assert stream.text.startswith("fake/a says ")
    assert stream.events[-1]["error"]["type"] == "upstream_error"
    assert stream.done


def test_an_answer_that_breaks_off_is_never_passed_on_as_whole(open_server: Server) -> None:
    reply = open_server.chat(model="fake/a+closehalf")

    assert reply.status_code == 502
    assert error_of(reply)["type"] == "upstream_error"


@pytest.mark.slow
def test_the_embedded_engine_answers_in_chats_words(serve: Serve) -> None:
    server = serve(recipe="local")
    asked: Any = {"model": "smollm2-135m", "max_tokens": 5, "temperature": 0}

    body = server.chat("What is the capital of Japan?", **asked).json()
    stream = server.chat_stream("What is the capital of Japan?", **asked, stream_options={"include_usage": True})

    [choice] = body["choices"]
    assert (body["object"], body["model"], choice["finish_reason"]) == ("chat.completion", "smollm2-135m", "length")
    assert (body["usage"]["completion_tokens"], body["usage"]["cost"]) == (5, 0.0)
    assert body["fusion"]["by"] == "solo"
    assert stream.text == choice["message"]["content"] != ""
    assert finishes_of(stream) == ["length"]
    assert chunks_of(stream)[-1]["usage"]["completion_tokens"] == 5


CLAUDE = """
endpoints:
  claude: {{base_url: "{url}", api_key_env: CLAUDE_KEY, api: anthropic}}
endpoint: claude
panel: [claude-a, claude-b+thinks]
synth: claude-a
"""


def test_a_model_of_anthropics_api_answers_in_chats_words(serve: Serve, claude: str) -> None:
    env = {"FUSION_BASE_URL": "", "CLAUDE_KEY": "key-of-claude"}
    server = serve("--recipe", "local", recipe=CLAUDE.format(url=claude), env=env)
    messages = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Why?"}]

    body = server.chat(model="claude-b+thinks", messages=messages, max_tokens=50).json()
    stream = server.chat_stream(model="claude-b+thinks", messages=messages, max_tokens=50)

    [choice] = body["choices"]
    assert (body["object"], choice["finish_reason"]) == ("chat.completion", "length")
    assert choice["message"]["content"].startswith("claude-b says ")
    assert stream.text == choice["message"]["content"]
    assert finishes_of(stream) == ["length"]


def test_an_error_of_anthropics_api_is_said_in_openais_envelope(serve: Serve, claude: str) -> None:
    env = {"FUSION_BASE_URL": "", "CLAUDE_KEY": "not-the-key"}
    server = serve("--recipe", "local", recipe=CLAUDE.format(url=claude), env=env)

    reply = server.chat(model="claude-a")

    error = error_of(reply)
    assert (reply.status_code, error["type"]) == (502, "upstream_error")
    assert "invalid x-api-key" not in error["message"]


# --- The protocol itself, for every text ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
STREAM = st.lists(
    st.tuples(st.sampled_from(["text", "progress", "alive", "event"]), st.text(st.characters(codec="utf-8"))),
    max_size=12,
)
ABOUT = ResponseMeta("0" * 32, 1_700_000_000, "fusion")


@given(STREAM, st.sampled_from(["comment", "chunk", "off"]), st.sampled_from(["comment", "reasoning", "off"]))
def test_whatever_is_said_a_stream_holds_chunks_and_comments_and_its_text_whole(
    said: list[tuple[str, str]], keepalive: str, progress: str
) -> None:
    writer = Chat().writer(ChatRequest("fusion", [], says_usage=True), ABOUT, StreamStyle(keepalive, progress))

    data = writer.open()
    for kind, text in said:
        if kind == "text":
            data += writer.text(text)
        elif kind == "progress":
            data += writer.progress("panel 1/3")
        elif kind == "alive":
            data += writer.alive()
        else:
            data += writer.event({"type": "call.done", "model": text})
    data += writer.close(ChatResult("", (), "stop", Spending()))

    assert data.endswith(b"\n\n")
    stream = Streamed(200, httpx.Headers({"content-type": "text/event-stream"}), data.decode().split("\n")[:-1])
    assert stream.text == "".join(text for kind, text in said if kind == "text")
    assert finishes_of(stream) == ["stop"]
    assert chunks_of(stream)[-1]["choices"] == []


@given(st.dictionaries(st.integers().map("x_{}".format), JSON, max_size=3))
def test_keys_that_nobody_knows_are_ignored_and_that_is_said(unknown: dict[str, Any]) -> None:
    read = Chat().read({**asking(), **unknown})

    assert replace(read, ignored=[]) == Chat().read(asking())
    assert {part["param"] for part in read.ignored} <= unknown.keys()


@given(st.dictionaries(st.sampled_from(sorted(POLICY)), JSON))
def test_any_value_is_read_or_refused_with_400(said: dict[str, Any]) -> None:
    status = 200

    try:
        Chat().read(asking(**said))
    except ApiError as refused:
        status = refused.status

    assert status in (200, 400)
