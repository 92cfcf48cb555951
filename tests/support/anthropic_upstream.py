"""A stand-in for Anthropic's Messages API on loopback, in a process of its own, as strict as the real one.

    python tests/support/anthropic_upstream.py [--port 0] [--key KEY]

It is `upstream.py` (the same server, control requests and options) behind another API: `POST /v1/messages`, plain or
streamed. What is refused stands in `anthropic_rules.py`. What a model answers stands in its name, as `fake_models.py`
reads it; the behaviours of this API alone are the traits of `anthropic_rules.py` and the table `ANSWERS` below.

    GET /stats    also cache_reads and cache_writes: requests that found a marked prefix, or left one, and their tokens
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import signal
from collections.abc import Iterator
from itertools import chain
from typing import Any

import anthropic_rules
import fake_models
import orjson
import upstream
from fake_models import Answer, tokens

#: Fewer tokens are not kept.
SHORTEST_PREFIX = 1024
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
#: What only this API's models do; the value is the stop reason, where it makes one.
ANSWERS = {
    "thinks": None,  # thinks before it answers
    "redacts": None,  # thinks, and shows nothing of it
    "twice": None,  # calls its tool twice at once
    "pings": None,  # pings, and events and deltas of kinds that nobody knows
    "nostop": None,  # ends its stream without message_stop
    "refuses": "refusal",  # after half a text
    "pauses": "pause_turn",
    "overflows": "model_context_window_exceeded",
    "stops": "stop_sequence",
}


class Messages(upstream.Upstream):
    """What all connections share; and the cache of prefixes."""

    def reset(self) -> None:
        super().reset()
        self.prefixes: set[bytes] = set()
        self.cache_reads = self.cache_writes = 0
        self.cache_read_tokens = self.cache_write_tokens = 0

    def stats(self) -> dict[str, Any]:
        counts = ("cache_reads", "cache_writes", "cache_read_tokens", "cache_write_tokens")
        return super().stats() | {name: getattr(self, name) for name in counts}

    def admits(self, headers: dict[str, str]) -> bool:
        return True

    def complete(self, headers: dict[str, str], body: bytes) -> upstream.Pieces:
        self.requests += 1
        if "x-api-key" not in headers:
            return refusal(401, "x-api-key header is required")
        if self.key and headers["x-api-key"] != self.key:
            return refusal(401, "invalid x-api-key")
        if headers.get("anthropic-version") != "2023-06-01":
            return refusal(400, "anthropic-version: header is required")
        if not headers.get("content-type", "").startswith("application/json"):
            return refusal(400, "content-type: must be application/json")
        try:
            request = orjson.loads(body)
            name = str(request.get("model"))
            self.per_model[name] += 1
            if self.record:
                self.recorded.append({"headers": headers, "body": request})
            script = self.scripts.get(name)
            words = name.split("+") + (script.popleft().split("+") if script else [])
            own = {word.partition("=")[0]: word.partition("=")[2] for word in words[1:]}
            traits = {key: value for key, value in own.items() if key in anthropic_rules.TRAITS}
            anthropic_rules.check(request, traits, "anthropic-beta" in headers)
        except orjson.JSONDecodeError as why:
            return refusal(400, f"The request body is not valid JSON: {why}")
        except anthropic_rules.Refused as why:
            return refusal(400, str(why))
        known = {*anthropic_rules.TRAITS, *ANSWERS}
        rest = "+".join(word for word in words if word.partition("=")[0] not in known)
        answer = fake_models.answer({**as_openai(request), "model": rest}, self.per_model[name])
        answer.request["model"] = name
        answer.wait += self.latency
        return self.respond(request, answer, own)

    def respond(self, request: dict[str, Any], a: Answer, own: dict[str, str]) -> upstream.Pieces:
        if a.raw is not None:
            if a.content_type == "application/json" and b'"error"' in a.raw:
                message = orjson.loads(a.raw)["error"]["message"]
                a.raw = orjson.dumps(error(a.status if a.status >= 400 else 500, message))
            return sent(a, iter([(0.0, a.raw)]))
        if a.finish_reason == "stop" and request.get("stop_sequences"):
            self._stop(a, request["stop_sequences"])
        reason = next((ANSWERS[name] for name in own if ANSWERS.get(name)), None) or STOPS[a.finish_reason]
        if reason == "refusal":
            a.text = (a.text or "")[: len(a.text or "") // 2]
        message = {
            "id": f"msg_{fake_models.digest(a)[:8].hex()}",
            "type": "message",
            "role": "assistant",
            "model": a.base,
            "content": content_of(a, own),
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": self.usage(request, a),
        }
        if reason == "refusal":
            message["stop_details"] = {
                "type": "refusal",
                "category": "cyber",
                "explanation": "I cannot help with that.",
            }
        if not a.usage:
            message["usage"] = None
        if a.streamed:
            return sent(a, events(a, message, own))
        return sent(a, iter([(0.0, orjson.dumps(message))]))

    def _stop(self, a: Answer, stops: list[str]) -> None:
        found = [at for stop in stops if (at := (a.text or "").find(stop)) >= 0]
        a.text = (a.text or "")[: min(found)] if found else a.text

    def usage(self, request: dict[str, Any], a: Answer) -> dict[str, Any]:
        """Count the tokens; what ends with a mark is kept, and found again by the longest prefix."""
        system = request.get("system", [])
        blocks = [*request.get("tools", []), *([{"text": system}] if isinstance(system, str) else system)]
        for turn in request["messages"]:
            blocks += [{"role": turn["role"], **block} for block in anthropic_rules.blocks_of(turn)]
        so_far, total, ends = hashlib.sha256(), 0, []
        for block in blocks:
            text = orjson.dumps({name: value for name, value in block.items() if name != "cache_control"})
            so_far.update(text)
            total += tokens(text.decode())
            if "cache_control" in block and total >= SHORTEST_PREFIX:
                ends.append((so_far.digest(), total))
        read = max((size for end, size in ends if end in self.prefixes), default=0)
        written = max((size for _, size in ends), default=0) - read
        self.prefixes.update(end for end, _ in ends)
        self.cache_reads += read > 0
        self.cache_writes += written > 0
        self.cache_read_tokens += read
        self.cache_write_tokens += written
        called = sum(tokens(call["function"]["arguments"]) for call in a.extra.get("tool_calls", ()))
        return {
            "input_tokens": total - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "output_tokens": tokens(a.text or "") + called,
            "service_tier": "standard",
        }


def as_openai(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request as `fake_models` reads it: text only."""
    system = request.get("system") or []
    messages = [{"role": "system", "content": system if isinstance(system, str) else text_of(system)}] if system else []
    for turn in request["messages"]:
        blocks = anthropic_rules.blocks_of(turn)
        tool = turn["role"] == "user" and blocks[-1]["type"] == "tool_result"
        messages.append({"role": "tool" if tool else turn["role"], "content": text_of(blocks)})
    wanted = {name: request[name] for name in ("max_tokens", "stream", "temperature") if name in request}
    if tools := [tool for tool in request.get("tools", []) if "input_schema" in tool]:
        functions = [{"name": tool["name"], "parameters": tool["input_schema"]} for tool in tools]
        wanted["tools"] = [{"type": "function", "function": function} for function in functions]
        choice = request.get("tool_choice", {})
        wanted["tool_choice"] = (
            {"function": {"name": choice["name"]}} if "name" in choice else choice.get("type", "auto")
        )
    if "format" in request.get("output_config", {}):
        wanted["response_format"] = {"type": "json_schema"}
    return {"messages": messages, **wanted}


