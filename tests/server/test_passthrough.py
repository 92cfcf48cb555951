"""What goes straight to a member and back: bounded in memory, whatever the endpoint sends."""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from serving import Server
from workdir import Serve

MIB = 2**20


def bomb(start: bytes, size: int) -> bytes:
    """Return gzip that inflates to so many bytes."""
    made = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    pieces = [made.compress(start), *(made.compress(b" " * MIB) for _ in range(size // MIB)), made.flush()]
    return b"".join(pieces)


@contextmanager
def answering(body: bytes, headers: dict[str, str]) -> Iterator[str]:
    """Run an endpoint that answers everything so; gives its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def most_memory(server: Server) -> int:
    """Return the most that the server's process has had in memory, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("fusion", "text/event-stream"),
        pytest.param("fake/a", "application/json", marks=pytest.mark.slow),
        pytest.param("fake/a", "text/event-stream", marks=pytest.mark.slow),
        pytest.param("fusion", "application/json", marks=pytest.mark.slow),
    ],
)
def test_a_body_that_inflates_beyond_all_bounds_is_one_failed_call(
    serve: Serve, env: dict[str, str], model: str, kind: str
) -> None:
    body = bomb(b'{"choices": [' if kind == "application/json" else b'data: {"choices": [', 320 * MIB)
    with answering(body, {"content-encoding": "gzip", "content-type": kind}) as url:
        server = serve("--allow-model", "fake/*", "--retries", "0", env={**env, "FUSION_BASE_URL": url})
        before = most_memory(server)

        if kind == "application/json":
            said = server.chat(model=model).text
        else:
            said = json.dumps(server.chat_stream(model=model).lines)
        grown = most_memory(server) - before

    assert "error" in said
    assert grown < 300 * MIB
    assert "bug" not in server.said()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_bodies_that_failed_do_not_pile_up(serve: Serve, env: dict[str, str]) -> None:
    with answering(bomb(b'{"choices": [', 65 * MIB), {"content-encoding": "gzip"}) as url:
        server = serve("--allow-model", "fake/*", "--retries", "0", env={**env, "FUSION_BASE_URL": url})
        before = most_memory(server)

        for _ in range(6):
            server.chat(model="fake/a")
        grown = most_memory(server) - before

    assert grown < 400 * MIB  # one takes twice its size while it is read
