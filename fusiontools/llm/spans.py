"""What happens to a record, told as OpenTelemetry's spans.

A record is a span `invoke_workflow NAME`, each stage of it one of its own name, each call `chat MODEL` with all its
attempts (`fetch_response` where the journal answers), each run of a member's tool `execute_tool NAME`, each request to
a server `POST /v1/…`. What is asked and answered is told where the environment wants it; keys, and an endpoint's own
words for a failure, never.

Source  OpenTelemetry's conventions for generative AI, v0.1.0 (github.com/open-telemetry/semantic-conventions-genai,
        client-inference.md, gen-ai-agent-spans.md), those for HTTP servers, and W3C Trace Context. Costs, attempts and
        what stands in the journal have no name there: `fusion.*` are ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextvars import Token
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from fusiontools.errors import FusionError, __version__
from fusiontools.llm.completion import TRACED, Completion, CompletionRequest
from fusiontools.llm.ledger import Slot, Spending
from fusiontools.record import jsonl

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

    from fusiontools.config.models import Endpoint
    from fusiontools.record.types import Call, Record

#: Of the conventions for HTTP and errors; those for generative AI name none that is published.
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
#: Every attribute that a span or an event of one may have.
NAMES = frozenset(
    f"{room}.{name}"
    for room, names in {
        "gen_ai": "operation.name provider.name agent.name output.type input.messages output.messages",
        "gen_ai.request": "model stream max_tokens temperature top_p top_k seed frequency_penalty presence_penalty "
        "reasoning.level",
        "gen_ai.response": "model finish_reasons time_to_first_chunk",
        "gen_ai.usage": "input_tokens output_tokens reasoning.output_tokens cache_read.input_tokens "
        "cache_write.input_tokens",
        "gen_ai.tool": "name type call.arguments call.result",
        "http": "route request.method response.status_code",
        "server": "address port",
        "url": "path scheme",
        "error": "type",
        "fusion": "record stage endpoint member sample layer step caller request outcome degraded attempt attempts "
        "calls cost_usd cost_source cost_unknown_calls saved_usd replayed",
    }.items()
    for name in names.split()
)
#: The providers that the conventions name, by where they answer; others are called as their endpoint is.
_PROVIDERS = {
    "api.openai.com": "openai", "api.anthropic.com": "anthropic", "generativelanguage.googleapis.com": "gcp.gemini",
    "api.mistral.ai": "mistral_ai", "api.groq.com": "groq", "api.x.ai": "x_ai", "api.deepseek.com": "deepseek",
    "api.cohere.com": "cohere", "api.perplexity.ai": "perplexity", "api.moonshot.ai": "moonshot_ai",
}  # fmt: skip
_PARAMS = {
    "max_tokens": "gen_ai.request.max_tokens", "max_completion_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature", "top_p": "gen_ai.request.top_p", "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty", "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed", "reasoning_effort": "gen_ai.request.reasoning.level",
}  # fmt: skip
_TEXT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_LIMIT_VARIABLES = ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")
#: So many characters of messages a span has at most, and so many of a name that a user or a client gave.
_MOST_CHARS, _NAME_CHARS = 100_000, 128
#: Where a span's context keeps that of its record, for the tools that read the record later.
_RECORD_KEY = "fusion-record"


class Traces:
    """Where spans are told.

    Args:
        provider: what makes them.
        env: says whether texts are told, how long a value may be, and of which trace all of this is a part.
    """

    def __init__(self, provider: TracerProvider, env: Mapping[str, str] | None = None) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        env = env or {}
        self.tracer = provider.get_tracer("fusiontools", __version__, schema_url=SCHEMA_URL)
        self.tells_text = env.get(_TEXT_VARIABLE, "").strip().lower() in ("true", "span_only", "span_and_event")
        limits = [int(env[name]) for name in _LIMIT_VARIABLES if env.get(name, "").isdigit()]
        self._most_chars = min([*limits, _MOST_CHARS])
        self._propagator = TraceContextTextMapPropagator()
        self._outer = self.continued({name: env.get(name.upper(), "") for name in ("traceparent", "tracestate")})

    def record(self, name: str, record: Record) -> TracedRecord:
        """Return the span of a record's way through a tool or a chain."""
        first = next((call["trace"] for call in record.get("calls", []) if "trace" in call), "")
        earlier = self.continued({"traceparent": first}) if isinstance(first, str) and first else None
        attributes = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.agent.name": name,
            "fusion.record": record["id"][:_NAME_CHARS],
        }
        return TracedRecord(self, f"invoke_workflow {name}", attributes, record, earlier)

    def stage(self, name: str, record: Record) -> TracedRecord:
        """Return the span of one stage of a record."""
        return TracedRecord(self, name, {"fusion.stage": name}, record)

    def member(self, slot: Slot) -> TracedSpan:
        """Return the span of a response for which tools are run between its calls."""
        name = slot.label or slot.member or "model"
        attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name, **_of_slot(slot)}
        return TracedSpan(self, f"invoke_agent {name}", attributes)

    def call(self, request: CompletionRequest, endpoint: Endpoint | None, slot: Slot, *, streams: bool) -> TracedCall:
        """Return the span of a call with all its attempts.

        Args:
            request: as the endpoint sees it: what is hidden of it is hidden here, too.
        """
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": request.model,
            "fusion.endpoint": request.endpoint,
            **_of_endpoint(endpoint, request.endpoint),
            **_of_slot(slot),
            **{_PARAMS[name]: said for name, said in request.params.items() if name in _PARAMS and _is_plain(said)},
        }
        if streams:
            attributes["gen_ai.request.stream"] = True
        if request.params.get("response_format"):
            attributes["gen_ai.output.type"] = "json"
        if self.tells_text:
            attributes |= self.text("gen_ai.input.messages", [_message(message) for message in request.messages])
        inside = endpoint is not None and endpoint.embedded
        return TracedCall(self, f"chat {request.model}", attributes, "INTERNAL" if inside else "CLIENT")

    def tool(self, run: Any, slot: Slot) -> None:
        """Tell of a run of a tool that has just ended: a `ToolRun` of a toolbox."""
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": run.name,
            "gen_ai.tool.type": "function",
            "fusion.replayed": run.how != "made",
            **_of_slot(slot),
        }
        if run.cost_usd is not None:
            attributes["fusion.cost_usd"] = run.cost_usd
        if self.tells_text:
            said = run.arguments if isinstance(run.arguments, str) else jsonl.dumps(run.arguments).decode()
            attributes["gen_ai.tool.call.arguments"] = said[: self._most_chars]
            attributes["gen_ai.tool.call.result"] = run.result.text[: self._most_chars]
        began = time.time_ns() - int(run.latency_s * 1e9)
        with TracedSpan(self, f"execute_tool {run.name}", attributes, began=began) as span:
            if run.result.status != "ok":
                span.fail(run.result.status)

    def request(self, scope: Mapping[str, Any], request_id: str) -> TracedRequest:
        """Return the span of a request to a server, in the trace that its client names."""
        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method, path = scope["method"], scope["path"]
        attributes = {
            "http.request.method": method, "http.route": path, "url.path": path,
            "url.scheme": scope.get("scheme", "http"), "fusion.request": request_id,
        }  # fmt: skip
        named = self.continued({name: sent.get(name, "") for name in ("traceparent", "tracestate")})
        return TracedRequest(self, f"{method} {path}", attributes, "SERVER", named)

    def continued(self, headers: Mapping[str, str]) -> Context | None:
        """Return the context of a span elsewhere, as headers name it; None where they name none."""
        from opentelemetry.trace import get_current_span

        context = self._propagator.extract(headers) if headers.get("traceparent") else None
        is_valid = context is not None and get_current_span(context).get_span_context().is_valid
        return context if is_valid else None

    def above(self, named: Context | None) -> Context | None:
        """Return what a new span stands under: the span around it, else the one named, else the process's own."""
        from opentelemetry.trace import get_current_span

        around = get_current_span().get_span_context().is_valid
        return None if around else (named or self._outer)

    def headers(self) -> dict[str, str]:
        """Return what names the span around this, for whoever goes on with its trace."""
        headers: dict[str, str] = {}
        self._propagator.inject(headers)
        return headers

    def text(self, name: str, messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Return messages as an attribute: whole ones, the last ones where there is no room for all."""
        kept: list[Any] = list(messages)
        said = jsonl.dumps(kept).decode()
        while len(said) > self._most_chars:
            if not kept:
                return {}
            del kept[: max(1, len(kept) // 4)]
            gone = {"type": "text", "content": f"[{len(messages) - len(kept)} messages left out]"}
            said = jsonl.dumps([{"role": "system", "parts": [gone]}, *kept]).decode()
        return {name: said}


class TracedSpan:
    """A span for the time of a `with`.

    Args:
        named: the span elsewhere that it stands under, where none is around it.
        began: nanoseconds since 1970, where it began before.
    """

    span: Span

    def __init__(
        self,
        traces: Traces,
        name: str,
        attributes: Mapping[str, Any],
        kind: str = "INTERNAL",
        named: Context | None = None,
        began: int | None = None,
    ) -> None:
        self._traces = traces
        self._about = (name, attributes, kind, named, began)

    def __enter__(self) -> Self:
        from opentelemetry import context
        from opentelemetry.trace import SpanKind, set_span_in_context

        name, attributes, kind, named, began = self._about
        under = self._traces.above(named)
        self.span = self._traces.tracer.start_span(name, under, SpanKind[kind], attributes, start_time=began)
        self._token = context.attach(self._within(set_span_in_context(self.span, under)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        from opentelemetry import context

        context.detach(self._token)
        if error is not None:
            self.fail(_code_of(error))
        self._finish()
        self.span.end()

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Say more, but for what is None."""
        self.span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def fail(self, code: str) -> None:
        """Say that it failed, and by which code; never in an endpoint's words, which may hold a text."""
        from opentelemetry.trace import Status, StatusCode

        self.span.set_status(Status(StatusCode.ERROR))
        self.span.set_attribute("error.type", code)

    def _within(self, inside: Context) -> Context:
        """Return the context of what happens inside."""
        return inside

    def _finish(self) -> None:
        """Say what is known at the end."""


class TracedRequest(TracedSpan):
    """The span of a request to a server."""

    def end_with(self, status: int, outcome: str, caller: str) -> None:
        """Say how it went.

        Args:
            status: 0 where the client had left before there was one.
        """
        self.set({"http.response.status_code": status or None, "fusion.outcome": outcome, "fusion.caller": caller})
        if status >= 500:
            self.fail(outcome)


class TracedRecord(TracedSpan):
    """The span of a record, or of one of its stages."""

    def __init__(
        self, traces: Traces, name: str, attributes: Mapping[str, Any], record: Record, named: Context | None = None
    ) -> None:
        super().__init__(traces, name, attributes, named=named)
        self._before = record
        self._is_whole = "fusion.record" in attributes

    def _within(self, inside: Context) -> Context:
        from opentelemetry import context

        if not self._is_whole:
            return inside
        headers: dict[str, str] = {}
        self._traces._propagator.inject(headers, inside)
        return context.set_value(_RECORD_KEY, headers.get("traceparent", ""), inside)

    def end_with(self, record: Record) -> Record:
        """Say what became of the record."""
        made = record.get("calls", [])[len(self._before.get("calls", [])) :]
        spent = Spending.of(made)
        known = {id(note) for note in self._before.get("degraded", [])}
        codes = {note["code"] for note in record.get("degraded", []) if id(note) not in known}
        self.set(
            {
                "fusion.calls": len(made),
                "fusion.cost_usd": round(spent.known_usd, 10),
                "fusion.cost_unknown_calls": spent.unknown or None,
                "fusion.saved_usd": spent.saved_usd or None,
                "fusion.degraded": sorted(codes) or None,
            }
        )
        if "error" in record and "error" not in self._before:
            self.fail(record["error"]["code"])
        return record


class TracedCall(TracedSpan):
    """The span of a call; the ledger tells it of each attempt, and the transport sends its name along."""

    _token_of_task: Token[Any]

    def __enter__(self) -> Self:
        from opentelemetry import context

        super().__enter__()
        self._calls: list[Call] = []
        self.headers = self._traces.headers()
        self._record = context.get_value(_RECORD_KEY) or self.headers.get("traceparent", "")
        self._token_of_task = TRACED.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        TRACED.reset(self._token_of_task)
        super().__exit__(kind, error, _)

    def note(self, call: Call) -> None:
        """Hear of an attempt, and write into the ledger of which trace it is."""
        self._calls.append(call)
        call["trace"] = str(self._record)
        if call["status"] != "ok":
            self.span.add_event("attempt", {"fusion.attempt": call["attempt"], "error.type": call["status"]})

    def fail(self, code: str) -> None:
        """Say that it failed; a generation that did not come to its end has the reason `error`."""
        super().fail(code)
        self.span.set_attribute("gen_ai.response.finish_reasons", ["error"])

    def end_with(self, completion: Completion) -> Completion:
        """Say what came."""
        self.set(
            {
                "gen_ai.response.model": completion.model,
                "gen_ai.response.finish_reasons": [completion.finish_reason],
            }
        )
        if self._traces.tells_text:
            said = {"role": "assistant", "content": completion.content, "tool_calls": completion.tool_calls}
            self.set(self._traces.text("gen_ai.output.messages", [_message(said)]))
        return completion

    def _finish(self) -> None:
        made = [call for call in self._calls if not call["replayed"]]
        spent = Spending.of(self._calls)
        self.set(
            {
                "fusion.attempts": len(made) or None,
                "fusion.cost_usd": spent.cost_usd,
                "fusion.cost_source": made[-1]["cost_source"] if made else None,
                "fusion.saved_usd": spent.saved_usd or None,
            }
        )
        if self._calls and not made:
            # Read and not asked: its tokens were counted when it was bought.
            self.span.update_name("fetch_response")
            self.set({"gen_ai.operation.name": "fetch_response", "fusion.replayed": True})
        elif any(call["usage"] for call in made):
            self.set(
                {
                    "gen_ai.usage.input_tokens": spent.prompt_tokens,
                    "gen_ai.usage.output_tokens": spent.completion_tokens,
                    "gen_ai.usage.cache_read.input_tokens": spent.cached_tokens or None,
                    "gen_ai.usage.cache_write.input_tokens": spent.cache_write_tokens or None,
                    "gen_ai.usage.reasoning.output_tokens": spent.reasoning_tokens or None,
                    "gen_ai.response.time_to_first_chunk": made[-1]["ttft_s"],
                }
            )


def _code_of(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return str(error.code) if isinstance(error, FusionError) else type(error).__name__


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | str)


def _of_slot(slot: Slot) -> dict[str, Any]:
    about = {"member": slot.member, "sample": slot.sample, "layer": slot.layer, "step": slot.step}
    return {f"fusion.{name}": value for name, value in about.items() if value is not None}


def _of_endpoint(endpoint: Endpoint | None, name: str) -> dict[str, Any]:
    """Return who answers, and where: host and port, and nothing else that an address may hold."""
    url = urlsplit(endpoint.base_url) if endpoint is not None else None
    if url is None or not url.hostname:
        return {"gen_ai.provider.name": name}
    port = url.port or (443 if url.scheme == "https" else 80)
    provider = _PROVIDERS.get(url.hostname, name)
    return {"gen_ai.provider.name": provider, "server.address": url.hostname, "server.port": port}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a chat message in the form of the conventions; of what is no text its kind alone."""
    content, parts = message.get("content"), []
    for piece in [{"type": "text", "text": content}] if isinstance(content, str) else content or []:
        kind = piece.get("type", "text")
        parts.append({"type": "text", "content": piece.get("text", "")} if kind == "text" else {"type": kind})
    if message.get("role") == "tool":
        said = "".join(part.get("content", "") for part in parts)
        parts = [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": said}]
    for call in message.get("tool_calls") or []:
        function = call["function"]
        parts.append(
            {"type": "tool_call", "id": call.get("id"), "name": function["name"], "arguments": function["arguments"]}
        )
    return {"role": message.get("role", "user"), "parts": parts}