def text_of(blocks: list[dict[str, Any]]) -> str:
    texts = (b["content"] if isinstance(b.get("content"), str) else text_of(b.get("content", [])) for b in blocks)
    return "".join(b.get("text", "") + inner for b, inner in zip(blocks, texts, strict=True))


def content_of(a: Answer, own: dict[str, str]) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if "thinks" in own:
        blocks.append({"type": "thinking", "thinking": f"{a.base} thinks about it.", "signature": "c2ln"})
    if "redacts" in own:
        blocks.append({"type": "redacted_thinking", "data": "aGlkZGVu"})
    if a.text:
        half = len(a.text) // 2
        pieces = (a.text[:half], a.text[half:])
        blocks += [{"type": "text", "text": piece} for piece in pieces if piece]
    for n, call in enumerate(a.extra.get("tool_calls", ()) * (2 if "twice" in own else 1)):
        own_id, function = call["id"].replace("call", "toolu"), call["function"]
        given = orjson.loads(function["arguments"])
        blocks.append({"type": "tool_use", "id": f"{own_id}_{n}", "name": function["name"], "input": given})
    return blocks


def events(a: Answer, message: dict[str, Any], own: dict[str, str]) -> Iterator[tuple[float, bytes]]:
    """Yield a stream as the API writes it."""

    def event(kind: str, **more: Any) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **more}))

    usage, odd = message["usage"], "pings" in own
    started = {**message, "content": [], "stop_reason": None, "usage": usage and {**usage, "output_tokens": 1}}
    started.pop("stop_details", None)
    if odd:
        yield 0.0, event("ping")
    yield 0.0, event("message_start", message=started)
    for index, block in enumerate(message["content"]):
        if a.midfail and index:
            yield 0.0, event("error", error={"type": "overloaded_error", "message": "Overloaded"})
            return
        empty, deltas = pieces_of(block, a.chunks)
        yield 0.0, event("content_block_start", index=index, content_block=empty)
        yield 0.0, event("ping")
        for n, delta in enumerate(deltas):
            if odd:
                yield 0.0, event("content_block_delta", index=index, delta={"type": "odd_delta", "odd": "?"})
                yield 0.0, event("odd_event", odd="?")
            yield a.itl if n else 0.0, event("content_block_delta", index=index, delta=delta)
        yield 0.0, event("content_block_stop", index=index)
    stopped = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details") if name in message}
    # What did not change is null, as it may be.
    counts = usage and {"output_tokens": usage["output_tokens"], "cache_read_input_tokens": None}
    yield 0.0, event("message_delta", delta=stopped, usage=counts)
    if "nostop" not in own:
        yield 0.0, event("message_stop")


