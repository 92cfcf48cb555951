"""Bytes on a line: what clients say that no HTTP library would say, and how long until something has come about."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from serving import CHAT, Server, asking

#: How long a test waits for what should come at once; only a broken server takes as long.
GUARD_S = 60.0


def request(
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    line: str = f"POST {CHAT} HTTP/1.1",
) -> bytes:
    """Return a request with a body as JSON, or as its bytes stand; by default it asks a question.

    Headers that are given replace the usual ones; None leaves one out.
    """
    said = asking() if body is None else body
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    usual = {"host": "localhost", "content-type": "application/json", "content-length": str(len(data))}
    heads = {**usual, **(headers or {})}
    lines = [line, *(f"{name}: {value}" for name, value in heads.items() if value is not None)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


@dataclass(frozen=True)
class Reply:
    """A response as its bytes came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error's word for programs."""
        return str(json.loads(self.body)["error"]["code"])


class Line:
    """A connection to a server."""

    def __init__(self, server: Server, *sent: bytes) -> None:
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        self._socket = socket.create_connection((host.strip("[]"), int(port)), GUARD_S)
        self.got = b""
        for data in sent:
            self.send(data)

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end_input(self) -> None:
        """Say that nothing more will come, and listen on."""
        self._socket.shutdown(socket.SHUT_WR)

    def until(self, wanted: bytes) -> bytes:
        """Read until these bytes have come; returns all so far."""
        while wanted not in self.got:
            data = self._socket.recv(65536)
            assert data, f"closed before {wanted!r} came: {self.got[-500:]!r}"
            self.got += data
        return self.got

    def rest(self) -> bytes:
        """Read until the server closes; returns all that came."""
        with contextlib.suppress(ConnectionResetError):
            while data := self._socket.recv(65536):
                self.got += data
        return self.got

    def reply(self) -> Reply:
        """Read one response with a length."""
        self.until(b"\r\n\r\n")
        head, _, body = self.got.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
        length = int(headers.get("content-length", "0"))
        while len(body) < length:
            data = self._socket.recv(65536)
            assert data, f"closed within a body: {self.got[-500:]!r}"
            body += data
        self.got = body[length:]
        return Reply(int(first.split()[1]), headers, body[:length])

    def close(self) -> None:
        self._socket.close()


def exchange(server: Server, *sent: bytes) -> Reply:
    """Send bytes and read one response."""
    with Line(server, *sent) as line:
        return line.reply()


def eventually(happens: Callable[[], bool], what: str) -> None:
    """Look until something has come about."""
    end = time.monotonic() + GUARD_S
    while not happens():
        assert time.monotonic() < end, f"it never came about: {what}"
