"""What no reader should fall over: the arguments of the stand-in's behaviour `odd`, as in `fake/a+odd=bom`.

A kind is a set of changes to an `Answer` of `fake_models.py`: status, headers and body, or `wire`: all bytes of a
response, its head included, after which the connection is closed.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import orjson

JSON, SSE = "application/json", "text/event-stream"
TEXT = "Paris is the capital of France."
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
DIGITS = b"9" * 400
BOMB_BLOCKS = 100


def nested(depth: int, key: str = "") -> bytes:
    """Return JSON that is nested so deep: lists, or objects under this key."""
    opens, closes = (b'{"%b":' % key.encode(), b"}") if key else (b"[", b"]")
    return opens * depth + b"1" + closes * depth


def reply(message: Any = None, **changes: Any) -> bytes:
    """Return a chat completion with this message; keys that are given replace its own."""
    said = {"role": "assistant", "content": TEXT} if message is None else message
    choice = {"index": 0, "message": said, "finish_reason": "stop"}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    return orjson.dumps({**whole, **changes})


def said(**changes: Any) -> bytes:
    return reply({"role": "assistant", "content": TEXT, **changes})


def choice(**changes: Any) -> bytes:
    whole = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    return reply(choices=[{**whole, **changes}])


def with_json(key: bytes, value: bytes, **message: Any) -> bytes:
    """Return a completion in which the text "HERE" of a message or of its usage became this JSON."""
    body = said(**message) if message else reply(**{key.decode(): "HERE"})
    return body.replace(b'"HERE"', value, 1)


def event(delta: Any, **more: Any) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": delta, "finish_reason": None}]
    return b"data: " + orjson.dumps({**chunk, "choices": choices, **more}) + b"\n\n"


START, WORDS, DONE = event({"role": "assistant", "content": ""}), event({"content": TEXT}), b"data: [DONE]\n\n"
END = event({}).replace(b'"finish_reason":null', b'"finish_reason":"stop"')
STREAM = START + WORDS + END + DONE


def stream(*pieces: bytes) -> dict[str, Any]:
    return {"raw": b"".join(pieces), "content_type": SSE}


def plain(raw: bytes, content_type: str = JSON) -> dict[str, Any]:
    return {"raw": raw, "content_type": content_type}


def coded(encoding: str, raw: bytes) -> dict[str, Any]:
    return {"raw": raw, "headers": {"Content-Encoding": encoding}}


def refused(status: int, raw: bytes = b'{"error": {"message": "no"}}', **headers: str) -> dict[str, Any]:
    return {"status": status, "raw": raw, "headers": {name.replace("_", "-"): value for name, value in headers.items()}}


def wire(*pieces: bytes) -> dict[str, Any]:
    return {"wire": b"".join(pieces)}


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join((status, "Content-Type: application/json", *lines, "", "")).encode("latin-1")


def length(body: bytes, more: int = 0) -> str:
    return f"Content-Length: {len(body) + more}"


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def bomb() -> bytes:
    """Return 100 MB of blanks as gzip has them, without compressing so many: each start of the stand-in makes it."""
    block = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    repeated = block.compress(b" " * 1_000_000) + block.flush(zlib.Z_FULL_FLUSH)
    # The sum behind the last block is none: nobody reads so far.
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + repeated * BOMB_BLOCKS + block.flush() + bytes(8)


WHOLE = reply()
GZIPPED = gzip.compress(WHOLE)
BOMB = bomb()

WAITS = {
    "date_far": "Wed, 21 Oct 99999 07:28:00 GMT",
    "date_past": "Wed, 21 Oct 2015 07:28:00 GMT",
    "date_year_0": "Wed, 21 Oct 0000 07:28:00 -9999",
    "date_no_day": "Wed, 32 Foo 2015 99:99:99 GMT",
    "zone_huge": "Wed, 21 Oct 2015 07:28:00 +99999999999",
    "zone_early": "Mon, 01 Jan 1 00:00:00 +2359",
    "digits": "9" * 400,
    "fraction": "0." + "9" * 400,
    "negative": "-1",
    "nan": "nan",
    "infinite": "inf",
    "exponent": "1e400",
    "words": "soon",
    "empty": "",
    "foreign_digits": "٣",
}
REFUSALS = {
    **{f"wait_{name}": refused(503, Retry_After=value) for name, value in WAITS.items()},
    # In these words no other model of the endpoint waits.
    **{
        f"limit_{name}": refused(429, b'{"error": {"message": "rate-limited upstream"}}', Retry_After=value)
        for name, value in WAITS.items()
    },
    "wait_ms_digits": refused(503, **{"Retry-After-Ms": "9" * 400}),
    "redirect_self": refused(302, b"", Location="/v1/chat/completions"),
    "redirect_file": refused(301, b"", Location="file:///etc/passwd"),
    "redirect_away": refused(307, b"", Location="http://127.0.0.1:9/v1/chat/completions"),
    "redirect_nowhere": refused(308, b""),
    "redirect_garbage": refused(303, b"", Location="http://[::1:99999/" + "9" * 400),
    "error_deep": refused(400, b'{"error":' + nested(990, "error") + b"}"),
    "error_deep_list": refused(500, nested(990)),
    "error_text": refused(400, b'{"error": "no"}'),
    "error_number": refused(400, b'{"error": 7}'),
    "error_list": refused(422, b'{"detail": [{"loc": ["body"], "msg": "no"}, null, 7]}'),
    "error_null": refused(400, b'{"error": null}'),
    "error_message_list": refused(400, b'{"error": {"message": ["a", {"b": 1}], "code": {"c": []}, "type": 3}}'),
    "error_html": {"status": 502, "raw": b"<html>" + b"<p>no</p>" * 10_000, "content_type": "text/html"},
    "error_empty": refused(500, b""),
    "error_huge": refused(500, b'{"error": {"message": "' + b"no " * 1_000_000 + b'"}}'),
    "error_latin_1": refused(400, b'{"error": {"message": "caf\xe9"}}'),
    "error_controls": refused(400, b'{"error": {"message": "\\u0000\\u001b[31m\\u2028\\u0085\\ud800"}}'),
    "error_gzip": refused(500, gzip.compress(b'{"error": {"message": "no"}}'), Content_Encoding="gzip"),
    "error_gzip_bomb": refused(500, BOMB, Content_Encoding="gzip"),
    "www_authenticate": refused(401, WWW_Authenticate='Basic realm="' + "x" * 5000 + '"'),
    "status_204": refused(204, b""),
    "status_206": refused(206, WHOLE[:60]),
}
BODIES = {
    "empty": plain(b""),
    "spaces": plain(b" \n" * 5000),
    "null": plain(b"null"),
    "number": plain(b"7"),
    "text": plain(b'"Paris"'),
    "list": plain(b"[" + WHOLE + b"]"),
    "object_empty": plain(b"{}"),
    "twice": plain(WHOLE + WHOLE),
    "cut_json": plain(WHOLE[: len(WHOLE) // 2]),
    "bom": plain(b"\xef\xbb\xbf" + WHOLE),
    "utf_16": plain(WHOLE.decode().encode("utf-16"), "application/json; charset=utf-16"),
    "latin_1": plain(said(content="café").decode().encode("latin-1")),
    "nul_bytes": plain(b"\0" * 5000),
    "callback": plain(b"callback(" + WHOLE + b")"),
    "xml": plain(b"<?xml version='1.0'?><error>no</error>", "application/xml"),
    "html_login": plain(b"<!doctype html><title>Sign in</title>" + b"<br>" * 5000, "text/html"),
    "nan": plain(with_json(b"usage", b'{"cost": NaN}')),
    "infinity": plain(with_json(b"usage", b'{"cost": 1e999}')),
    "digits_400": plain(with_json(b"created", DIGITS)),
    "same_key_twice": plain(b'{"choices": null, ' + WHOLE[1:]),
    "deep_unknown": plain(with_json(b"x_extra", nested(990))),
    "deep_usage": plain(with_json(b"usage", nested(300, "cost"))),
    "deep_content": plain(with_json(b"", nested(300), content="HERE")),
    "deep_reasoning": plain(with_json(b"", nested(300, "text"), reasoning_content="HERE")),
    "choices_null": plain(reply(choices=None)),
    "choices_object": plain(reply(choices={"0": {}})),
    "choices_text": plain(reply(choices="Paris")),
    "choices_of_null": plain(reply(choices=[None, 7, "x"])),
    "message_null": plain(choice(message=None)),
    "message_text": plain(choice(message="Paris")),
    "message_list": plain(choice(message=[TEXT])),
    "finish_number": plain(choice(finish_reason=7)),
    "finish_object": plain(choice(finish_reason={"type": "stop"})),
    "error_in_choice": plain(choice(error={"message": "no", "code": 502})),
    "error_beside": plain(reply(error={"message": "no"})),
    "base_resp": plain(reply(base_resp={"status_code": 1002, "status_msg": "no"})),
    "content_number": plain(said(content=7)),
    "content_object": plain(said(content={"text": {"value": TEXT}})),
    "content_odd_parts": plain(said(content=[None, 7, {"type": "text"}, {"type": "text", "text": 7}, ["x"]])),
    "content_nul": plain(said(content="\0\0\0")),
    "content_invisible": plain(said(content="\u200b\u2060\ufeff")),
    "content_surrogate": plain(WHOLE.replace(b"Paris", rb"\ud800")),
    "refusal_object": plain(said(content=None, refusal={"a": 1})),
    "model_number": plain(reply(model=7)),
    "calls_object": plain(said(tool_calls={"0": CALL})),
    "calls_of_null": plain(said(tool_calls=[None, 7, []])),
    "call_index_text": plain(said(tool_calls=[{**CALL, "index": "zero"}])),
    "call_no_function": plain(said(content=None, tool_calls=[{"id": "c1"}])),
    "call_arguments_object": plain(said(tool_calls=[{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}])),
    "call_arguments_number": plain(said(tool_calls=[{**CALL, "function": {"name": "f", "arguments": 7}}])),
    "call_name_list": plain(said(tool_calls=[{**CALL, "id": 7, "function": {"name": ["f"], "arguments": "{}"}}])),
    "usage_empty": plain(reply(usage={})),
    "usage_text": plain(reply(usage="many")),
    "usage_texts": plain(reply(usage=dict.fromkeys(USAGE, "11"))),
    "usage_negative": plain(reply(usage=dict.fromkeys(USAGE, -1_000_000))),
    "usage_huge": plain(reply(usage=dict.fromkeys(USAGE, 1e30))),
    "usage_digits": plain(with_json(b"usage", b'{"prompt_tokens": ' + DIGITS + b"}")),
    "usage_totals": plain(reply(usage={"total_tokens": 14})),
    "usage_list": plain(reply(usage=[USAGE])),
    "usage_details_text": plain(reply(usage={**USAGE, "prompt_tokens_details": "x", "cost_details": [1]})),
    "cost_negative": plain(reply(usage={**USAGE, "cost": -5})),
    "cost_text": plain(reply(usage={**USAGE, "cost": "$5"})),
    "cost_huge": plain(reply(usage={**USAGE, "cost": 1e300})),
    "type_none": plain(WHOLE, ""),
    "type_image": plain(WHOLE, "image/png"),
    "type_stream": plain(WHOLE, SSE),
    "type_garbage": plain(WHOLE, ";;;=,=;charset=\x7f"),
    "type_long": plain(WHOLE, "application/json; x=" + "y" * 20_000),
    "gzip_bomb": coded("gzip", BOMB),
    "gzip_bomb_nested": coded("gzip", gzip.compress(BOMB)),
    "gzip_cut": coded("gzip", GZIPPED[: len(GZIPPED) // 2]),
    "gzip_plain": coded("gzip", WHOLE),
    "gzip_twice": coded("gzip, gzip", gzip.compress(GZIPPED)),
    "gzip_and_more": coded("gzip", GZIPPED + b"more"),
    "deflate_raw": coded("deflate", zlib.compress(WHOLE)[2:-4]),
    "encoding_unknown": coded("br", WHOLE),
    "encoding_many": coded(", ".join(["gzip"] * 500), GZIPPED),
}
STREAMS = {
    "sse_cr_only": stream(STREAM.replace(b"\n", b"\r")),
    "sse_crlf": stream(STREAM.replace(b"\n", b"\r\n")),
    "sse_bom": stream(b"\xef\xbb\xbf", STREAM),
    "sse_no_space": stream(STREAM.replace(b"data: ", b"data:")),
    "sse_comments_only": stream(b": waiting\n\n" * 5000),
    "sse_empty": stream(),
    "sse_done_only": stream(DONE),
    "sse_done_twice": stream(STREAM, DONE, WORDS),
    "sse_no_end": stream(START, WORDS),
    "sse_no_blank_line": stream(STREAM.rstrip(b"\n")),
    "sse_fields": stream(b"id: \0\nretry: ", DIGITS, b"\nevent: message\nfoo: bar\n", STREAM),
    "sse_many_lines": stream(WORDS.replace(b'"choices":', b'\ndata: "choices":\ndata: '), END, DONE),
    "sse_null": stream(START, b"data: null\n\n", WORDS, END, DONE),
    "sse_number": stream(START, b"data: 7\n\n", END, DONE),
    "sse_list": stream(START, b"data: [[]]\n\n", END, DONE),
    "sse_broken_json": stream(START, b'data: {"choices": [\n\n', WORDS, END, DONE),
    "sse_error": stream(START, WORDS, b'data: {"error": {"message": "no", "code": 502}}\n\n'),
    "sse_error_event": stream(START, b'event: error\ndata: {"type": "error", "error": null}\n\n', DONE),
    "sse_line_of_5_mb": stream(START, b"data: " + b"x" * 5_000_000),
    "sse_latin_1": stream(event({"content": "é"}).decode().encode("latin-1"), END, DONE),
    "sse_deep": stream(START, b"data: " + nested(990, "choices") + b"\n\n", WORDS, END, DONE),
    "sse_delta_null": stream(event(None), WORDS, END, DONE),
    "sse_delta_text": stream(event("Paris"), END, DONE),
    "sse_content_number": stream(event({"content": 7}), END, DONE),
    "sse_reasoning_object": stream(event({"reasoning_content": {"a": [1]}}), WORDS, END, DONE),
    "sse_choices_odd": stream(b'data: {"choices": {"0": 7}}\n\n', b'data: {"choices": [null]}\n\n', END, DONE),
    "sse_index_text": stream(event({"tool_calls": [{**CALL, "index": "zero"}]}), END, DONE),
    "sse_index_negative": stream(event({"tool_calls": [{**CALL, "index": -1}]}), END, DONE),
    "sse_index_huge": stream(event({"tool_calls": [{**CALL, "index": 10**15}]}), END, DONE),
    "sse_index_list": stream(event({"tool_calls": [{**CALL, "index": [0]}]}), END, DONE),
    "sse_call_null": stream(event({"tool_calls": [None, {"index": 0}]}), END, DONE),
    "sse_usage_each": stream(START, event({"content": "a"}, usage=USAGE), event({"content": "b"}, usage={}), END, DONE),
    "sse_usage_odd": stream(WORDS, END, b'data: {"choices": [], "usage": {"prompt_tokens": "x"}}\n\n', DONE),
    "sse_gzip": {**coded("gzip", gzip.compress(STREAM)), "content_type": SSE},
    "sse_gzip_bomb": {**coded("gzip", BOMB), "content_type": SSE},
}
WIRES = {
    "line_garbage": wire(b"\x16\x03\x01\x02\x00 no HTTP at all\r\n\r\n"),
    "line_0_9": wire(WHOLE),
    "line_2_0": wire(head(length(WHOLE), status="HTTP/2.0 200 OK"), WHOLE),
    "line_status_text": wire(head(length(WHOLE), status="HTTP/1.1 fine OK"), WHOLE),
    "line_status_1000": wire(head(length(WHOLE), status="HTTP/1.1 1000 Much"), WHOLE),
    "line_status_99": wire(head(length(WHOLE), status="HTTP/1.1 099 Less"), WHOLE),
    "head_unfinished": wire(head(length(WHOLE))[:-2]),
    "head_no_colon": wire(head("Nonsense", length(WHOLE)), WHOLE),
    "head_folded": wire(head("X-Long: a", " b", length(WHOLE)), WHOLE),
    "head_controls": wire(head("X-Odd: a\x00b", length(WHOLE)), WHOLE),
    "head_1_mb": wire(head("X-Long: " + "y" * 1_000_000, length(WHOLE)), WHOLE),
    "head_10000_lines": wire(head(*[f"X-{i}: y" for i in range(10_000)], length(WHOLE)), WHOLE),
    "length_negative": wire(head("Content-Length: -1"), WHOLE),
    "length_text": wire(head("Content-Length: many"), WHOLE),
    "length_digits": wire(head("Content-Length: " + "9" * 400), WHOLE),
    "length_short": wire(head(length(WHOLE, -9)), WHOLE),
    "length_long": wire(head(length(WHOLE, 9)), WHOLE),
    "length_twice": wire(head(length(WHOLE), length(WHOLE, 1)), WHOLE),
    "length_and_chunks": wire(head(length(WHOLE), "Transfer-Encoding: chunked"), chunked(WHOLE, b"")),
    "length_none": wire(head(), WHOLE),
    "chunk_size_text": wire(head("Transfer-Encoding: chunked"), b"many\r\n", WHOLE, b"\r\n0\r\n\r\n"),
    "chunk_size_huge": wire(head("Transfer-Encoding: chunked"), b"f" * 40 + b"\r\n", WHOLE),
    "chunk_cut": wire(head("Transfer-Encoding: chunked"), chunked(WHOLE)[:-30]),
    "chunk_no_end": wire(head("Transfer-Encoding: chunked"), chunked(WHOLE)),
    "chunk_trailers": wire(
        head("Transfer-Encoding: chunked"), chunked(WHOLE), b"0\r\nX-Odd: y\r\nContent-Length: 3\r\n\r\n"
    ),
    "chunk_bytes": wire(head("Transfer-Encoding: chunked"), chunked(*[bytes([b]) for b in WHOLE], b"")),
    "transfer_unknown": wire(head("Transfer-Encoding: gzip"), GZIPPED),
    "continue_1000": wire(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, head(length(WHOLE)), WHOLE),
    "early_hints": wire(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", head(length(WHOLE)), WHOLE),
    "switching": wire(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", b"\x81\x05hello"),
    "two_responses": wire(head(length(WHOLE)), WHOLE, head(length(WHOLE)), WHOLE),
    "bytes_after": wire(head(length(WHOLE)), WHOLE, b"and more"),
    "http_1_0": wire(head(status="HTTP/1.0 200 OK"), WHOLE),
    "upgrade": wire(head("Connection: Upgrade", "Upgrade: h2c", length(WHOLE)), WHOLE),
}
#: Every kind by its name.
ODD: dict[str, dict[str, Any]] = {**REFUSALS, **BODIES, **STREAMS, **WIRES}
