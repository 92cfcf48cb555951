"""JSON values that are kept in memory, for each key its own, for some hours and up to some bytes.

Of a key's values the one that was used longest ago makes room. A restart forgets them, and several processes cannot
share them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cachetools import TTLCache

from fusiontools.record import jsonl


class KeptValues:
    """Values by caller and name.

    Args:
        keep_s: for how long; 0 keeps none.
        most_bytes: how much is kept for each caller.
        clock: seconds, rising.
    """

    def __init__(self, keep_s: float, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s, self._most_bytes, self._clock = keep_s, most_bytes, clock
        self._kept: dict[str, TTLCache[str, bytes]] = {}

    def fits(self, value: Any) -> bool:
        """Return whether a value could be kept at all."""
        return self._keep_s > 0 and len(jsonl.dumps(value)) <= self._most_bytes

    def put(self, caller: str, name: str, value: Any) -> bool:
        """Keep a value; one that is too large by itself takes nobody's place, and what had its name is forgotten."""
        if not self.fits(value):
            self.delete(caller, name)
            return False
        if caller not in self._kept:
            self._kept[caller] = TTLCache(self._most_bytes, self._keep_s, self._clock, getsizeof=len)
        self._kept[caller][name] = jsonl.dumps(value)
        return True

    def get(self, caller: str, name: str) -> Any:
        """Return a copy of a value; None where it is not kept, or not any more."""
        data = self._kept[caller].get(name) if caller in self._kept else None
        return None if data is None else jsonl.loads(data)

    def delete(self, caller: str, name: str) -> None:
        """Forget a value."""
        if caller in self._kept:
            self._kept[caller].pop(name, None)
