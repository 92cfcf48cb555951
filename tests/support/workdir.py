"""The workdir of every test: a stand-in upstream, a hermetic environment, and what a command left behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from serving import RECIPE, Server

#: The checkout, and the tests in it.
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SUPPORT = Path(__file__).parent
#: The console commands, as pyproject.toml lists them.
TOOLS = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])


class Upstream:
    """A running `upstream.py`: its base URL and its control requests."""

    def __init__(self, url: str) -> None:
        self.url = url

    def stats(self) -> dict[str, Any]:
        return self._control("GET", "/stats")

    def requests(self) -> list[dict[str, Any]]:
        """Return the completion requests so far, oldest first, as `{"at": …, "headers": …, "body": …}`."""
        return self._control("GET", "/requests")

    def bodies(self, model: str | None = None) -> list[dict[str, Any]]:
        """Return the bodies of the requests so far, of one model where it is named."""
        return [r["body"] for r in self.requests() if model in (None, r["body"]["model"])]

    def script(self, model: str, *behaviours: str) -> None:
        """Make the next requests for exactly this model behave so, one after the other: `"status=500", ""`."""
        self._control("POST", "/script", {"model": model, "behaviours": behaviours})

    def reset(self) -> None:
        self._control("POST", "/reset")

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        root = self.url.removesuffix("/v1")
        request = urllib.request.Request(root + path, json.dumps(body).encode() if body else None, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return json.load(response)


@contextlib.contextmanager
def start_upstream(*options: str) -> Iterator[Upstream]:
    """Run `upstream.py` with these options until the block ends."""
    command = [sys.executable, str(SUPPORT / "upstream.py"), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Upstream(process.stdout.readline().strip())
        finally:
            process.terminate()


def hermetic(upstream: Upstream, folder: Path) -> dict[str, str]:
    """Return everything that a tool may see of the world: the stand-in's address, and no key but its own."""
    home = folder / "home"
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CACHE_HOME": cache,  # the real one: weights are too big to fetch for every test
        "FUSION_BASE_URL": upstream.url,
        "FUSION_API_KEY": "test-key",
        # The same marks around the same texts, on every machine.
        "FUSION_FENCE_SECRET": "of the tests",
        **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
    }


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON Lines of stdout; anything else there is an error."""
        return [json.loads(line) for line in self.out.splitlines()]


class Run(Protocol):
    """The type of the `run` fixture."""

    def __call__(
        self,
        cmd: str | Sequence[str],
        stdin: bytes | str = b"",
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        pipefail: bool = False,
    ) -> Result: ...


class Serve(Protocol):
    """The type of the `serve` fixture."""

    def __call__(self, *options: str, recipe: str = RECIPE, env: Mapping[str, str] | None = None) -> Server: ...
