"""What the models of the stand-in upstream answer: each model's behaviour stands in its name.

A name is `anything[+behaviour[=argument]]*`, as in `fake/a`, `fake/b+slow=0.5`, `fake/c+status=500,2`. Behaviours
apply from left to right; an unknown one is a 404, so that a typing error cannot pass for a model that behaves well.
The text depends on the part before the first `+`, the messages, `seed` and `temperature`: a slow model says what a
fast one says.

No HTTP in here: a request goes in, an `Answer` comes out, and `upstream.py` sends it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import orjson
from odd_replies import ODD

CREATED = 1_700_000_000  # a constant, as whole pipelines must come out the same byte for byte
ROLES = {"system", "developer", "user", "assistant", "tool"}
WORDS = [a + b for a in ("bel", "cor", "dan", "fir") for b in ("a", "ent", "ical", "ion", "ist", "ora", "ume", "y")]


class RequestError(Exception):
    """The request itself is wrong, whichever model it names."""


@dataclass(slots=True)
class Answer:
    """What is said to one request, and how it is sent. Behaviours change these fields."""

    request: dict[str, Any]
    base: str  # the model's name without its behaviours
    nth: int  # counts the requests for exactly this name, from 1

    text: str | None = None
    finish_reason: str = "stop"
    extra: dict[str, Any] = field(default_factory=dict)  # more keys of the message: reasoning, refusal, tool_calls
    logprobs: tuple[float, ...] = ()  # of the tokens one after the other, over and over; only where they are asked for
    choices: bool = True
    usage: bool = True
    cost: float | None = 0.001

    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None  # a body that stands instead of the completion
    wire: bytes | None = None  # a whole response, head and all, after which the connection is closed

    streamed: bool = False
    stream_type: str = "text/event-stream"
    wait: float = 0.0  # seconds before the first byte
    itl: float = 0.0  # seconds between the tokens of a stream
    drip: float = 0.0  # seconds before each single byte of the body
    chunks: int = 0  # tokens in a stream; 0 is as many as the text has
    cut: float = 1.0  # the share of the body after which the connection is closed; 0 is not even a status line
    done: bool = True
    comments: bool = False
    midfail: bool = False

    @property
    def model(self) -> str:
        return str(self.request["model"])

    def last_user_text(self) -> str:
        return next((text_of(m) for m in reversed(self.request["messages"]) if m["role"] == "user"), "")


# --- What is said ---


def tokens(text: str) -> int:
    """Count four characters as one token."""
    return -(-len(text) // 4)


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def digest(a: Answer) -> bytes:
    key = [a.base, a.request["messages"], a.request.get("seed"), a.request.get("temperature")]
    return hashlib.shake_128(orjson.dumps(key)).digest(64)


def prose(a: Answer, size: int = 256) -> str:
    """Return a text of exactly `size` characters that differs with every question."""
    seed = digest(a)
    text = f"{a.base} says {seed[:4].hex()}: " + " ".join([WORDS[b & 31] for b in seed])
    return (text * (size // len(text) + 1))[: size - 1] + "."


def analysis(a: Answer) -> str:
    """Return a judge's verdict over the responses that the prompt's fences name, ranked by the alphabet."""
    prompt = "\n".join(text_of(m) for m in a.request["messages"])
    labels = sorted(set(re.findall(r"RESPONSE ([A-Z]{1,2})\b", prompt)), key=lambda label: (len(label), label))
    several = len(labels) > 1
    verdict = {
        "reasoning": f"Reading {digest(a)[:4].hex()}: compared {', '.join(labels) or 'nothing'}.",
        "consensus": ["All responses address the question."] if labels else [],
        "contradictions": [{"topic": "the order", "stances": [{"model": x, "stance": f"as {x} says"} for x in labels]}]
        if several
        else [],
        "partial_coverage": [{"models": labels[:-1], "point": "a point that the last one leaves out"}]
        if several
        else [],
        "unique_insights": [{"model": x, "insight": f"only {x} says so"} for x in labels[:1]],
        "blind_spots": ["Nobody gives a source."],
        "ranking": labels,
    }
    return orjson.dumps(verdict).decode()


def tool_call(a: Answer) -> dict[str, Any]:
    """Call the tool that was asked for, or the first; give the text back once the tool has answered."""
    tools, choice = a.request.get("tools"), a.request.get("tool_choice")
    if not tools or choice == "none" or a.request["messages"][-1]["role"] == "tool":
        return {}
    wanted = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["function"]["name"]
    schema = {t["function"]["name"]: t["function"].get("parameters") or {} for t in tools}[wanted]
    values = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}
    arguments = {
        name: values.get(schema.get("properties", {}).get(name, {}).get("type"), a.last_user_text())
        for name in schema.get("required", ())
    }
    call = {"name": wanted, "arguments": orjson.dumps(arguments).decode()}
    calls = [{"id": f"call_{digest(a)[:4].hex()}", "type": "function", "function": call}]
    return {"text": None, "finish_reason": "tool_calls", "extra": {**a.extra, "tool_calls": calls}}


def research(a: Answer, *, injected: bool = False) -> dict[str, Any]:
    """Search for the question, fetch the first page that was found, and cite it: one step for each turn.

    Args:
        injected: do what a page says: fetch every address that stands in a result.
    """
    names = {tool.get("function", {}).get("name") for tool in a.request.get("tools") or []}
    results = [text_of(message) for message in a.request["messages"] if message["role"] == "tool"]
    found = [url for text in results for url in re.findall(r"https?://[^\s<>\"')]+", text)]
    if a.request.get("tool_choice") != "none" and not results and "web_search" in names:
        return called(a, "web_search", {"query": next((w for w in a.last_user_text().split() if len(w) > 3), "x")})
    if a.request.get("tool_choice") != "none" and len(results) == 1 and found and "web_fetch" in names:
        return called(a, "web_fetch", {"url": found[0]})
    if injected and a.request.get("tool_choice") != "none" and len(results) == 2 and "web_fetch" in names:
        return called(a, "web_fetch", {"url": found[-1]})
    return {"text": f"As [the page]({found[0]}) says." if found else "Nothing was found."}


def leak(a: Answer) -> dict[str, Any]:
    """Search, then fetch twice an address that carries the question away, spelled anew each time."""
    results = [text_of(message) for message in a.request["messages"] if message["role"] == "tool"]
    found = [url for text in results for url in re.findall(r"https?://[^\s<>\"')]+", text)]
    if a.request.get("tool_choice") == "none" or not found or len(results) > 2:
        return research(a)
    carried = a.last_user_text().split()[-1] + "&" * len(results)
    return called(a, "web_fetch", {"url": f"{found[0]}?q={carried}"})


def called(a: Answer, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": orjson.dumps(arguments).decode()}
    calls = [{"id": f"call_{digest(a)[:4].hex()}", "type": "function", "function": function}]
    return {"text": None, "finish_reason": "tool_calls", "extra": {**a.extra, "tool_calls": calls}}


def call_tools(a: Answer, calls: Any) -> dict[str, Any]:
    """Call tools, each with its arguments: an object, or a text as it is."""
    made = []
    for i, (name, given) in enumerate(calls if isinstance(calls, list) else []):
        function = {"name": name, "arguments": given if isinstance(given, str) else orjson.dumps(given).decode()}
        made.append({"id": f"call_{a.nth}_{i}", "type": "function", "function": function})
    return {"text": None, "finish_reason": "tool_calls", "extra": {**a.extra, "tool_calls": made}}


def sign(a: Answer) -> dict[str, Any]:
    signature = {"extra_content": {"google": {"thought_signature": digest(a)[:6].hex()}}}
    return {"extra": {**a.extra, "tool_calls": [{**call, **signature} for call in a.extra.get("tool_calls", ())]}}


#: Thoughts as OpenRouter gives those of each provider: every list is a whole one, of which texts come in pieces.
DETAILS: dict[str, list[dict[str, Any]]] = {
    "bare": [{"type": "reasoning.encrypted", "data": "ZGF0YQ==", "index": 0}],
    "claude": [
        {"type": "reasoning.text", "text": "Hm, France.", "signature": "c2ln", "index": 0},
        {"type": "reasoning.encrypted", "data": "aGlkZGVu", "index": 1},
    ],
    "openai": [
        {"type": "reasoning.summary", "summary": "It is France.", "format": "openai-responses-v1", "index": 0},
        {
            "type": "reasoning.encrypted",
            "data": "Z3B0",
            "id": "rs_1",
            "format": "openai-responses-v1",
            "index": 0,
        },
    ],
    "gemini": [{"type": "reasoning.encrypted", "data": "Z2Vt", "id": "c1", "format": "google-gemini-v1", "index": 0}],
}


def thoughts(a: Answer) -> dict[str, Any]:
    text = f"{a.base} thinks about it."
    return {"extra": {**a.extra, "reasoning_content": text, "reasoning": text}}


# --- What is refused ---


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return OpenAI's error envelope."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status)
    kind = kind or ("invalid_request_error" if 400 <= status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def fail(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"status": status, "raw": orjson.dumps(error(status, message, param, code))}


def fail_at_first(a: Answer, argument: str) -> dict[str, Any]:
    status, _, times = argument.partition(",")
    if times and a.nth > int(times):
        return {}
    return fail(int(status), f"upstream says {status} for {a.model}")


def unknown(a: Answer, _: str) -> dict[str, Any]:
    return fail(404, f"The model `{a.model}` does not exist", "model", "model_not_found")


def unsupported(a: Answer, param: str, advice: str = "") -> dict[str, Any]:
    if param not in a.request:
        return {}
    return fail(400, f"Unsupported parameter: '{param}' is not supported{advice}.", param, "unsupported_parameter")


def has_format(a: Answer, kind: str) -> bool:
    return (a.request.get("response_format") or {}).get("type") == kind


def page(status: int, text: str) -> dict[str, Any]:
    return {"status": status, "content_type": "text/html", "raw": f"<html><body><h1>{text}</h1></body></html>".encode()}


# --- The table: name → (answer, argument) → the fields of the answer that change ---

BEHAVIOURS: dict[str, Callable[[Answer, str], dict[str, Any]]] = {
    # Time
    "slow": lambda a, s: {"wait": float(s)},  # answers after S seconds
    "hang": lambda a, _: {"wait": 1e6},  # never answers
    "drip": lambda a, s: {"drip": float(s)},  # one byte of the body each S seconds, in streams too
    "itl": lambda a, s: {"itl": float(s)},  # S seconds between the tokens of a stream
    # Refusals
    "status": fail_at_first,  # =N[,TIMES]: an error; with TIMES, only for the first requests of exactly this name
    "retryafter": lambda a, s: (
        fail(429, f"upstream says 429 for {a.model}") | {"headers": {"Retry-After": s}} if a.nth == 1 else {}
    ),
    "noformat": lambda a, _: unsupported(a, "response_format"),
    "noschema": lambda a, _: (
        fail(400, "response_format type 'json_schema' is not supported; use 'json_object'", "response_format")
        if has_format(a, "json_schema")
        else {}
    ),
    "notemp": lambda a, _: unsupported(a, "temperature", " with this model"),
    "maxcompletion": lambda a, _: unsupported(a, "max_tokens", " with this model. Use 'max_completion_tokens' instead"),
    "nodeveloper": lambda a, _: (
        fail(400, "Invalid role 'developer': use one of system, user, assistant, tool", "messages")
        if any(m["role"] == "developer" for m in a.request["messages"])
        else {}
    ),
    "nothoughts": lambda a, _: (  # like Groq
        fail(400, "property 'reasoning_content' is unsupported")
        if any("reasoning_content" in m for m in a.request["messages"])
        else {}
    ),
    "systemfirst": lambda a, status: (  # =N: the status, 400 where none is given
        fail(int(status or 400), "System message must be at the beginning.")
        if any(m["role"] == "system" for m in a.request["messages"][1:])
        else {}
    ),
    "mosttokens": lambda a, most: (  # =N: the most that the model writes
        fail(400, f"Invalid max_tokens value, the valid range of max_tokens is [1, {most}]", "max_tokens")
        if a.request.get("max_tokens", 0) > int(most)
        else {}
    ),
    # =STATUS,WORDS: an error in these words
    "wording": lambda a, s: fail(int(s.partition(",")[0]), unquote(s.partition(",")[2])),
    "nousageopt": lambda a, _: unsupported(a, "stream_options"),
    "nologprobs": lambda a, status: (  # =N: the status, 403 where none is given, as OpenAI's reasoning models
        fail(int(status or 403), "You are not allowed to request logprobs from this model")
        if "logprobs" in a.request
        else {}
    ),
    # Answers that are none
    "html": lambda a, _: page(200, "Welcome"),
    "html502": lambda a, _: page(502, "Bad Gateway"),
    "garbage": lambda a, _: {"raw": b"this is { not JSON"},
    "err200": lambda a, _: fail(200, f"upstream says error for {a.model}", code="upstream_error"),
    "empty": lambda a, _: {"text": ""},
    "nochoices": lambda a, _: {"choices": False},
    "nullcontent": lambda a, _: {"text": None},
    "refuse": lambda a, _: {"text": None, "extra": {**a.extra, "refusal": "I cannot help with that."}},
    "length": lambda a, _: {"text": "", "finish_reason": "length"},
    "filter": lambda a, _: {"text": "", "finish_reason": "content_filter"},
    # The wire
    "odd": lambda a, kind: ODD.get(kind) or unknown(a, kind),  # what no reader should fall over: `odd_replies.py`
    "closeearly": lambda a, _: {"cut": 0.0},  # closes after the request without a byte
    "closehalf": lambda a, _: {"cut": 0.5},  # closes halfway through the body
    "midfail": lambda a, _: {"midfail": True},  # an error in band, halfway through the text
    "nodone": lambda a, _: {"done": False},  # a stream without [DONE]
    "comments": lambda a, _: {"comments": True},  # SSE comments and blank keep-alives; white space before plain JSON
    "nostream": lambda a, _: {"streamed": False},  # plain JSON even where a stream was asked for
    "unasked": lambda a, _: {"streamed": True},  # a stream even where none was asked for
    "kind": lambda a, kind: {"stream_type": unquote(kind), "content_type": unquote(kind)},
    "finish": lambda a, reason: {"finish_reason": unquote(reason)},
    "chunks": lambda a, n: {"chunks": int(n), "text": prose(a, 4 * int(n))},  # N tokens
    # Accounts
    "nousage": lambda a, _: {"usage": False},
    "nocost": lambda a, _: {"cost": None},
    "cost": lambda a, x: {"cost": float(x)},
    # Texts
    "text": lambda a, s: {"text": unquote(s)},
    "echo": lambda a, _: {"text": a.last_user_text()},
    "logprobs": lambda a, s: {"logprobs": tuple(map(float, s.split(",")))},  # =L,L,…: those of its tokens
    "big": lambda a, n: {"text": prose(a, int(n))},
    "reasoning": lambda a, _: thoughts(a),
    "details": lambda a, kind: {
        "extra": {**a.extra, "reasoning_details": DETAILS.get(kind, DETAILS["bare"])}
    },  # what it wants back
    "think": lambda a, _: {"text": f"<think>{a.base} thinks about it.</think>\n\n{a.text}"},
    "tool": lambda a, _: tool_call(a),
    "calls": lambda a, s: call_tools(a, orjson.loads(unquote(s))),  # =[[NAME, ARGUMENTS], …] as JSON, percent-encoded
    "research": lambda a, _: research(a),  # searches, fetches the first page, cites it
    "obeys": lambda a, _: research(a, injected=True),  # does what the page says, too
    "leaks": lambda a, _: leak(a),  # searches, and writes what it was asked into addresses of what it found
    "signed": lambda a, _: sign(a),  # Gemini's signature beside each call; comes after `tool`
    # Judges
    "judge": lambda a, _: {"text": analysis(a)},  # also the default where the name says judge or a format is asked for
    "ignoreformat": lambda a, _: {"text": prose(a)},
    "jsonfence": lambda a, _: {"text": f"Here is my analysis:\n```json\n{analysis(a)}\n```\n"},
    "trailingcomma": lambda a, _: {"text": analysis(a)[:-1] + ",}"},
    "badjson": lambda a, _: {"text": analysis(a)[: len(analysis(a)) // 2]},  # stops halfway
}


@lru_cache(maxsize=4096)
def parse_name(model: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Split `base+name=argument+…`."""
    base, *rest = model.split("+")
    pairs = [(name, argument) for name, _, argument in (item.partition("=") for item in rest if item)]
    return base, tuple(pairs)


