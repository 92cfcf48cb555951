"""Endpoints that refuse: what one refusal teaches, and an endpoint that is as strict as a function says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from scripted import MESSAGES

from fusiontools.config.models import Endpoint
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.http import HttpBackend, HttpReply
from fusiontools.llm.quirks import Quirks

CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def refusal(message: str, param: str | None = None, status: int = 400) -> CallFailed:
    return CallFailed("bad_request", f"HTTP {status}: {message}", status=status, param=param)


def request_with(**params: Any) -> CompletionRequest:
    return CompletionRequest("there", "m", MESSAGES, params)


def taught(
    request: CompletionRequest, *failures: CallFailed, stream: bool = False
) -> tuple[dict[str, Any], list[bool]]:
    """Return the body after these refusals, each of what was sent before it, and which of them taught something."""
    quirks = Quirks()
    learned = [quirks.learn(failure, request, quirks.body(request, stream=stream)) for failure in failures]
    return quirks.body(request, stream=stream), learned


def strict(answer: Any) -> HttpBackend:
    """Return an endpoint that answers a request by this function: of its body, to what the response says."""

    def respond(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        said = answer(body)
        if isinstance(said, str):
            return httpx.Response(400, json={"error": {"message": said}})
        whole = {"choices": [{"index": 0, "message": said, "delta": said, "finish_reason": "stop"}]}
        if not body.get("stream"):
            return httpx.Response(200, json=whole)
        return httpx.Response(
            200, content=f"data: {json.dumps(whole)}\n\ndata: [DONE]\n\n", headers={"content-type": "text/event-stream"}
        )

    return HttpBackend(Endpoint("there", "http://there.example/v1"), httpx.MockTransport(respond))


def ask(backend: HttpBackend, request: CompletionRequest, on_delta: Any = None) -> Completion:
    """Return what comes of a request once its lessons are learned."""
    while True:
        try:
            return asyncio.run(backend.complete(request, on_delta))
        except CallFailed as failure:
            if not failure.adapted:
                raise


def forward(backend: HttpBackend, body: dict[str, Any]) -> bytes:
    """Return what comes of a client's own body."""

    return asyncio.run(backend.forward(body, HttpReply.whole))