def pieces_of(block: dict[str, Any], chunks: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a block as it starts, and the deltas that fill it."""
    kind = block["type"]
    if kind == "tool_use":
        given = orjson.dumps(block["input"]).decode() if block["input"] else ""
        half = len(given) // 2
        pieces = ("", given[:half], given[half:]) if given else ("",)
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    if kind not in ("text", "thinking"):
        return block, []
    text = block[kind]
    n = chunks or min(tokens(text), 64)
    pieces = [text[i * len(text) // n : (i + 1) * len(text) // n] for i in range(n)]
    deltas = [{"type": f"{kind}_delta", kind: piece} for piece in pieces]
    if kind == "thinking":
        return {"type": kind, kind: "", "signature": ""}, [*deltas, {"type": "signature_delta", "signature": "c2ln"}]
    return {"type": kind, kind: ""}, deltas


def sent(a: Answer, pieces: Iterator[tuple[float, bytes]]) -> upstream.Pieces:
    """Return the whole HTTP response, cut or dripping as the answer says."""
    if a.drip:
        pieces = ((a.drip, bytes([byte])) for _, piece in pieces for byte in piece)
    rest = list(pieces)
    if a.streamed and a.raw is None:
        head = upstream.head_of(200, "text/event-stream; charset=utf-8", "Transfer-Encoding: chunked\r\n")
        rest = [(wait, b"%x\r\n%b\r\n" % (len(piece), piece)) for wait, piece in rest]
        rest.append((0.0, b"0\r\n\r\n"))
    else:
        more = "".join(f"{name}: {value}\r\n" for name, value in a.headers.items())
        length = sum(len(piece) for _, piece in rest)
        head = upstream.head_of(a.status, a.content_type, f"{more}Content-Length: {length}\r\n")
    if a.cut < 1:
        return chain([(a.wait, head if a.cut else b"")], upstream.cut_off(rest, a.cut))
    return iter([(a.wait, head), *rest])


def error(status: int, message: str) -> dict[str, Any]:
    said = {"type": TYPES.get(status, "api_error"), "message": message}
    return {"type": "error", "error": said, "request_id": "req_011"}


def refusal(status: int, message: str) -> upstream.Pieces:
    return upstream.json_response(status, error(status, message))


class Connection(upstream.Connection):
    """One client of this API."""

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        if (method, path) == ("POST", "/v1/messages"):
            super().respond(method, "/v1/chat/completions", headers, body)
        elif (method, path) in upstream.CONTROL:
            super().respond(method, path, headers, body)
        else:
            self.answer = refusal(404, "Not found")
            self.play()


async def listen(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    shared = Messages(options.key, record=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(shared, loop), "127.0.0.1", options.port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    upstream.end_with_parent(loop, stop)
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--key", help="refuse requests without this key")
    upstream.run(listen(parser.parse_args()))


if __name__ == "__main__":
    main()
