"""A small web with traps, and search engines that find its pages: on loopback, in a process of its own.

    python tests/support/web.py

prints a line of JSON when it listens: `web`, the base URL of everything below; `inner`, that of a second listener that
nobody may reach; `proxy`, that of a proxy which is every host itself, by certificates that `ca` (a PEM file) signs. It
ends on SIGTERM, or when the pipe on its stdin closes.

    GET  /                     pages: see `PAGES` and `TRAPS`
    GET  /searx/search         SearXNG's JSON; with ?format=json only
    POST /tavily/search        Tavily's, with `authorization: Bearer key-of-tavily`
    GET  /brave/res/v1/web/search   Brave's, with `x-subscription-token: key-of-brave`
    POST /exa/search           Exa's, with `x-api-key: key-of-exa`
    POST /html/                DuckDuckGo's page, through the proxy
    POST /mcp/KIND             an old MCP server: see `old_mcp.py`
    GET  /seen                 what was asked so far: `requests`, and how many connections `inner` had
    POST /script               {"path": "/searx/search", "answers": [{"status": 429, "headers": {…}, "body": "…"}]}: the
                               next answers at this path
    POST /reset                forgets both

A search finds the pages that hold every word of the query; `nothing` finds none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import trustme
from old_mcp import OldServers
from web_pages import BLOCKED, PAGES, Page

MIB = 1 << 20
CONTROL = ("/seen", "/script", "/reset")


@dataclass
class Asked:
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Said:
    """An answer: its body as bytes, or in pieces as they come."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: AsyncIterator[bytes] | None = None


def page(found: Page) -> Said:
    headers = {"content-type": found.kind, **found.headers}
    return Said(found.status, headers, found.body if isinstance(found.body, bytes) else found.body.encode())


# Traps