def answer(request: dict[str, Any], nth: int = 1, scripted: str = "") -> Answer:
    """Answer one valid request; `scripted` is a string of further behaviours (`status=500+slow=1`)."""
    base, behaviours = parse_name(f"{request['model']}+{scripted}" if scripted else request["model"])
    a = Answer(request, base, nth, streamed=request.get("stream") is True)
    a.text = analysis(a) if "judge" in base or has_json_format(request) else prose(a)
    for name, argument in behaviours:
        try:
            changes = BEHAVIOURS.get(name, unknown)(a, argument)
        except ValueError:
            changes = unknown(a, argument)
        for key, value in changes.items():
            setattr(a, key, value)
    limit = request.get("max_completion_tokens", request.get("max_tokens"))
    if a.text and limit is not None and tokens(a.text) > limit:
        a.text, a.finish_reason = a.text[: 4 * limit], "length"
    return a


def has_json_format(request: dict[str, Any]) -> bool:
    return (request.get("response_format") or {}).get("type") in ("json_object", "json_schema")


def check(body: bytes) -> dict[str, Any]:
    """Return the request, or say what a strict endpoint would say about it."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as why:
        raise RequestError(f"We could not parse the JSON body of your request: {why}", None) from None
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise RequestError("you must provide a model parameter", "model")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("'messages' must be a non-empty list", "messages")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise RequestError(f"messages[{i}].role must be one of {sorted(ROLES)}", f"messages[{i}].role")
        if not isinstance(message.get("content"), str | list) and not message.get("tool_calls"):
            raise RequestError(f"messages[{i}].content must be text or parts", f"messages[{i}].content")
    if request.get("stream_options") is not None and request.get("stream") is not True:
        raise RequestError("'stream_options' is only allowed when 'stream' is true", "stream_options")
    for name in ("max_tokens", "max_completion_tokens"):
        if name in request and (not isinstance(request[name], int) or request[name] < 1):
            raise RequestError(f"'{name}' must be a positive integer", name)
    return request


# --- How it is written ---


def body(a: Answer) -> Iterator[tuple[float, bytes]]:
    """Yield the body in pieces, each with the seconds to wait before it."""
    if a.raw is not None:
        pieces: Iterator[tuple[float, bytes]] = iter([(0.0, a.raw)])
    elif a.streamed:
        pieces = events(a)
    else:
        pieces = iter([(0.0, b"\n \n" * a.comments + orjson.dumps(completion(a)))])
    if not a.drip:
        return pieces
    return ((a.drip, bytes([byte])) for _, piece in pieces for byte in piece)


def frame(a: Answer, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{digest(a)[:8].hex()}", "object": kind, "created": CREATED, "model": a.model}


def usage(a: Answer) -> dict[str, Any]:
    reasoning = tokens(a.extra.get("reasoning", ""))
    called = sum(tokens(call["function"]["arguments"]) for call in a.extra.get("tool_calls", ()))
    prompt = 3 + sum(4 + tokens(text_of(m)) for m in a.request["messages"])
    written = tokens(a.text or "") + reasoning + called
    counts = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    details = {"completion_tokens_details": {"reasoning_tokens": reasoning}} if reasoning else {}
    return counts | details | ({} if a.cost is None else {"cost": a.cost})


def completion(a: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": a.text, **a.extra}
    choice = {"index": 0, "message": message, "finish_reason": a.finish_reason}
    choice |= logprobs_of(a, 0, tokens(a.text or ""))
    if a.midfail:
        message["content"] = (a.text or "")[: len(a.text or "") // 2]
        choice |= {"finish_reason": "error"} | broken(a)
    return frame(a, "chat.completion") | {"choices": [choice] * a.choices} | ({"usage": usage(a)} if a.usage else {})


def logprobs_of(a: Answer, start: int, count: int) -> dict[str, Any]:
    """Return what a choice says of how likely so many tokens from this one on were."""
    if not (a.logprobs and a.request.get("logprobs")):
        return {}
    values = [a.logprobs[at % len(a.logprobs)] for at in range(start, start + count)]
    return {"logprobs": {"content": [{"token": "x", "logprob": value, "top_logprobs": []} for value in values]}}


def broken(a: Answer) -> dict[str, Any]:
    return error(502, f"upstream breaks off for {a.model}", code="upstream_error")


def events(a: Answer) -> Iterator[tuple[float, bytes]]:
    """Yield a stream as OpenAI writes it: the role, the pieces, the finish, the usage where asked for, [DONE]."""
    base = frame(a, "chat.completion.chunk")

    def event(delta: dict[str, Any], finish: str | None = None, at: int | None = None, **more: Any) -> bytes:
        sure = {} if at is None else logprobs_of(a, at, 1)
        choices = [{"index": 0, "delta": delta, "finish_reason": finish, **sure}] * a.choices
        return b"data: " + orjson.dumps({**base, "choices": choices, **more}) + b"\n\n"

    deltas = list(pieces_of(a))
    yield 0.0, event({"role": "assistant", "content": ""})
    for i, delta in enumerate(deltas):
        if a.comments and i % 8 == 0:
            yield 0.0, b": OPENROUTER PROCESSING\n\n\n\n"
        if a.midfail and i >= len(deltas) // 2:
            yield a.itl, event({"content": ""}, "error", **broken(a))
            return
        yield a.itl if i else 0.0, event(delta, at=i)
    yield 0.0, event({}, a.finish_reason)
    if a.usage and (a.request.get("stream_options") or {}).get("include_usage"):
        yield 0.0, b"data: " + orjson.dumps({**base, "choices": [], "usage": usage(a)}) + b"\n\n"
    if a.done:
        yield 0.0, b"data: [DONE]\n\n"


def pieces_of(a: Answer) -> Iterator[dict[str, Any]]:
    """Yield the message as deltas: reasoning, then text in tokens, then tool calls in fragments."""
    if "reasoning" in a.extra:
        text = a.extra["reasoning"]
        for part in (text[: len(text) // 2], text[len(text) // 2 :]):
            yield {"reasoning_content": part, "reasoning": part}
    for detail in a.extra.get("reasoning_details", ()):
        for name in ("text", "summary"):
            if name in detail:
                yield {
                    "reasoning_details": [{"type": detail["type"], name: detail[name][:3], "index": detail["index"]}]
                }
                detail = {**detail, name: detail[name][3:]}
        yield {"reasoning_details": [detail]}
    if "refusal" in a.extra:
        yield {"refusal": a.extra["refusal"]}
    if a.text:
        n = a.chunks or min(tokens(a.text), 1024)
        for i in range(n):
            yield {"content": a.text[i * len(a.text) // n : (i + 1) * len(a.text) // n]}
    for index, call in enumerate(a.extra.get("tool_calls", ())):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield {"tool_calls": [{"index": index, **call, "function": {"name": name, "arguments": ""}}]}
        for part in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}
