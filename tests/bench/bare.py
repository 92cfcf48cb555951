"""The least that such a server does, on Starlette and aiohttp: three calls at once, then one, and no feature; what is
for a member by name goes there and back as it came.

python tests/bench/bare.py URL      the upstream's URL; prints where it listens
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

MEMBERS = ("fake/a", "fake/b", "fake/c")


class Fusion:
    """One chain of `panel | synth` before one upstream."""

    def __init__(self, url: str, synth: str) -> None:
        self.url, self.synth = f"{url}/chat/completions", synth
        self.session: aiohttp.ClientSession | None = None

    async def answer(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        if self.session is None:
            self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        if asked["model"] in MEMBERS:
            return await self.passed(await request.body(), asked)
        panel = await asyncio.gather(*[self.call(member, asked["messages"]) for member in MEMBERS])
        texts = [reply["choices"][0]["message"]["content"] for reply in panel]
        prompt = [{"role": "user", "content": "\n\n".join([asked["messages"][-1]["content"], *texts])}]
        if asked.get("stream"):
            return StreamingResponse(self.stream(prompt), media_type="text/event-stream")
        last = await self.call(self.synth, prompt)
        counts = [reply["usage"] for reply in (*panel, last)]
        usage = {name: sum(count[name] for count in counts) for name in ("prompt_tokens", "completion_tokens")}
        return Response(orjson.dumps({**last, "model": "fusion", "usage": usage}), media_type="application/json")

    async def passed(self, data: bytes, asked: dict[str, Any]) -> Response:
        if asked.get("stream"):
            return StreamingResponse(self.passing(data), media_type="text/event-stream")
        async with self.session.post(self.url, **posting(data)) as response:
            kind = response.headers["Content-Type"]
            return Response(await response.read(), response.status, media_type=kind)

    async def passing(self, data: bytes) -> AsyncIterator[bytes]:
        async with self.session.post(self.url, **posting(data)) as response:
            async for piece in response.content.iter_any():
                yield piece

    async def call(self, model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
        async with self.session.post(self.url, **body(model, messages)) as response:
            return orjson.loads(await response.read())

    async def stream(self, messages: list[dict[str, Any]]) -> AsyncIterator[bytes]:
        left = b""
        async with self.session.post(self.url, **body(self.synth, messages, stream=True)) as response:
            async for data in response.content.iter_any():
                *events, left = (left + data).split(b"\n\n")
                yield b"".join(map(renamed, events))


def body(model: str, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return posting(orjson.dumps({"model": model, "messages": messages, **more}))


def posting(data: bytes) -> dict[str, Any]:
    return {"data": data, "headers": {"Content-Type": "application/json"}}


def renamed(event: bytes) -> bytes:
    """Say an event again as the fusion's own."""
    text = event.removeprefix(b"data: ")
    if text == b"[DONE]":
        return event + b"\n\n"
    return b"data: " + orjson.dumps({**orjson.loads(text), "model": "fusion"}) + b"\n\n"


def main(url: str, synth: str = "fake/synth") -> None:
    app = Starlette(routes=[Route("/v1/chat/completions", Fusion(url, synth).answer, methods=["POST"])])
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(f"bare: listening on http://127.0.0.1:{listening.getsockname()[1]}", file=sys.stderr, flush=True)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