async def bomb(mebibytes: int) -> AsyncIterator[bytes]:
    """A gzip of so many mebibytes of one word: a thousandth of that on the line."""
    squeezed, many = zlib.compressobj(9, zlib.DEFLATED, 31), b"boom " * (MIB // 5)
    yield squeezed.compress(b"<p>") + squeezed.flush(zlib.Z_FULL_FLUSH)
    for _ in range(mebibytes):
        yield squeezed.compress(many) + squeezed.flush(zlib.Z_FULL_FLUSH)
    yield squeezed.flush()


async def drip() -> AsyncIterator[bytes]:
    """A page that never ends and is never silent."""
    while True:
        yield b"x"
        await asyncio.sleep(0.02)


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"<p>more</p>" * 5000


HTML = {"content-type": "text/html"}
TRAPS: dict[str, Callable[[Asked], Said]] = {
    "/redirect": lambda asked: Said(302, {"location": asked.query["to"]}),
    "/loop": lambda asked: Said(301, {"location": "/loop"}),
    "/bomb": lambda asked: Said(200, {**HTML, "content-encoding": "gzip"}, pieces=bomb(2048)),
    "/drip": lambda asked: Said(200, HTML, pieces=drip()),
    "/endless": lambda asked: Said(200, HTML, pieces=endless()),
    "/status": lambda asked: Said(int(asked.query["is"]), HTML, b"<p>As asked.</p>"),
    "/echo": lambda asked: Said(200, {"content-type": "application/json"}, json.dumps(asked.headers).encode()),
    "/gzip": lambda asked: Said(200, {**HTML, "content-encoding": "gzip"}, zlib.compress(b"<p>packed</p>", wbits=31)),
    "/deflate": lambda asked: Said(200, {**HTML, "content-encoding": "deflate"}, zlib.compress(b"packed", wbits=-15)),
    "/brotli": lambda asked: Said(200, {**HTML, "content-encoding": "br"}, b"\x0b\x02\x80packed\x03"),
    "/badgzip": lambda asked: Said(200, {**HTML, "content-encoding": "gzip"}, b"not packed at all"),
}


# Search engines


def found(query: str, url: str) -> list[dict[str, str]]:
    """Return the pages with every word of the query: url, title, snippet, date."""
    words = query.lower().split()
    hits = []
    for path, known in PAGES.items():
        if known.title and all(word in f"{known.title} {known.snippet}".lower() for word in words):
            hits.append({"url": url + path, "title": known.title, "snippet": known.snippet, "date": known.date})
    return hits


def as_json(data: Any, status: int = 200) -> Said:
    return Said(status, {"content-type": "application/json"}, json.dumps(data).encode())


def searx(asked: Asked, url: str) -> Said:
    if asked.query.get("format") != "json":
        return Said(200, HTML, b"<!DOCTYPE html><title>SearXNG</title>")
    hits = found(asked.query["q"], url)
    results = [
        {
            "url": h["url"],
            "title": h["title"],
            "content": h["snippet"],
            "publishedDate": h["date"] or None,
            "engine": "x",
        }
        for h in hits
    ]
    return as_json({"query": asked.query["q"], "results": results, "answers": [], "unresponsive_engines": []})


def tavily(asked: Asked, url: str) -> Said:
    if asked.headers.get("authorization") != "Bearer key-of-tavily":
        return as_json({"detail": {"error": "Unauthorized: missing or invalid API key."}}, 401)
    hits = found(asked.json()["query"], url)[: asked.json().get("max_results", 5)]
    results = [{"title": h["title"], "url": h["url"], "content": h["snippet"], "score": 0.9} for h in hits]
    return as_json({"query": asked.json()["query"], "results": results, "response_time": 0.1})


def brave(asked: Asked, url: str) -> Said:
    if asked.headers.get("x-subscription-token") != "key-of-brave":
        return as_json({"error": {"code": "SUBSCRIPTION_TOKEN_INVALID", "detail": "The token is invalid."}}, 422)
    hits = found(asked.query["q"], url)
    results = [
        {"title": f"<strong>{h['title']}</strong>", "url": h["url"], "description": f"{h['snippet']} &amp; more",
         "page_age": f"{h['date']}T10:00:00"}
        for h in hits
    ]  # fmt: skip
    return as_json({"type": "search", "web": {"type": "search", "results": results}} if hits else {"type": "search"})


def exa(asked: Asked, url: str) -> Said:
    if asked.headers.get("x-api-key") != "key-of-exa":
        return as_json({"error": "Invalid API key"}, 401)
    hits = found(asked.json()["query"], url)
    results = [
        {
            "title": h["title"],
            "url": h["url"],
            "publishedDate": f"{h['date']}T00:00:00.000Z",
            "highlights": [h["snippet"]],
        }
        for h in hits
    ]
    return as_json({"results": results, "costDollars": {"total": 0.007}})


def duckduckgo(asked: Asked, url: str) -> Said:
    query = parse_qs(asked.body.decode())["q"][0]
    bodies = (
        f'<div class="links_main result__body"><h2>{h["title"]}</h2><a href="{h["url"]}">{h["snippet"]}</a></div>'
        for h in found(query, url)
    )
    return Said(200, HTML, f"<html><body>{''.join(bodies)}</body></html>".encode())


ENGINES = {
    "/html/": duckduckgo,
    "/searx/search": searx,
    "/tavily/search": tavily,
    "/brave/res/v1/web/search": brave,
    "/exa/search": exa,
}


class Web:
    """What all connections share."""

    def __init__(self) -> None:
        self.url = ""
        self.ca = trustme.CA()
        self.reset()

    def reset(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.scripts: dict[str, deque[dict[str, Any]]] = {}
        self.inner = 0
        self.old_servers = OldServers()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await write_answer(writer, self.answer(await read_request(reader)))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has seen enough
        finally:
            writer.close()

    async def serve_inner(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.inner += 1
        await self.serve(reader, writer)

    async def serve_proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let the client think that it has reached the host that it wanted."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            asked = await read_request(reader)
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.ca.issue_cert(asked.target.partition(":")[0]).configure_cert(context)
            await writer.start_tls(context)
            await self.serve(reader, writer)
        writer.close()

    def answer(self, asked: Asked) -> Said:
        if asked.path in CONTROL:
            return self.control(asked)
        said = {"method": asked.method, "target": asked.target, "headers": asked.headers, "body": asked.body.decode()}
        said["at_s"] = time.monotonic()
        self.requests.append(said)
        if script := self.scripts.get(asked.path):
            next_one = script.popleft()
            headers = {"content-type": "text/html", **next_one.get("headers", {})}
            return Said(next_one.get("status", 200), headers, next_one.get("body", "").encode())
        if asked.path in ENGINES:
            return ENGINES[asked.path](asked, self.url)
        if asked.path in TRAPS:
            return TRAPS[asked.path](asked)
        if asked.path.startswith("/mcp/"):
            return self.old_mcp(asked)
        known = {**PAGES, **BLOCKED}.get(asked.path)
        return page(known) if known else Said(404, HTML, b"<title>404</title><p>There is no such page.</p>")

    def old_mcp(self, asked: Asked) -> Said:
        session = asked.headers.get("mcp-session-id", "")
        kind = asked.path.removeprefix("/mcp/")
        status, headers, given = self.old_servers.answer(asked.method, kind, session, asked.body)
        headers = {"content-type": "application/json", **headers}
        if isinstance(given, bytes | dict):
            return Said(status, headers, given if isinstance(given, bytes) else json.dumps(given).encode())
        return Said(status, headers, pieces=given)

    def control(self, asked: Asked) -> Said:
        if asked.path == "/script":
            self.scripts[asked.json()["path"]] = deque(asked.json()["answers"])
        elif asked.path == "/reset":
            self.reset()
        return as_json({"requests": self.requests, "inner": self.inner})


async def read_request(reader: asyncio.StreamReader) -> Asked:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = first.split(" ")
    return Asked(method, target, headers, body)


async def write_answer(writer: asyncio.StreamWriter, said: Said) -> None:
    headers = {"connection": "close", **said.headers}
    if said.pieces is None:
        headers["content-length"] = str(len(said.body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {said.status} Said\r\n{lines}\r\n".encode() + said.body)
    await writer.drain()
    if said.pieces is not None:
        async for piece in said.pieces:
            writer.write(piece)
            await writer.drain()


async def main() -> None:
    web = Web()
    outer = await asyncio.start_server(web.serve, "127.0.0.1", 0)
    inner = await asyncio.start_server(web.serve_inner, "127.0.0.1", 0)
    proxy = await asyncio.start_server(web.serve_proxy, "127.0.0.1", 0)
    web.url, inner_url, proxy_url = (
        f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in (outer, inner, proxy)
    )
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    loop.add_reader(sys.stdin.fileno(), done.set)
    with tempfile.TemporaryDirectory() as folder:
        web.ca.cert_pem.write_to_path(f"{folder}/ca.pem")
        where = {"web": web.url, "inner": inner_url, "proxy": proxy_url, "ca": f"{folder}/ca.pem"}
        print(json.dumps(where), flush=True)
        await done.wait()


if __name__ == "__main__":
    asyncio.run(main())
