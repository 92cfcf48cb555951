"""A real `fuse-serve` in a process of its own, and what a test says to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from forking import Forked, can_fork, fork

#: The recipe that servers of tests offer where a test gives none: three members, a judge, a synthesizer.
RECIPE = """
panel: [fake/a, fake/b, fake/c]
judge: fake/judge
synth: fake/synth
"""
CHAT = "/v1/chat/completions"
#: The workers of a server, as a parameter: two take their time to start.
ONE_OR_TWO = ["1", pytest.param("2", marks=pytest.mark.slow)]


def asking(text: str = "Why?", **more: Any) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"model": "fusion", "messages": [{"role": "user", "content": text}], **more}


@dataclass(frozen=True)
class Streamed:
    """A stream as it came: every line, the JSON of its data lines, its comments."""

    status: int
    headers: httpx.Headers
    lines: list[str]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The data of each event but the last `[DONE]`."""
        data = [line.removeprefix("data: ") for line in self.lines if line.startswith("data: ")]
        return [json.loads(text) for text in data if text != "[DONE]"]

    @property
    def comments(self) -> list[str]:
        return [line.removeprefix(":").strip() for line in self.lines if line.startswith(":")]

    @property
    def done(self) -> bool:
        """Whether the last line says that this was all."""
        return [line for line in self.lines if line][-1] == "data: [DONE]"

    @property
    def text(self) -> str:
        """The content of chat chunks, joined."""
        deltas = [choice["delta"] for event in self.events for choice in event.get("choices", [])]
        return "".join(delta.get("content") or "" for delta in deltas)


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[str] | Forked
    log: Path
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **more: Any) -> httpx.Response:
        with self._client() as client:
            return client.get(path, **more)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Post JSON; bytes go out as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        with self._client() as client:
            return client.post(path, content=content, headers=sent)

    def chat(self, text: str = "Why?", headers: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:
        """Ask one question."""
        return self.post(CHAT, asking(text, **more), headers)

    def stream(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Streamed:
        """Post JSON and read the whole stream."""
        sent = {"content-type": "application/json", **(headers or {})}
        with self._client() as client, client.stream("POST", path, json=body, headers=sent) as response:
            return Streamed(response.status_code, response.headers, list(response.iter_lines()))

    def chat_stream(self, text: str = "Why?", headers: Mapping[str, str] | None = None, **more: Any) -> Streamed:
        return self.stream(CHAT, asking(text, stream=True, **more), headers)

    def metric(self, name: str, **labels: str) -> float:
        """Return a counter's value; 0 where it has not been counted."""
        for line in self.get("/metrics").text.splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(f'{key}="{said}"' in head for key, said in labels.items()):
                return float(value)
        return 0.0

    def said(self) -> str:
        """Return what it has written to standard error so far."""
        return self.log.read_text()

    def _client(self) -> httpx.Client:
        # Without authorities: reading them takes 25 ms, and this is plain HTTP.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx.Client(base_url=self.url, timeout=60, headers=self.headers, trust_env=False, verify=tls)


@contextlib.contextmanager
def start_server(folder: Path, env: Mapping[str, str], *options: str, recipe: str = RECIPE) -> Iterator[Server]:
    """Run `fuse-serve` with these options until the block ends.

    Args:
        recipe: a recipe's text, or the name of a shipped one.
    """
    config = recipe
    if "--recipe" not in options:
        options = (*options, "--recipe", "all")
    if "\n" in recipe:
        (folder / "recipe.yaml").write_text(recipe)
        config = str(folder / "recipe.yaml")
    log = folder / "serve.log"
    with log.open("w") as errors:
        command = ["fuse-serve", "-c", config, "--port", "0", *options]
        process: subprocess.Popen[str] | Forked
        if "--workers" not in options and can_fork(command, env):
            with open(os.devnull, "r+b") as nothing:  # noqa: PTH123
                process = fork(command, env, folder, nothing.fileno(), nothing.fileno(), errors.fileno())
        else:
            process = subprocess.Popen(
                command,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                env=dict(env),
                cwd=folder,
                text=True,
                start_new_session=True,
            )
    try:
        yield Server(_address(process, log), process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):  # its workers too, where it has any
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _address(process: subprocess.Popen[str] | Forked, log: Path) -> str:
    """Return where the server listens, once it does."""
    while process.poll() is None:
        for line in log.read_text().splitlines(keepends=True):
            if "listening on " in line and line.endswith("\n"):
                return line.split("listening on ")[1].strip()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    raise AssertionError(f"fuse-serve ended with {process.returncode}: {log.read_text()}")


def workers_of(server: Server) -> set[int]:
    """Return the processes that serve."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=", "-o", "ppid=", "-o", "args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return {int(row[0]) for row in rows if int(row[1]) == server.process.pid and "spawn_main" in row[2]}
