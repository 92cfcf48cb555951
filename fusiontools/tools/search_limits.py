"""One search engine's turns, for all members of a run: not sooner than it lets, and not while it asks us to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import monotonic, time

from fusiontools.errors import FusionError

#: What is longer is not waited for: another engine is asked, or the member goes on without.
LONGEST_WAIT_S = 10.0
_USUAL_WAIT_S = 1.0


class SearchRefused(FusionError):
    """An engine did not search: it limits us, wants a key, is out of order. That is not "nothing was found"."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__("refused", message)
        self.retry_after_s = retry_after_s


class SearchTurns:
    """Turns of one key.

    Args:
        interval_s: the least time from one request to the next.
    """

    def __init__(self, interval_s: float = 0.0) -> None:
        self._interval_s = interval_s
        self._turn = asyncio.Lock()
        self._not_before = 0.0

    async def take(self) -> None:
        """Wait for the next turn.

        Raises:
            SearchRefused: it is too far away.
        """
        async with self._turn:
            wait_s = self._not_before - monotonic()
            if wait_s > LONGEST_WAIT_S:
                raise SearchRefused(f"it asked us to wait, {wait_s:.0f} s from now on")
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self._not_before = max(self._not_before, monotonic() + self._interval_s)

    def hold(self, wait_s: float) -> None:
        """Give no turn for so long."""
        self._not_before = max(self._not_before, monotonic() + wait_s)


def asked_wait_s(headers: Mapping[str, str]) -> float:
    """Return how long a limit asks us to wait, by its headers, in seconds or as a date."""
    for said in (headers.get("retry-after", ""), headers.get("x-ratelimit-reset", "").split(",")[0]):
        try:
            return max(0.0, float(said))
        except ValueError:
            pass  # a date, or nothing
        try:
            return max(0.0, parsedate_to_datetime(said).timestamp() - time())
        except ValueError:
            continue
    return _USUAL_WAIT_S
