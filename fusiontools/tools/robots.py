"""Obey robots.txt, as RFC 9309 says: read once for each origin, as long as tools are open."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from fusiontools.tools.guarded_http import USER_AGENT, FetchFailed, GuardedHttp

_NAME = USER_AGENT.partition("/")[0]
_READ_BYTES = 500 << 10


class Robots:
    """What sites let programs read."""

    def __init__(self, http: GuardedHttp) -> None:
        self._http = http
        self._rules: dict[str, Any] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def check(self, url: str) -> None:
        """Raise `FetchFailed` where robots.txt keeps programs out, or cannot be asked.

        An address of the origin that is not let through by the guard is refused here already.
        """
        split = urlsplit(url)
        origin = f"{split.scheme}://{split.netloc}"
        async with self._turns.setdefault(origin, asyncio.Lock()):
            if origin not in self._rules:
                self._rules[origin] = await self._read(origin)
        rules = self._rules[origin]
        if not rules.can_fetch(url, _NAME):
            raise FetchFailed("refused", f"{origin}/robots.txt does not let programs read {split.path or '/'}")

    async def _read(self, origin: str) -> Any:
        from protego import Protego

        fetched = await self._http.get(f"{origin}/robots.txt")
        if fetched.status >= 500 or fetched.status == 429:
            raise FetchFailed("connection", f"{origin}/robots.txt cannot be read now: HTTP {fetched.status}")
        # Where there is none, or nobody may see it, nothing is forbidden.
        text = fetched.body[:_READ_BYTES].decode("utf-8", "replace") if fetched.status < 300 else ""
        return Protego.parse(text)
