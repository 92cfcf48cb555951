"""What the spans of a record say, in which tree they stand, and what they never say."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from opentelemetry.trace import SpanKind, StatusCode
from scripted import HANG, USAGE, Scripted, model, open_door, said
from stage_runs import ASKED
from tracing import Spans

from fusiontools.config.models import Endpoint
from fusiontools.config.recipe import Recipe
from fusiontools.errors import CallFailed
from fusiontools.llm.anthropic import MESSAGES
from fusiontools.llm.client import Client
from fusiontools.llm.completion import CompletionRequest, Thoughts
from fusiontools.llm.http import OPENAI, HttpBackend
from fusiontools.llm.journal import Journal
from fusiontools.llm.ledger import Slot
from fusiontools.llm.spans import NAMES
from fusiontools.record import schemas
from fusiontools.runs.chain import Chain
from fusiontools.stages.runtime import Runtime

LATER = CallFailed("rate_limited", "HTTP 429: you asked: Why?", status=429, retryable=True)
TEXT = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"}


@pytest.fixture
def spans(caplog: pytest.LogCaptureFixture) -> Any:
    yield Spans()
    # What is said of a span after its end, or of no plain kind, is dropped with a word.
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def fuse(spans: Spans, chain: str, backend: Scripted, record: Any = ASKED, **settings: Any) -> Any:
    """Return what a chain makes of a record, on its way told as spans."""
    stage = Chain.parse(chain).bind(Recipe("ours", endpoints={"there": Endpoint("there", "https://there.example/v1")}))
    client = open_door(backend, traces=spans.traces, **settings)
    made = asyncio.run(stage(record, Runtime(client)))
    schemas.check_record(made)
    return made


def ask(spans: Spans, backend: Scripted, on_delta: Any = None, client: Client | None = None, **params: Any) -> Any:
    """Return what one call gives."""
    client = client or open_door(backend, traces=spans.traces)

    async def work() -> Any:
        request = client.request(model(), [{"role": "user", "content": "Why?"}], params)
        return await client.complete(request, model(), client.ledger("panel", "q1"), Slot("m", 0, 1), on_delta)

    return asyncio.run(work())


CHAIN = "panel -m a@there -m b@there | judge -m j@there | synth -m s@there"
JUDGED = json.dumps({"reasoning": "hm", "consensus": ["yes"], "ranking": ["A", "B"]})


def test_a_record_is_a_span_over_its_stages_and_each_over_its_calls(spans: Spans) -> None:
    fuse(spans, CHAIN, Scripted(j=JUDGED))

    whole = "invoke_workflow ours"
    assert spans.tree() == [
        (whole, ""), ("panel", whole), ("chat a", "panel"), ("chat b", "panel"), ("judge", whole), ("chat j", "judge"),
        ("synth", whole), ("chat s", "synth"),
    ]  # fmt: skip
    assert len({span.context.trace_id for span in spans.all if span.context}) == 1


def test_members_of_a_further_layer_and_one_that_is_cut_off_stand_under_their_panel(spans: Spans) -> None:
    chain = "panel -m a@there -m b@there -m c@there --quorum 2 --grace 0 | panel --revise"
    fuse(spans, chain, Scripted(c=[HANG(), "c says."]))

    assert [above for name, above in spans.tree() if name.startswith("chat")] == ["panel"] * 6
    first = spans.named("chat c")[0]
    assert first.attributes["error.type"] == "cancelled"
    assert first.attributes["gen_ai.response.finish_reasons"] == ("error",)
    assert "gen_ai.usage.input_tokens" not in first.attributes
    assert [span.attributes["fusion.layer"] for span in spans.named("chat a")] == [1, 2]


def test_a_call_says_who_was_asked_for_what_and_what_it_took(spans: Spans) -> None:
    thinking = {**USAGE, "cached_tokens": 4, "reasoning_tokens": 2, "cache_write_tokens": 5}
    ask(spans, Scripted(m=said("Because.", usage=thinking)), temperature=0.5, max_tokens=9, seed=3, stop=["x"])

    (span,) = spans.all
    assert span.kind is SpanKind.CLIENT
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "there", "gen_ai.request.model": "m",
        "server.address": "there.example", "server.port": 443, "fusion.endpoint": "there", "fusion.member": "m",
        "fusion.sample": 0, "fusion.layer": 1, "gen_ai.request.temperature": 0.5, "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 3, "gen_ai.response.model": "m", "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 11, "gen_ai.usage.output_tokens": 3, "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.cache_write.input_tokens": 5, "gen_ai.usage.reasoning.output_tokens": 2, "fusion.attempts": 1,
        "fusion.cost_usd": 0.001, "fusion.cost_source": "upstream",
    }  # fmt: skip


#: The same call as two APIs count it: Anthropic's leaves out of `input_tokens` what has to do with its cache.
COUNTED = {
    "openai": {
        "choices": [{"message": {"role": "assistant", "content": "Because."}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 22, "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 5},
        },
    },
    "anthropic": {
        "type": "message", "role": "assistant", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Because."}],
        "usage": {
            "input_tokens": 10, "output_tokens": 3, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 5
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("api", COUNTED)
def test_tokens_are_counted_alike_whichever_api_says_them(spans: Spans, api: str) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"model": "m", **COUNTED[api]}))
    endpoint = Endpoint("there", "http://there.example/v1", api=api)
    backend: Any = HttpBackend(endpoint, transport, MESSAGES if api == "anthropic" else OPENAI)

    ask(spans, backend, client=open_door(backend, endpoint=endpoint, traces=spans.traces))

    (span,) = spans.all
    used = {name.removeprefix("gen_ai.usage."): n for name, n in (span.attributes or {}).items() if ".usage." in name}
    assert used == {
        "input_tokens": 22, "output_tokens": 3, "cache_read.input_tokens": 7, "cache_write.input_tokens": 5,
    }  # fmt: skip


def test_a_call_that_was_tried_again_is_one_span_with_its_attempts(spans: Spans) -> None:
    ask(spans, Scripted(m=[LATER, LATER, "Because."]))

    (span,) = spans.all
    assert span.attributes["fusion.attempts"] == 3
    assert [dict(event.attributes or {}) for event in span.events] == [
        {"fusion.attempt": 1, "error.type": "rate_limited"},
        {"fusion.attempt": 2, "error.type": "rate_limited"},
    ]
    assert span.status.status_code is StatusCode.UNSET


def test_a_call_that_fails_says_its_code_and_nothing_in_the_endpoints_words(spans: Spans) -> None:
    with pytest.raises(CallFailed):
        ask(spans, Scripted(m=CallFailed("refused", "HTTP 400: you asked: Why?", status=400)))

    (span,) = spans.all
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "refused")
    assert "Why?" not in spans.said()


def test_a_stream_whose_reader_fails_ends_its_span(spans: Spans) -> None:
    def broken(_: str | Thoughts) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        ask(spans, Scripted(m="Because."), broken)

    (span,) = spans.all
    assert span.attributes["gen_ai.request.stream"] is True
    assert span.attributes["error.type"] == "BrokenPipeError"
    assert span.end_time


def test_what_the_journal_holds_is_fetched_and_its_tokens_are_not_counted_again(spans: Spans, tmp_path: Any) -> None:
    for replay in (False, True):
        journal = Journal(tmp_path / "j.db")
        made = fuse(spans, CHAIN, Scripted(j=JUDGED), journal=journal, replay=replay)
        journal.close()

    fetched = spans.named("fetch_response")
    assert [span.attributes["gen_ai.request.model"] for span in fetched] == ["a", "b", "j", "s"]
    assert all(span.attributes["gen_ai.operation.name"] == "fetch_response" for span in fetched)
    assert all(span.attributes["fusion.replayed"] and span.attributes["fusion.cost_usd"] == 0 for span in fetched)
    assert not [span for span in fetched if "gen_ai.usage.input_tokens" in span.attributes]
    assert spans.all[-1].attributes is not None
    record = spans.named("invoke_workflow ours")[1]
    assert (record.attributes["fusion.cost_usd"], record.attributes["fusion.saved_usd"]) == (0, 0.004)
    assert all("trace" in call for call in made["calls"])


def test_a_record_that_comes_from_another_tool_goes_on_with_its_trace(spans: Spans) -> None:
    first = fuse(spans, "panel -m a@there -m b@there", Scripted())
    fuse(spans, "vote", Scripted(), json.loads(json.dumps(first)))

    one, two = spans.named("invoke_workflow ours")
    assert two.parent is not None
    assert two.parent.span_id == one.context.span_id
    named = f"00-{one.context.trace_id:032x}-{one.context.span_id:016x}-"
    assert [call["trace"].startswith(named) for call in first["calls"]] == [True, True]


@pytest.mark.parametrize("trace", ["", "00-zz-01", 7, None, {"a": 1}])
def test_a_trace_that_is_none_begins_a_new_one(spans: Spans, trace: Any) -> None:
    call = {"stage": "panel", "model": "a", "endpoint": "there", "status": "ok", "trace": trace}

    with spans.traces.record("ours", {**ASKED, "calls": [call]}):
        pass

    assert spans.all[0].parent is None


def test_a_process_that_is_a_part_of_a_trace_says_so_of_all_its_records() -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    spans = Spans({"TRACEPARENT": f"00-{trace}-{span}-01"})

    ask(spans, Scripted())

    (made,) = spans.all
    assert (f"{made.context.trace_id:032x}", f"{made.parent.span_id:016x}") == (trace, span)


def test_a_record_that_fails_says_why(spans: Spans) -> None:
    fuse(spans, "panel -m a@there", Scripted(a=CallFailed("auth", "HTTP 401", status=401)))

    assert [span.attributes["error.type"] for span in spans.all] == ["all_failed", "all_failed", "auth"]


def test_no_text_is_told_unless_the_environment_wants_it(spans: Spans) -> None:
    record: Any = {"id": "q", "messages": [{"role": "user", "content": "SECRETQUESTION"}]}

    fuse(spans, CHAIN, Scripted(a="SECRETANSWER", j=JUDGED, s="SECRETANSWER"), record)

    assert "SECRET" not in spans.said()


def test_texts_are_told_in_the_form_of_the_conventions_where_they_are_wanted() -> None:
    spans = Spans(TEXT)
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}

    client = open_door(Scripted(m=said("", tool_calls=[call], finish_reason="tool_calls")), traces=spans.traces)
    messages: Any = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Why?"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    request = CompletionRequest("there", "m", messages)
    asyncio.run(client.complete(request, model(), client.ledger("panel", "q1"), Slot("m", 0, 1)))

    asked = {"type": "tool_call", "id": "c1", "name": "look", "arguments": '{"at": 1}'}
    (span,) = spans.all
    assert json.loads(span.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "Why?"}, {"type": "image_url"}]},
        {"role": "assistant", "parts": [asked]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "42"}]},
    ]
    told = json.loads(span.attributes["gen_ai.output.messages"])
    assert told == [{"role": "assistant", "parts": [{"type": "text", "content": ""}, asked]}]


@pytest.mark.parametrize("limit", [400, 90, 10])
def test_texts_that_are_too_long_are_cut_by_whole_messages(limit: int) -> None:
    spans = Spans({**TEXT, "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": str(limit)})
    messages = [{"role": "user", "parts": [{"type": "text", "content": str(i) * 50}]} for i in range(20)]

    told = spans.traces.text("gen_ai.input.messages", messages)

    if limit == 10:
        assert told == {}
        return
    kept = json.loads(told["gen_ai.input.messages"])
    assert len(told["gen_ai.input.messages"]) <= limit
    gone = 20 - (len(kept) - 1)
    assert kept == [{"role": "system", "parts": [{"type": "text", "content": f"[{gone} messages left out]"}]}, *messages[gone:]]  # fmt: skip  # noqa: E501


def test_what_a_recipe_hides_of_an_endpoint_is_hidden_of_a_collector() -> None:
    spans = Spans(TEXT)
    client = open_door(
        Scripted(m=lambda request: f"To {request.messages[0]['content'].split()[-1]}"), traces=spans.traces
    )

    async def work() -> Any:
        ledger = client.ledger("panel", "q1")
        ledger.redact = (("email", None),)
        request = client.request(model(), [{"role": "user", "content": "Write to ann@example.org"}], {})
        return await client.complete(request, model(), ledger, Slot("m", 0, 1))

    assert "ann@example.org" in asyncio.run(work()).content
    assert "ann@example.org" not in spans.said()
    assert "Write to" in spans.said()


def test_an_address_with_a_password_in_it_tells_host_and_port(spans: Spans) -> None:
    endpoint = Endpoint("there", "https://me:SECRET@api.mistral.ai:8443/v1/SECRET")

    ask(spans, Scripted(), client=open_door(Scripted(), endpoint=endpoint, traces=spans.traces))

    (span,) = spans.all
    assert [span.attributes[name] for name in ("gen_ai.provider.name", "server.address", "server.port")] == [
        "mistral_ai", "api.mistral.ai", 8443,
    ]  # fmt: skip
    assert "SECRET" not in spans.said()


def test_every_name_that_is_told_stands_in_the_table(spans: Spans) -> None:
    fuse(spans, CHAIN, Scripted(a=[LATER, "a says."], b=CallFailed("auth", "no"), j=JUDGED))
    with spans.traces.request({"type": "http", "method": "POST", "path": "/v1/messages", "headers": []}, "r") as span:
        span.end_with(503, "server_overloaded", "key-1")

    told = {name for span in spans.all for name in span.attributes or {}}
    told |= {name for span in spans.all for event in span.events for name in event.attributes or {}}
    assert told
    assert told <= NAMES
