"""The small web as a test sees it: running, asked, and told what to answer next."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from workdir import SUPPORT

from fusiontools.tools.addresses import AddressGuard


class Web:
    """A running `web.py`."""

    def __init__(self, url: str, inner: str, proxy: str, ca: str) -> None:
        self.url = url
        self.inner = inner
        self.proxy = proxy
        self.ca = ca

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`, as an operator allows it."""
        return urlsplit(self.url).netloc

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def requests(self, path: str = "") -> list[dict[str, Any]]:
        """Return the requests so far, those at one path where it is given."""
        seen = self._control("/seen")["requests"]
        return [asked for asked in seen if not path or asked["target"].split("?")[0] == path]

    def inner_connections(self) -> int:
        """Return how often somebody came where nobody may go."""
        return self._control("/seen")["inner"]

    def script(self, path: str, *answers: dict[str, Any]) -> None:
        """Make the next answers at this path these: status, headers, body."""
        self._control("/script", {"path": path, "answers": answers})

    def reset(self) -> None:
        self._control("/reset", {})

    def guard(self) -> AddressGuard:
        """Return a guard by which this web is the public one: names in `.example` lead to it."""

        async def resolve(host: str, port: int) -> Sequence[str]:
            if host.endswith(".example"):
                return ["127.0.0.1"]
            numeric = socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)
            return [str(entry[4][0]) for entry in numeric]

        return AddressGuard([self.address], resolve)

    def _control(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data, timeout=60) as response:  # noqa: S310
            return json.load(response)


@contextlib.contextmanager
def start_web() -> Iterator[Web]:
    """Run `web.py` until the block ends."""
    command = [sys.executable, str(SUPPORT / "web.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            where = json.loads(process.stdout.readline())
            yield Web(where["web"], where["inner"], where["proxy"], where["ca"])
        finally:
            process.terminate()
