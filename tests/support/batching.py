"""Batch jobs in tests: the stand-in of the providers' APIs, a recipe that sends calls there, and questions."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workdir import SUPPORT, Result

#: Runs a pipeline over questions, with a recipe whose calls go to a provider.
Batch = Callable[..., Result]
PATHS = {
    "openai": "/openai/v1",
    "mistral": "/mistral/v1",
    "openrouter": "/openrouter/api/v1",
    "anthropic": "/anthropic/v1",
    "gemini": "/gemini/v1beta/openai",
}
#: What each asks for a job with: one request to each step, in order.
CREATES = {
    "openai": "/v1/batches$",
    "mistral": "/v1/batch/jobs$",
    "openrouter": "/v1/batches$",
    "anthropic": "/messages/batches$",
    "gemini": ":batchGenerateContent$",
}


class Provider:
    """A running `batch_upstream.py`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def set(self, **settings: Any) -> None:
        """Say what happens to jobs from now on."""
        self._control({"set": settings})

    def end(self, **settings: Any) -> None:
        """End the jobs that are under way."""
        self._control({"end": settings})

    def release(self) -> None:
        """Let go of the request that is held."""
        self._control({"release": True})

    def reset(self) -> None:
        self._control({"reset": True})

    def told(self) -> dict[str, Any]:
        return self._control(None)

    @property
    def made(self) -> dict[str, int]:
        """How often each call has been made in a job."""
        return self.told()["made"]

    @property
    def direct(self) -> dict[str, int]:
        """How many calls to each model have been made at once."""
        return self.told()["direct"]

    def jobs(self) -> list[int]:
        """Return how many calls each job has, in the order in which they were created."""
        return [job["calls"] for job in self.told()["jobs"]]

    def _control(self, said: Any) -> Any:
        data = json.dumps(said).encode() if said is not None else None
        with urllib.request.urlopen(f"{self.url}/control", data, timeout=60) as response:  # noqa: S310
            return json.load(response)


@contextlib.contextmanager
def start_provider() -> Iterator[Provider]:
    """Run `batch_upstream.py` until the block ends."""
    command = [sys.executable, str(SUPPORT / "batch_upstream.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Provider(process.stdout.readline().strip())  # type: ignore[union-attr]
        finally:
            process.stdin.close()  # type: ignore[union-attr]


def recipe(provider: Provider, api: str = "openai", members: Sequence[Any] = ("fake/a",), **terms: Any) -> str:
    """Return a recipe whose calls go to this provider, as JSON, which is YAML."""
    there = {
        "base_url": provider.url + PATHS[api],
        "api_key_env": "FAKE_KEY",
        "api": "anthropic" if api == "anthropic" else "openai",
        "batch": {"api": api, "poll_s": 0.02, **terms},
    }
    said = {
        "endpoint": "there",
        "endpoints": {"there": there},
        "panel": list(members),
        "judge": "fake/judge",
        "synth": "fake/synth",
    }
    return json.dumps(said)


def questions(count: int) -> str:
    """Return this many questions, as JSON Lines."""
    lines = [{"id": f"q{i}", "messages": [{"role": "user", "content": f"Question {i}?"}]} for i in range(count)]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def kill_at(
    provider: Provider, hold: Sequence[str], command: Sequence[str], stdin: str, folder: Path, env: Mapping[str, str]
) -> None:
    """Start a tool and kill it while a request of its is held, before or after that is done; then let go."""
    provider.set(hold=list(hold))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, env=dict(env)
    ) as process:
        process.stdin.write(stdin.encode())  # type: ignore[union-attr]
        process.stdin.close()  # type: ignore[union-attr]
        until(lambda: provider.told()["holding"] or process.poll() is not None)
        assert process.poll() is None, f"the tool never came to {hold}"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    provider.release()


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
